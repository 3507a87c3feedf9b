"""The paper's panels for a trained network: geometry of its features and accuracy, over epochs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from figures import style
from figures.style import Figure

PANELS = (
    ("delta_gm", style.DELTA_GM),
    ("beta_nc", style.BETA_NC),
    ("max_cosine", "largest cosine of class means"),
    ("excess", "excess over a frame's loss,\nrelative to it"),
    ("accuracy_balanced", "accuracy, mean over classes"),
    ("accuracy_minority", "accuracy, minorities"),
)
LOGARITHMIC = ("beta_nc", "excess")
SETTING = ("net", "activation", "R", "tau", "batching", "loss")


def settings(cells: Sequence[xr.Dataset]) -> dict[str, list[xr.Dataset]]:
    """The cells grouped by the settings that differ; the seeds of a setting are together."""
    differ = [name for name in SETTING if len({str(cell.attrs[name]) for cell in cells}) > 1]
    groups: dict[str, list[xr.Dataset]] = {}
    for cell in cells:
        parts = [f"{name} = {cell.attrs[name]:g}" if name in ("R", "tau") else str(cell.attrs[name]) for name in differ]
        groups.setdefault(", ".join(parts), []).append(cell)
    return groups


def draw(cells: Sequence[xr.Dataset]) -> Figure:
    """Median over seeds, band from the smallest to the largest. Negative excesses, possible under UFM, are left out."""
    groups = settings(cells)
    with style.applied():
        width = style.width(style.TWO_COLUMNS)
        rows, columns = (3, 2) if width < style.NARROW else (2, 3)
        figure = Figure(figsize=(width, 2.1 * rows), layout="constrained")
        for axis, (name, label) in zip(figure.subplots(rows, columns).flat, PANELS, strict=True):
            for index, (said, group) in enumerate(groups.items()):
                epochs = group[0]["history_epoch"].values
                values = np.stack([cell[f"history_{name}"].values for cell in group])
                if name == "excess":
                    values = values / np.array([[cell.attrs["loss_bound"]] for cell in group])
                if name in LOGARITHMIC:
                    values = np.where(values > style.SMALLEST_DRAWN, values, np.nan)
                style.draw_band(axis, epochs, values, style.line(index, len(groups)), said, outside=0.0)
            if name in LOGARITHMIC:
                axis.set_yscale("log")
            axis.set_xlabel("epoch")
            axis.set_ylabel(label)
        if len(groups) > 1:
            handles, labels = axis.get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside lower center", ncols=min(3, len(groups)), handlelength=2.6)
        figure.suptitle(title(cells))
    return figure


def title(cells: Sequence[xr.Dataset]) -> str:
    """The settings that all cells share, in words."""
    attrs = cells[0].attrs
    shared = [str(attrs[name]) for name in ("net", "activation") if len({c.attrs[name] for c in cells}) == 1]
    sizes = style.span([cell.attrs["n"] for cell in cells])
    named = ", ".join((attrs["dataset"], *shared))
    return f"{named}, {attrs['imbalance']} imbalance, n = {sizes}, {attrs['epochs']} epochs"
