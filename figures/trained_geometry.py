"""F21: the geometry of trained features and the certified geometry of their model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from figures import style
from figures.settings import common, settings
from figures.style import Figure

KINDS = ("two majorities", "one of each", "two minorities")
GOALS = {"to_frame": "to the frame (UFM+)", "to_ufm": "to the certified minimiser of UFM"}


def draw(cells: Sequence[xr.Dataset]) -> Figure:
    """Left: cosines of class means for each final activation, over all pairs of classes and seeds; bars: the certified
    minimiser of the activation's model. Right: distances of Gram matrices from both certified geometries, filled for
    the model of the activation."""
    groups = settings(cells)
    with style.applied():
        figure, (left, right) = style.panels(2, 3.0, width_ratios=(1.5, 1))
        for place, group in enumerate(groups.values()):
            for index, kind in enumerate(KINDS):
                at, colour = place + 0.26 * (index - 1), style.line(index, len(KINDS))["color"]
                cosines = np.concatenate([_cosines(cell["gram"].values)[index] for cell in group])
                spread = at + 0.07 * np.linspace(-1, 1, len(cosines))
                left.plot(spread, np.sort(cosines), ".", color=colour, ms=2.5, label=kind if place == 0 else None)
                nonneg = bool(group[0].attrs["nonneg"])
                wanted = 0.0 if nonneg else float(np.mean(_cosines(group[0]["predicted"].values)[index]))
                left.plot([at - 0.12, at + 0.12], [wanted, wanted], color="black", lw=1.2)
            for index, name in enumerate(GOALS):
                values = [float(cell.attrs[name]) for cell in group]
                same_model = bool(group[0].attrs["nonneg"]) is (name == "to_frame")
                shade = style.line(index, len(GOALS))["color"]
                places = place + 0.16 * (2 * index - 1) + 0.05 * np.linspace(-1, 1, len(values))
                right.plot(
                    places,
                    values,
                    style.MARKERS[index],
                    color=shade,
                    mfc=shade if same_model else "none",
                    ms=4,
                    mew=0.8,
                )
        for axis in (left, right):
            axis.set_xticks(range(len(groups)), [said.replace(" ", "\n") for said in groups])
            axis.set_xlim(-0.5, len(groups) - 0.5)
        left.set_ylabel("cosine of two class means")
        right.set_ylabel("distance of Gram matrices")
        most = max(float(cell.attrs[name]) for cell in cells for name in GOALS)
        right.set_ylim(-0.03 * most, 1.35 * most)  # for the legend
        handles, labels = left.get_legend_handles_labels()
        bar = left.plot([], [], color="black", lw=1.2)[0]
        left.legend([*handles, bar], [*labels, "certified"], markerscale=2)
        shades = [style.line(index, len(GOALS))["color"] for index in range(len(GOALS))]
        marks = [
            right.plot([], [], marker, color=shade, ms=4)[0]
            for marker, shade in zip(style.MARKERS, shades, strict=False)
        ]
        right.legend(marks, list(GOALS.values()), loc="upper left")
        figure.suptitle(common(cells))
    return figure


def _cosines(gram: np.ndarray) -> list[np.ndarray]:
    """Cosines of class means, by KINDS; majorities come first."""
    norms = np.sqrt(np.diagonal(gram))
    cosine, many = gram / np.outer(norms, norms), (len(gram) + 1) // 2
    first, last = np.triu_indices(many, 1), np.triu_indices(len(gram) - many, 1)
    return [cosine[:many, :many][first], cosine[:many, many:].ravel(), cosine[many:, many:][last]]
