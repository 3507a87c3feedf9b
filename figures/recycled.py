"""F20: networks whose epochs cycle through E partitions, and the geometry that theory predicts E partitions force."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from figures import style
from figures.settings import common
from figures.style import Figure


def draw(cells: Sequence[xr.Dataset]) -> Figure:
    """Over the number of partitions: a marker for each seed, and a line through medians. Left: delta_gm after training.
    Right: the excess of the features, relative to the loss of a frame, in the full batch and over the training batches.
    Filled: the frame is proved to be the only minimiser over these batches; open: proved not to be, or undetermined.
    Dashed: the number of partitions at which half of random families force the frame, as predicted."""
    dark, light = (style.line(index, 3)["color"] for index in (0, 1))
    with style.applied():
        figure, (left, right) = style.panels(2, 2.9)
        _markers(left, cells, [float(cell["history_delta_gm"].values[-1]) for cell in cells], "o", dark)
        whole = [cell.attrs["excess_upper"] / cell.attrs["loss_bound"] for cell in cells]
        of_batches = [cell.attrs["pool_excess"] / cell.attrs["pool_bound"] for cell in cells]
        _markers(right, cells, whole, "o", dark)
        _markers(right, cells, of_batches, "s", light)
        left.set_ylabel(f"{style.DELTA_GM}, after training")
        right.set_ylabel("excess over a frame's loss, relative")
        left.set_ylim(bottom=0)
        right.set_yscale("log")
        pools = np.unique([cell.attrs["pool"] for cell in cells])
        for axis in (left, right):
            if np.isfinite(half := float(cells[0].attrs["half"])):
                axis.axvline(half, color="0.4", lw=0.9, ls=(0, (4, 2)))
            axis.set_xscale("log")
            axis.set_xticks(pools, [f"{pool:g}" for pool in pools])
            axis.minorticks_off()
            axis.set_xlabel("different partitions, E")
        handles = [
            right.plot([], [], "o", color=dark, ms=4, label="full batch")[0],
            right.plot([], [], "s", color=light, ms=4, label="training batches")[0],
            right.plot([], [], "o", color="0.3", ms=4, label="frame proved unique")[0],
            right.plot([], [], "o", color="0.3", ms=4, mfc="none", label="not proved unique")[0],
            right.plot([], [], color="0.4", lw=0.9, ls=(0, (4, 2)), label="predicted: half of families")[0],
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=5, columnspacing=1.2, handletextpad=0.4)
        figure.suptitle(f"{common(cells)}, batches of {cells[0].attrs['batch_size']}")
    return figure


def _markers(axis: Axes, cells: Sequence[xr.Dataset], values: Sequence[float], marker: str, colour: object) -> None:
    """One marker for each cell, seeds beside each other; values of 0 are drawn at the smallest value shown."""
    pools, heights = np.array([float(cell.attrs["pool"]) for cell in cells]), np.maximum(values, style.SMALLEST_DRAWN)
    seeds = np.array([int(cell.attrs["seed"]) for cell in cells])
    beside = 1.06 ** (seeds - seeds.mean())
    for pool, shift, height, cell in zip(pools, beside, heights, cells, strict=True):
        face = colour if cell.attrs["unique"] == "True" else "none"
        axis.plot(pool * shift, height, marker, color=colour, mfc=face, ms=4, mew=0.8)
    different = np.unique(pools)
    axis.plot(different, [np.median(heights[pools == pool]) for pool in different], lw=0.8, color=colour)
