"""The way out of spurious stationary points: lift classes with gap contributions, descend again, compress back to d.

UFM+ has spurious stationary points (for example, one class holds two coordinates while two others share one), and
imbalance makes them common. If a coordinate is unused, such a point is a saddle: some class can be lifted into that
coordinate downhill (theory, 5.7; `solvers.staircase.lifts`). So the staircase lifts points with gap contributions, or
the lighter ones of those that overlap, and descends again, as the Riemannian staircase of SE-Sync (Rosen et al., 2019)
does for its relaxation. It uses neither the form of the optimum nor its value: where all gap contributions are 0, the
duality gap is 0 (4.9). Without the ReLU, saddles are left along eigenvectors of the dual matrix (5.23;
`solvers.staircase.saddles`).
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

# Relative gap contributions below this are rounding: usually they are exactly 0.
NO_GAP = 1e-10
# A batch component is still moving if its largest gap contribution is at most this times the residual.
STILL_MOVING = 100.0
# So many lifts move only points with gap contributions; later others start anew too, with at most this probability.
PATIENCE = 5
MOST_JOINING = 0.5
# Rows within NEAR of each other may be equal at the minimiser; rows within APART count as equal.
NEAR = 1e-2
APART = 1e-8
MOST_MERGINGS = 8
# Gap contributions below this may come from rows that become equal too slowly (5.9): those rows are merged first.
SMALL_GAP = 1e-6


class Ending(NamedTuple):
    """A last descent by another method.

    - due: whether a start needs it after an outcome.
    - descend: from an outcome and a step limit to the outcome of the other method.
    """

    due: Callable[[Outcome], bool]
    descend: Callable[[Outcome, int], Outcome]


@dataclass
class Continuation:
    """One start on the staircase.

    - problem: that of the start. graph: its `BatchGraph`; None where points are not lifted. stream: its random seeds.
    - temperatures: the continuation schedule. stage: the place of the latest descent in it.
    - max_lifts, run_options: limits. before: steps that were taken before the first descent.
    - descents: the outcomes so far. lifts: how many of them were followed by a lift, a compression or a merging of
      rows. mergings: how many by a merging.
    - has_gap: whether the latest descent ended at a point that needed a lift or a compression.
    - limit: the limit that stopped the start; None if it stopped by itself.
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
        """The steps of all descents."""
        return sum(descent.steps for descent in self.descents)

    @property
    def status(self) -> Status:
        """The limit, if one stopped the start; SPURIOUS if it converged with `has_gap`; else that of the descent."""
        if self.limit is not None:
            return self.limit
        contributing = self.has_gap and self.last.status is Status.CONVERGED
        return Status.SPURIOUS if contributing else self.last.status

    @property
    def history(self) -> Record:
        """One history of all descents, with iterations counted from the first."""
        return joined([(descent.history, descent.steps) for descent in self.descents])

    @property
    def steps_left(self) -> int:
        """The steps that remain before the limit."""
        return self.run_options.max_steps - self.steps - self.before

    @property
    def reached_limit(self) -> Status | None:
        """The limit that has been reached, if any."""
        late = self.last.seconds >= self.run_options.max_seconds
        return Status.OUT_OF_STEPS if self.steps_left <= 0 else Status.OUT_OF_TIME if late else None

    @property
    def goes_on(self) -> bool:
        """Whether another continuation may go on from its end."""
        return self.status in (Status.CONVERGED, Status.STALLED, Status.SPURIOUS)

    def after(self, first: Continuation) -> Continuation:
        """This continuation with the descents and lifts of the one before it, `first`, in front."""
        self.descents[:0] = first.descents
        self.lifts += first.lifts
        return self

    def onward(self) -> Start | None:
        """The start of the next descent: after a repair, or at the next temperature; None if neither is left."""
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
        """Descend by the other method; while that ends at a point to repair, repair it and descend again."""
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
        """The latest point after a lift, a compression or a merging of rows; None if it needs none of them.

        - UFM: the point off the saddle, if it is one (`off_saddle`, 5.23).
        - UFM+, in order: lift or compress (`next_point`) unless all gap contributions are below SMALL_GAP; merge nearly
          equal rows (`merged`, 5.9); lift or compress in any case.

        tau: the temperature of the descent.
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
            if converged and not fits and not (patient and gap_contribution <= SMALL_GAP):
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
        """The last point in d coordinates: the d largest, if a limit stopped the start in more."""
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
    """Run every start on the staircase: descend, repair, descend again, at one temperature after another.

    1. Widen each start by the auxiliary dimensions, in which all its rows are 0 (5.6), and descend at the first
       temperature (`run_slots`).
    2. Whenever a descent ends, repair its point (`Continuation.repaired`) and descend from there; if it needs none,
       descend at the next temperature from where it is (`Continuation.onward`).
    3. At the last temperature a start without repair ends: gap contributions are 0 up to NO_GAP or no lift lowers
       the loss, the point fits d coordinates, and nearly equal rows are equal. `ending` then descends once more.

    - problem: one for all starts, or one for each start, all of one shape and temperature.
    - streams: the seeds of the random numbers of each start.
    - temperatures: the continuation schedule; by default the problem's temperature alone.
    - ending: a last descent by another method.
    - progress: called with 1 whenever a start has ended.

    Coordinates in which all rows are 0 stay exactly 0 (5.6), so a start descends in R^d until its first lift.
    """
    of_start = [problem] * len(starts) if isinstance(problem, Problem) else problem
    temperatures = temperatures or (float(of_start[0].tau),)
    width = of_start[0].d + auxiliary_dimensions(of_start[0])
    widening = {id(each): each for each in of_start if width > each.d}
    graphs = {key: BatchGraph.of(each) for key, each in widening.items()}
    continuations = [
        Continuation(each, graphs.get(id(each)), stream, temperatures, max_lifts, run_options, start.steps)
        for each, stream, start in zip(of_start, streams, starts, strict=True)
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
    """The point with nearly equal rows made equal, to descend from again; None if they are equal already (5.9).

    Rows of a class that share a batch and are within NEAR of each other, by chains, are replaced by their mean, scaled
    to the mean of their norms. Rows that only a batch of one class ties approach each other like t^{-1/2}, because near
    equality the loss grows with the fourth power of the distance. Rows that should differ separate in the descent.
    """
    labels, weight = np.asarray(problem.labels), np.asarray(problem.multiplicity)
    links = [np.zeros((2, 0), dtype=int)]
    for batch in np.asarray(problem.batches):
        members = batch[batch != PADDING]
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
    """How many coordinates are added to the d of the problem: 0 where frames do not fit (d < k) and for UFM."""
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
    """The point to descend from after a stationary point; None if it needs no lift and no compression.

    1. Sort the batch components: those with gap contributions above NO_GAP that are not still moving are to be lifted;
       of the others, those that use more than d coordinates are to be compressed.
    2. If any is to be lifted, lift (`lifted`) and return.
    3. Otherwise compress (`compressed`) what is to be compressed.

    - lifts: how many came before. After PATIENCE of them the same few points may be circling among the same
      coordinates, which others must leave first: in a compression those start anew, with a growing probability.
    - patient: leave out components that are still moving, because the descent stopped for another one. Otherwise their
      gap contributions count as 0, and they have to fit d coordinates too.
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
    # Only every other time on average: many points that start anew at once would push the others back.
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
    """The point cut to its first d coordinates, which are its largest; the descents and lifts that follow repair it.

    The columns of H come in order of decreasing norm. Each attraction component starts anew with the probability
    `chance`, and so does one in which some row becomes 0: in a random direction of R^d, one for all its points.
    """
    labels = int(attracted.max()) + 1
    joining = rng.uniform(size=labels) < chance
    cut = H * (np.arange(H.shape[1]) < d)
    lost = np.isin(attracted, attracted[~cut.any(axis=1)])
    anew = np.pad(np.abs(rng.standard_normal((labels, d))), ((0, 0), (0, H.shape[1] - d)))
    return normalised(np.where((joining[attracted] | lost)[:, None], anew[attracted], cut))


def _widened(U: Float[np.ndarray, "m d"], width: int) -> Float[np.ndarray, "m w"]:
    return np.pad(U, ((0, 0), (0, width - U.shape[1])))
