"""F10: certificates: the proved gap, and the rise of the loss at a wrong geometry."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from figures import style
from figures.style import Figure

LOSS_TOLERANCE = 1e-6  # relative; what a plain solver might stop at


def draw(cells: Sequence[xr.Dataset]) -> Figure:
    """Distances on the loss axis over R, for UFM+ (left) and UFM (right), logarithmic.

    - proved gap: upper minus lower bound, in ball arithmetic. For UFM+ the lower bound is exactly the theoretical
      optimum, the loss of an orthogonal frame.
    - smallest constraint weight: the least rise of the loss where a pair of orbits is broken (theory, 2.11). A point
      whose gap is below the tolerance, a fraction of it, is certified.
    - a relative loss tolerance of LOSS_TOLERANCE, and the error of a conic solver's value, for comparison.
    """
    data = style.single(cells, "weakest")
    with style.applied():
        figure, axes = style.panels(2, 3.0)
        for axis, model in zip(axes, ("UFM+", "UFM"), strict=True):
            of_model = data.sel(model=model)
            R = of_model["R"].values
            loss = of_model["lower"].values
            optimum = of_model["theoretical"].values if model == "UFM+" else loss
            smallest_weight = of_model["weakest"].values
            certified = of_model["status"].values == "certified"
            gap = of_model["gap"].values
            axis.plot(R, LOSS_TOLERANCE * loss, color="0.45", lw=1, ls=(0, (1, 1)), label=r"$10^{-6}$ of the loss")
            axis.plot(R, smallest_weight, label="smallest constraint weight", **style.line(2, 3))
            axis.plot(R, of_model["tolerance"].values * smallest_weight, label="certified below", **style.line(1, 3))
            error = np.abs(of_model["conic"].values - optimum)
            axis.plot(R, error, "x", color="0.3", ms=4.5, mew=1, label="error of a conic solver's value")
            look = style.line(0, 3)
            axis.plot(R, gap, label="proved gap: upper - lower bound", **look)
            axis.plot(R[certified], gap[certified], "o", color=look["color"], ms=4)
            axis.plot(R[~certified], gap[~certified], "o", color=look["color"], ms=4, mfc="white")
            axis.set_xscale("log")
            axis.set_yscale("log")
            axis.set_xlabel("imbalance ratio R")
            axis.set_ylabel("difference of losses")
        axes[0].set_title("UFM+: lower bound = theoretical optimum")
        axes[1].set_title("UFM: lower bound by a dual matrix")
        axes[1].set_ylim(1e-16, 1e2)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, handlelength=2.8)
        attrs = data.attrs
        figure.suptitle(
            f"step imbalance, k = {attrs['k']}, d = {attrs['d']}, $\\tau$ = {attrs['tau']:g}, "
            f"$n_{{min}}$ = {attrs['n_min']}"
        )
    return figure
