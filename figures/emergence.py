"""F14: steps until the frame emerges from random starts, against R, temperature and batch size, with theory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from figures import style
from figures.style import Figure

# The variable of each panel, and its label.
PANELS = {"R": "imbalance ratio R", "tau": r"temperature $\tau$", "batch_size": "batch size"}


def draw(data: Sequence[xr.Dataset]) -> Figure:
    """A panel for each of R, temperature and batch size that varies; the other two have the values of the most cells.

    Markers: medians over the starts whose frame emerged; bars: the middle half; percentages: the fraction of these
    starts, unless it is all. Thin lines: theory for the number of steps until two of the smallest classes separate;
    dotted: until deviations within the slowest class fall by a factor of 1000.
    """
    panels = {over: chosen for over in PANELS if (chosen := _cells(data, over))}
    panels = panels or {"R": list(data)}
    with style.applied():
        width = style.width(style.TWO_COLUMNS if len(panels) > 1 else style.ONE_COLUMN)
        rows = len(panels) if width < style.NARROW else 1
        figure = Figure(figsize=(width, 3.6 if rows == 1 else 1.0 + 2.2 * rows), layout="constrained")
        axes = figure.subplots(rows, len(panels) // rows, sharey=True, squeeze=False).ravel()
        names = list(dict.fromkeys(str(cell.attrs["sampler"]) for cell in data))
        for axis, (over, cells) in zip(axes, panels.items(), strict=True):
            for index, name in enumerate(names):
                of_sampler = sorted(
                    (cell for cell in cells if cell.attrs["sampler"] == name), key=lambda c: c.attrs[over]
                )
                if of_sampler:
                    _line(
                        axis, of_sampler, over, style.line(index, len(names)), style.MARKERS[index % len(style.MARKERS)]
                    )
            axis.set_xscale("log")
            axis.set_yscale("log")
            axis.set_xlabel(PANELS[over])
            ticks = sorted({float(cell.attrs[over]) for cell in cells})
            axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axis.xaxis.minorticks_off()
            axis.set_title(_at(cells, over))
        reached = [cell["steps"].values[np.isfinite(cell["steps"].values)] for cell in data]
        reached = np.concatenate([*reached, [1.0]])
        axes[0].set_ylim(10, 4 * max(float(data[0].attrs["max_steps"]), reached.max()))
        for axis in axes if rows > 1 else axes[:1]:
            axis.set_ylabel("steps until a frame emerges,\n" r"$\Delta_{G_M} < 10^{-3}$")
        first, joint = data[0].attrs, " " if len(panels) > 1 else "\n"
        figure.suptitle(
            f"UFM+, step imbalance, k = {first['k']}, d = {first['d']},{joint}step $\\eta$ = {first['eta']:g}, "
            f"{first['inits']} starts"
        )
        handles = {}
        for axis in axes:
            for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
                handles.setdefault(label, handle)
        handles["theory: smallest classes separate"] = Line2D([], [], color="0.4", lw=0.8)
        handles["theory: deviations fall"] = Line2D([], [], color="0.4", lw=0.8, linestyle=":")
        columns, length = (4, 2.8) if len(panels) > 1 else (2, 2.0)
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns, handlelength=length)
    return figure


def _cells(data: Sequence[xr.Dataset], over: str) -> list[xr.Dataset]:
    """The most cells that differ in this parameter only."""
    fixed = [name for name in PANELS if name != over]

    def at(cell: xr.Dataset) -> tuple[float, ...]:
        # The full batch has no batch size.
        return tuple(float(cell.attrs[name]) for name in fixed if name != "batch_size")

    sizes = {cell.attrs["batch_size"] for cell in data if cell.attrs["batch_size"]}
    best: list[xr.Dataset] = []
    for others in dict.fromkeys(map(at, data)):
        for size in sorted(sizes) or [0]:
            chosen = [cell for cell in data if at(cell) == others]
            if over != "batch_size":
                chosen = [cell for cell in chosen if cell.attrs["batch_size"] in (0, size)]
            else:
                chosen = [cell for cell in chosen if cell.attrs["batch_size"]]
            if len({cell.attrs[over] for cell in chosen}) > 1 and len(chosen) > len(best):
                best = chosen
    return best


def _line(axis: Axes, cells: Sequence[xr.Dataset], over: str, look: dict, marker: str) -> None:
    x = np.array([float(cell.attrs[over]) for cell in cells])
    name = str(cells[0].attrs["sampler"])
    there = [cell["steps"].values[np.isfinite(cell["steps"].values)] for cell in cells]
    middle = np.array([np.median(steps_of_cell) if len(steps_of_cell) else np.nan for steps_of_cell in there])
    ends = np.array(
        [
            np.quantile(steps_of_cell, [0.25, 0.75]) if len(steps_of_cell) else [np.nan, np.nan]
            for steps_of_cell in there
        ]
    ).T
    bars = np.abs(ends - middle)
    axis.errorbar(
        x, middle, yerr=bars, color=look["color"], marker=marker, ms=4, mfc="white", lw=0, elinewidth=0.8, label=name
    )
    for at, steps, steps_of_cell, cell in zip(x, middle, there, cells, strict=True):
        if 0 < len(steps_of_cell) < cell.sizes["init"]:
            share = f"{100 * len(steps_of_cell) / cell.sizes['init']:.0f}%"
            axis.annotate(
                share, (at, steps), (3, 3), textcoords="offset points", fontsize=style.points(6), color=look["color"]
            )
    for column, dashes in (("steps_separate", "-"), ("steps_collapse", ":")):
        predicted = np.array([float(cell.attrs[column]) for cell in cells])
        predicted = np.where(np.isfinite(predicted), predicted, np.nan)
        axis.plot(x, predicted, color=look["color"], linestyle=dashes, lw=0.8)


def _at(cells: Sequence[xr.Dataset], over: str) -> str:
    """The parameters that do not vary in a panel, in words."""
    symbols = {"R": "R", "tau": r"$\tau$", "batch_size": "batches of"}
    said = []
    for name, symbol in symbols.items():
        values = sorted({float(cell.attrs[name]) for cell in cells if cell.attrs[name]})
        if name != over and len(values) == 1:
            said.append(f"{symbol} {values[0]:g}" if name == "batch_size" else f"{symbol} = {values[0]:g}")
    return ", ".join(said)
