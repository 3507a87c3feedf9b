"""F16: near the frame and away again: descent through LeakyReLU, and when it leaves, against its slope."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import style

LAW = {"gradient descent": -2.0, "Adam": -1.0}


def draw(data: Sequence[xr.Dataset]) -> Figure:
    """Left: distance from a frame against steps at every slope, of the first dataset. Right: steps from the right angle
    to a cosine of -0.02 against the slope, for each R: theory (thin) over measurement for gradient descent, a line of
    the predicted exponent through the first median for Adam."""
    with style.applied():
        figure = Figure(figsize=(style.TWO_COLUMNS, 2.9), layout="constrained")
        left, right = figure.subplots(1, 2)
        _approach(left, data[0])
        _leaving(right, data)
        first = data[0].attrs
        figure.suptitle(
            f"UFM through LeakyReLU, normalised, step imbalance, k = {first['k']}, d = {first['d']}, "
            f"$\\tau$ = {first['tau']:g}",
            fontsize=8,
        )
    return figure


def _approach(axis: Axes, cell: xr.Dataset) -> None:
    slopes = cell["slope"].values
    for index, slope in enumerate(slopes):
        values = np.maximum(cell["delta_gm"].values[index], style.FLOOR)
        style.draw_band(axis, cell["record"].values, values, style.line(index, len(slopes)), f"slope {slope:g}")
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel(f"step of {cell.attrs['rule']} ({cell.attrs['step']:g})")
    axis.set_ylabel(r"distance from a frame, $\Delta_{G_M}$")
    axis.set_title(f"R = {cell.attrs['R']:g}, {cell.attrs['starts']} random starts, band of the middle half")
    axis.legend(loc="lower left")


def _leaving(axis: Axes, data: Sequence[xr.Dataset]) -> None:
    rules = list(dict.fromkeys(str(cell.attrs["rule"]) for cell in data))
    for rule in rules:
        own = [cell for cell in data if cell.attrs["rule"] == rule]
        for index, cell in enumerate(own):
            look, slopes, left = style.line(index, len(own)), cell["slope"].values, cell["left"].values
            filled = look["color"] if rule == rules[0] else "white"
            middle = np.array([np.median(row[np.isfinite(row)]) if np.isfinite(row).any() else np.nan for row in left])
            label = f"{rule}, R = {cell.attrs['R']:g}"
            marker = style.MARKERS[index % len(style.MARKERS)]
            axis.plot(slopes, middle, ls="", marker=marker, ms=4, mfc=filled, mec=look["color"], label=label)
            if rule == "gradient descent":
                law = cell.attrs["cosine"] / (cell.attrs["rate"] * cell.attrs["step"]) * slopes ** LAW[rule]
            else:
                law = middle[0] * (slopes / slopes[0]) ** LAW[rule]
            axis.plot(slopes, law, lw=0.8, color=look["color"], ls=look["linestyle"])
    axis.set_xscale("log")
    axis.set_yscale("log")
    ticks = data[0]["slope"].values
    axis.set_xticks(ticks, [f"{slope:g}" for slope in ticks])
    axis.minorticks_off()
    axis.set_xlabel("slope of LeakyReLU below 0")
    axis.set_ylabel(f"steps from a right angle to cosine {-data[0].attrs['cosine']:g}")
    axis.set_title("marks: median; lines: slope$^{-2}$ (theory), slope$^{-1}$")
    axis.legend(loc="upper right", ncols=1)
