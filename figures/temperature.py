"""F7: the effect of the temperature on convergence: the local rate, predicted and measured."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from figures import style
from figures.style import Figure


def draw(data: Sequence[xr.Dataset]) -> Figure:
    """Steps to gain a decimal digit in the within-class deviations, 1 / -log10(rho), against tau, for each R.

    Lines: predicted; open markers: measured; stars: the best temperature in closed form (`ufm.theory.local_rate`).
    """
    with style.applied():
        figure = Figure(figsize=(style.width(style.ONE_COLUMN), 3.0), layout="constrained")
        axis = figure.subplots()
        for index, of_ratio in enumerate(data):
            look = style.line(index, len(data))
            label = f"R = {of_ratio.attrs['R']:g}, best $\\tau$ = {float(of_ratio['best_tau']):.3f}"
            axis.plot(of_ratio["fine_tau"], _steps(of_ratio["curve"].values), label=label, **look)
            measured = np.median(of_ratio["measured"].values, axis=1)
            axis.plot(
                of_ratio["tau"],
                _steps(measured),
                style.MARKERS[index % len(style.MARKERS)],
                color=look["color"],
                ms=3.6,
                mfc="none",
                mew=0.8,
            )
            best = (float(of_ratio["best_tau"]), _steps(float(of_ratio["best_rate"])))
            axis.plot(*best, "*", color=look["color"], ms=9, mec="white", mew=0.6, zorder=4)
        axis.set_xscale("log")
        axis.set_yscale("log")
        ticks = (0.2, 0.5, 1, 2, 5)
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.minorticks_off()
        axis.set_yticks((10, 20, 50, 100, 200, 500), ("10", "20", "50", "100", "200", "500"))
        axis.set_xlabel(r"temperature $\tau$")
        axis.set_ylabel("steps for one more digit")
        first = data[0].attrs
        figure.suptitle(f"UFM+, step imbalance, k = {first['k']}, plain step $\\eta$ = {first['eta']:g}")
        figure.legend(loc="outside lower center", ncols=2, handlelength=2.6, columnspacing=1.0)
    return figure


def _steps(rho: np.ndarray | float) -> np.ndarray:
    return -1.0 / np.log10(rho)
