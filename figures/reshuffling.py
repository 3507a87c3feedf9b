"""F11: how often batches must be reshuffled before they force the orthogonal frame."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from figures import style
from figures.style import Figure


def draw(cells: Sequence[xr.Dataset]) -> Figure:
    """Percentage of random families whose only minimiser is the frame, over batch size and number of reshuffles.

    Line: where the first-moment prediction (`ufm.theory.reshuffling`) is one half, interpolated between rows.
    """
    data = style.single(cells, "unique")
    sizes, epochs = data["batch_size"].values, data["epochs"].values
    share = 100 * data["unique"].mean("family").transpose("epochs", "batch_size").values
    row = np.interp(data["half"].values, epochs, np.arange(len(epochs)), left=np.nan, right=np.nan)
    with style.applied():
        figure = Figure(figsize=(style.width(style.ONE_COLUMN), 3.1), layout="constrained")
        axis = figure.subplots()
        image = axis.imshow(share, vmin=0, vmax=100, cmap=style.SEQUENTIAL, origin="lower", aspect="auto")
        axis.plot(np.arange(len(sizes)), row, "o-", color="white", mec="black", mew=0.6, ms=4, lw=2.4)
        axis.plot(np.arange(len(sizes)), row, "-", color="black", lw=1.0, label="predicted: half of the families")
        axis.set_xticks(range(len(sizes)), [str(size) for size in sizes])
        axis.set_yticks(range(len(epochs)), [str(count) for count in epochs])
        style.strip(axis)
        axis.set_xlabel("batch size")
        axis.set_ylabel("epochs, each reshuffled")
        bar = figure.colorbar(image, ax=axis, aspect=22, pad=0.02)
        bar.set_label("families with one minimiser [%]")
        bar.outline.set_visible(False)
        counts = " ".join(str(int(size)) for size in np.atleast_1d(data.attrs["sizes"]))
        figure.suptitle(f"UFM+, class sizes {counts}, d = {data.attrs['d']}\n{data.sizes['family']} families per cell")
        figure.legend(loc="outside lower center", handlelength=2.6)
    return figure
