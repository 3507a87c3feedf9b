"""F17: GELU without normalisation: what its floor costs in d dimensions, and from which d on nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from figures import style
from figures.style import Figure

LOWEST = 1e-6  # below this a loss is drawn as one that costs nothing


def draw(data: Sequence[xr.Dataset]) -> Figure:
    """Loss of the best point in K over UFM's certified minimum, against d. Left: balanced classes, lines: the bound in
    closed form, theorem. Right: imbalanced, lines: the relaxation that knows d. Filled: certified global minimisers of
    UFM. Vertical: the dimension below which none is in K, by theorem."""
    with style.applied():
        shown = [
            ([cell for cell in data if cell.attrs["R"] == 1], "balanced classes; lines: theorem", "balanced"),
            ([cell for cell in data if cell.attrs["R"] != 1], "imbalanced; lines: relaxation", "relaxed"),
        ]
        shown = [panel for panel in shown if panel[0]]
        figure, axes = style.panels(len(shown), 3.0, sharey=True)
        for axis, (cells, name, bound) in zip(axes, shown, strict=True):
            _curves(axis, cells, bound)
            axis.set_title(name)
            axis.set_xlabel("dimension d")
        for axis in axes if figure.narrow else axes[:1]:
            axis.set_ylabel("loss above UFM's minimum")
        attrs = data[0].attrs
        axes[0].set_ylim(LOWEST / 3, 4 * max(float(cell["gap"].max()) for cell in data))
        starts = style.span([cell.attrs["inits"] for cell in data])
        figure.suptitle(
            f"features at least {attrs['floor']:.3f} (GELU, not normalised), n$_{{min}}$ = {attrs['n_min']}, "
            f"$\\tau$ = {attrs['tau']:g}, best of {starts} random starts\n"
            "filled: certified minimiser of UFM; dotted: none above the floor in fewer dimensions, proved"
        )
    return figure


def _curves(axis: Axes, cells: Sequence[xr.Dataset], bound: str) -> None:
    for index, cell in enumerate(cells):
        look, d = style.line(index, len(cells)), cell["d"].values
        gap, lower = np.maximum(cell["gap"].values, LOWEST), cell[bound].values
        certified = cell["certified"].values.astype(bool)
        attrs = cell.attrs
        label = f"k = {attrs['k']}" + (f", R = {attrs['R']:g}" if attrs["R"] != 1 else "")
        marker = style.MARKERS[index % len(style.MARKERS)]
        shown = np.where(lower > LOWEST, lower, np.nan)
        axis.plot(d, shown, lw=0.9, color=look["color"], ls=look["linestyle"])
        axis.plot(d[~certified], gap[~certified], ls="", marker=marker, ms=3, mfc="white", mec=look["color"], mew=0.7)
        axis.plot(d[certified], gap[certified], ls="", marker=marker, ms=3, color=look["color"])
        axis.plot([], [], marker=marker, ms=3, color=look["color"], ls=look["linestyle"], lw=0.9, label=label)
        axis.axvline(attrs["necessary"], color=look["color"], lw=0.6, ls=(0, (2, 2)))
    axis.set_yscale("log")
    axis.set_xlim(0, None)
    axis.legend(loc="lower left", bbox_to_anchor=(0.0, 0.08))
