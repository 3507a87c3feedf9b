"""Out of spurious stationary points: lift where classes conflict, descend again, compress back to d.

UFM+ has spurious stationary points (one class holds two coordinates while two others share one), and
imbalance makes them common. In a space with unused coordinates those with collapsed classes are saddles. Let the rows
of an attraction component (points of a class that chains of shared batches connect) be one unit vector u, and
sum C_il G_il > 0 over its pairs with others: it is pushed. Replacing u by sqrt(1 - s^2) u + s e, e a fresh coordinate,
leaves its inner products 1 and scales the others by sqrt(1 - s^2), so the loss changes by
-(s^2 / 2) sum C_il G_il + O(s^4) (i in the component, l not, both orders): it falls to second order (theory, 5.7). Of
one whose rows differ this says nothing. So the staircase gives what is in conflict, or the lighter side of it, random
mass there and descends again, as the Riemannian staircase of SE-Sync does for its relaxation. Neither the form of the
optimum nor its value is used: a point without conflict has duality gap zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int
from scipy.sparse.csgraph import connected_components

from solvers.descent.batch_graph import BatchGraph, light_cover
from solvers.descent.lanes import Outcome, Schedule, Start, run_lanes
from solvers.descent.method import Method, Record, joined
from solvers.descent.saddles import off_saddle
from solvers.descent.stopping import Status
from ufm.problem import PADDING, Problem

# A conflict below this share of a point's forces is rounding: exact zeros are the rule.
NO_CONFLICT = 1e-10
# A component moves while its residual is at least this share of its conflict: 1 / STILL_MOVING.
STILL_MOVING = 100.0
# Lifts of a start in which only the points in conflict move, and the largest chance of others to join later.
PATIENCE = 5
# Rows this close may be meant to be equal; rows closer than APART are.
NEAR = 1e-2
APART = 1e-8
MOST_GLUINGS = 8
# A conflict below this may be that of rows which are to be equal and come close too slowly: they are glued first.
FAINT = 1e-6
MOST_JOINING = 0.5
# Inner product above which rows of two classes overlap.
OVERLAP = 1e-6


class Ending(NamedTuple):
    """A last descent by another method.

    - due: whether a start needs it where it stands. descend: from the index of a start, where it stands and the most
      steps it may take, to where the method takes it.
    """

    due: Callable[[Outcome], bool]
    descend: Callable[[int, Outcome, int], Outcome]


@dataclass
class Climb:
    """One start on the staircase.

    - problem, graph: its own, and who acts on whom there; None where points are not lifted.
    - descents: outcomes so far. rung: the place of the temperature of the latest on the ladder of temperatures.
    - lifts: how many descents were followed by a lift, a compression or a gluing. gluings: those.
    - conflicted: whether the last one ended with classes in conflict or in too many coordinates.
    - limit: what kept it from going on, had there been steps and seconds left; None if nothing did.
    """

    index: int
    problem: Problem
    graph: BatchGraph | None
    descents: list[Outcome] = field(default_factory=list)
    rung: int = 0
    lifts: int = 0
    gluings: int = 0
    conflicted: bool = False
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
        in_conflict = self.conflicted and self.last.status is Status.CONVERGED
        return Status.CONFLICTED if in_conflict else self.last.status

    @property
    def history(self) -> Record:
        """The histories of all descents, iterations counted through."""
        return joined([(descent.history, descent.steps) for descent in self.descents])

    def mended(self, outcome: Outcome, stream: Sequence[int], tau: float) -> Float[np.ndarray, "m w"] | None:
        """Where to go on from there: lifted, compressed or glued; None if nothing is to be mended.

        stream: seeds. tau: the temperature that the descent was at.
        """
        if not self.problem.nonneg:
            H = off_saddle(outcome.H, self.problem, tau)
            self.conflicted = H is not None
            return H
        if self.graph is None:
            return None
        converged, conflict = outcome.status is Status.CONVERGED, outcome.conflict.max()
        fits = conflict <= NO_CONFLICT and not outcome.H[:, self.problem.d :].any()
        if converged and fits:
            self.conflicted = False
        for patient in (True, False):
            if converged and not fits and not (patient and conflict <= FAINT):
                rng = np.random.default_rng(stream)
                H = next_point(outcome, self.problem, self.graph, self.lifts, rng, patient=patient)
                self.conflicted = H is not None
                if H is not None:
                    return H
            if patient and self.gluings < MOST_GLUINGS and self.graph.attracts:
                H = glued(outcome.H, self.problem)
                if H is not None:
                    self.gluings += 1
                    return H
        return None

    def point(self, d: int) -> Float[np.ndarray, "m d"]:
        """Where it ended, in d coordinates: those it uses most, if a limit stopped it in more."""
        H = self.last.H
        return _normalised(merge_parallel_columns(H)[:, :d]) if H[:, d:].any() else H[:, :d]


def climb(
    method: Method,
    problem: Problem | Sequence[Problem],
    starts: Sequence[Start],
    schedule: Schedule,
    *,
    streams: Sequence[tuple[int, int]],
    ladder: Sequence[float] = (),
    ending: Ending | None = None,
    max_lifts: int = 50,
    progress: Callable[[int], None],
) -> list[Climb]:
    """Descend from every start until no point is in conflict, all fits d coordinates and equal rows are equal.

    - problem: of all starts, or one for each start, all of one shape and temperature.
    - streams: seeds of the random numbers of each start.
    - ladder: temperatures to descend at one after the other, each from where the one before ended; the last is that of
      the problem, which is all there is by default.
    - ending: a last descent from where a start ended.

    Starts live in d + spare coordinates from the first; coordinates nobody uses stay exactly zero
    under projected gradient, so a start descends in R^d until it is first lifted.
    """
    of_start = [problem] * len(starts) if isinstance(problem, Problem) else problem
    ladder = ladder or (float(of_start[0].tau),)
    width = of_start[0].d + spare_coordinates(of_start[0])
    lifted = {id(own): own for own in of_start if width > own.d}
    graphs = {key: BatchGraph.of(own) for key, own in lifted.items()}
    climbs = [Climb(index, own, graphs.get(id(own))) for index, own in enumerate(of_start)]

    def onward(this: Climb, outcome: Outcome) -> Start | None:
        if outcome.status not in (Status.CONVERGED, Status.STALLED):
            return None
        H = this.mended(outcome, [*streams[this.index], this.lifts], ladder[this.rung])
        if H is not None and this.lifts < max_lifts:
            this.lifts += 1
            return Start(H, ladder[this.rung])
        if this.rung + 1 < len(ladder):
            this.rung += 1
            return Start(outcome.H, ladder[this.rung])
        return None

    def left_to(this: Climb) -> int:
        return schedule.max_steps - this.steps - starts[this.index].steps

    def limit_of(this: Climb) -> Status | None:
        """The limit that the start has come to."""
        late = this.last.seconds >= schedule.max_seconds
        return Status.OUT_OF_STEPS if left_to(this) <= 0 else Status.OUT_OF_TIME if late else None

    def ended(this: Climb, ending: Ending) -> None:
        """The last descent of a start, and another one from wherever that leads to a saddle."""
        stands = this.last
        while True:
            this.limit = limit_of(this)
            if this.limit is not None:
                return
            last = ending.descend(this.index, stands, left_to(this))
            this.descents.append(last._replace(seconds=stands.seconds + last.seconds))
            H = this.mended(last, streams[this.index], float(this.problem.tau))
            if H is None or this.lifts == max_lifts:
                return
            this.lifts += 1
            stands = this.last._replace(H=H)

    def finished(outcome: Outcome) -> Start | None:
        this = climbs[outcome.key]
        this.descents.append(outcome)
        start = onward(this, outcome)
        if start is not None:
            this.limit = limit_of(this)
            if this.limit is None:
                return start
        elif ending is not None and outcome.status in (Status.CONVERGED, Status.STALLED) and ending.due(outcome):
            ended(this, ending)
        progress(1)
        return None

    widened = [(i, start._replace(H=_widened(start.H, width), tau=ladder[0])) for i, start in enumerate(starts)]
    run_lanes(method, problem, widened, schedule, finished)
    return climbs


def glued(H: Float[np.ndarray, "m w"], problem: Problem) -> Float[np.ndarray, "m w"] | None:
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
    equal = (_normalised(mean) * norm[:, None])[cluster]
    return equal if np.abs(equal - H).max() > APART else None


def spare_coordinates(problem: Problem) -> int:
    """Fresh coordinates beside the d asked for; none where frames do not fit (d < k) or are not sought (UFM)."""
    return max(4, problem.k // 4) if problem.bound_is_attained else 0


def next_point(
    outcome: Outcome,
    problem: Problem,
    graph: BatchGraph,
    lifts: int,
    rng: np.random.Generator,
    *,
    patient: bool = True,
) -> Float[np.ndarray, "m w"] | None:
    """Where to go on from a stationary point, component by component; None if nothing is to be mended.

    - lifts: how many came before. After PATIENCE of them the same few points may be circling among the
      same coordinates, which others must leave first: those join the lift with a chance that grows.
    - patient: leave components whose conflict is no more than what they still move: the descent stopped for another
      one. If it stopped for none, that conflict is none, and they have to fit d coordinates all the same.
    """
    H = outcome.H.copy()
    changed = False
    moving = _moving(H, outcome.conflict, graph, problem)
    # Every other time on average: a crowd that joins would push those in conflict back to where they were.
    chance = min(MOST_JOINING, max(0, lifts - PATIENCE) / (2 * PATIENCE)) * rng.integers(2)
    for members in graph.components:
        conflict = outcome.conflict[members]
        if NO_CONFLICT < conflict.max() <= STILL_MOVING * outcome.residual:
            if patient:
                continue
            conflict = np.zeros_like(conflict)
        pushed = moving[members] & (conflict > NO_CONFLICT)
        onward = _next_of_component(H[members], pushed, graph.attracted[members], problem, chance, rng)
        if onward is not None:
            H[members] = onward
            changed = True
    return H if changed else None


def _moving(
    H: Float[np.ndarray, "m w"], conflict: Float[np.ndarray, " m"], graph: BatchGraph, problem: Problem
) -> Bool[np.ndarray, " m"]:
    """Who is lifted where attraction components in conflict overlap: the lighter ones, so many that no overlap stays.

    Each alone would go downhill (theory, 5.7); to lift a class for a few stray samples would undo what it has found.
    """
    labels, attracted, pushed = np.asarray(problem.labels), graph.attracted, conflict > NO_CONFLICT
    overlaps: set[tuple[int, int]] = set()
    for row in np.asarray(problem.batches):
        members = row[row != PADDING]
        members = members[pushed[members]]
        overlap = (H[members] @ H[members].T > OVERLAP) & (labels[members, None] != labels[None, members])
        pairs = np.sort(attracted[members][np.stack(np.nonzero(overlap))], axis=0)
        overlaps.update(zip(*pairs.tolist(), strict=True))
    apart = set(attracted[pushed].tolist()) - {component for pair in overlaps for component in pair}
    weight = np.bincount(attracted, np.asarray(problem.multiplicity))
    lifted = np.zeros(len(weight), bool)
    lifted[[*apart, *light_cover(overlaps, weight)]] = True
    return lifted[attracted]


def _next_of_component(
    H: Float[np.ndarray, "i w"],
    pushed: Bool[np.ndarray, " i"],
    attracted: Int[np.ndarray, " i"],
    problem: Problem,
    chance: float,
    rng: np.random.Generator,
) -> Float[np.ndarray, "i w"] | None:
    """Lifted if in conflict, compressed if too wide, else None."""
    if not pushed.any() and not H[:, problem.d :].any():
        return None
    merged = merge_parallel_columns(H)
    used = int(np.count_nonzero(merged.any(axis=0)))
    labels = int(attracted.max()) + 1
    joining = rng.uniform(size=labels) < chance if chance else np.zeros(labels, bool)
    if pushed.any():
        lifted = joining.copy()
        lifted[attracted[pushed]] = True
        return lift(merged, used, lifted[attracted], attracted, problem, rng)
    if used > problem.d:
        return compressed(merged, joining, attracted, problem.d, rng)
    return merged


def compressed(
    H: Float[np.ndarray, "i w"],
    joining: Bool[np.ndarray, " labels"],
    attracted: Int[np.ndarray, " i"],
    d: int,
    rng: np.random.Generator,
) -> Float[np.ndarray, "i w"]:
    """From a point without conflict in a wider space: drop what is least used; descent and lifts mend it.

    Columns come in order of decreasing norm. Those joining, and with them those that are left with
    nothing, start anew in a random direction of R^d, the same for all points that attract each other.
    """
    kept = H * (np.arange(H.shape[1]) < d)
    lost = np.isin(attracted, attracted[~kept.any(axis=1)])
    anew = np.pad(np.abs(rng.standard_normal((len(joining), d))), ((0, 0), (0, H.shape[1] - d)))
    kept = np.where((joining[attracted] | lost)[:, None], anew[attracted], kept)
    return _normalised(kept)


def lift(
    H: Float[np.ndarray, "i w"],
    used: int,
    pushed: Bool[np.ndarray, " i"],
    attracted: Int[np.ndarray, " i"],
    problem: Problem,
    rng: np.random.Generator,
) -> Float[np.ndarray, "i w"]:
    """Give the pushed points random mass in the unused columns, the same for all that attract each other."""
    width = H.shape[1]
    if used == width:
        # Nothing is free: take the columns that carry least.
        order = np.argsort(-np.linalg.norm(H, axis=0), kind="stable")
        used = width - max(1, spare_coordinates(problem) // 2)
        H = H[:, order] * (np.arange(width) < used)
    labels, of_point = np.unique(attracted, return_inverse=True)
    mass = rng.uniform(size=(len(labels), width - used)) ** 2
    mass *= rng.uniform(0.3, 1.0, size=(len(labels), 1)) / np.linalg.norm(mass, axis=1, keepdims=True)
    lifted = H.copy()
    lifted[:, used:] = np.where(pushed[:, None], mass[of_point.reshape(-1)], 0.0)
    return _normalised(lifted)


def merge_parallel_columns(H: Float[np.ndarray, "m w"], tolerance: float = 1e-6) -> Float[np.ndarray, "m w"]:
    """Merge columns with the same direction: [a u, b u] and sqrt(a^2 + b^2) u have the same Gram matrix.

    Columns come out in order of decreasing norm, zeros last. Directions that differ by less than
    `tolerance` count as the same; the descent that follows removes that error.
    """
    norms = np.linalg.norm(H, axis=0)
    order = np.argsort(-norms, kind="stable")
    order = order[norms[order] > tolerance**2]
    directions = H[:, order] / norms[order]
    # Of so near directions alone the entries are compared.
    alike = np.triu(directions.T @ directions > 1 - len(H) * max(tolerance**2, 1e-15), 1)
    head = np.arange(len(order))
    for kept, other in np.argwhere(alike).tolist():
        apart = np.abs(directions[:, kept] - directions[:, other]).max()
        if head[kept] == kept and head[other] == other and apart <= tolerance:
            head[other] = kept
    squares = np.bincount(head, norms[order] ** 2)
    first = np.flatnonzero(squares)
    merged = np.zeros_like(H)
    merged[:, : len(first)] = np.sqrt(squares[first]) * directions[:, first]
    return merged


def _normalised(H: Float[np.ndarray, "m w"]) -> Float[np.ndarray, "m w"]:
    norms = np.linalg.norm(H, axis=1, keepdims=True)
    return H / np.where(norms > 0, norms, 1.0)


def _widened(U: Float[np.ndarray, "m d"], width: int) -> Float[np.ndarray, "m w"]:
    return np.pad(U, ((0, 0), (0, width - U.shape[1])))
