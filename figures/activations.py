"""F16: descent through LeakyReLU comes near the frame and leaves it again: how soon, against the slope."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from figures import style
from figures.style import Figure


def draw(data: Sequence[xr.Dataset]) -> Figure:
    """Left: distance from a frame against steps for every slope of the first dataset. Right: steps from a right angle
    to a cosine, against the slope, for each R and two cosines: medians of starts, and lines of theory without a fit."""
    with style.applied():
        figure, (left, right) = style.panels(2, 2.9)
        _approach(left, data[0], "\n" if figure.narrow else " ")
        _leaving(right, data)
        first = data[0].attrs
        figure.suptitle(
            f"UFM through LeakyReLU, normalised, step imbalance, k = {first['k']}, d = {first['d']}, "
            f"$\\tau$ = {first['tau']:g}"
        )
    return figure


def _approach(axis: Axes, cell: xr.Dataset, joint: str) -> None:
    slopes = cell["slope"].values
    for index, slope in enumerate(slopes):
        values = np.maximum(cell["delta_gm"].values[index], style.SMALLEST_DRAWN)
        style.draw_band(axis, cell["record"].values, values, style.line(index, len(slopes)), f"slope {slope:g}")
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel(f"step of gradient descent ({cell.attrs['step']:g})")
    axis.set_ylabel(style.DELTA_GM)
    axis.set_title(f"R = {cell.attrs['R']:g}, median of {cell.attrs['starts']} random starts,{joint}band: middle half")
    axis.legend(loc="lower left")


def _leaving(axis: Axes, data: Sequence[xr.Dataset]) -> None:
    levels = data[0]["level"].values
    for index, cell in enumerate(sorted(data, key=lambda cell: float(cell.attrs["R"]))):
        look, marker = style.line(index, len(data)), style.MARKERS[index % len(style.MARKERS)]
        for place, level in enumerate(levels):
            filled = look["color"] if place else "white"
            middle = np.median(cell["left"].values[place], axis=1)
            label = f"R = {cell.attrs['R']:g}, to cosine {-level:g}"
            axis.plot(
                cell["fine"].values, cell["predicted"].values[place], lw=0.8, color=look["color"], ls=look["linestyle"]
            )
            axis.plot(
                cell["slope"].values, middle, ls="", marker=marker, ms=4, mfc=filled, mec=look["color"], label=label
            )
    axis.set_xscale("log")
    axis.set_yscale("log")
    ticks = data[0]["slope"].values
    axis.set_xticks(ticks, [f"{slope:g}" for slope in ticks])
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xlabel("slope of LeakyReLU below 0")
    axis.set_ylabel("steps from a right angle to the cosine")
    axis.set_title("markers: median of starts; lines: theory")
    axis.legend(loc="lower left")
