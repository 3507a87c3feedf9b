"""F9: the benchmark against other solvers: time to the certified optimum, and growth with n."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from figures import style
from figures.style import Figure


def draw(cells: Sequence[xr.Dataset]) -> Figure:
    """Left: seconds of every start of every peer (peer, R, reached, seconds over the dimension run of one dataset).

    A cross is a start that was stopped before it reached the optimum: its time is a lower bound. The label of each peer
    says how many of its starts reached the optimum, over all R. Right: growth_n, growth_seconds_solve and
    growth_seconds_certify over the dimension size, and growth_seconds_copy, the memory limit, if it exists.
    """
    data = style.single(cells, "growth_n")
    with style.applied():
        figure, (left, right) = style.panels(2, 2.9, width_ratios=(1.35, 1))
        _peers(figure, left, data)
        _growth(right, data)
        figure.suptitle("UFM+, step imbalance: time to the certified optimum for one start, without compilation")
    return figure


def _peers(figure: Figure, axis: Axes, runs: xr.Dataset) -> None:
    names = list(dict.fromkeys(runs["peer"].values.tolist()))
    ratios = sorted(set(runs["R"].values.tolist()))
    for index, R in enumerate(ratios):
        of_ratio = runs.isel(run=runs["R"].values == R)
        colour = style.line(index, len(ratios) + 1)["color"]
        height = np.array([names.index(peer) for peer in of_ratio["peer"].values.tolist()], float)
        height += 0.3 * (index - (len(ratios) - 1) / 2)
        reached, seconds = of_ratio["reached"].values, of_ratio["seconds"].values
        label = f"R = {R:g}, n = {int(of_ratio['n'].values[0]):,}"
        marker = style.MARKERS[index % len(style.MARKERS)]
        axis.plot(seconds[reached], height[reached], marker, color=colour, ms=4.5, mfc="none", mew=1, label=label)
        axis.plot(seconds[~reached], height[~reached], "x", color=colour, ms=4.5, mew=1)
    axis.plot([], [], "x", color="0.4", ms=4.5, label="stopped before the optimum")
    arrived = {name: runs["reached"].values[runs["peer"].values == name] for name in names}
    axis.set_yticks(range(len(names)), [f"{name} {hits.sum()}/{len(hits)}" for name, hits in arrived.items()])
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.set_xscale("log")
    axis.set_xlabel("seconds per start")
    axis.grid(axis="x", lw=0.4, color="0.85")
    axis.set_axisbelow(True)
    if figure.narrow:
        figure.legend(loc="outside lower center", ncols=len(ratios) + 1, columnspacing=0.8, handletextpad=0.2)
    else:
        axis.legend(
            loc="upper center", bbox_to_anchor=(0.4, -0.2), ncols=len(ratios) + 1, columnspacing=0.8, handletextpad=0.2
        )


def _growth(axis: Axes, data: xr.Dataset) -> None:
    n = data["growth_n"].values
    for index, (name, label) in enumerate((("seconds_solve", "solve"), ("seconds_certify", "certify"))):
        look = style.line(index, 3)
        axis.plot(n, data[f"growth_{name}"], style.MARKERS[index], ms=4, mfc="none", label=label, **look)
    if "growth_seconds_copy" in data:
        axis.plot(n, data["growth_seconds_copy"], color="0.3", lw=0.8, ls=(0, (4, 2)), label="one copy of H")
    anchor = float(data["growth_seconds_solve"].values[-1])
    axis.plot(n, anchor * n / n[-1], color="0.55", lw=0.8, ls=(0, (1, 1)), label="proportional to n")
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xlabel("samples n")
    axis.set_ylabel("seconds")
    axis.set_title("staircase")
    axis.legend(loc="best", handlelength=2.6)
