"""F4: class-mean cosines of certified minimisers of UFM against the imbalance, and those of UFM+, which are 0."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from figures import style
from figures.style import Figure
from ufm import InvalidInput

KINDS = ("majority-majority", "majority-minority", "minority-minority")


def draw(cells: Sequence[xr.Dataset]) -> Figure:
    """Class-mean cosines against R: curves for certified minimisers, points for the ends of the solver's starts.

    cells: the one dataset of the gallery; or cells of a sweep over R under STEP imbalance, of UFM, UFM+ or both, which
    give points and no curves. A certified interval is narrower than a line. The curve is interrupted where there is no
    certificate. Thin lines: simplex frames of all k classes (R = 1) and of the k/2 majorities alone (R to infinity).
    """
    data = cells[0] if len(cells) == 1 and "curve" in cells[0] else of_sweep(cells)
    k = data.attrs["k"]
    many = (k + 1) // 2
    with style.applied():
        figure = Figure(figsize=(style.width(style.ONE_COLUMN), 2.9), layout="constrained")
        axis = figure.subplots()
        certified = xr.DataArray(data["certified_gap"].notnull().values, dims="fine_R")
        kinds = [str(kind) for kind in data["kind"].values]
        for index, kind in enumerate(kinds):
            look = style.line(index, len(kinds))
            curve = data["curve"].sel(kind=kind).where(certified)
            axis.plot(data["fine_R"], curve, **look)
            marked = {
                "marker": style.MARKERS[index],
                "color": look["color"],
                "ls": "",
                "ms": 4,
                "mfc": "white",
                "mew": 0.9,
            }
            axis.plot(data["R"], data["ufm"].sel(kind=kind), **marked)
            handle = {**marked, "ls": look["linestyle"] if certified.size else ""}
            if certified.size or data["ufm"].notnull().any():
                axis.plot([], [], label=kind, **handle)
        largest = data["ufm_plus"].max(("init", "kind"))
        if largest.notnull().any():
            axis.plot(data["R"], largest, "D-", color="0.35", ms=2.6, lw=0.9, label="UFM+, all pairs")
        for level, name in (
            (-1 / (k - 1), r"$-1/(k-1)$"),
            (-1 / (many - 1), "$-1/(k/2-1)$" if k % 2 == 0 else "$-1/((k+1)/2-1)$"),
        ):
            axis.axhline(level, color="0.6", lw=0.6, zorder=0)
            axis.annotate(
                name,
                (1.0, level),
                xycoords=("axes fraction", "data"),
                xytext=(-2, -2),  # below: the curves come from above
                textcoords="offset points",
                ha="right",
                va="top",
                fontsize=style.points(6.5),
                color="0.35",
            )
        axis.set_xscale("log")
        axis.set_xlabel("imbalance ratio R")
        axis.set_ylabel("cosine of class means")
        values = [abs(data[name].values).ravel() for name in ("curve", "ufm", "ufm_plus")]
        most = 1.2 * float(np.nanmax(np.concatenate([*values, [1 / (many - 1)]])))
        axis.set_ylim(-most, most)
        figure.suptitle(
            f"UFM (no ReLU), step imbalance\nk = {k}, d = {data.attrs['d']}, $\\tau$ = {data.attrs['tau']:g}"
        )
        figure.legend(loc="outside lower center", ncols=2, handlelength=3)
    return figure


def of_sweep(cells: Sequence[xr.Dataset]) -> xr.Dataset:
    """Cells of a sweep as the dataset for `draw`, without curves: cosines of every start by kind of pair, against R."""
    for cell in cells:
        if "gram" not in cell or cell.attrs["imbalance"] != "step" or cell.attrs["k"] < 4:
            raise InvalidInput("cells", cell.attrs.get("imbalance"), "give cells of STEP imbalance with k of 4 or more")
    for name in ("k", "tau"):
        if len({float(cell.attrs[name]) for cell in cells}) > 1:
            raise InvalidInput("cells", name, f"give cells of one {name}")
    ratios, first = sorted({float(cell.attrs["R"]) for cell in cells}), cells[0].attrs
    starts = max(cell.sizes["init"] for cell in cells)
    cosines = {name: np.full((len(ratios), starts, len(KINDS)), np.nan) for name in ("ufm", "ufm_plus")}
    for cell in cells:
        of_model = cosines["ufm_plus" if cell.attrs["nonneg"] else "ufm"][ratios.index(float(cell.attrs["R"]))]
        of_model[: cell.sizes["init"]] = [_by_kind(gram) for gram in cell["gram"].values]
    return xr.Dataset(
        {"curve": (("fine_R", "kind"), np.empty((0, len(KINDS)))), "certified_gap": ("fine_R", np.empty(0))}
        | {name: (("R", "init", "kind"), values) for name, values in cosines.items()},
        coords={"fine_R": np.empty(0), "R": ratios, "kind": list(KINDS)},
        attrs={name: first[name] for name in ("k", "d", "tau")},
    )


def _by_kind(gram: np.ndarray) -> list[float]:
    """Mean cosine of class means by KINDS; majorities come first."""
    norms = np.sqrt(np.diagonal(gram))
    cosine, many = gram / np.outer(norms, norms), (len(gram) + 1) // 2
    pairs = (cosine[:many, :many], cosine[many:, many:])
    within = [of_kind[np.triu_indices(len(of_kind), 1)].mean() for of_kind in pairs]
    return [within[0], cosine[:many, many:].mean(), within[1]]
