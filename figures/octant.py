"""The animation: embeddings in d = 3 collapse, stop at a spurious point, and are lifted out of it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.lines import Line2D
from PIL import Image

from figures import style
from figures.path import draw_ball
from figures.style import Figure
from ufm import InvalidInput

# The phases of the path, in this order.
PHASES = ("descent", "columns merged", "lifted")
MARKERS = (("o", 5.0), ("s", 5.5), ("D", 7.5))  # larger for later classes, so that coinciding markers are visible
FASTEST = 0.03  # no sample moves further from one picture to the next, except in the jump of the lift
TURN = 12  # pictures of the rotation between the points before and after columns are merged
TRAIL = 14  # pictures over which the line behind a sample extends
MILLISECONDS, PAUSE, DPI, COLOURS = 60, 2000, 120, 64
SMALLEST_DRAWN = 1e-15


class Scene(NamedTuple):
    """One picture: the samples, the step, and the line of the path (for a rotation: the line at its end)."""

    H: Float[np.ndarray, "n 3"]
    step: int
    line: int
    words: str


def draw(cells: Sequence[xr.Dataset]) -> Figure:
    """The still picture: the start, the spurious point, the lift and the end, of the one cell that `scenes` takes."""
    cell = style.single(cells, "phase")
    every, phase = scenes(cell), cell["phase"].values.tolist()
    turned = phase.index(PHASES[1])
    at = {scene.line: place for place, scene in enumerate(every)}
    chosen = [0, at[turned - 1], at[turned + 1], len(every) - 1]
    with style.applied():
        figure = Figure(figsize=(style.width(style.TWO_COLUMNS), 2.35), layout="constrained")
        for axis, place in zip(figure.subplots(1, len(chosen)), chosen, strict=True):
            scene = every[place]
            _samples(axis, every[: place + 1], cell, trail=len(every))
            axis.set_title(f"{scene.words}\nstep {scene.step}, excess {style.scientific(_excess(cell, scene))}")
        figure.legend(handles=_legend(cell), loc="outside lower center", ncols=3)
    return figure


def animation(cell: xr.Dataset) -> bytes:
    """All scenes as a GIF that loops; it pauses at the spurious point and at the end."""
    every, turned = scenes(cell), cell["phase"].values.tolist().index(PHASES[1])
    rests = {max(i for i, scene in enumerate(every) if scene.line < turned), len(every) - 1}
    pictures = [_picture(cell, every, place) for place in range(len(every))]
    # One palette for all, from a picture that has every colour.
    palette = pictures[-1].quantize(COLOURS, dither=Image.Dither.NONE)
    flat = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    content = io.BytesIO()
    flat[0].save(
        content,
        format="GIF",
        save_all=True,
        append_images=flat[1:],
        duration=[PAUSE if place in rests else MILLISECONDS for place in range(len(flat))],
        loop=0,
        optimize=True,
    )
    return content.getvalue()


def scenes(cell: xr.Dataset) -> list[Scene]:
    """The pictures of a cell with path (line, sample, coordinate) in R^3, step, excess and phase of lines, and label.

    Lines are left out as long as no sample moves further than FASTEST. The rotation from the last line of the descent
    to the line "columns merged", which preserves all inner products, is drawn along great circles, in TURN pictures.
    """
    path, phase = cell["path"].values, cell["phase"].values.tolist()
    if path.shape[2] != 3 or sorted(set(phase), key=PHASES.index) != list(PHASES) or phase.count(PHASES[1]) != 1:
        raise InvalidInput("cell", path.shape, f"give a path in R^3 with the phases {', '.join(PHASES)}")
    turned, steps = phase.index(PHASES[1]), cell["step"].values
    words = {PHASES[0]: "projected gradient", PHASES[2]: "lifted, descending again"}
    retained = [*_spread(path[:turned], 0), *_spread(path[turned + 1 :], turned + 1)]
    shown = [Scene(path[i], int(steps[i]), i, words[phase[i]]) for i in retained if i < turned]
    shown[-1] = shown[-1]._replace(words="stopped at a spurious point")
    for share in np.linspace(0, 1, TURN + 1)[1:]:
        H = _between(path[turned - 1], path[turned], share)
        shown.append(Scene(H, int(steps[turned]), turned, "rotated onto an axis"))
    shown += [Scene(path[i], int(steps[i]), i, words[phase[i]]) for i in retained if i > turned]
    return [*shown[:-1], shown[-1]._replace(words="orthogonal frame")]


def _spread(path: Float[np.ndarray, "t n 3"], first: int) -> list[int]:
    """Numbers of lines at most FASTEST apart, with the first and the last, counted from `first`."""
    chosen = [0]
    for i in range(1, len(path)):
        if i + 1 == len(path) or np.linalg.norm(path[i + 1] - path[chosen[-1]], axis=1).max() > FASTEST:
            chosen.append(i)
    return [first + i for i in chosen]


def _between(start: Float[np.ndarray, "n 3"], end: Float[np.ndarray, "n 3"], share: float) -> Float[np.ndarray, "n 3"]:
    """Unit rows along great circles from start to end, at this fraction of the chord."""
    chord = (1 - share) * start + share * end
    return chord / np.linalg.norm(chord, axis=1, keepdims=True)


def _excess(cell: xr.Dataset, scene: Scene) -> float:
    return max(float(cell["excess"].values[scene.line]), SMALLEST_DRAWN)


def _legend(cell: xr.Dataset) -> list[Line2D]:
    """Classes with their numbers of samples."""
    sizes = np.bincount(cell["label"].values)
    colours = [style.line(c, len(sizes))["color"] for c in range(len(sizes))]
    return [
        Line2D([], [], ls="", marker=MARKERS[c][0], ms=5, color=colours[c], label=f"class {c}: {n}")
        for c, n in enumerate(sizes)
    ]


def _samples(axis: Axes, past: Sequence[Scene], cell: xr.Dataset, trail: int) -> None:
    """The samples of the last scene, with lines behind them."""
    view, labels = draw_ball(axis, True), cell["label"].values
    path = np.stack([scene.H for scene in past[-trail:]]) @ view[:2].T
    jump = np.linalg.norm(np.diff(path, axis=0), axis=2) > 3 * FASTEST
    for i in np.argsort(labels, kind="stable")[::-1]:
        look = {"color": style.line(int(labels[i]), int(labels.max()) + 1)["color"]}
        trail_of_sample = np.insert(path[:, i], np.flatnonzero(jump[:, i]) + 1, np.nan, axis=0)
        axis.plot(*trail_of_sample.T, lw=0.7, alpha=0.45, **look)
        marker, size = MARKERS[labels[i]]
        axis.plot(*path[-1, i], marker=marker, ms=size, mec="white", mew=0.6, **look)


def _picture(cell: xr.Dataset, every: Sequence[Scene], place: int) -> Image.Image:
    """One frame of the animation: the octant, and the excess from the first frame to the last."""
    scene, excess = every[place], [_excess(cell, one) for one in every]
    with style.applied():
        figure = Figure(figsize=(style.ONE_COLUMN, 4.0), dpi=DPI)
        canvas = FigureCanvasAgg(figure)
        axis = figure.add_axes((0.02, 0.34, 0.96, 0.58))
        _samples(axis, every[: place + 1], cell, TRAIL)
        axis.set_title(scene.words)
        figure.legend(handles=_legend(cell), loc="lower center", ncols=3)
        below = figure.add_axes((0.17, 0.17, 0.79, 0.16))
        below.plot(excess, color="0.8", lw=1)
        below.plot(excess[: place + 1], color="0.2")
        below.plot(place, excess[place], "o", color="0.2", ms=4)
        below.set(yscale="log", ylabel="excess", ylim=(SMALLEST_DRAWN / 3, 100), xlim=(0, len(every)), xticks=[])
        below.set_xlabel(f"step {scene.step}: excess {style.scientific(excess[place])}")
        below.set_yticks([1e-12, 1e-6, 1])
        below.minorticks_off()
        canvas.draw()
        return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())
