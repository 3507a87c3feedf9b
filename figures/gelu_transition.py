"""F17: GELU without normalisation: by how much its entry lower bound raises the loss, against the dimension d."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from figures import style
from figures.style import Figure

LOWEST = 1e-6  # smaller differences of losses are drawn at this value


def draw(data: Sequence[xr.Dataset]) -> Figure:
    """The best loss over points whose entries respect the bound, minus UFM's certified minimum, against d. Left:
    balanced classes, with the proved bound in closed form as lines. Right: imbalanced classes, with the relaxation that
    depends on d as lines. Filled: certified global minimisers of UFM. Vertical lines: in fewer dimensions no minimiser
    of UFM respects the bound, by theorem.
    """
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
            axis.set_ylabel("loss minus UFM's minimum")
        attrs = data[0].attrs
        axes[0].set_ylim(LOWEST / 3, 4 * max(float(cell["gap"].max()) for cell in data))
        starts = style.span([cell.attrs["inits"] for cell in data])
        figure.suptitle(
            f"entries at least {attrs['floor']:.3f} (GELU, not normalised), n$_{{min}}$ = {attrs['n_min']}, "
            f"$\\tau$ = {attrs['tau']:g}, best of {starts} random starts\n"
            "filled: certified minimiser of UFM; vertical: proved necessary dimension"
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
