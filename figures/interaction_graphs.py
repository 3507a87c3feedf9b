"""F5: batch interaction graphs, plain and effective, before and after binding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from figures import style
from figures.style import Figure

MARKERS = ("o", "s", "^", "D", "v", "P")
MERGED: dict[str, Any] = {"color": "0.1", "lw": 1.5, "ls": "-"}
CROSS: dict[str, Any] = {"color": "0.55", "lw": 0.7, "ls": (0, (4, 2))}


def draw(cells: Sequence[xr.Dataset]) -> Figure:
    """Rows: the family as drawn, and bound. Columns: pairs of samples that share a batch, and pairs that the loss
    constrains.

    Samples are on a circle, class by class. Solid: pairs of one class; dashed: pairs of two classes.
    """
    data = style.single(cells, "plain")
    families = [str(family) for family in data["family"].values]
    labels = data["label"].values
    k = data.attrs["k"]
    with style.applied():
        width, rows = style.width(style.ONE_COLUMN), len(families)
        height = 4.3 if width < style.NARROW else 0.9 + width / (2 * rows)
        figure = Figure(figsize=(width, height), layout="constrained")
        rows = rows if figure.narrow else 1  # of the figure; a family has two graphs beside each other
        axes = figure.subplots(rows, 2 * len(families) // rows, squeeze=False).reshape(-1, 2)
        for row, family in zip(axes, families, strict=True):
            of_family = data.sel(family=family)
            _graph(row[0], of_family["plain"].values, labels)
            _graph(row[1], of_family["effective"].values, labels)
            claim = "claims unique" if bool(of_family["plain_claims_unique"]) else "claims not unique"
            row[0].set_title(f"{family}: plain graph\n{claim}")
            truth = {"True": "proved unique", "False": "proved not unique", "None": "undetermined"}[
                str(of_family["unique"].values)
            ]
            row[1].set_title(f"{family}: effective graph\n{truth}")
        entries = [Line2D([], [], label="same class", **MERGED), Line2D([], [], label="two classes", **CROSS)]
        entries += [
            Line2D([], [], ls="", marker=MARKERS[c], color=_colour(c, k), ms=5, label=f"class {c}") for c in range(k)
        ]
        figure.legend(handles=entries, loc="outside lower center", ncols=3 if figure.narrow else 8, handlelength=2.2)
        attrs = data.attrs
        figure.suptitle(
            f"n = {attrs['n']}, k = {k}, {attrs['batches']} batches of {attrs['batch_size']}, "
            f"bound with m = {attrs['m']} samples of every class"
        )
    return figure


def _graph(axis: Axes, edges: np.ndarray, labels: np.ndarray) -> None:
    k = int(labels.max()) + 1
    # A gap of half a place between classes.
    place = np.arange(len(labels)) + 0.5 * labels
    angle = np.pi / 2 - 2 * np.pi * place / (len(labels) + 0.5 * k)
    x, y = np.cos(angle), np.sin(angle)
    for i, j in np.argwhere(np.triu(edges, 1)):
        look = MERGED if labels[i] == labels[j] else CROSS
        axis.plot(x[[i, j]], y[[i, j]], zorder=2 if labels[i] == labels[j] else 1, **look)
    for c in range(k):
        of_class = labels == c
        axis.plot(x[of_class], y[of_class], MARKERS[c], color=_colour(c, k), ms=6, mec="white", mew=0.7, zorder=3)
    axis.set_aspect("equal", adjustable="datalim")
    axis.set_xlim(-1.15, 1.15)
    axis.set_ylim(-1.15, 1.15, auto=True)  # as high as the axes are, since x is fixed
    axis.axis("off")


def _colour(c: int, k: int) -> Any:
    return style.line(c, k)["color"]
