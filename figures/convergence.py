"""Excess, distance from an orthogonal frame, and neural collapse against iterations, for each R."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from figures import style
from figures.style import Figure

PANELS = (
    ("excess", "excess over the bound,\nrelative to the bound"),
    ("delta_gm", style.DELTA_GM),
    ("beta_nc", style.BETA_NC),
)


def draw(cells: Sequence[xr.Dataset], width: float | None = None) -> Figure:
    """Median over starts and the band of their middle half, on logarithmic axes.

    width: inches, 7 by default; below 5 the panels stand one above the other, without a title.

    The excess over the bound of Theorem 1 is divided by that bound, so that every R fits one axis. UFM has no such
    bound: there it is the loss minus the certified lower bound (or the lowest loss of all starts, if none is
    certified), relative to that, and shown down to the rounding of the loss (smaller records repeat the last larger
    one). Values below 1e-17, exact zeros included, are drawn at 1e-17. The distance from a frame is left out for UFM,
    which does not approach one.
    """
    nonneg, names = bool(cells[0].attrs["nonneg"]), style.ratios(cells)
    panels = [panel for panel in PANELS if nonneg or panel[0] != "delta_gm"]
    with style.one_column(width), style.applied():
        width = style.width(style.TWO_COLUMNS)
        narrow = width < style.NARROW
        figure = Figure(
            figsize=(width, (1.8 if nonneg else 2.4) * len(panels) if narrow else 2.7), layout="constrained"
        )
        axes = figure.subplots(len(panels), 1, sharex=True) if narrow else figure.subplots(1, len(panels))
        for axis, (name, label) in zip(axes, panels, strict=True):
            for index, cell in enumerate(cells):
                grid, values = style.history(cell, name)
                if name == "excess" and nonneg:
                    values = values / (abs(cell.attrs["loss_bound"]) or 1.0)  # no active anchor, no loss: as it is
                elif name == "excess":
                    label = style.above_bound(cell)
                    values = np.where(values > 0, values / style.bound(cell, "lower_bound"), np.nan)
                values = np.clip(values, style.SMALLEST_DRAWN, 1e3)
                look = style.line(index, len(cells))
                style.draw_band(axis, grid, values, look, names[index])
            style.steps_axis(axis, max(int(cell["history_iteration"].max()) for cell in cells))
            axis.set_yscale("log")
            axis.set_ylim(style.SMALLEST_DRAWN / 2, None)
            axis.set_ylabel(label)
        for axis in axes[-1:] if narrow else axes:
            axis.set_xlabel("iteration")
        columns = min(len(cells) if "tau" not in names[0] else 4, 2 if narrow else len(cells))
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, handlelength=2.6)
        figure.suptitle(f"{style.problem(cells)}{style.run(cells)}")
    return figure
