"""F18: is it the landscape or the network that keeps features from the optimum?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from figures import style
from figures.settings import common, settings
from figures.style import Figure

ENDS = {"gap": "trained network", "plain_gap": "released, projected gradient", "staircase_gap": "released, staircase"}
MINIMISER = "global minimiser"


def draw(cells: Sequence[xr.Dataset]) -> Figure:
    """Left: proved suboptimality relative to a frame's loss, of the network and of its released features, with a row
    for each setting and a marker for each seed; hollow: not verified as a global minimiser. Right: the
    trajectory of plain projected gradient."""
    groups = settings(cells)
    with style.applied():
        figure, (left, right) = style.panels(2, max(2.5, 1.5 + 0.24 * len(groups)), width_ratios=(1.25, 1))
        for row, group in enumerate(groups.values()):
            _ends(left, row, group, labelled=row == 0)
        left.set_yticks(range(len(groups)), list(groups))
        left.set_ylim(len(groups) - 0.5, -0.5)
        left.set_xscale("log")
        joint = "\n" if figure.narrow else " "
        left.set_xlabel(f"proved suboptimality,{joint}relative to a frame's loss")
        left.grid(axis="y", lw=0.3, color="0.85")
        for index, (said, group) in enumerate(groups.items()):
            for place, cell in enumerate(group):
                above = (cell["plain_excess"].values - cell.attrs["minimum"]) / cell.attrs["loss_bound"]
                steps, look = cell["plain_iteration"].values, style.line(index, len(groups))
                right.plot(
                    steps, np.maximum(above, style.SMALLEST_DRAWN), lw=0.9, label=said if place == 0 else None, **look
                )
        right.set_xscale("log")
        right.set_yscale("log")
        right.set_xlabel("steps of projected gradient")
        right.set_ylabel("suboptimality, relative")
        right.legend(handlelength=2.2, fontsize=style.points(6), loc="lower left")
        handles, labels = left.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
        figure.suptitle(common(cells))
    return figure


def _ends(axis: Axes, row: int, cells: Sequence[xr.Dataset], *, labelled: bool) -> None:
    places = row + np.linspace(-0.22, 0.22, len(cells)) if len(cells) > 1 else [row]
    for index, (name, said) in enumerate(ENDS.items()):
        shade = style.line(index, len(ENDS))["color"]
        for number, (place, cell) in enumerate(zip(places, cells, strict=True)):
            method = name.removesuffix("_gap")
            filled = name == "gap" or cell.attrs[f"{method}_verdict"] == MINIMISER
            value = max(float(cell.attrs[name]) / float(cell.attrs["loss_bound"]), style.SMALLEST_DRAWN)
            axis.plot(
                value, place, style.MARKERS[index], color=shade, ms=4, mew=0.8, mfc=shade if filled else "none",
                label=said if labelled and number == 0 else None,
            )  # fmt: skip
