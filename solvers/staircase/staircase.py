"""The staircase, the default method: collapse onto the orbits, descend, escape, at one temperature after another."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import jax
import numpy as np
from jaxtyping import Float

from solvers.compilation.compiled import compile_seconds
from solvers.loop.method import Record, joined
from solvers.loop.slots import Limits, Outcome, RunOptions, Start, prepare_slots
from solvers.loop.stopping import judged
from solvers.measurement import Measurement, measure_all, prepare_measure
from solvers.methods.newton import MOST_ENTRIES, newton
from solvers.methods.quasi_newton import QuasiNewton
from solvers.parallel.padding import Shape, common_shape, padded
from solvers.solution import Solution
from solvers.staircase.escape import Continuation, Ending, auxiliary_dimensions, continuation
from solvers.staircase.lifts import prepare_lifts
from solvers.staircase.saddles import prepare_off_saddle
from solvers.staircase.tempered import tempered
from solvers.starts.collapse import Collapsed
from solvers.starts.groups import begins_on_orbits, collapsed_starts, prepare_starts, starts_on_orbits
from ufm.errors import LARGEST_COUNT, InvalidInput, whole_number
from ufm.model.orbits import Orbits, orbits
from ufm.model.problem import Problem
from ufm.settings import in_fixed_settings

# The temperature of the first descent of UFM+: curvatures within classes and gradients between classes are of one size
# there. Their ratio is of the order of e^{1/tau} / tau for small tau, and of tau for large tau.
INITIAL_TEMPERATURE = 1.0
# The continuation schedule of other models multiplies the temperature by this factor at each stage.
COOLING = 0.5
# At smaller temperatures the last descent of small problems of UFM is by Newton's method.
COLD = 0.2
# `QuasiNewton.early_exit` of the descents: they stop at this residual if the gap contributions dominate it.
EARLY_EXIT = 1e-5


@dataclass(frozen=True)
class Staircase:
    """Collapse each start onto the orbits, descend there, lift it out of spurious points; at several temperatures.

    From a spurious point it goes up, into an unused coordinate, then down by descent, and back to d dimensions: a
    staircase, as the Riemannian staircase of SE-Sync is for its relaxation (`solvers.staircase.escape`). Every lift
    lowers the loss (theory, 5.7 and 5.23). UFM+ with d >= k is descended at temperature 1 first (`temperatures`).

    - descent: the method of descent on the orbits.
    - max_lifts: the most lifts, compressions and mergings of one start.

    Raises InvalidInput, naming the field, for a value of the wrong kind or range.
    """

    descent: QuasiNewton = field(default_factory=QuasiNewton)
    max_lifts: int = 50

    def __post_init__(self) -> None:
        if not isinstance(self.descent, QuasiNewton):
            raise InvalidInput("descent", self.descent, "give a solvers.QuasiNewton")
        whole_number("max_lifts", self.max_lifts, 0, "give a whole number of at least 0", LARGEST_COUNT)

    @in_fixed_settings
    def solve(
        self,
        problems: Sequence[Problem],
        seeds: Sequence[int],
        inits: int,
        limits: Limits,
        progress: Callable[[int], None],
        *,
        shape: Shape | None = None,
        H0: Float[np.ndarray, "s n d"] | None = None,
    ) -> list[Solution]:
        """Solutions of problems of one d, k, tau and model, in compiled functions that they share.

        1. Form the orbit problem of each (1.3), padded to one shape.
        2. Collapse each start onto its orbit means (5.4, 5.5), unless it is drawn on the orbits.
        3. Where weights or margins differ too much, descend on the tempered problem first (5.16; `_continued`).
        4. Descend and lift, at one temperature after another (5.7, 5.16; `solvers.staircase.escape.continuation`).
        5. Under UFM end by Newton's method, where it can be used (5.18; `_ending`).
        6. Measure the ends on the orbit problem at the problem's temperature.

        shape: that to which orbit problems are padded. H0: feasible starts of the one problem, instead of random ones;
        they are replaced by their orbit means and descend at the problem's temperature alone.

        Raises InvalidInput for a problem without orbits (`ufm.orbits`).
        """
        symmetries = [orbits(problem) for problem in problems]
        shape = common_shape([symmetry.quotient for symmetry in symmetries]) if shape is None else shape
        quotients = [padded(symmetry.quotient, shape) for symmetry in symmetries]
        run_options = limits.run_options(quotients[0], inits * len(problems))
        self._compile(quotients, inits, run_options)
        began, compiling = time.perf_counter(), compile_seconds()
        if H0 is not None:
            collapsed = [_at_orbit_means(H, problems[0], symmetries[0], shape[0]) for H in H0]
        elif all(map(begins_on_orbits, problems, symmetries)):
            collapsed = starts_on_orbits(quotients, symmetries, seeds, inits)
        else:
            collapsed = collapsed_starts(quotients, symmetries, seeds, inits, most=limits.max_steps - 1)
        seconds = (time.perf_counter() - began - (compile_seconds() - compiling)) / len(collapsed)
        streams = [(seed, s) for seed in seeds for s in range(inits)]
        by_newton = all(ends_by_newton(symmetry.quotient) for symmetry in symmetries)
        continuations = self._continued(
            quotients,
            [Start(start.points, steps=start.steps, seconds=seconds) for start in collapsed],
            run_options,
            streams,
            progress,
            temperatures=temperatures(problems[0], end_by_newton=by_newton)
            if H0 is None
            else (float(problems[0].tau),),
            ending=self._ending(symmetries, streams, limits.max_seconds),
            even=H0 is None,
        )
        return [
            _assembled(
                problem, collapsed[first : first + inits], continuations[first : first + inits], symmetry, quotient
            )
            for first, problem, symmetry, quotient in zip(
                range(0, len(continuations), inits), problems, symmetries, quotients, strict=True
            )
        ]

    @in_fixed_settings
    def prepare(self, problem: Problem, inits: int) -> None:
        """Begin to compile, on other threads, the functions that `solve` of such a problem will call; returns at once.

        Raises InvalidInput as `solve`.
        """
        symmetry = orbits(problem)
        quotient = padded(symmetry.quotient, common_shape([symmetry.quotient]))
        self._compile([quotient], inits, Limits().run_options(quotient, inits))
        if not begins_on_orbits(problem, symmetry):
            prepare_starts(quotient, symmetry)

    def _continued(
        self,
        quotients: Sequence[Problem],
        starts: Sequence[Start],
        run_options: RunOptions,
        streams: Sequence[tuple[int, int]],
        progress: Callable[[int], None],
        *,
        temperatures: Sequence[float],
        ending: Ending | None,
        even: bool,
    ) -> list[Continuation]:
        """Run all starts to their ends, problem after problem.

        even: where weights or margins differ too much, first solve the problem with equal ones (`tempered`) at
        INITIAL_TEMPERATURE; the problem itself then needs few steps or none. Only starts whose first continuation
        ended in order (`Continuation.goes_on`) go on to the second one.
        """
        inits = len(starts) // len(quotients)
        of_start = [quotient for quotient in quotients for _ in range(inits)]
        evened = [tempered(quotient) for quotient in quotients] if even else list(quotients)
        far = [i for i, its in enumerate(of_start) if evened[i // inits] is not its]

        def continuations_of(
            which: Sequence[int], problems: Sequence[Problem], temperatures: Sequence[float], reported: bool
        ) -> list[Continuation]:
            if not which:
                return []
            return continuation(
                self._descent(problems[0]),
                problems[0] if len(quotients) == 1 else [problems[i // inits] for i in which],
                [begun[i] for i in which],
                run_options,
                streams=[streams[i] for i in which],
                temperatures=temperatures,
                ending=ending,
                max_lifts=self.max_lifts,
                progress=progress if reported else lambda ended: None,
            )

        begun, ended = list(starts), {}
        for i, first in zip(far, continuations_of(far, evened, (INITIAL_TEMPERATURE,), False), strict=True):
            first.limit = first.limit or first.reached_limit
            begun[i] = Start(
                first.point(quotients[0].d), steps=starts[i].steps + first.steps, seconds=first.last.seconds
            )
            ended[i] = first
        onward = [i for i in range(len(starts)) if i not in ended or ended[i].goes_on]
        for i, last in zip(onward, continuations_of(onward, quotients, temperatures, True), strict=True):
            ended[i] = last.after(ended[i]) if i in ended else last
        progress(len(starts) - len(onward))
        return [ended[i] for i in range(len(starts))]

    def _ending(
        self, symmetries: Sequence[Orbits], streams: Sequence[tuple[int, int]], max_seconds: float
    ) -> Ending | None:
        """Newton's method on the orbit problem without padding, if it can be used; None otherwise.

        It is due at temperatures below COLD, and where rounding of the loss ended a descent before the residual was at
        most the tolerance.
        """
        quotients = [symmetry.quotient for symmetry in symmetries]
        if not all(map(takes_newton, quotients)):
            return None
        always, inits = all(map(ends_by_newton, quotients)), len(streams) // len(quotients)

        def due(last: Outcome) -> bool:
            return always or last.residual > self.descent.tolerance

        def descend(last: Outcome, most: int) -> Outcome:
            quotient, rng = quotients[last.key // inits], np.random.default_rng(streams[last.key])
            H = last.H[: quotient.num_points, : quotient.d]
            left = max_seconds - last.seconds
            end = newton(H, quotient, rng, key=last.key, max_steps=most, max_seconds=left)
            padding = [(0, len(last.H) - len(H)), (0, 0)]
            return end._replace(H=np.pad(end.H, padding), gap_contribution=np.pad(end.gap_contribution, padding[:1]))

        return Ending(due, descend)

    def _descent(self, quotient: Problem) -> QuasiNewton:
        """The method of descent: with an early exit at spurious points where lifts are possible."""
        return replace(self.descent, early_exit=EARLY_EXIT) if auxiliary_dimensions(quotient) > 0 else self.descent

    def _compile(self, quotients: Sequence[Problem], inits: int, run_options: RunOptions) -> None:
        """Begin to compile the functions that are called after the collapse, which goes on meanwhile."""
        auxiliary = auxiliary_dimensions(quotients[0])
        method, width = self._descent(quotients[0]), quotients[0].d + auxiliary
        starts, shared = inits * len(quotients), len(quotients) == 1
        prepare_slots(method, quotients[0], starts, run_options, width=width, shared=shared)
        if auxiliary > 0:
            prepare_lifts(quotients[0], width)
        elif not quotients[0].nonneg:
            prepare_off_saddle(quotients[0])
        prepare_measure(quotients[0])


def _at_orbit_means(H: Float[np.ndarray, "n d"], problem: Problem, symmetry: Orbits, rows: int) -> Collapsed:
    """A start that the caller gives, with its orbits replaced by their means."""
    means = symmetry.mean(H, np.asarray(problem.multiplicity))
    moved = np.linalg.norm(H - means[symmetry.index], axis=1).max()
    return Collapsed.at_once(np.pad(means, ((0, rows - len(means)), (0, 0))), problem, float(moved))


def measured_throughout(
    points: Float[np.ndarray, "s o d"], collapsed: Sequence[Collapsed], quotient: Problem
) -> tuple[Measurement, list[Record]]:
    """The measurements of the ends of one problem's starts, and the histories of their collapses.

    Those histories are of the orbit means, at the problem's tau, with beta_nc of all points. All are measured together,
    because many points take little longer than few.
    """
    noted, means, along = (np.concatenate(part) for part in zip(*(start[3:] for start in collapsed), strict=True))
    spread = np.concatenate([np.zeros((len(points), along.shape[1])), along])
    at = measure_all(np.concatenate([points, means]), quotient, spread=spread)
    lines = jax.tree.map(lambda leaf: leaf[len(points) :], at).lines(noted)
    cuts = np.cumsum([0] + [len(start.noted) for start in collapsed]).tolist()
    histories = [jax.tree.map(lambda column, a=a, b=b: column[a:b], lines) for a, b in pairwise(cuts)]
    return jax.tree.map(lambda leaf: leaf[: len(points)], at), histories


def _assembled(
    problem: Problem,
    collapsed: Sequence[Collapsed],
    continuations: Sequence[Continuation],
    symmetry: Orbits,
    quotient: Problem,
) -> Solution:
    """The solution of one problem from its starts. quotient: the padded orbit problem."""
    points = np.stack([this.point(quotient.d) for this in continuations])
    at, before = measured_throughout(points, collapsed, quotient)
    return Solution(
        problem=problem,
        points=points[:, : len(symmetry)],
        index=symmetry.index,
        status=judged((this.status for this in continuations), np.asarray(at.hidden), problem),
        excess=np.asarray(at.excess),
        residual=at.residual,
        iterations=np.array([start.steps + this.steps for start, this in zip(collapsed, continuations, strict=True)]),
        lifts=np.array([this.lifts for this in continuations]),
        moved=np.array([start.moved for start in collapsed]),
        history=tuple(
            joined([(collapse, start.steps), (this.history, this.steps)])
            for collapse, start, this in zip(before, collapsed, continuations, strict=True)
        ),
    )


def takes_newton(quotient: Problem) -> bool:
    """Whether `newton` can be used for the problem: UFM with few orbits."""
    return not quotient.nonneg and quotient.num_points * (quotient.d + 1) <= MOST_ENTRIES


def ends_by_newton(quotient: Problem) -> bool:
    """Whether the last descent is always by `newton`: if it can be used and the smallest temperature is below COLD."""
    return takes_newton(quotient) and quotient.smallest_temperature < COLD


def temperatures(problem: Problem, *, end_by_newton: bool = False) -> tuple[float, ...]:
    """The continuation schedule (theory, 5.16): temperatures to descend at in turn. The last is the problem's, or COLD.

    - UFM+ with d >= k: INITIAL_TEMPERATURE first. Which points have gap contributions does not depend on tau there
      (5.16 (b), for collapsed classes), so spurious points are left where steps are cheap. The descent at the problem's
      temperature often has nothing left to do, and the result is judged at that temperature alone.
    - UFM+ with d < k: the problem's temperature alone, because descents at larger ones merge classes that do not
      separate again.
    - Others: from INITIAL_TEMPERATURE down to the problem's in factors of COOLING, since minimisers move with tau; only
      down to COLD if `newton` goes on from there.
    """
    tau = float(problem.tau)
    if problem.bound_is_attained:
        return (tau,) if tau == INITIAL_TEMPERATURE else (INITIAL_TEMPERATURE, tau)
    if problem.fewer_dimensions_than_classes:
        return (tau,)
    last = COLD if end_by_newton else tau
    stages = [INITIAL_TEMPERATURE * COOLING**stage for stage in range(64)]
    return (*(stage for stage in stages if stage > last), last)
