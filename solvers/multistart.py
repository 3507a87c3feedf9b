"""`solve`: many random starts of one problem, each to its end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
from jaxtyping import Float, Int

from solvers.descent.accelerated import Accelerated
from solvers.descent.collapse import Collapsed
from solvers.descent.escape import Climb, climb, spare_coordinates
from solvers.descent.lanes import Outcome, Schedule, Start, prepare_lanes, run_lanes
from solvers.descent.method import Method, Record, joined
from solvers.descent.newton import MOST_ENTRIES, newton
from solvers.descent.projected_gradient import ProjectedGradient
from solvers.descent.quasi_newton import QuasiNewton
from solvers.descent.random_starts import random_start
from solvers.descent.starts import collapsed_starts
from solvers.descent.status import Status
from solvers.measurement import measure, prepare_measure
from solvers.parallel.compiled import Compiled, compile_seconds
from solvers.parallel.padding import Shape, common_shape, padded
from ufm.errors import InvalidInput, checked_seed, whole_number
from ufm.orbits import Orbits, SharedRows, orbits
from ufm.problem import Problem

# More lanes wait longer for the slowest among them than they save in calls.
MOST_LANES = 8
MOST_STEPS = 20_000
# Counts of starts, steps and lifts are 32-bit.
MOST = 2**31 - 1
ON_ALL_SAMPLES: dict[str, Method] = {
    "quasi-newton": QuasiNewton(),
    "accelerated": Accelerated(),
    "projected-gradient": ProjectedGradient(),
}
METHODS = ("staircase", *ON_ALL_SAMPLES)
# The temperature at which UFM+ is descended first: curvatures within classes and the forces between them are of one
# size there, where they differ by 1/tau e^{1/tau} in the cold and by tau in the heat.
TEMPERATE = 1.0
# Other models follow their minimiser down in temperature, by this factor at a time.
COOLING = 0.5
# Below it the last descent of small problems of UFM is by Newton's method.
COLD = 0.2
# Residual at which a point in conflict is spurious for certain, however slow the rest of the way.
SETTLED = 1e-5


@dataclass(frozen=True)
class Timings:
    """Wall seconds of one `solve`: compile apart from solve."""

    compile: float
    solve: float


@dataclass(frozen=True)
class Solution:
    """Where every start ended. A status is not a proof: see `solvers.verify` and `solvers.certify`.

    - problem: what was solved.
    - points, index: the distinct rows (inits, o, d) of each start, and the row of every sample (n,):
      H[s] = points[s][index]. With the staircase the samples of an orbit share a row.
    - status: what stopped each start.
    - excess: loss minus the bound of Theorems 1 and 2, exact objective, at H.
    - residual: largest `solvers.descent.method.stationarity` over samples, at H.
    - iterations: steps of each start, those of its collapse onto the orbits counted.
    - lifts: how often each start was lifted, compressed or glued by the staircase.
    - moved: how far a sample was moved, at most, when its orbit was replaced by its mean.
    - history: one `Record` of arrays for each start.
    """

    problem: Problem
    points: Float[np.ndarray, "inits o d"]
    index: Int[np.ndarray, " n"]
    status: tuple[Status, ...]
    excess: Float[np.ndarray, " inits"]
    residual: Float[np.ndarray, " inits"]
    iterations: Int[np.ndarray, " inits"]
    lifts: Int[np.ndarray, " inits"]
    moved: Float[np.ndarray, " inits"]
    history: tuple[Record, ...]
    timings: Timings

    @property
    def H(self) -> Float[np.ndarray, "inits n d"]:
        """All embeddings, (inits, n, d): a new array each time. For one start, `embedding(s)` needs less."""
        return self.points[:, self.index]

    def embedding(self, start: int) -> Float[np.ndarray, "n d"]:
        """The embedding of one start."""
        return self.points[start][self.index]

    def shared_rows(self, start: int) -> SharedRows:
        """The same by its distinct rows: `solvers.certify` then takes no longer for a large n."""
        return SharedRows(self.points[start], self.index)


def solve(
    problem: Problem,
    inits: int = 32,
    seed: int = 0,
    method: str | Method = "staircase",
    *,
    max_steps: int = MOST_STEPS,
    max_seconds: float = math.inf,
    max_lifts: int = 50,
    progress: Callable[[int], None] | None = None,
) -> Solution:
    """Minimise the loss of UFM+ (or UFM) from random starts, shared out over the devices of this process.

    - method: "staircase" (default) collapses each start onto the orbits, descends by `QuasiNewton`, climbs out of
      spurious points, and does so at a temperature of 1 before the asked one (`ladder`); "quasi-newton" runs that
      descent on all n samples, exact sums throughout, no lifts; "accelerated" a first-order method likewise;
      "projected-gradient" is the reference, optax SGD 0.1 / 0.9 and the projection. Any `solvers.descent.method.Method`
      runs as those three do.
    - seed, inits: start s depends on (seed, s) and the problem's shape alone.
    - max_steps: all steps of one start, evaluations of the loss; 20,000 by default. max_lifts: of one start.
    - max_seconds: of one start, compilation apart. A start shares its seconds with those that run beside it; it is
      stopped where it then is, soon after (a collapse on all samples is not interrupted), with a status that says so.
    - progress: called with 1 whenever a start has ended.

    Raises InvalidInput for a method that does not exist, or counts below 1.
    """
    limits = _checked_limits(inits, [seed], max_steps, max_seconds, max_lifts)
    if not isinstance(problem, Problem):
        raise InvalidInput("problem", type(problem).__name__, "give a ufm.Problem")
    if method not in METHODS if isinstance(method, str) else isinstance(method, type) or not isinstance(method, Method):
        raise InvalidInput(
            "method", method, f"choose one of {', '.join(METHODS)}, or give a solvers.descent.method.Method"
        )
    tell = progress or (lambda ended: None)
    began, compiled = time.perf_counter(), compile_seconds()
    if method == "staircase":
        (parts,) = _by_staircase([problem], [seed], inits, limits, max_lifts, tell)
    else:
        chosen = ON_ALL_SAMPLES[method] if isinstance(method, str) else method
        parts = _on_all_samples(chosen, problem, inits, seed, limits, tell)
    compiling = compile_seconds() - compiled
    elapsed = time.perf_counter() - began
    return parts(problem=problem, timings=Timings(compiling, elapsed - compiling))


def prepare(problem: Problem, inits: int = 32, method: str = "staircase") -> None:
    """Begin to compile, on other threads, what `solve` of such a problem will call; returns at once.

    Worth it while something else runs, such as the solving of another problem. What is already compiled is not again.
    """
    limits = Limits(MOST_STEPS, math.inf)
    if method == "staircase":
        quotient = orbits(problem).quotient
        quotient = padded(quotient, common_shape([quotient]))
        _prepare_climb([quotient], inits, limits.schedule(lanes(quotient, inits)))
    elif method in ON_ALL_SAMPLES:
        schedule = limits.schedule(lanes(problem, inits))
        prepare_lanes(ON_ALL_SAMPLES[method], problem, inits, schedule, width=problem.d)
        prepare_measure(problem)


def solve_each(
    problems: Sequence[Problem],
    inits: int = 32,
    seeds: Sequence[int] | None = None,
    *,
    max_steps: int = MOST_STEPS,
    max_seconds: float = math.inf,
    max_lifts: int = 50,
    shape: Shape | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Solution]:
    """`solve` by the staircase for many problems at once, in compiled functions that all of them share.

    Solution p is that of solve(problems[p], inits, seeds[p]) up to rounding. The seconds of all are
    divided evenly among the solutions. Worth it where compiling, not solving, takes the time: many
    batch families of about one size.

    - problems: of one d, k, tau and model. Smaller ones are padded to the largest (`solvers.parallel.padding`).
    - seeds: one a problem; 0, 1, 2, ... if None.
    - shape: what to pad the orbit problems to; by default the smallest that holds them all. Calls with one
      shape share what is compiled.

    Raises InvalidInput for problems that differ in d, k, tau or model, or counts below 1.
    """
    if not problems or not all(isinstance(problem, Problem) for problem in problems):
        raise InvalidInput("problems", list(problems)[:2], "give at least one ufm.Problem")
    kinds = sorted({(p.d, p.k, float(p.tau), p.nonneg) for p in problems})
    if len(kinds) > 1:
        raise InvalidInput("problems", kinds[:2], "give problems of one d, k, tau and model")
    seeds = range(len(problems)) if seeds is None else seeds
    if len(seeds) != len(problems):
        raise InvalidInput("seeds", list(seeds), f"give {len(problems)} seeds, one a problem")
    limits = _checked_limits(inits, seeds, max_steps, max_seconds, max_lifts)
    began, compiled = time.perf_counter(), compile_seconds()
    tell = progress or (lambda ended: None)
    parts = _by_staircase(problems, seeds, inits, limits, max_lifts, tell, shape)
    compiling = compile_seconds() - compiled
    share = Timings(compiling / len(parts), (time.perf_counter() - began - compiling) / len(parts))
    return [part(problem=problem, timings=share) for part, problem in zip(parts, problems, strict=True)]


def _by_staircase(
    problems: Sequence[Problem],
    seeds: Sequence[int],
    inits: int,
    limits: Limits,
    max_lifts: int,
    tell: Callable[[int], None],
    shape: Shape | None = None,
) -> list[Callable[..., Solution]]:
    symmetries = [orbits(problem) for problem in problems]
    shape = common_shape([symmetry.quotient for symmetry in symmetries]) if shape is None else shape
    quotients = [padded(symmetry.quotient, shape) for symmetry in symmetries]
    schedule = limits.schedule(lanes(quotients[0], inits * len(problems)))
    _prepare_climb(quotients, inits, schedule)
    began, compiling = time.perf_counter(), compile_seconds()
    collapsed = collapsed_starts(quotients, symmetries, seeds, inits, most=limits.max_steps - 1)
    seconds = (time.perf_counter() - began - (compile_seconds() - compiling)) / len(collapsed)
    streams = [(seed, s) for seed in seeds for s in range(inits)]
    by_newton = all(ends_by_newton(symmetry.quotient) for symmetry in symmetries)

    def ending(index: int, last: Outcome, most: int) -> Outcome:
        """The last descent of a start, on the orbits without padding."""
        quotient = symmetries[index // inits].quotient
        rng = np.random.default_rng(streams[index])
        own = last.H[: quotient.num_points, : quotient.d]
        left = limits.max_seconds - last.seconds
        end = newton(own, quotient, rng, key=index, max_steps=most, max_seconds=left)
        padding = [(0, len(last.H) - len(own)), (0, 0)]
        return end._replace(H=np.pad(end.H, padding), conflict=np.pad(end.conflict, padding[:1]))

    climbs = climb(
        _of_orbits(quotients[0]),
        quotients[0] if len(quotients) == 1 else [quotient for quotient in quotients for _ in range(inits)],
        [Start(np.asarray(start.points), steps=int(start.steps), seconds=seconds) for start in collapsed],
        schedule,
        streams=streams,
        ladder=ladder(problems[0], end_by_newton=by_newton),
        ending=ending if by_newton else None,
        max_lifts=max_lifts,
        progress=tell,
    )
    return [
        _assembled(collapsed[first : first + inits], climbs[first : first + inits], symmetry, quotient)
        for first, symmetry, quotient in zip(range(0, len(climbs), inits), symmetries, quotients, strict=True)
    ]


def _of_orbits(quotient: Problem) -> QuasiNewton:
    return QuasiNewton(settled=SETTLED if spare_coordinates(quotient) > 0 else 0.0)


def _prepare_climb(quotients: Sequence[Problem], inits: int, schedule: Schedule) -> None:
    """Compile, while starts collapse, what they go on to."""
    method, width = _of_orbits(quotients[0]), quotients[0].d + spare_coordinates(quotients[0])
    starts, shared = inits * len(quotients), len(quotients) == 1
    prepare_lanes(method, quotients[0], starts, schedule, width=width, shared=shared)
    prepare_measure(quotients[0])


def _assembled(
    collapsed: Sequence[Collapsed], climbs: Sequence[Climb], symmetry: Orbits, quotient: Problem
) -> Callable[..., Solution]:
    """The solution of one problem from its starts; quotient: padded."""
    points = np.stack([this.point(quotient.d) for this in climbs])
    excess, residual = _exactly(points, quotient)
    return partial(
        Solution,
        points=points[:, : len(symmetry)],
        index=symmetry.index,
        status=tuple(this.status for this in climbs),
        excess=excess,
        residual=residual,
        iterations=np.array([int(start.steps) + this.steps for start, this in zip(collapsed, climbs, strict=True)]),
        lifts=np.array([this.lifts for this in climbs]),
        moved=np.array([float(start.moved) for start in collapsed]),
        history=tuple(
            joined([(start.history, int(start.steps)), (this.history, this.steps)])
            for start, this in zip(collapsed, climbs, strict=True)
        ),
    )


def _on_all_samples(
    method: Method, problem: Problem, inits: int, seed: int, limits: Limits, tell: Callable[[int], None]
) -> Callable[..., Solution]:
    key = jax.random.key_data(jax.random.key(seed))
    starts = (
        (s, _start(key, np.int32(s), rows=problem.num_points, d=problem.d, nonneg=problem.nonneg)) for s in range(inits)
    )
    outcomes: dict[int, Outcome] = {}

    def finished(outcome: Outcome) -> None:
        outcomes[outcome.key] = outcome
        tell(1)

    schedule = limits.schedule(lanes(problem, inits))
    run_lanes(method, problem, ((s, Start(np.asarray(H))) for s, H in starts), schedule, finished)
    ended = [outcomes[start] for start in range(inits)]
    points = np.stack([outcome.H for outcome in ended])
    excess, residual = _exactly(points, problem)
    return partial(
        Solution,
        points=points,
        index=np.arange(problem.num_points),
        status=tuple(outcome.status for outcome in ended),
        excess=excess,
        residual=residual,
        iterations=np.array([outcome.steps for outcome in ended]),
        lifts=np.zeros(inits, int),
        moved=np.zeros(inits),
        history=tuple(outcome.history for outcome in ended),
    )


def ends_by_newton(quotient: Problem) -> bool:
    """Whether the last descent is `newton`: cold UFM with few orbits."""
    entries = quotient.num_points * (quotient.d + 1)
    return not quotient.nonneg and float(quotient.tau) < COLD and entries <= MOST_ENTRIES


def ladder(problem: Problem, *, end_by_newton: bool = False) -> tuple[float, ...]:
    """The temperatures at which the staircase descends, one after the other; the last is the asked one.

    UFM+ with d >= k: TEMPERATE first. Who conflicts does not depend on tau there, so that spurious points are left
    where steps are cheap, and the asked temperature often finds nothing to do; what it finds is judged at it alone.
    Other models: from TEMPERATE down to a colder one in steps of COOLING, since minimisers move with tau; down to COLD
    if `newton` goes on from there.
    """
    tau = float(problem.tau)
    if problem.bound_is_attained:
        return (tau,) if tau == TEMPERATE else (TEMPERATE, tau)
    last = COLD if end_by_newton else tau
    rungs = [TEMPERATE * COOLING**rung for rung in range(64)]
    return (*(rung for rung in rungs if rung > last), last)


@dataclass(frozen=True)
class Limits:
    """Of one start: steps, and seconds on a lane."""

    max_steps: int
    max_seconds: float

    def schedule(self, width: int) -> Schedule:
        """`width` lanes a device; the clock is read more often where it limits."""
        records = Schedule.records if math.isinf(self.max_seconds) else 1
        return Schedule(width, records=records, max_steps=self.max_steps, max_seconds=self.max_seconds)


def _checked_limits(inits: int, seeds: Sequence[int], max_steps: int, max_seconds: float, max_lifts: int) -> Limits:
    """The limits of a start. Raises InvalidInput, naming the argument, for what is no number of that."""
    for name, value, least in (("inits", inits, 1), ("max_steps", max_steps, 1), ("max_lifts", max_lifts, 0)):
        whole_number(name, value, least, f"give a whole number of at least {least}", MOST)
    for seed in seeds:
        checked_seed(seed)
    if isinstance(max_seconds, bool) or not isinstance(max_seconds, (int, float)) or not max_seconds > 0:
        raise InvalidInput("max_seconds", max_seconds, "give a positive number of seconds")
    return Limits(max_steps, float(max_seconds))


def lanes(problem: Problem, inits: int) -> int:
    """How many starts run at once on a device: few enough that their temporaries stay small."""
    slots = problem.batches.shape[1]
    return int(np.clip(2**22 // (slots * slots + problem.num_points * problem.d), 1, min(inits, MOST_LANES)))


_start = Compiled(random_start)


def _exactly(
    points: Float[np.ndarray, "inits o d"], problem: Problem
) -> tuple[Float[np.ndarray, " inits"], Float[np.ndarray, " inits"]]:
    measured = [measure(H, problem) for H in points]
    return np.array([float(at.excess) for at in measured]), np.array([at.residual for at in measured])
