"""Gram matrices of class means after training, one for each setting."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from figures import style
from figures.style import Figure
from figures.training import settings, title


def draw(cells: Sequence[xr.Dataset]) -> Figure:
    """Each panel: M^T M of the seed that ended furthest from an orthogonal frame, divided by its largest |entry|."""
    groups = settings(cells)
    columns = min(2 if style.width(style.TWO_COLUMNS) < style.NARROW else 4, len(groups))
    rows = -(-len(groups) // columns)
    with style.applied():
        size = style.width(style.ONE_COLUMN if columns == 1 else style.TWO_COLUMNS)
        figure = Figure(figsize=(size, 0.6 + rows * (0.4 + (size - 0.8) / columns)), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).flat
        for axis, (said, group) in zip(axes, groups.items(), strict=False):
            worst = max(group, key=lambda cell: float(cell["history_delta_gm"].values[-1]))
            gram = worst["gram"].values
            style.strip(axis)
            axis.set_xlabel("class")
            axis.set_ylabel("class")
            far = style.scientific(float(worst["history_delta_gm"].values[-1]))
            axis.set_title(f"{said}\n$\\Delta_{{G_M}}$ = {far}" if said else f"$\\Delta_{{G_M}}$ = {far}")
            drawn = axis.imshow(
                gram / np.abs(gram).max(), vmin=-1, vmax=1, cmap=style.DIVERGING, interpolation="nearest"
            )
        for axis in list(axes):
            axis.set_visible(False)
        bar = figure.colorbar(drawn, ax=figure.axes, shrink=0.75, aspect=18, pad=0.015)
        bar.set_label(r"$\langle \mu_c, \mu_{c'} \rangle$ / largest entry")
        bar.outline.set_visible(False)
        figure.suptitle(f"Class-mean Gram matrix after training:\n{title(cells)}")
    return figure
