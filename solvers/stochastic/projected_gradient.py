"""Stochastic projected gradient: batches from a sampler, any optax transformation, a schedule of step sizes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int, UInt32

from solvers.compilation.compiled import compile_seconds
from solvers.loop.method import Record
from solvers.loop.slots import Limits
from solvers.loop.stopping import Status
from solvers.measurement import measure_all
from solvers.methods.projected_gradient import Transformation, made
from solvers.parallel import devices
from solvers.solution import Solution
from solvers.stochastic import trajectories
from solvers.stochastic.checkpoint import Checkpoint
from solvers.stochastic.trajectories import Rule, Schedule, Trajectories
from ufm.deprecated import former_method
from ufm.errors import LARGEST_COUNT, InvalidInput, real_number, whole_number
from ufm.model.problem import Problem
from ufm.samplers import Population, Sampler
from ufm.settings import in_fixed_settings

# Entries of all embeddings that one device advances together.
GROUP_ENTRIES = 2**25
# From one writing of the checkpoint to the next.
SECONDS_BETWEEN = 10.0


class Outcomes(NamedTuple):
    """Where the starts ended, before their points are measured; leading axis: start."""

    H: Float[np.ndarray, "s n d"]
    status: tuple[Status, ...]
    steps: Int[np.ndarray, " s"]
    history: tuple[Record, ...]


@dataclass(frozen=True)
class StochasticProjectedGradient:
    """h_i <- P(h_i - eta_t g_i) for the samples i of a random batch, g the gradient of its summed loss; t = 0, 1, ...

    - sampler: one of `ufm.samplers`; every start draws its own batches.
    - schedule: eta_t, a number or a function of t such as those of `optax.schedules`.
    - transformation: None is plain SGD, which is fast: a step touches only the rows of its batch. Otherwise an optax
      transformation such as `optax.sgd(1.0, momentum=0.9)` or `optax.adam(1.0)`, or a function that makes one: its
      update, times eta_t, is added to H. It gets the gradient of all samples, 0 outside the batch, and moves all rows.
    - every: steps from one line of the history to the next.
    - keep: a checkpoint file, written every ten seconds, when a limit is reached, and on Ctrl-C. (Starts that do not
      fit on a device together have further files beside it.) If the file exists, the same call resumes from it, with
      the result that it would have had without a stop, bit for bit; with larger limits it goes further. A damaged file
      counts as no file. The functions in transformation and schedule are assumed to be unchanged.

    The method uses labels, d, tau and loss of the problem. Its batches only measure the end (`Solution.excess`; for the
    full batch in O(n^2)). A line of the history holds the geometry of the class means, and excess and residual of *one
    batch*: the next one, which has not moved the point yet. The cost of a line does not grow with n^2, and these two
    numbers vary from line to line. A start takes all its steps (`Status.ALL_STEPS`), unless a step is not finite or
    max_seconds, read after each line, has passed. Its result depends on its seed and number alone.

    Raises InvalidInput, naming the field.
    """

    sampler: Sampler
    transformation: Transformation | None = None
    schedule: float | Schedule = 0.1
    every: int = 500
    keep: Path | str | None = None

    @in_fixed_settings
    def __post_init__(self) -> None:
        if isinstance(self.sampler, type) or not isinstance(self.sampler, Sampler):
            raise InvalidInput("sampler", self.sampler, "give one of ufm.samplers, such as ufm.samplers.uniform(128)")
        whole_number("every", self.every, 1, "give a whole number of at least 1 step", LARGEST_COUNT)
        _check_schedule(self.schedule)
        if self.transformation is not None:
            _check_descends(self.transformation)
        if self.keep is not None and not isinstance(self.keep, (str, Path)):
            raise InvalidInput("keep", self.keep, "give the path of a file, or leave it out")

    @in_fixed_settings
    def solve(
        self,
        problem: Problem,
        starts: Sequence[Float[np.ndarray, "n d"]],
        seed: int,
        limits: Limits,
        progress: Callable[[int], None] = lambda ended: None,
    ) -> Solution:
        """Run every start to its last step, and measure the ends by the problem's batches.

        Raises InvalidInput for a sampler that cannot draw from the problem's samples, and for a checkpoint of another
        call.
        """
        ended = self.run(problem, starts, seed, limits, progress)
        at = measure_all(ended.H, problem)
        count = len(ended.H)
        return Solution(
            problem=problem,
            points=ended.H,
            index=np.arange(problem.num_points),
            status=ended.status,
            excess=np.asarray(at.excess),
            residual=at.residual,
            iterations=ended.steps,
            lifts=np.zeros(count, int),
            moved=np.zeros(count),
            history=ended.history,
        )

    walk = former_method("walk", "run")

    @in_fixed_settings
    def run(
        self,
        problem: Problem,
        starts: Sequence[Float[np.ndarray, "n d"]],
        seed: int,
        limits: Limits,
        progress: Callable[[int], None] = lambda ended: None,
        until: Callable[[Record], bool] = lambda line: False,
    ) -> Outcomes:
        """Run every start to its last step, without measuring the end: no cost grows with n^2.

        - progress: called with the number of starts that have ended.
        - until: gets the last line (start,) of the starts that are on a device together; if it returns True they stop,
          with the status OUT_OF_TIME.

        Raises InvalidInput for a sampler that cannot draw from the problem's classes, for points that stand for several
        samples, and for a checkpoint of another call.
        """
        if problem.is_expected or not bool((np.asarray(problem.multiplicity) == 1).all()):
            raise InvalidInput("problem", "points that stand for several samples", "give one point a sample")
        population = self.sampler.population(np.asarray(problem.labels))
        count = len(starts)
        schedule, length = (self.schedule, 1.0) if callable(self.schedule) else (None, float(self.schedule))
        rule = Rule(self.sampler, self.transformation, schedule)
        together = int(np.clip(GROUP_ENTRIES // starts[0].size, 1, count)) * devices.count()
        parts = []
        for first in range(0, count, together):
            # Every device gets equally many starts: copies of the last one fill the places that would be empty.
            missing = -min(together, count - first) % devices.count()
            group = [*range(first, min(first + together, count)), *[count - 1] * missing]
            H, keys = np.stack([starts[s] for s in group]), np.stack([_key(seed, s) for s in group])
            call = (problem, self.sampler, self.transformation is None, length, self.every, H, keys)
            checkpoint = None if self.keep is None else _checkpoint(Path(self.keep), first, call)
            parts.append(_Group(rule, length, problem, population, self.every, checkpoint, until).run(H, keys, limits))
            progress(min(together, count - first))
        return _joined(parts, count, limits)


def _key(seed: int, start: int) -> UInt32[np.ndarray, " w"]:
    """The key of the sampler of a start; that of `random_start` is another one."""
    return np.asarray(jax.random.key_data(jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), start), 1)))


def _checkpoint(path: Path, first: int, call: Any) -> Checkpoint:
    return Checkpoint(path if first == 0 else path.with_name(f"{path.name}.{first}"), call)


@dataclass
class _Group:
    """The run of the starts that are on a device together."""

    rule: Rule
    length: float
    problem: Problem
    population: Population
    every: int
    checkpoint: Checkpoint | None
    until: Callable[[Record], bool]

    def run(
        self, H: Float[np.ndarray, "s n d"], keys: UInt32[np.ndarray, "s w"], limits: Limits
    ) -> tuple[Trajectories, Record]:
        """The last states, and the lines of all starts (start, line)."""
        state = trajectories.begin(H, keys, self.population, rule=self.rule)
        lines: list[Record] = []
        if self.checkpoint is not None:
            state, lines = self.checkpoint.read(state)
        spent, saved = 0.0, time.monotonic()
        try:
            while spent < limits.max_seconds and not bool(np.all(state.failed)):
                if lines and self.until(lines[-1]):
                    break
                taken = int(np.max(state.steps))
                steps = min(self.every - taken % self.every, limits.max_steps - taken)
                if steps <= 0:
                    break
                if lines and taken % self.every:  # this line was written because the earlier run came to its limit
                    lines.pop()
                began, compiling = time.perf_counter(), compile_seconds()
                arguments = (self.population, self.problem, np.int32(steps), np.float64(self.length))
                state, line = trajectories.advance(state, *arguments, rule=self.rule)
                lines.append(jax.tree.map(np.asarray, line))
                spent += time.perf_counter() - began - (compile_seconds() - compiling)
                if self.checkpoint is not None and time.monotonic() - saved > SECONDS_BETWEEN:
                    self.checkpoint.write(state, lines)
                    saved = time.monotonic()
        finally:
            if self.checkpoint is not None and lines:
                self.checkpoint.write(state, lines)
        return jax.tree.map(np.asarray, state), jax.tree.map(lambda *parts: np.stack(parts, axis=1), *lines)


def _joined(parts: Sequence[tuple[Trajectories, Record]], count: int, limits: Limits) -> Outcomes:
    """All groups in one, without the copies that fill devices."""
    H, steps, failed = (
        np.concatenate([getattr(state, name) for state, _ in parts])[:count] for name in ("H", "steps", "failed")
    )
    history = [
        jax.tree.map(lambda column, s=s: column[s], lines) for state, lines in parts for s in range(len(state.H))
    ]
    ended = [Status.ALL_STEPS if taken >= limits.max_steps else Status.OUT_OF_TIME for taken in steps]
    status = tuple(Status.NOT_FINITE if bad else end for bad, end in zip(failed, ended, strict=True))
    return Outcomes(H, status, steps.astype(int), tuple(_trimmed(one) for one in history[:count]))


def _trimmed(history: Record) -> Record:
    """The history without the lines after the start stopped."""
    last = int(np.searchsorted(history.iteration, history.iteration[-1]))
    return jax.tree.map(lambda column: column[: last + 1], history)


def _check_schedule(schedule: Any) -> None:
    fix = "give a step size above 0, or a function from the number of a step to its size"
    if not callable(schedule):
        real_number("schedule", schedule, float(np.nextafter(0.0, 1.0)), 1e100, fix)
        return
    try:
        first = np.asarray(schedule(0), dtype=np.float64)
    except Exception:  # a user's function may raise anything
        first = np.asarray(np.nan)
    if first.shape != () or not first >= 0:
        raise InvalidInput("schedule", schedule, fix)


def _check_descends(transformation: Transformation) -> None:
    """Raise InvalidInput unless it is a transformation whose first update does not go up along the gradient."""
    optimiser, ones = made(transformation), np.ones((2, 2))
    update, _ = optimiser.update(ones, optimiser.init(ones), ones)
    if float(np.sum(np.asarray(update))) > 0:
        fix = "its updates go up along the gradient; give a method of descent, such as optax.sgd(1.0, momentum=0.9)"
        raise InvalidInput("transformation", transformation, fix)
