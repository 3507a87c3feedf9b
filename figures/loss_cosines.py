"""F12: the geometry of each loss of the family without the ReLU; with the ReLU all have the same."""

from __future__ import annotations

from collections.abc import Sequence

import xarray as xr

from figures import style
from figures.style import Figure

TITLES = {"minority": "two minorities", "majority": "two majorities", "between": "one of each"}


def draw(cells: Sequence[xr.Dataset]) -> Figure:
    """Class-mean cosines against R, with a panel for each kind of pair and a line for each loss without the ReLU. Grey:
    the largest |cosine| over all losses with the ReLU.

    All minimisers are certified; a curve is interrupted where there is no certificate.
    """
    data = style.single(cells, "ufm_plus")
    losses = [str(name) for name in data["loss"].values]
    with style.applied():
        stacked = style.width(style.TWO_COLUMNS) < style.NARROW
        figure, axes = style.panels(len(TITLES), 2.3 if stacked else 3.2, sharey=True)
        for axis, (kind, title) in zip(axes, TITLES.items(), strict=True):
            for index, loss in enumerate(losses):
                look = style.line(index, len(losses))
                axis.plot(data["R"], data["ufm"].sel(loss=loss, kind=kind), label=loss, lw=1.1, **look)
            plus = data["ufm_plus"].sel(kind=kind)
            if bool(plus.notnull().any()):
                extreme = abs(plus).max("loss", skipna=True)
                axis.plot(data["R_plus"], extreme, "D-", color="0.35", ms=2.6, lw=0.9, label="all losses, UFM+")
            axis.set_xscale("log")
            axis.set_xlabel("imbalance ratio R")
            axis.set_title(title)
        for axis in axes if figure.narrow else axes[:1]:
            axis.set_ylabel("cosine of class means")
        attrs = data.attrs
        figure.suptitle(
            f"UFM (no ReLU), step imbalance, k = {attrs['k']}, d = {attrs['d']}, $\\tau$ = {attrs['tau']:g}"
        )
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=5, handlelength=3, columnspacing=1.2)
    return figure
