"""Figures in one call: of a solution, of your own embedding, or of the cells of a sweep."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import xarray as xr
from jaxtyping import Float

from ufm import InvalidInput, Problem, excess, geometry_metrics, long_tail_imbalance, loss_bound, step_imbalance
from ufm.errors import Embedding, Stack, real_array
from ufm.model.geometry import class_means

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The variables that each figure needs beside the geometry of end points, and where they come from.
FIGURES = {
    "class_mean_gram": (),
    "convergence": ("history_excess",),
    "geometry": ("history_excess",),
    "path": ("history_H",),
}
_NO_FIGURE = ("__init__", "one_problem", "settings", "style")
_COMES_FROM = {
    "history_excess": "it shows a history: give the Solution of solvers.solve",
    "history_H": "it shows the path of H: give a Solution of solvers.solve(..., record_H=True)",
}


@runtime_checkable
class Solved(Protocol):
    """The part of a `solvers.Solution` that figures use."""

    @property
    def problem(self) -> Problem:
        """The problem that was solved."""
        ...

    def embedding(self, start: int) -> np.ndarray:
        """The embedding (n, d) at which a start ended."""
        ...

    def to_xarray(self) -> xr.Dataset:
        """A dataset with dimensions init and record: excess, and the history."""
        ...


def draw(
    name: str,
    solution: Solved | Embedding | Stack | Sequence[xr.Dataset],
    problem: Problem | None = None,
    width: float | None = None,
    *,
    title: bool | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Figure:
    """The figure `figures.NAME`, in any width and font, with or without a title.

    Of one problem there are "class_mean_gram", "convergence", "geometry" and "path", which show every start. Every
    other figure compares several problems and is drawn from their cells; `ufm-gallery` computes and draws those.

    - solution: the result of `solvers.solve`; or, for "class_mean_gram", one H (n, d) or several (inits, n, d), with
      `problem`. "path" needs a solution with `record_H=True`, and d = 2 or 3. Or, for any figure, a sequence of cells:
      datasets of a sweep or of the gallery.
    - width: inches, 2.5 to 20; by default that of the figure (`figures.style.ONE_COLUMN`, 3.4, or `TWO_COLUMNS`, 7).
      Below 5 the panels stand one above the other.
    - title: whether the figure has a title; by default it has one unless `width` is below 5.
    - settings: Matplotlib's, such as {"font.size": 9}; `figures.style.fonts("DejaVu Serif", 9)` gives those of a font.

    Save it with `.savefig("NAME.pdf")`. Raises InvalidInput for an unknown figure, for cells without a variable that
    the figure needs, for a width out of range and for a font that is not installed.
    """
    here = importlib.import_module("figures.style")
    several = _cells(solution)
    named = {path.stem for path in Path(__file__).parent.glob("*.py")} - set(_NO_FIGURE)
    if name not in named or (several is None and name not in FIGURES):
        fix = f"it compares several problems: give their cells, or run ufm-gallery --only {name}"
        if name not in named:
            fix = "no such figure"
        raise InvalidInput("name", name, f"{fix}; of one problem there are {', '.join(FIGURES)}")
    if several is None:
        cell = cell_of(solution, problem)  # type: ignore[arg-type]
        for variable in FIGURES[name]:
            if variable not in cell:
                raise InvalidInput("name", name, _COMES_FROM[variable])
        several = [cell]
    with here.one_column(width), here.custom(settings, title=title):
        try:
            return importlib.import_module(f"figures.{name}").draw(several)
        except KeyError as missing:
            raise InvalidInput("cells", name, f"this figure needs {missing} in its cells; give others") from missing


def _cells(solution: Any) -> list[xr.Dataset] | None:
    """The cells, if `solution` is a sequence of them; else None."""
    if isinstance(solution, xr.Dataset):
        return [solution]
    if isinstance(solution, (list, tuple)) and solution and all(isinstance(cell, xr.Dataset) for cell in solution):
        return list(solution)
    return None


def cell_of(solution: Solved | Embedding | Stack, problem: Problem | None = None) -> xr.Dataset:
    """A solution, or points H of a problem, as the dataset that the figures of a sweep take.

    It holds `Solution.to_xarray`, or the excess of each point, and the geometry of each end point: gram (init, class,
    class_), class_means, delta_gm, beta_nc. Its attrs are those of a sweep. For UFM the frame's loss is no bound and
    nothing is certified here, so lower_bound is the smallest loss of all end points, and lower_bound_is says so.
    """
    if isinstance(solution, Solved):
        if problem is not None:
            raise InvalidInput("problem", type(problem).__name__, "leave it out: a solution holds its problem")
        problem, result = solution.problem, solution.to_xarray()
        points = [solution.embedding(start) for start in range(result.sizes["init"])]
    else:
        points, problem = _checked_points(solution, problem)
        result = xr.Dataset({"excess": ("init", [float(excess(H, problem)) for H in points])})
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
        **{"n": problem.num_samples, "nonneg": int(problem.nonneg), "inits": len(points), "imbalance": _profile(sizes)},
        **{"loss_bound": bound, "lower_bound": bound},
    }
    if not problem.nonneg:
        # The excess of end points: one of the history may be an underestimate (`figures.style.positive`).
        attrs |= {"lower_bound": bound + float(result["excess"].min()), "lower_bound_is": "lowest loss found"}
    return result.assign(data).assign_attrs(attrs)


def _profile(sizes: np.ndarray) -> str:
    """The name of the profile of class sizes, in any order: "equal", "step", "long-tail", or "own" for any other."""
    falling, k, n_min = np.sort(sizes)[::-1], len(sizes), int(sizes.min())
    if k < 2 or n_min < 1:
        return "own"
    if falling[0] == n_min:
        return "equal"
    ratio = float(falling[0] / n_min)
    known = {"step": step_imbalance(k, n_min, ratio), "long-tail": long_tail_imbalance(k, n_min, ratio)}
    return next((name for name, profile in known.items() if np.array_equal(falling, profile)), "own")


def _checked_points(H: Any, problem: Problem | None) -> tuple[list[Float[np.ndarray, "n d"]], Problem]:
    if not isinstance(problem, Problem):
        raise InvalidInput("problem", type(problem).__name__, "give the ufm.Problem of H, or a Solution instead of H")
    points, shape = real_array("H", H, "give a Solution, or a real array (n, d)"), (problem.num_points, problem.d)
    points = points[None] if points.ndim == 2 else points
    if points.ndim != 3 or points.shape[1:] != shape or not len(points):
        raise InvalidInput("H", f"array of shape {np.shape(H)}", f"give one row a sample, shape {shape}, or several")
    if not np.isfinite(points).all():
        raise InvalidInput("H", "array with NaN or infinite entries", "give finite numbers")
    return list(points), problem
