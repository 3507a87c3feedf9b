"""F6: distance from an orthogonal frame under fixed, reshuffled and bound batches, and the batch size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from figures import style
from figures.style import Figure


def draw(cells: Sequence[xr.Dataset]) -> Figure:
    """Left: delta_gm against iterations at the second smallest batch size. Right: delta_gm at the end of every start.

    All starts reach the bound of Theorem 2, but not every batch family forces a frame there. Filled markers: it is
    proved that the orthogonal frame is the only minimiser (`ufm.uniqueness`); open: it is not, or undetermined.
    """
    families = list(dict.fromkeys(str(cell.attrs["family"]) for cell in cells))
    sizes = sorted({int(cell.attrs["batch_size"]) for cell in cells})
    shown = sizes[1] if len(sizes) > 1 else sizes[0]
    longest = max(int(cell["history_iteration"].max()) for cell in cells if cell.attrs["batch_size"] == shown)
    with style.applied():
        figure, (left, right) = style.panels(2, 2.9)
        for index, family in enumerate(families):
            of_family = [cell for cell in cells if cell.attrs["family"] == family]
            look = style.line(index, len(families))
            _history(left, next(cell for cell in of_family if cell.attrs["batch_size"] == shown), look, longest)
            _endpoints(right, of_family, index, len(families), sizes)
        first = cells[0].attrs
        left.set_title(f"batches of {shown}: median and range of {first['inits']} starts")
        right.set_title("end of each start; filled: frame proved unique")
        for axis in (left, right):
            axis.set_yscale("log")
            axis.set_ylim(style.SMALLEST_DRAWN / 3, 3)
            axis.set_yticks([1e-16, 1e-12, 1e-8, 1e-4, 1])
            axis.set_ylabel(style.DELTA_GM)
        handles, labels = left.get_legend_handles_labels()
        for index, handle in enumerate(handles):
            handle.set_marker(style.MARKERS[index])
            handle.set_markevery([-1])
            handle.set_markersize(4)
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), handlelength=3.4)
        counts = " ".join(str(int(size)) for size in np.atleast_1d(first["sizes"]))
        figure.suptitle(f"UFM+, class sizes {counts}, d = {first['d']}, $\\tau$ = {first['tau']:g}, staircase")
    return figure


def _history(axis: Axes, cell: xr.Dataset, look: dict[str, Any], longest: int) -> None:
    """The history from the first record on; a start that has ended keeps its last value."""
    iterations = cell["history_iteration"].values
    grid = np.arange(max(1, iterations[:, 0].max()), longest + 1)
    values = np.clip(style.carried(iterations, cell["history_delta_gm"].values, grid), style.SMALLEST_DRAWN, None)
    attrs = cell.attrs
    names = {
        "fixed": "fixed partition",
        "reshuffled": f"reshuffled, {attrs['epochs']} epochs",
        "bound": f"bound, m = {attrs['m']}",
    }
    style.draw_band(axis, grid, values, look, names[str(attrs["family"])], outside=0)
    axis.set_xscale("log")
    axis.set_xlabel("iteration")


def _endpoints(axis: Axes, cells: Sequence[xr.Dataset], index: int, count: int, sizes: Sequence[int]) -> None:
    colour = style.line(index, count)["color"]
    for cell in cells:
        values = np.clip(cell["delta_gm"].values, style.SMALLEST_DRAWN, None)
        at = sizes.index(int(cell.attrs["batch_size"])) + 0.24 * (index - (count - 1) / 2)
        places = at + 0.07 * np.linspace(-1, 1, len(values))
        face = colour if cell.attrs["unique"] == "True" else "none"
        axis.plot(places, values, style.MARKERS[index % len(style.MARKERS)], color=colour, mfc=face, ms=3.6, mew=0.8)
    axis.set_xticks(range(len(sizes)), [str(size) for size in sizes])
    axis.set_xlabel("batch size before binding")
