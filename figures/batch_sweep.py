"""Does the batch family decide what is learned: predicted uniqueness against where the starts end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import style

FLOOR = 1e-17
MARKERS = ("o", "s", "^", "D", "v")


def draw(cells: Sequence[xr.Dataset]) -> Figure:
    """Left: delta_gm against iterations. Right: shares of frames reached and of families proved unique, over n_B.

    One line for each family (as drawn, or bound) and R. Left, at the smallest batch size: median over all
    starts of all families, and the band of the middle half; values below FLOOR are drawn there.
    """
    sizes = sorted({int(cell.attrs["batch_size"]) for cell in cells})
    groups: dict[str, list[xr.Dataset]] = {}
    for cell in cells:
        groups.setdefault(f"{_drawn(cell)}, R = {cell.attrs['R']:g}", []).append(cell)
    with style.applied():
        figure = Figure(figsize=(style.TWO_COLUMNS, 2.9), layout="constrained")
        left, right = figure.subplots(1, 2)
        for index, (label, members) in enumerate(groups.items()):
            look = style.line(index, len(groups))
            for cell in members:
                if cell.attrs["batch_size"] == sizes[0]:
                    _history(left, cell, look, label)
            _shares(right, members, look, MARKERS[index % len(MARKERS)])
        left.set_title(f"batches of {sizes[0]}")
        left.set_ylabel(r"$\Delta_{G_M}$")
        left.set_xlabel("iteration")
        left.set_xscale("log")
        left.set_yscale("log")
        left.set_ylim(FLOOR / 3, 3)
        right.set_title("lines: proved unique; markers: frames reached")
        right.set_ylabel("share")
        right.set_xlabel("batch size before binding")
        right.set_ylim(-0.05, 1.05)
        right.set_xticks(sizes, [str(size) for size in sizes])
        handles, labels = left.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), handlelength=3)
        first = cells[0].attrs
        figure.suptitle(
            f"{style.problem(first)}, {first['partitions']} families of each kind, {first['inits']} starts each",
            fontsize=8,
        )
    return figure


def _drawn(cell: xr.Dataset) -> str:
    return f"{cell.attrs['family']}{', bound' if cell.attrs['bound'] else ''}"


def _history(axis: Axes, cell: xr.Dataset, look: dict[str, Any], label: str) -> None:
    grid, values = style.history(cell, "delta_gm")
    lower, middle, upper = np.quantile(np.clip(values, FLOOR, None), (0.25, 0.5, 0.75), axis=0)
    axis.fill_between(grid, lower, upper, color=look["color"], alpha=0.13, lw=0)
    axis.plot(grid, middle, label=label, **look)


def _shares(axis: Axes, cells: Sequence[xr.Dataset], look: dict[str, Any], marker: str) -> None:
    cells = sorted(cells, key=lambda cell: int(cell.attrs["batch_size"]))
    sizes = [int(cell.attrs["batch_size"]) for cell in cells]
    axis.plot(sizes, [np.mean(cell["unique"].values == "True") for cell in cells], **look)
    axis.plot(sizes, [float(cell["orthogonal_frame"].mean()) for cell in cells], marker, color=look["color"], ms=4)
