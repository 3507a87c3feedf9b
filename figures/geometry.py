"""F2: distance from an orthogonal frame, neural collapse and mean cosine against iterations, for each R."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from figures import style
from figures.style import Figure

PANELS = (("delta_gm", style.DELTA_GM), ("beta_nc", style.BETA_NC), ("mean_cosine", "mean cosine of\nclass means"))
NEGATIVE = "minus the mean cosine\nof class means"  # of UFM


def draw(cells: Sequence[xr.Dataset], width: float | None = None) -> Figure:
    """A row for each imbalance profile, a column for each metric: median over starts, band of the middle half.

    The axes are logarithmic; values below 1e-17, exact zeros included, are drawn at 1e-17. Under UFM the distance from
    a frame does not fall to 0; its axis is linear.
    width: inches, 7 by default; below 5 all panels stand one above the other, without a title.
    """
    profiles = list(dict.fromkeys(str(cell.attrs["imbalance"]) for cell in cells))
    with style.one_column(width), style.applied():
        width = style.width(style.TWO_COLUMNS)
        narrow = width < style.NARROW
        rows = len(profiles) * (len(PANELS) if narrow else 1)
        figure = Figure(figsize=(width, 0.7 + 1.75 * rows), layout="constrained")
        grid_of_axes = figure.subplots(rows, 1 if narrow else len(PANELS), squeeze=False, sharex=True)
        axes = grid_of_axes.reshape(len(profiles), len(PANELS))
        for row, profile in zip(axes, profiles, strict=True):
            of_row = [cell for cell in cells if cell.attrs["imbalance"] == profile]
            for axis, (name, label) in zip(row, PANELS, strict=True):
                for index, cell in enumerate(of_row):
                    look = style.line(index, len(of_row))
                    grid, values = style.history(cell, name)
                    if name == "mean_cosine" and not cell.attrs["nonneg"]:
                        label, values = NEGATIVE, -values
                    values = np.clip(values, style.SMALLEST_DRAWN, None)
                    style.draw_band(axis, grid, values, look, f"R = {cell.attrs['R']:g}")
                style.steps_axis(axis, max(int(cell["history_iteration"].max()) for cell in cells))
                if name == "delta_gm" and not of_row[0].attrs["nonneg"]:
                    axis.set_ylim(0, None)
                else:
                    axis.set_yscale("log")
                    axis.set_ylim(style.SMALLEST_DRAWN / 2, 1e3 if name == "beta_nc" else 10)
                    axis.set_yticks([1e-16, 1e-12, 1e-8, 1e-4, 1])
                axis.set_title(style.profile(profile) if axis is row[0 if narrow else 1] else "")
                axis.set_ylabel(label)
        for axis in grid_of_axes[-1]:
            axis.set_xlabel("iteration")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        columns = min(len(labels), 2 if narrow else len(labels))
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, handlelength=3.2)
        first = cells[0].attrs
        model = "UFM+" if first["nonneg"] else "UFM"
        figure.suptitle(f"{model}, k = {first['k']}, d = {first['d']}, $\\tau$ = {first['tau']:g}{style.run(cells)}")
    return figure
