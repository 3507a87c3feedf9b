"""Out of spurious stationary points: lift where classes conflict, descend again, compress back to d.

UFM+ has spurious stationary points (one class holds two coordinates while two others share one), and
imbalance makes them common. Where a coordinate is unused they are saddles, and some class can be lifted into it
downhill (theory, 5.7; `solvers.staircase.lifts`). So the staircase lifts what is in conflict, or the lighter side of
it,
and descends again, as the Riemannian staircase of SE-Sync does for its relaxation. Neither the form of the optimum nor
its value is used: a point without conflict has duality gap zero. Without the ReLU saddles are left along
eigenvectors of the dual matrix (`solvers.staircase.saddles`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int
from scipy.sparse.csgraph import connected_components

from solvers.loop.method import Method, Record, joined
from solvers.loop.slots import Outcome, RunOptions, Start, run_slots
from solvers.loop.stopping import Status
from solvers.staircase.batch_graph import BatchGraph
from solvers.staircase.lifts import lifted, merge_parallel_columns, normalised
from solvers.staircase.saddles import off_saddle
from ufm.model.problem import PADDING, Problem

# A conflict below this share of a point's forces is rounding: exact zeros are the rule.
NO_GAP = 1e-10
# A component moves while its residual is at least this share of its conflict: 1 / STILL_MOVING.
STILL_MOVING = 100.0
# Lifts of a start in which only the points in conflict move, and the largest chance of others to join later.
PATIENCE = 5
# Rows this close may be meant to be equal; rows closer than APART are.
NEAR = 1e-2
APART = 1e-8
MOST_MERGINGS = 8
# A conflict below this may be that of rows which are to be equal and come close too slowly: they are glued first.
FAINT = 1e-6
MOST_JOINING = 0.5


class Ending(NamedTuple):
    """A last descent by another method.

    - due: whether a start needs it where it stands. descend: from where a start stands and the most steps it may take
      to where the method takes it.
    """

    due: Callable[[Outcome], bool]
    descend: Callable[[Outcome, int], Outcome]


@dataclass
class Continuation:
    """One start on the staircase.

    - problem, graph: its own, and who acts on whom there; None where points are not lifted. stream: its seeds.
    - temperatures: of temperatures. max_lifts, schedule: its limits. before: steps that were taken before the first
      descent.
    - descents: outcomes so far. rung: the place of the temperature of the latest on the ladder of temperatures.
    - lifts: how many descents were followed by a lift, a compression or a gluing. gluings: those.
    - has_gap: whether the last one ended with classes in conflict or in too many coordinates.
    - limit: what kept it from going on, had there been steps and seconds left; None if nothing did.
    """

    problem: Problem
    graph: BatchGraph | None
    stream: tuple[int, int]
    temperatures: Sequence[float]
    max_lifts: int
    run_options: RunOptions
    before: int
    descents: list[Outcome] = field(default_factory=list)
    stage: int = 0
    lifts: int = 0
    mergings: int = 0
    has_gap: bool = False
    limit: Status | None = None

    @property
    def last(self) -> Outcome:
        """The latest descent."""
        return self.descents[-1]

    @property
    def steps(self) -> int:
        """Steps of all descents."""
        return sum(descent.steps for descent in self.descents)

    @property
    def status(self) -> Status:
        """The status of the latest descent; settling in conflict is no convergence, nor is one on the way."""
        if self.limit is not None:
            return self.limit
        contributing = self.has_gap and self.last.status is Status.CONVERGED
        return Status.SPURIOUS if contributing else self.last.status

    @property
    def history(self) -> Record:
        """The histories of all descents, iterations counted through."""
        return joined([(descent.history, descent.steps) for descent in self.descents])

    @property
    def steps_left(self) -> int:
        """Steps that the limit leaves it."""
        return self.run_options.max_steps - self.steps - self.before

    @property
    def reached_limit(self) -> Status | None:
        """The limit that it has come to."""
        late = self.last.seconds >= self.run_options.max_seconds
        return Status.OUT_OF_STEPS if self.steps_left <= 0 else Status.OUT_OF_TIME if late else None

    @property
    def goes_on(self) -> bool:
        """Whether another climb may go on from its end."""
        return self.status in (Status.CONVERGED, Status.STALLED, Status.SPURIOUS)

    def after(self, first: Continuation) -> Continuation:
        """This one, with what led to where it began."""
        self.descents[:0] = first.descents
        self.lifts += first.lifts
        return self

    def onward(self) -> Start | None:
        """Where to descend next: mended, or at the next temperature; None if nothing is left to do."""
        if self.last.status not in (Status.CONVERGED, Status.STALLED):
            return None
        H = self.repaired(self.temperatures[self.stage])
        if H is not None and self.lifts < self.max_lifts:
            self.lifts += 1
            return Start(H, self.temperatures[self.stage])
        if self.stage + 1 < len(self.temperatures):
            self.stage += 1
            return Start(self.last.H, self.temperatures[self.stage])
        return None

    def end(self, ending: Ending) -> None:
        """The last descent by another method, and another one from wherever that leads to a saddle."""
        stands = self.last
        while (limit := self.reached_limit) is None:
            last = ending.descend(stands, self.steps_left)
            self.descents.append(last._replace(seconds=stands.seconds + last.seconds))
            H = self.repaired(float(self.problem.tau))
            if H is None or self.lifts == self.max_lifts:
                return
            self.lifts += 1
            stands = self.last._replace(H=H)
        self.limit = limit

    def repaired(self, tau: float) -> Float[np.ndarray, "m w"] | None:
        """Where to go on from the latest descent, lifted, compressed or glued; None if nothing is to be mended.

        tau: the temperature that the descent was at.
        """
        outcome = self.last
        if not self.problem.nonneg:
            H = off_saddle(outcome.H, self.problem, tau)
            self.has_gap = H is not None
            return H
        if self.graph is None:
            return None
        converged, gap_contribution = outcome.status is Status.CONVERGED, outcome.gap_contribution.max()
        fits = gap_contribution <= NO_GAP and not outcome.H[:, self.problem.d :].any()
        if converged and fits:
            self.has_gap = False
        for patient in (True, False):
            if converged and not fits and not (patient and gap_contribution <= FAINT):
                rng = np.random.default_rng([*self.stream, self.lifts])
                H = next_point(outcome, self.problem, self.graph, self.lifts, rng, tau=tau, patient=patient)
                self.has_gap = H is not None
                if H is not None:
                    return H
            if patient and self.mergings < MOST_MERGINGS and self.graph.attracts:
                H = merged(outcome.H, self.problem)
                if H is not None:
                    self.mergings += 1
                    return H
        return None

    def point(self, d: int) -> Float[np.ndarray, "m d"]:
        """Where it ended, in d coordinates: those it uses most, if a limit stopped it in more."""
        H = self.last.H
        return normalised(merge_parallel_columns(H)[:, :d]) if H[:, d:].any() else H[:, :d]


def continuation(
    method: Method,
    problem: Problem | Sequence[Problem],
    starts: Sequence[Start],
    run_options: RunOptions,
    *,
    streams: Sequence[tuple[int, int]],
    temperatures: Sequence[float] = (),
    ending: Ending | None = None,
    max_lifts: int = 50,
    progress: Callable[[int], None],
) -> list[Continuation]:
    """Descend from every start until no point is in conflict, all fits d coordinates and equal rows are equal.

    - problem: of all starts, or one for each start, all of one shape and temperature.
    - streams: seeds of the random numbers of each start.
    - temperatures: temperatures to descend at one after the other, each from where the one before ended; the last is
      that of
      the problem, which is all there is by default.
    - ending: a last descent from where a start ended.

    Starts live in d + spare coordinates from the first; coordinates nobody uses stay exactly zero
    under projected gradient, so a start descends in R^d until it is first lifted.
    """
    of_start = [problem] * len(starts) if isinstance(problem, Problem) else problem
    temperatures = temperatures or (float(of_start[0].tau),)
    width = of_start[0].d + auxiliary_dimensions(of_start[0])
    widening = {id(own): own for own in of_start if width > own.d}
    graphs = {key: BatchGraph.of(own) for key, own in widening.items()}
    continuations = [
        Continuation(own, graphs.get(id(own)), stream, temperatures, max_lifts, run_options, start.steps)
        for own, stream, start in zip(of_start, streams, starts, strict=True)
    ]

    def finished(outcome: Outcome) -> Start | None:
        this = continuations[outcome.key]
        this.descents.append(outcome)
        start = this.onward()
        if start is not None:
            this.limit = this.reached_limit
            if this.limit is None:
                return start
        elif ending is not None and outcome.status in (Status.CONVERGED, Status.STALLED) and ending.due(outcome):
            this.end(ending)
        progress(1)
        return None

    widened = [(i, start._replace(H=_widened(start.H, width), tau=temperatures[0])) for i, start in enumerate(starts)]
    run_slots(method, problem, widened, run_options, finished)
    return continuations


def merged(H: Float[np.ndarray, "m w"], problem: Problem) -> Float[np.ndarray, "m w"] | None:
    """The point with rows that almost coincide made equal, to descend from again; None if they are.

    Rows of a class that share a batch and are within NEAR of each other, by chains, go to their mean, at
    the mean of their norms. What a batch of one class alone ties converges like t^{-1/2}: near equality the
    loss grows with the fourth power of the distance. Rows that are not to be equal part in the descent.
    """
    labels, weight = np.asarray(problem.labels), np.asarray(problem.multiplicity)
    links = [np.zeros((2, 0), dtype=int)]
    for row in np.asarray(problem.batches):
        members = row[row != PADDING]
        pairs = members[np.stack(np.nonzero(np.triu(labels[members, None] == labels[None, members], 1)))]
        links.append(pairs[:, ((H[pairs[0]] - H[pairs[1]]) ** 2).sum(axis=-1) <= NEAR**2])
    rows, columns = np.concatenate(links, axis=1)
    if not len(rows):
        return None
    graph = sp.coo_array((np.ones(len(rows)), (rows, columns)), shape=(len(H), len(H)))
    cluster = connected_components(graph, directed=False)[1]
    total = np.maximum(np.bincount(cluster, weights=weight), 1.0)
    norm = np.bincount(cluster, weights=weight * np.linalg.norm(H, axis=1)) / total
    mean = np.zeros((len(total), H.shape[1]))
    np.add.at(mean, cluster, H * weight[:, None])
    equal = (normalised(mean) * norm[:, None])[cluster]
    return equal if np.abs(equal - H).max() > APART else None


def auxiliary_dimensions(problem: Problem) -> int:
    """Fresh coordinates beside the d asked for; none where frames do not fit (d < k) or are not sought (UFM)."""
    return max(4, problem.k // 4) if problem.bound_is_attained else 0


def next_point(
    outcome: Outcome,
    problem: Problem,
    graph: BatchGraph,
    lifts: int,
    rng: np.random.Generator,
    *,
    tau: float,
    patient: bool = True,
) -> Float[np.ndarray, "m w"] | None:
    """Where to go on from a stationary point; None if nothing is to be mended.

    What is in conflict is lifted (`solvers.staircase.lifts`). Where nothing is, components that take more than d
    coordinates are compressed.

    - lifts: how many came before. After PATIENCE of them the same few points may be circling among the
      same coordinates, which others must leave first: those start anew with a chance that grows.
    - patient: leave components whose conflict is no more than what they still move: the descent stopped for another
      one. If it stopped for none, that conflict is none, and they have to fit d coordinates all the same.
    """
    contributing, wide = [], []
    for members in graph.components:
        strongest = outcome.gap_contribution[members].max()
        moves = NO_GAP < strongest <= STILL_MOVING * outcome.residual
        if strongest > NO_GAP and not moves:
            contributing.append(members)
        elif not (moves and patient) and outcome.H[members, problem.d :].any():
            wide.append(members)
    if contributing:
        return lifted(outcome.H, outcome.gap_contribution > NO_GAP, contributing, graph, problem, tau)
    # Every other time on average: a crowd that starts anew would push the others back to where they were.
    chance = min(MOST_JOINING, max(0, lifts - PATIENCE) / (2 * PATIENCE)) * rng.integers(2)
    H = outcome.H.copy()
    for members in wide:
        merged = merge_parallel_columns(H[members])
        if merged[:, problem.d :].any():
            merged = compressed(merged, graph.attracted[members], problem.d, chance, rng)
        H[members] = merged
    return H if wide else None


def compressed(
    H: Float[np.ndarray, "i w"],
    attracted: Int[np.ndarray, " i"],
    d: int,
    chance: float,
    rng: np.random.Generator,
) -> Float[np.ndarray, "i w"]:
    """From a point without conflict in a wider space: drop what is least used; descent and lifts mend it.

    Columns come in order of decreasing norm. Attraction components start anew with the given chance, and so do those
    that are left with nothing: in a random direction of R^d, the same for all points of one.
    """
    labels = int(attracted.max()) + 1
    joining = rng.uniform(size=labels) < chance
    kept = H * (np.arange(H.shape[1]) < d)
    lost = np.isin(attracted, attracted[~kept.any(axis=1)])
    anew = np.pad(np.abs(rng.standard_normal((labels, d))), ((0, 0), (0, H.shape[1] - d)))
    kept = np.where((joining[attracted] | lost)[:, None], anew[attracted], kept)
    return normalised(kept)


def _widened(U: Float[np.ndarray, "m d"], width: int) -> Float[np.ndarray, "m w"]:
    return np.pad(U, ((0, 0), (0, width - U.shape[1])))
