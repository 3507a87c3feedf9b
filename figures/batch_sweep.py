"""How the batch family determines the geometry: predicted uniqueness against the ends of the starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from figures import style
from figures.style import Figure


def draw(cells: Sequence[xr.Dataset]) -> Figure:
    """Left: delta_gm against iterations. Right: fractions of starts that reach a frame and of families proved unique.

    The left panel is at the smallest batch size, with a line for each R (and temperature), families as drawn (dashed)
    and bound (solid): the median over all starts of all families, with a band of the middle half. Values below 1e-17
    are drawn at 1e-17. The right panel is over the batch size, or over R if there is only one size. Without the ReLU,
    where no frame is a minimiser, the left panel shows the loss minus the certified lower bound, relative to it, and
    the right one the median of delta_gm at the end.
    """
    nonneg, first, names = bool(cells[0].attrs["nonneg"]), cells[0].attrs, style.ratios(cells)
    sizes = sorted({int(cell.attrs["batch_size"]) for cell in cells})
    looks = {name: style.line(index, len(set(names)))["color"] for index, name in enumerate(dict.fromkeys(names))}
    with style.applied():
        figure, (left, right) = style.panels(2, 2.9)
        for name, cell in zip(names, cells, strict=True):
            if cell.attrs["batch_size"] == sizes[0]:
                _history(left, cell, {"color": looks[name], "linestyle": "-" if cell.attrs["bound"] else "--"})
        left.set_title(f"batches of {sizes[0]}")
        left.set_ylabel(style.DELTA_GM if nonneg else style.above_bound(cells[0]))
        left.set_xlabel("iteration")
        left.set_xscale("log")
        left.set_yscale("log")
        left.set_ylim(style.SMALLEST_DRAWN / 3, 3)
        of_names = {name: [c for c, other in zip(cells, names, strict=True) if other == name] for name in looks}
        of_taus = {tau: [c for c in cells if c.attrs["tau"] == tau] for tau in {c.attrs["tau"] for c in cells}}
        for name, of_line in of_names.items() if len(sizes) > 1 else of_taus.items():
            _ends(right, of_line, "batch_size" if len(sizes) > 1 else "R", looks.get(name, "black"))
        right.set_xlabel("batch size before binding" if len(sizes) > 1 else "imbalance ratio R")
        if nonneg:
            right.set_title(f"lines: proved unique;{chr(10) if figure.narrow else chr(32)}markers: frames reached")
            right.set_ylim(-0.05, 1.05)
        right.set_ylabel("fraction" if nonneg else f"{style.DELTA_GM},\nat the end, median")
        shown = {name: {"color": colour} for name, colour in looks.items()}
        shown["as drawn"] = {"color": "0.3", "linestyle": "--", "marker": "o", "mfc": "none"}
        if any(cell.attrs["bound"] for cell in cells):
            shown["bound"] = {"color": "0.3", "linestyle": "-", "marker": "s"}
        handles = [Line2D([], [], label=label, ms=4, **look) for label, look in shown.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 6), handlelength=3)
        starts = "one start" if first["inits"] == 1 else f"{first['inits']} starts"
        count = "one family" if first["partitions"] == 1 else f"{first['partitions']} families"
        families = f"{count} ({first['family']}) of each kind, {starts} each"
        figure.suptitle(f"{style.problem(cells)}; {families}")
    return figure


def _history(axis: Axes, cell: xr.Dataset, look: dict[str, Any]) -> None:
    grid, values = style.history(cell, "delta_gm" if cell.attrs["nonneg"] else "excess")
    relative = values if cell.attrs["nonneg"] else values / style.bound(cell, "lower_bound")
    style.draw_band(axis, grid, np.clip(relative, style.SMALLEST_DRAWN, None), look)


def _ends(axis: Axes, cells: Sequence[xr.Dataset], along: str, colour: Any) -> None:
    places = sorted({float(cell.attrs[along]) for cell in cells})
    for bound, dashes, marker, face in ((0, "--", "o", "none"), (1, "-", "s", colour)):
        kind = [cell for cell in cells if cell.attrs["bound"] == bound]
        kind.sort(key=lambda cell: float(cell.attrs[along]))
        at = [places.index(float(cell.attrs[along])) for cell in kind]
        frames = [float(cell["orthogonal_frame"].mean()) for cell in kind]
        unique = [np.mean(cell["unique"].values == "True") for cell in kind]
        if not cells[0].attrs["nonneg"]:
            frames = unique = [float(np.median(cell["delta_gm"])) for cell in kind]
        axis.plot(at, unique, color=colour, linestyle=dashes)
        axis.plot(at, frames, marker, color=colour, mfc=face, ms=4)
    axis.set_xticks(range(len(places)), [f"{place:g}" for place in places])
