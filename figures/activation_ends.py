"""How far every start of a sweep over activations ends from the geometry of its constraint set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from figures import style
from figures.style import Figure

ARRIVED = 1e-3


def draw(data: Sequence[xr.Dataset]) -> Figure:
    """Distance from the minimisers' Gram matrix: a group of markers for each activation, one symbol for each R."""
    names = list(dict.fromkeys(str(cell.attrs["activation"]) for cell in data))
    ratios = list(dict.fromkeys(float(cell.attrs["R"]) for cell in data))
    with style.applied():
        figure = Figure(figsize=(style.width(style.TWO_COLUMNS), 2.9), layout="constrained")
        axis = figure.subplots()
        for cell in data:
            index = ratios.index(float(cell.attrs["R"]))
            distance = np.maximum(cell["distance"].values, style.SMALLEST_DRAWN)
            lifted = cell["lifted"].values.astype(bool)
            within = np.linspace(-0.09, 0.09, len(distance)) if len(distance) > 1 else np.zeros(1)
            at = names.index(str(cell.attrs["activation"])) + 0.26 * (index - (len(ratios) - 1) / 2) + within
            colour = style.line(index, len(ratios))["color"]
            marker = style.MARKERS[index % len(style.MARKERS)]
            axis.plot(at[~lifted], distance[~lifted], ls="", marker=marker, ms=3, color=colour)
            axis.plot(at[lifted], distance[lifted], ls="", marker="x", ms=3.5, color=colour)
        for index, ratio in enumerate(ratios):
            look = {
                "marker": style.MARKERS[index % len(style.MARKERS)],
                "color": style.line(index, len(ratios))["color"],
            }
            axis.plot([], [], ls="", ms=3, label=f"R = {ratio:g}", **look)
        axis.plot([], [], ls="", marker="x", ms=3.5, color="0.3", label="spurious, then lifted by the staircase")
        axis.axhline(ARRIVED, color="0.4", lw=0.7, ls=":")
        axis.set_yscale("log")
        axis.set_xticks(range(len(names)), names, rotation=30 if figure.narrow else 0)
        axis.set_xlim(-0.5, len(names) - 0.5)
        axis.set_ylabel("distance from the minimisers'\nGram matrix")
        attrs = data[0].attrs
        figure.suptitle(f"step imbalance, k = {attrs['k']}, d = {attrs['d']}, $\\tau$ = {attrs['tau']:g}")
        figure.legend(loc="outside lower center", ncols=len(ratios) + 1)
    return figure
