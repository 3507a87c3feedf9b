"""F1: heat maps of the class-mean Gram matrix at the end of the descent, one for each R."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from figures import style
from figures.style import Figure


def draw(cells: Sequence[xr.Dataset]) -> Figure:
    """Each panel: M^T M of the start that ended furthest from an orthogonal frame (largest delta_gm).

    This is the worst start: if it ended at a frame, every start did. Cells of UFM and of UFM+ are drawn in separate
    rows, UFM above; a row holds at most four panels, two where the figure is narrow.
    """
    by_model = [[cell for cell in cells if cell.attrs["nonneg"] == nonneg] for nonneg in (0, 1)]
    models = [of_model for of_model in by_model if of_model]
    most = 2 if style.width(style.TWO_COLUMNS) < style.NARROW else 4
    columns = max(-(-len(of_model) // -(-len(of_model) // most)) for of_model in models)
    rows = [of_model[i : i + columns] for of_model in models for i in range(0, len(of_model), columns)]
    names = {id(cell): name for cell, name in zip(cells, style.ratios(cells), strict=True)}
    with style.applied():
        width = style.width(style.ONE_COLUMN if columns == 1 else style.TWO_COLUMNS)
        height = 0.55 + (0.5 + min(2.8, (width - 1.2) / columns)) * len(rows)
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(len(rows), columns, squeeze=False)
        for row, of_row in zip(axes, rows, strict=True):
            for axis, cell in zip(row, of_row, strict=False):
                _panel(axis, cell, names[id(cell)])
            for axis in row[len(of_row) :]:
                axis.set_visible(False)
            model = "UFM+" if of_row[0].attrs["nonneg"] else "UFM"
            row[0].set_ylabel(f"{model}: class" if len(models) > 1 else "class")
        for axis in axes[-1]:
            axis.set_xlabel("class")
        bar = figure.colorbar(axes[0, 0].images[0], ax=axes, shrink=0.75, aspect=18, pad=0.015)
        bar.set_label(r"$\langle \mu_c, \mu_{c'} \rangle$")
        bar.outline.set_visible(False)
        said = style.problem(cells) if len(models) == 1 else style.parameters(cells)
        starts = style.span([cell.attrs["inits"] for cell in cells])
        shown = "one start" if starts == "1" else f"the worst of {starts} starts"
        figure.suptitle(f"Class-mean Gram matrix, {shown}:{' ' if columns > 1 else chr(10)}{said}")
    return figure


def _panel(axis: Axes, cell: xr.Dataset, name: str) -> None:
    worst = int(np.argmax(cell["delta_gm"].values))
    gram = cell["gram"].values[worst]
    k = len(gram)
    ticks = np.arange(k) if k <= 10 else np.linspace(0, k - 1, 6).astype(int)
    axis.set_xticks(ticks)
    axis.set_yticks(ticks)
    style.strip(axis)
    axis.set_title(f"{name}\n$\\Delta_{{G_M}}$ = {style.scientific(float(cell['delta_gm'][worst]))}")
    axis.imshow(gram, vmin=-1, vmax=1, cmap=style.DIVERGING, interpolation="nearest", aspect="equal")
