"""F3: excess over the bound against iterations: plateaus from random starts, the predicted rate near a frame."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from figures import style
from figures.style import Figure


def draw(data: Sequence[xr.Dataset]) -> Figure:
    """Left: every random start of the first dataset. Right: starts near a frame, the other datasets, one for each R.

    Excesses are relative to the bound. Thick: measured. Thin: theory, an excess proportional to rho^{2t}
    (`ufm.theory.local_rate`) through the measured excess at step 20. The legend gives the predicted rho, and the
    measured one as the median over starts.
    """
    random, near = data[0], data[1:]
    with style.applied():
        figure, (left, right) = style.panels(2, 2.9)
        _random_starts(left, random)
        _near_frame(right, near)
        for axis in (left, right):
            axis.set_yscale("log")
            axis.set_xlabel("iteration")
            axis.set_ylabel("excess / bound")
        first = near[0].attrs
        figure.suptitle(f"UFM+, step imbalance, k = {first['k']}, d = {first['d']}, $\\tau$ = {first['tau']:g}")
    return figure


def _random_starts(axis: Axes, data: xr.Dataset) -> None:
    looks = {
        "projected-gradient": {"color": "0.55", "lw": 0.9, "linestyle": "-"},
        "staircase": {"color": style.line(0, 2)["color"], "lw": 1.1, "linestyle": (0, (4, 1))},
    }
    names = {"projected-gradient": "plain projected gradient", "staircase": "staircase"}
    for method, look in looks.items():
        steps, excess = data[f"{method}_iteration"].values, style.positive(data[f"{method}_excess"].values)
        excess = np.clip(excess / data.attrs["loss_bound"], style.SMALLEST_DRAWN, None)
        for start in range(len(steps)):
            axis.plot(np.maximum(steps[start], 1), excess[start], label=names[method] if start == 0 else None, **look)
    axis.set_xscale("log")
    axis.set_ylim(style.SMALLEST_DRAWN, 1e3)
    axis.set_title(f"{data.attrs['inits']} random starts, R = {data.attrs['R']:g}, n = {data.attrs['n']}")
    axis.legend(loc="upper right", handlelength=2.8)


def _near_frame(axis: Axes, near: Sequence[xr.Dataset]) -> None:
    for index, run in enumerate(near):
        look = style.line(index, len(near))
        steps, excess = run["step"].values, run["excess"].values
        for start in range(len(excess)):
            axis.plot(steps, excess[start], color=look["color"], lw=2.4, alpha=0.35)
        rho, measured = float(run["predicted"]), float(run["measured"].median())
        at = int(np.searchsorted(steps, 20))
        predicted = np.median(excess[:, at]) * rho ** (2.0 * (steps - steps[at]))
        shown = predicted > 3e-17
        label = f"R = {run.attrs['R']:g}: $\\rho$ = {rho:.5f} ({measured:.5f})"
        axis.plot(steps[shown], predicted[shown], label=label, **look)
    axis.set_ylim(style.SMALLEST_DRAWN, 1e-1)
    axis.set_xlim(0, 160)
    axis.set_title(f"near a frame, plain step $\\eta$ = {near[0].attrs['eta']:g}")
    axis.legend(
        title="thin: predicted, thick: (measured)", title_fontsize=style.points(7), loc="upper right", handlelength=2.8
    )
