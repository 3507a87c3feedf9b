"""Figures of one problem in one call: what was solved, or a point of your own, as the cell that figures take."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import xarray as xr
from jaxtyping import Float

from ufm import InvalidInput, Problem, excess, geometry_metrics, loss_bound
from ufm.errors import Embedding, Stack, real_array, real_number
from ufm.model.geometry import class_means

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What a cell must hold for the figure, beside the geometry of its end points, and where that comes from.
FIGURES = {
    "class_mean_gram": (),
    "convergence": ("history_excess",),
    "geometry": ("history_excess",),
    "path": ("history_H",),
}
WIDE = ("convergence", "geometry")  # drawn at any width
_COMES_FROM = {
    "history_excess": "it shows a history: give the Solution of solvers.solve",
    "history_H": "it shows the path of H: give a Solution of solvers.solve(..., record_H=True)",
}


@runtime_checkable
class Solved(Protocol):
    """What is drawn of a `solvers.Solution`."""

    @property
    def problem(self) -> Problem:
        """What was solved."""
        ...

    def embedding(self, start: int) -> np.ndarray:
        """(n, d), where the start ended."""
        ...

    def to_xarray(self) -> xr.Dataset:
        """Dimensions init and record: excess, and the history."""
        ...


def draw(
    name: str, solution: Solved | Embedding | Stack, problem: Problem | None = None, width: float | None = None
) -> Figure:
    """The figure `figures.NAME` of one problem, of every start: "class_mean_gram", "convergence", "geometry", "path".

    - solution: what `solvers.solve` returned; or a point H (n, d), or several (inits, n, d), of the problem given:
      enough for "class_mean_gram". "path" takes a solution with `record_H=True`, and d = 2 or 3.
    - width: inches, of "convergence" and "geometry" alone: 7 (`figures.style.TWO_COLUMNS`), or `ONE_COLUMN`, 3.4, in
      which panels stand one above the other and the title is left to the caption.

    Save it with `.savefig("NAME.pdf")`; `figures.style.own({"font.size": 9})` is a context of other settings.
    Raises InvalidInput for other figures, naming what they need, and for a width where there is none to choose.
    """
    if name not in FIGURES:
        others = {path.stem for path in Path(__file__).parent.glob("*.py")} - {"__init__", "one_problem", "style"}
        fix = (
            f"it compares several problems: give their cells to figures.{name}.draw" if name in others else "no figure"
        )
        raise InvalidInput("name", name, f"{fix}; of one problem there are {', '.join(FIGURES)}")
    cell = cell_of(solution, problem)
    for variable in FIGURES[name]:
        if variable not in cell:
            raise InvalidInput("name", name, _COMES_FROM[variable])
    own_width = {}
    if width is not None:
        if name not in WIDE:
            raise InvalidInput("width", width, f"{name} has a width of its own; leave it out")
        own_width = {"width": real_number("width", width, 2.5, 20.0)}
    return importlib.import_module(f"figures.{name}").draw([cell], **own_width)


def cell_of(solution: Solved | Embedding | Stack, problem: Problem | None = None) -> xr.Dataset:
    """A solution, or points H of a problem, as the dataset that the figures of a sweep take.

    `Solution.to_xarray`, or the excess of each point; with the geometry of where each start ended: gram (init, class,
    class_), class_means, delta_gm, beta_nc. attrs as of a sweep. Of UFM, where the frame's loss is no bound and nothing
    is certified, lower_bound is the smallest loss that a start ended at, and lower_bound_is says so.
    """
    if isinstance(solution, Solved):
        if problem is not None:
            raise InvalidInput("problem", type(problem).__name__, "a solution knows its own; leave it out")
        problem, found = solution.problem, solution.to_xarray()
        points = [solution.embedding(start) for start in range(found.sizes["init"])]
    else:
        points, problem = _checked_points(solution, problem)
        found = xr.Dataset({"excess": ("init", [float(excess(H, problem)) for H in points])})
    sizes = np.asarray(problem.class_sizes)
    samples = np.asarray(problem.labels), np.asarray(problem.multiplicity)
    metrics = [geometry_metrics(H, problem.labels, k=problem.k, multiplicity=problem.multiplicity) for H in points]
    data: dict[str, Any] = {
        "gram": (("init", "class", "class_"), np.stack([np.asarray(of_start.gram) for of_start in metrics])),
        "class_means": (("init", "class", "coordinate"), np.stack([class_means(H, *samples) for H in points])),
        "delta_gm": ("init", [float(of_start.delta_gm) for of_start in metrics]),
        "beta_nc": ("init", [float(of_start.beta_nc) for of_start in metrics]),
        "class_sizes": ("class", sizes),
    }
    bound = float(loss_bound(problem))
    attrs = {
        **{"R": float(sizes.max() / sizes.min()), "k": problem.k, "d": problem.d, "tau": float(problem.tau)},
        **{"n": problem.num_samples, "nonneg": int(problem.nonneg), "inits": len(points), "imbalance": "own"},
        **{"loss_bound": bound, "lower_bound": bound},
    }
    if not problem.nonneg:
        # Of end points: a record may underestimate (`figures.style.positive`).
        attrs |= {"lower_bound": bound + float(found["excess"].min()), "lower_bound_is": "lowest loss found"}
    return found.assign(data).assign_attrs(attrs)


def _checked_points(H: Any, problem: Problem | None) -> tuple[list[Float[np.ndarray, "n d"]], Problem]:
    if not isinstance(problem, Problem):
        raise InvalidInput("problem", type(problem).__name__, "give the ufm.Problem of H, or a Solution in its place")
    points, shape = real_array("H", H, "give a Solution, or a real array (n, d)"), (problem.num_points, problem.d)
    points = points[None] if points.ndim == 2 else points
    if points.ndim != 3 or points.shape[1:] != shape or not len(points):
        raise InvalidInput("H", f"array of shape {np.shape(H)}", f"give one row a sample, shape {shape}, or several")
    if not np.isfinite(points).all():
        raise InvalidInput("H", "array with NaN or infinite entries", "give finite numbers")
    return list(points), problem
