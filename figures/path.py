"""The path of H from its start to its end, in the disc for d = 2 and in the ball for d = 3: one line per sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import ScalarFormatter

from figures import style
from figures.style import Figure
from ufm import InvalidInput

MOST_PANELS = 4
MOST_NAMED = 10
# The direction of view: the middle of the octant of UFM+; a little beside it for the whole sphere.
OCTANT, SPHERE = (1.0, 1.0, 1.0), (1.0, 0.55, 0.6)


def draw(cells: Sequence[xr.Dataset]) -> Figure:
    """A panel for each of the first starts of one cell, with history_H (init, record, sample, coordinate).

    Grey: the feasible set, disc or ball, for UFM+ its nonnegative part. d = 2: a second panel shows the angle against
    the step, which separates paths along the circle. d = 3: a parallel projection; the far side is pale.
    """
    cell = style.single(cells, "history_H")
    d = cell.sizes["coordinate"]
    if d not in (2, 3):
        raise InvalidInput("d", d, "the path of H can be drawn for d = 2 and d = 3")
    real = cell["multiplicity"].values > 0
    paths, labels = cell["history_H"].values[:, :, real], cell["label"].values[real]
    k, nonneg, starts = int(cell.attrs["k"]), bool(cell.attrs["nonneg"]), min(len(paths), MOST_PANELS)
    with style.applied():
        width = style.width(style.ONE_COLUMN if starts == 1 else style.TWO_COLUMNS)
        columns = 3 if starts == 1 else 6
        named = _legend(k)
        heights = [min(3.0, (width - 0.3) / starts), 1.2][: 4 - d]
        figure = Figure(figsize=(width, sum(heights) + 0.55 + 0.17 * -(-len(named) // columns)), layout="constrained")
        axes = figure.subplots(len(heights), starts, squeeze=False, gridspec_kw={"height_ratios": heights})
        for s in range(starts):
            (_draw_disc if d == 2 else _draw_sphere)(axes[0, s], paths[s], labels, k, nonneg)
            axes[0, s].set_title(f"{int(cell['history_iteration'][s, -1])} steps")
            if d == 2:
                _draw_angles(axes[1, s], cell["history_iteration"].values[s], paths[s], labels, k, nonneg)
        if d == 2:
            axes[1, 0].set_ylabel("angle [degrees]")
        figure.legend(handles=named, loc="outside lower center", ncols=columns, handlelength=1.8)
        shown = f"\nthe first {starts} of {len(paths)} starts" if len(paths) > starts else ""
        model = (
            f"{'UFM+' if nonneg else 'UFM'}, k = {k}, d = {d}, $\\tau$ = {cell.attrs['tau']:g}, n = {cell.attrs['n']}"
        )
        figure.suptitle(f"Path of H: {model}{shown}")
    return figure


START: dict[str, Any] = {"marker": "o", "ms": 3.4, "mfc": "white", "mew": 0.8}
END: dict[str, Any] = {"marker": "o", "ms": 5, "mec": "white", "mew": 0.6}


def _legend(k: int) -> list[Line2D]:
    """The classes, or some of them from the first to the last, and the two markers."""
    classes = sorted(set(np.linspace(0, k - 1, min(k, MOST_NAMED)).astype(int).tolist()))
    lines = [Line2D([], [], color=_colour(c, k), lw=2, label=f"class {c}") for c in classes]
    ends = {"start": START, "end": END}
    return [*lines, *(Line2D([], [], ls="", color="0.2", label=name, **look) for name, look in ends.items())]


def _colour(c: int, k: int) -> Any:
    return style.line(c, k)["color"]


def _draw_path(axis: Axes, path: Float[np.ndarray, "t 2"], colour: Any, near: np.ndarray | None = None) -> None:
    """The path step by step; pale where it is not near."""
    near = np.ones(len(path), bool) if near is None else near
    joined = np.abs(np.diff(path[:, 1])) < 180  # an angle that passes 180 degrees goes on at -180
    steps = np.stack([path[:-1], path[1:], np.full_like(path[1:], np.nan)], axis=1)
    for side, alpha in ((~near[1:] & joined, 0.35), (near[1:] & joined, 0.9)):
        axis.plot(*steps[side].reshape(-1, 2).T, color=colour, lw=0.9, alpha=alpha, zorder=2)
    axis.plot(*path[0], color=colour, zorder=3, **START)
    axis.plot(*path[-1], color=colour, zorder=4, alpha=0.95 if near[-1] else 0.45, **END)


def _draw_disc(axis: Axes, path: Float[np.ndarray, "t n 2"], labels: np.ndarray, k: int, nonneg: bool) -> None:
    least = 0.0 if nonneg else -1.0
    angle = np.linspace(0, np.pi / 2 if nonneg else 2 * np.pi, 200)
    axis.plot(np.cos(angle), np.sin(angle), color="0.6", lw=0.8, zorder=0)
    for tip in np.eye(2):
        axis.plot(*np.outer(tip, (least, 1)), color="0.8", lw=0.6, zorder=0)
    _name_axes(axis, 1.1 * np.eye(2))
    for i in range(len(labels)):
        _draw_path(axis, path[:, i], _colour(labels[i], k))
    _frame(axis, (1.2 * least - 0.07, 1.2), (1.2 * least - 0.07, 1.2))


def _draw_angles(
    axis: Axes, steps: np.ndarray, path: Float[np.ndarray, "t n 2"], labels: np.ndarray, k: int, nonneg: bool
) -> None:
    """Angles from -180 to 180; a point at the origin has the angle 0."""
    angles = np.rad2deg(np.arctan2(path[:, :, 1], path[:, :, 0]))
    for i in range(len(labels)):
        _draw_path(axis, np.stack([steps.astype(float), angles[:, i]], axis=1), _colour(labels[i], k))
    axis.set_xscale("symlog", linthresh=1, linscale=0.5)
    ticks = [0, 1, 2, 5, 10, 20, 50, 100, 1000, 10_000, 100_000]
    axis.set_xticks([tick for tick in ticks if tick <= steps[-1]])
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.minorticks_off()
    axis.set_xlabel("step")
    axis.set_yticks((0, 45, 90) if nonneg else (-180, -90, 0, 90, 180))


def _draw_sphere(axis: Axes, path: Float[np.ndarray, "t n 3"], labels: np.ndarray, k: int, nonneg: bool) -> None:
    view = draw_ball(axis, nonneg)
    for i in range(len(labels)):
        _draw_path(axis, path[:, i] @ view[:2].T, _colour(labels[i], k), path[:, i] @ view[2] >= -1e-9)


def draw_ball(axis: Axes, nonneg: bool) -> Float[np.ndarray, "3 3"]:
    """Draw the edges of the octant, or the outline of the ball and three great circles. Returns the directions
    right, up and to the eye, as rows."""
    view, angle = _view(nonneg), np.linspace(0, np.pi / 2 if nonneg else 2 * np.pi, 200)
    if not nonneg:
        axis.plot(np.cos(angle), np.sin(angle), color="0.6", lw=0.8, zorder=0)
    for a, b in ((0, 1), (1, 2), (2, 0)):
        circle = np.outer(np.cos(angle), np.eye(3)[a]) + np.outer(np.sin(angle), np.eye(3)[b])
        near = circle @ view[2] >= -1e-9
        for side, grey in ((near, "0.6"), (~near, "0.88")):
            axis.plot(*np.where(side[:, None], circle @ view[:2].T, np.nan).T, color=grey, lw=0.7, zorder=0)
    tips = view[:2].T
    _name_axes(axis, tips + 0.18 * tips / np.linalg.norm(tips, axis=1, keepdims=True))
    _frame(axis, (-1.05, 1.05) if nonneg else (-1.12, 1.12), (-0.67, 1.05) if nonneg else (-1.08, 1.12))
    return view


def _name_axes(axis: Axes, places: np.ndarray) -> None:
    for number, (x, y) in enumerate(places, start=1):
        axis.text(x, y, f"$e_{number}$", ha="center", va="center", color="0.3")


def _frame(axis: Axes, x: tuple[float, float], y: tuple[float, float]) -> None:
    axis.set_xlim(x)
    axis.set_ylim(y)
    axis.set_aspect("equal")
    axis.axis("off")


def _view(nonneg: bool) -> Float[np.ndarray, "3 3"]:
    """Rows: right, up, and towards the eye; e_3 points up."""
    eye = np.array(OCTANT if nonneg else SPHERE)
    eye = eye / np.linalg.norm(eye)
    right = np.cross((0.0, 0.0, 1.0), eye)
    right /= np.linalg.norm(right)
    return np.array([right, np.cross(eye, right), eye])
