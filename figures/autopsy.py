"""F19: detection of wrong labels by their contribution to the excess, and by their distance from the class mean."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from figures import style
from figures.settings import common, settings
from figures.style import Figure

JUDGES = {"found_by_blame": "contribution to the excess", "found_by_distance": "distance from the class mean"}


def draw(cells: Sequence[xr.Dataset]) -> Figure:
    """Precision over epochs: of the samples with the largest scores, as many as have wrong labels, the fraction that do
    have one. One panel for each setting; median over seeds, band from the smallest to the largest."""
    groups = settings(cells)
    wide = style.width(style.TWO_COLUMNS)
    columns = min(2 if wide < style.NARROW else 4, len(groups))
    rows = -(-len(groups) // columns)
    with style.applied():
        figure = Figure(figsize=(wide, 0.9 + 1.7 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for axis, (said, group) in zip(axes.flat, groups.items(), strict=False):
            for index, (name, words) in enumerate(JUDGES.items()):
                values = np.stack([cell[f"history_{name}"].values for cell in group])
                epochs = group[0]["history_epoch"].values
                style.draw_band(axis, epochs, values, style.line(index, len(JUDGES)), words, outside=0.0)
            axis.set_ylim(0, 1.02)
            axis.axhline(group[0].attrs["label_noise"], color="0.6", lw=0.6)
            axis.set_title(said)
            axis.set_xlabel("epoch")
        for axis in list(axes.flat)[len(groups) :]:
            axis.set_visible(False)
        for axis in axes[:, 0]:
            axis.set_ylabel("precision of the top scores")
        handles, labels = axes.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, handlelength=3)
        noise = f"{100 * cells[0].attrs['label_noise']:g}% wrong labels"
        figure.suptitle(f"{common(cells)}, {noise}")
    return figure
