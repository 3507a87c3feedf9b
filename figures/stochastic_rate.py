"""F15: the predicted and measured mean-square rate under random batches, against the temperature and the step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from figures import style
from figures.style import Figure


def draw(data: Sequence[xr.Dataset]) -> Figure:
    """Steps until the mean squared within-class deviation of the slowest class falls by a factor e.

    Left: against the temperature at one step. Right: against the step at one temperature. Lines: predicted
    (`ufm.theory.stochastic_rate`); open markers: measured; stars: the best step; thin horizontal lines: a rate that no
    step improves on.
    """
    with style.applied():
        figure, (left, right) = style.panels(2, 2.9, sharey=True)
        for index, cell in enumerate(data):
            look = style.line(index, len(data))
            for axis, over in ((left, "tau"), (right, "eta")):
                label = str(cell.attrs["sampler"]) if axis is left else None
                axis.plot(cell[f"fine_{over}"], _steps(cell[f"curve_of_{over}"].values), label=label, **look)
                measured = cell[f"of_{over}"].sel(which="measured").values
                marker = style.MARKERS[index % len(style.MARKERS)]
                axis.plot(cell[over], _steps(measured), marker, color=look["color"], ms=3.8, mfc="white", mew=0.8)
            best = (float(cell["best_step"]), _steps(float(cell["best_rate"])))
            right.plot(*best, "*", color=look["color"], ms=9, mec="white", mew=0.6, zorder=4)
            right.axhline(_steps(float(cell["least_rate"])), color=look["color"], lw=0.6, alpha=0.6)
        first = data[0].attrs
        _finish(left, r"temperature $\tau$", rf"step $\eta$ = {first['step']:g}", data[0]["tau"].values)
        _finish(right, r"step $\eta$", rf"$\tau$ = {first['fixed']:g}", data[0]["eta"].values)
        for axis in (left, right) if figure.narrow else (left,):
            axis.set_ylabel("steps until mean squares\nfall by a factor e")
        figure.suptitle(f"UFM+, step imbalance, R = {first['R']:g}, k = {first['k']}, batches of {first['batch_size']}")
        figure.legend(loc="outside lower center", ncols=min(len(data), 4), handlelength=2.8)
    return figure


def _finish(axis: Axes, label: str, title: str, ticks: np.ndarray) -> None:
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.xaxis.minorticks_off()
    axis.set_xlabel(label)
    axis.set_title(title)


def _steps(rate: np.ndarray | float) -> np.ndarray:
    """NaN where nothing contracts."""
    rate = np.asarray(rate, float)
    return np.where((rate > 0) & (rate < 1), -1.0 / np.log(np.where((rate > 0) & (rate < 1), rate, 0.5)), np.nan)
