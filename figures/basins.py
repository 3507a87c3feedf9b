"""F8: basins of plain projected gradient: the fraction of random starts that reach the optimum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.image import AxesImage

from figures import style
from figures.style import Figure

GLOBAL, UNFINISHED = "global minimiser", "not converged"


def draw(cells: Sequence[xr.Dataset]) -> Figure:
    """Percentages over d/k and R, and over tau and R. In small print: the percentage of the staircase, and of plain
    starts that the step limit stopped, where there are any.

    The left map is at one temperature, the right one at one dimension: those with the most cells.
    """
    by_temperature = {float(cell.attrs["tau"]) for cell in cells}
    dimension = {d: sum(int(cell.attrs["d"]) == d for cell in cells) for d in {int(cell.attrs["d"]) for cell in cells}}
    common_d = max(dimension, key=lambda d: dimension[d])
    common_tau = max(by_temperature, key=lambda tau: sum(float(cell.attrs["tau"]) == tau for cell in cells))
    first = cells[0].attrs
    with style.applied():
        figure, (left, right) = style.panels(2, 3.0)
        of_tau = [cell for cell in cells if float(cell.attrs["tau"]) == common_tau]
        of_d = [cell for cell in cells if int(cell.attrs["d"]) == common_d]
        image = _map(left, of_tau, lambda cell: int(cell.attrs["d"]) / first["k"])
        _map(right, of_d, lambda cell: float(cell.attrs["tau"]))
        left.set_ylabel("dimension over classes d/k")
        left.set_title(f"$\\tau$ = {common_tau:g}")
        right.set_ylabel(r"temperature $\tau$")
        right.set_title(f"d/k = {common_d / first['k']:g}")
        for axis in (left, right):
            axis.set_xlabel("imbalance ratio R")
        bar = figure.colorbar(image, ax=(left, right), shrink=0.85, aspect=18, pad=0.015)
        bar.set_label("starts that reach the optimum [%]")
        bar.outline.set_visible(False)
        figure.suptitle(
            f"UFM+, step imbalance, k = {first['k']}: large print: plain projected gradient, {first['starts']} starts; "
            f"small print: staircase, {first['inits']} starts"
        )
    return figure


def _map(axis: Axes, cells: Sequence[xr.Dataset], height: Callable[[xr.Dataset], float]) -> AxesImage:
    ratios = sorted({float(cell.attrs["R"]) for cell in cells})
    heights = sorted({height(cell) for cell in cells})
    share = np.full((len(heights), len(ratios)), np.nan)
    for cell in cells:
        row, column = heights.index(height(cell)), ratios.index(float(cell.attrs["R"]))
        share[row, column] = _percent(cell["projected_gradient"], GLOBAL)
        lifted = _percent(cell["staircase"], GLOBAL)
        unfinished = _percent(cell["projected_gradient"], UNFINISHED)
        ink = "white" if share[row, column] < 55 else "black"
        place: dict[str, Any] = {"ha": "center", "va": "center", "color": ink, "fontsize": style.points(6)}
        axis.text(column, row + 0.16, f"{share[row, column]:.0f}", **{**place, "fontsize": style.points(9)})
        axis.text(column, row - 0.14, f"staircase {lifted:.0f}", **place)
        if unfinished:
            axis.text(column, row - 0.36, f"unfinished {unfinished:.0f}", **place)
    image = axis.imshow(share, vmin=0, vmax=100, cmap=style.SEQUENTIAL, origin="lower", aspect="auto")
    axis.set_xticks(range(len(ratios)), [f"{ratio:g}" for ratio in ratios])
    axis.set_yticks(range(len(heights)), [f"{value:g}" for value in heights])
    style.strip(axis)
    return image


def _percent(verdicts: xr.DataArray, verdict: str) -> float:
    return 100.0 * float((verdicts == verdict).mean())
