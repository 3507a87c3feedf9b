"""F4: the imbalanced geometry of UFM, exact by certificate, and the flat one of UFM+."""

from __future__ import annotations

from collections.abc import Sequence

import xarray as xr

from figures import style
from figures.style import Figure


def draw(cells: Sequence[xr.Dataset]) -> Figure:
    """Class-mean cosines against R: curves of certified minimisers, points where the solver's starts end.

    A certified interval is narrower than a line: where the certificate fails the curve is interrupted.
    Thin lines: simplex frames of all k classes (R = 1) and of the k/2 majorities alone (R to infinity).
    """
    (data,) = cells
    k = data.attrs["k"]
    many = (k + 1) // 2
    with style.applied():
        figure = Figure(figsize=(style.ONE_COLUMN, 2.9), layout="constrained")
        axis = figure.subplots()
        certified = data["certified_gap"].notnull().values
        kinds = [str(kind) for kind in data["kind"].values]
        for index, kind in enumerate(kinds):
            look = style.line(index, len(kinds))
            curve = data["curve"].sel(kind=kind).where(xr.DataArray(certified, dims="fine_R"))
            axis.plot(data["fine_R"], curve, label=kind, **look)
            marked = {
                "marker": style.MARKERS[index],
                "color": look["color"],
                "ls": "",
                "ms": 4,
                "mfc": "white",
                "mew": 0.9,
            }
            axis.plot(data["R"], data["ufm"].sel(kind=kind), **marked)
        plus = data["ufm_plus"].values
        largest = plus.reshape(len(plus), -1).max(axis=1)
        axis.plot(data["R"], largest, "D-", color="0.35", ms=2.6, lw=0.9, label="UFM+, all pairs")
        for level, name in ((-1 / (k - 1), r"$-1/(k-1)$"), (-1 / (many - 1), r"$-1/(k/2-1)$")):
            axis.axhline(level, color="0.6", lw=0.6, zorder=0)
            axis.annotate(
                name,
                (1.0, level),
                xycoords=("axes fraction", "data"),
                xytext=(-2, 2),
                textcoords="offset points",
                ha="right",
                va="bottom",
                fontsize=6.5,
                color="0.35",
            )
        axis.set_xscale("log")
        axis.set_xlabel("imbalance ratio R")
        axis.set_ylabel("cosine of class means")
        axis.set_ylim(-0.3, 0.3)
        axis.set_title(
            f"UFM (no ReLU), step imbalance\nk = {k}, d = {data.attrs['d']}, $\\tau$ = {data.attrs['tau']:g}"
        )
        figure.legend(loc="outside lower center", ncols=2, handlelength=3)
    return figure
