"""`solve`: many starts of one problem, each run to its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float

from solvers.compilation.compiled import compile_seconds
from solvers.loop.method import Method, Record, joined
from solvers.loop.slots import Limits, Outcome, Start, prepare_slots, run_slots
from solvers.loop.stopping import judged
from solvers.measurement import measure_all, prepare_measure
from solvers.methods.accelerated import Accelerated
from solvers.methods.projected_gradient import ProjectedGradient
from solvers.methods.quasi_newton import QuasiNewton
from solvers.parallel.padding import Shape
from solvers.solution import Solution, Timings
from solvers.staircase.staircase import Staircase
from solvers.starts.random_starts import random_starts
from solvers.stochastic.projected_gradient import StochasticProjectedGradient
from ufm.errors import (
    LARGEST_COUNT,
    Embedding,
    InvalidInput,
    Stack,
    checked_seed,
    real_array,
    real_number,
    whole_number,
)
from ufm.model.problem import Problem
from ufm.model.projections import project
from ufm.settings import in_fixed_settings

# Methods by name; all except the staircase run on all samples.
METHODS: dict[str, Staircase | Method] = {
    "staircase": Staircase(),
    "quasi-newton": QuasiNewton(),
    "accelerated": Accelerated(),
    "projected-gradient": ProjectedGradient(),
}


@in_fixed_settings
def solve(
    problem: Problem,
    inits: int | None = None,
    seed: int = 0,
    method: str | Staircase | Method | StochasticProjectedGradient = "staircase",
    *,
    H0: Embedding | Stack | None = None,
    max_steps: int = Limits.max_steps,
    max_seconds: float = Limits.max_seconds,
    record_H: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Solution:
    """Minimise the loss of UFM+ (or UFM) from random starts, sharded over the devices of this process.

    - method: `Staircase(...)`, the default ("staircase"), or a method that descends on all n samples, with exact sums
      and without lifts: `QuasiNewton(...)` ("quasi-newton"), `Accelerated(...)` ("accelerated"),
      `ProjectedGradient(optax transformation)` ("projected-gradient": the reference, optax SGD 0.1 / 0.9 and the
      projection), `Activated(...)` (through an activation, without a projection), or a custom
      `solvers.loop.method.Method`; or `StochasticProjectedGradient(sampler, ...)`, with random batches.
    - inits: the number of starts; 32 by default. seed: start s depends only on (seed, s) and the problem's shape. Its
      result does not depend on the other starts: on one kind of device, in the full batch, to the last bit. With
      several batches the order of sums depends on how many starts run side by side, so that results agree up to the
      effect of rounding on the descent.
    - H0: an initial point (n, d), or several (inits, n, d), which replace random ones; projected on the feasible set.
      The staircase takes the mean of each orbit, and descends at the problem's temperature alone.
    - max_steps: the most steps of one start, which are evaluations of the loss; 20,000 by default.
    - max_seconds: the time limit of one start, compilation excluded. Seconds of starts that run side by side count for
      each of them. A start is stopped soon after the limit (a collapse on all samples is not interrupted), with a
      status that says so. A start that converged before the clock was read is reported as converged.
    - record_H: record the path, `Solution.history[s].H` (lines, n, d): the initial point and the point after every
      step. Not possible for the staircase, whose path leads through other coordinates, nor for random batches.
    - progress: called with 1 whenever a start has ended.

    Raises InvalidInput, naming the argument: for an unknown method, for an H0 of the wrong shape or with entries that
    are not finite, and for counts below 1.
    """
    if not isinstance(problem, Problem):
        raise InvalidInput("problem", type(problem).__name__, "give a ufm.Problem")
    chosen = _checked_method(method)
    initial = None if H0 is None else _checked_starts(H0, problem, inits)
    starts = (32 if inits is None else inits) if initial is None else len(initial)
    limits = _checked_limits(starts, [seed], max_steps, max_seconds)
    if not isinstance(record_H, bool):
        raise InvalidInput("record_H", record_H, "give True or False")
    if progress is not None and not callable(progress):
        raise InvalidInput("progress", progress, "give a function of one number, or leave it out")
    if record_H and not isinstance(chosen, Method):
        fix = "the staircase and random batches record no path of H; give another method, or leave it out"
        raise InvalidInput("record_H", True, fix)
    progress = progress or (lambda ended: None)
    clock = _Clock()
    if isinstance(chosen, Staircase):
        (solution,) = chosen.solve([problem], [seed], starts, limits, progress, H0=initial)
    else:
        points = random_starts(problem, starts, seed) if initial is None else iter(initial)
        if isinstance(chosen, StochasticProjectedGradient):
            solution = chosen.solve(problem, list(points), seed, limits, progress)
        else:
            solution = _on_all_samples(chosen, problem, starts, points, limits, progress, record_H)
    return replace(solution, timings=clock.timings())


@in_fixed_settings
def solve_each(
    problems: Sequence[Problem],
    inits: int = 32,
    seeds: Sequence[int] | None = None,
    method: Staircase | None = None,
    *,
    max_steps: int = Limits.max_steps,
    max_seconds: float = Limits.max_seconds,
    shape: Shape | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Solution]:
    """`solve` by the staircase for many problems at once, in compiled functions that all of them share.

    Solution p is that of solve(problems[p], inits, seeds[p]) up to rounding. The seconds of all are divided evenly
    among the solutions. This is worth it where compiling takes longer than solving: for many batch families of about
    one size.

    - problems: all of one d, k, tau, model and form of loss. Smaller ones are padded to the largest
      (`solvers.parallel.padding`).
    - seeds: one for each problem; 0, 1, 2, ... if None. method: `Staircase()` if None.
    - shape: the shape to which the orbit problems are padded; by default the smallest that holds them all. Calls with
      one shape share compiled code.

    Raises InvalidInput for problems that differ in d, k, tau, model or form of loss, and for counts below 1.
    """
    if not problems or not all(isinstance(problem, Problem) for problem in problems):
        raise InvalidInput("problems", list(problems)[:2], "give at least one ufm.Problem")
    kinds = sorted({(p.d, p.k, float(p.tau), p.nonneg, p.loss.structure) for p in problems})
    if len(kinds) > 1:
        raise InvalidInput("problems", kinds[:2], "give problems of one d, k, tau, model and form of loss")
    seeds = range(len(problems)) if seeds is None else seeds
    if len(seeds) != len(problems):
        raise InvalidInput("seeds", list(seeds), f"give {len(problems)} seeds, one for each problem")
    limits = _checked_limits(inits, seeds, max_steps, max_seconds)
    clock = _Clock()
    progress = progress or (lambda ended: None)
    solutions = (method or Staircase()).solve(problems, seeds, inits, limits, progress, shape=shape)
    timings = clock.timings(len(solutions))
    return [replace(solution, timings=timings) for solution in solutions]


@in_fixed_settings
def prepare(
    problem: Problem, inits: int = 32, method: str | Staircase | Method | StochasticProjectedGradient = "staircase"
) -> None:
    """Begin to compile, on other threads, the functions that `solve` of such a problem will call; returns at once.

    This is worth it while something else runs, such as `solve` of another problem. Nothing is compiled twice.
    """
    chosen = _checked_method(method)
    if isinstance(chosen, Staircase):
        chosen.prepare(problem, inits)
    elif isinstance(chosen, Method):
        prepare_slots(chosen, problem, inits, Limits().run_options(problem, inits), width=problem.d)
        prepare_measure(problem)


def _on_all_samples(
    method: Method,
    problem: Problem,
    inits: int,
    starts: Iterator[Float[np.ndarray, "n d"]],
    limits: Limits,
    progress: Callable[[int], None],
    record_H: bool,
) -> Solution:
    outcomes: dict[int, Outcome] = {}
    begun: dict[int, Record] = {}

    def started() -> Iterator[tuple[int, Start]]:
        for s, H in enumerate(starts):
            if record_H:
                begun[s] = _first_line(H, problem)
            yield s, Start(H)

    def finished(outcome: Outcome) -> None:
        outcomes[outcome.key] = outcome
        progress(1)

    run_slots(method, problem, started(), limits.run_options(problem, inits, keep_H=record_H), finished)
    ended = [outcomes[start] for start in range(inits)]
    points = np.stack([outcome.H for outcome in ended])
    at = measure_all(points, problem)
    return Solution(
        problem=problem,
        points=points,
        index=np.arange(problem.num_points),
        status=judged((outcome.status for outcome in ended), np.asarray(at.hidden), problem),
        excess=np.asarray(at.excess),
        residual=at.residual,
        iterations=np.array([outcome.steps for outcome in ended]),
        lifts=np.zeros(inits, int),
        moved=np.zeros(inits),
        history=tuple(
            joined([(begun[s], 0), (outcome.history, outcome.steps)]) if record_H else outcome.history
            for s, outcome in enumerate(ended)
        ),
    )


def _first_line(H: Float[np.ndarray, "n d"], problem: Problem) -> Record:
    """The line of a history before the first step."""
    return measure_all(H[None], problem).lines(np.zeros(1, np.int32))._replace(H=H[None])


class _Clock:
    """The seconds since this object was made, with those of compilation counted separately."""

    def __init__(self) -> None:
        self._began, self._compiled = time.perf_counter(), compile_seconds()

    def timings(self, among: int = 1) -> Timings:
        """The seconds of compiling and of solving, each divided by `among`."""
        compiling = compile_seconds() - self._compiled
        return Timings(compiling / among, (time.perf_counter() - self._began - compiling) / among)


def _checked_method(method: object) -> Staircase | Method | StochasticProjectedGradient:
    chosen = METHODS.get(method) if isinstance(method, str) else method
    if isinstance(method, optax.GradientTransformation):
        raise InvalidInput("method", "optax transformation", "wrap it: solvers.ProjectedGradient(...)")
    if isinstance(chosen, type) or not isinstance(chosen, (Staircase, Method, StochasticProjectedGradient)):
        raise InvalidInput(
            "method", method, f"choose one of {', '.join(METHODS)}, or give a solvers.Staircase or Method"
        )
    return chosen


def _checked_starts(H0: Embedding | Stack, problem: Problem, inits: int | None) -> Float[np.ndarray, "s n d"]:
    """The initial points that the caller gives, projected on the feasible set."""
    points, shape = real_array("H0", H0, "give a real array (n, d) or (inits, n, d)"), (problem.num_points, problem.d)
    points = points[None] if points.ndim == 2 else points
    if points.ndim != 3 or points.shape[1:] != shape or not len(points):
        raise InvalidInput(
            "H0", f"array of shape {np.shape(H0)}", f"give one row for each sample, shape {shape}, or several"
        )
    if inits is not None and inits != len(points):
        raise InvalidInput("inits", inits, f"the number of starts in H0 is {len(points)}; leave inits out")
    if not np.isfinite(points).all():
        raise InvalidInput("H0", "array with NaN or infinite entries", "give finite numbers")
    return np.stack([np.asarray(project(jnp.asarray(H), problem.nonneg)) for H in points])


def _checked_limits(inits: int, seeds: Sequence[int], max_steps: int, max_seconds: float) -> Limits:
    """The limits of a start. Raises InvalidInput, naming the argument, for a number out of range."""
    for name, value in (("inits", inits), ("max_steps", max_steps)):
        whole_number(name, value, 1, f"give a whole number from 1 to {LARGEST_COUNT}", LARGEST_COUNT)
    for seed in seeds:
        checked_seed(seed)
    least = float(np.nextafter(0.0, 1.0))
    seconds = real_number("max_seconds", max_seconds, least, np.inf, "give a positive number of seconds")
    return Limits(max_steps, seconds)
