r"""The constraints that every minimiser meets, and the rise of the loss where one is broken: the scale of margins.

**Pairs.** A mixed batch forces G = 1 for two samples of a class that it holds twice, and (UFM+) G = 0 for two classes
one of which it holds twice. The loss rises linearly (`smallest_pair_weight`; at points of UFM `smallest_dual_weight`).

**Ties.** A batch of one class only forces the values G_ij of each anchor to be equal. If two of them differ by r, the
least excess of the anchor, over all its other values, is that of two atoms of mass p (p = 1/N for N positives)

    min_y log( 2 p cosh(r / 2 tau) + (1 - 2 p) e^y ) - (1 - 2 p) y  =  2 p log cosh(r / (2 tau)),

attained where the others lie in between: the derivative vanishes at e^y = cosh(r / 2 tau). Each of n_a anchors has
this excess, and orbits b, c of at least n' samples have at least the mass n' p (`smallest_tie_weight`, at r = 1). As
log cosh sqrt is concave, a gap below epsilon^2 times this weight bounds the difference of two values of one anchor by
epsilon, and that of any two values of the batch by sqrt(2) epsilon (theory, 5.14). At a point of UFM p is the least
softmax weight: the Bregman distance of the loss from there is that of a softmax with these masses.

**Chains.** Several constraints together force more: merged components, components that are orthogonal through a third,
single-class batches that merge because two of their samples do, values tied through a shared pair. These consequences
have no constraint weight, since each link may be broken a little. They are bounded at the point itself
(`largest_violation`), for all pairs of samples that chains reach: the box of the rows of a component bounds all inner
products of its rows at once.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Any

from flint import arb, arb_mat

from solvers.certification.anchors import Anchor
from solvers.certification.balls import ZERO, Table, upwards
from solvers.certification.orbit_problem import Composition, OrbitProblem, Point

Pair = tuple[int, int]


def smallest_weight(problem: OrbitProblem) -> arb | None:
    """UFM+: the least rise of the loss when one pair or tie of orbits is broken; None if nothing is constrained."""
    resolutions = [
        resolution
        for resolution in (smallest_pair_weight(problem), smallest_tie_weight(problem))
        if resolution is not None
    ]
    return reduce(arb.min, resolutions) if resolutions else None


def is_constrained(problem: OrbitProblem) -> bool:
    """Whether some pair or tie of orbits is constrained, at the frame (UFM+) or at any point (UFM)."""
    together = zip(problem.counts, problem.compositions, strict=True)
    pairs = any(
        max(count.values()) >= 2
        and (len(count) > 1 or (problem.loss.merges_alone and (problem.nonneg or len(composition.samples) > 1)))
        for count, composition in together
    )
    return pairs or any(
        sum(composition.others(a, b) > 0 for b in batch) >= 2
        for batch, _, composition in _single_class(problem)
        for a in batch
    )


def smallest_weight_of_samples(problem: OrbitProblem) -> arb | None:
    """UFM+: a lower bound on the rise of the loss when one sample leaves its orbit and breaks a constraint; or None."""
    pair, largest = smallest_pair_weight(problem), max(problem.sizes)
    resolutions = [] if pair is None else [pair / largest]
    for _, count, composition in _single_class(problem):
        for anchor in problem.anchor_by_class(count).values():
            resolutions.append(arb(composition.weight) * arb(2) / anchor.positives * _spread_cost(anchor))
    return reduce(arb.min, resolutions) if resolutions else None


def smallest_pair_weight(problem: OrbitProblem) -> arb | None:
    """UFM+: the least weight that one batch gives to one constrained pair of orbits; None if there is no such pair.

    The loss rises by at least this weight times the mean inner product (or the mean of 1 - G_ij) of the pair. So only a
    gap that is small relative to it says anything about that pair (theory, 2.11).
    """
    weights, merges_alone = [], problem.loss.merges_alone
    for count, composition in zip(problem.counts, problem.compositions, strict=True):
        anchors, weight = problem.anchor_by_class(count), arb(composition.weight)
        sizes: dict[int, list[int]] = defaultdict(list)
        for a, samples in composition.samples.items():
            sizes[problem.classes[a]].append(samples)
        fewest = {c: min(held) for c, held in sizes.items()}
        for c, anchor in anchors.items():
            least, lightest = sorted(sizes[c]), weight * fewest[c]
            if anchor.total or merges_alone:
                # With two views these are the n pairs of one image; no other kind has fewer pairs.
                within = [n if composition.views > 1 else n * (n - 1) for n in least if n >= 2]
                pairs = within[:1] + [2 * least[0] * least[1] for _ in least[1:2]]
                weights.append(weight * min(pairs) * anchor.attraction)
            for other, few in fewest.items():
                if other in anchors and other > c:
                    weights.append(lightest * few * (anchor.repulsion(other) + anchors[other].repulsion(c)))
                elif other not in anchors:
                    weights.append(lightest * few * anchor.repulsion(other))
    return reduce(arb.min, weights) if weights else None


def smallest_tie_weight(problem: OrbitProblem, gram: Table | None = None) -> arb | None:
    """The least excess of anchors whose values with two orbits differ by 1 in a batch of one class; None if there is
    no tie.

    gram: the point whose softmax weights the values (UFM); without it all weights are equal.
    """
    resolutions = []
    for batch, count, composition in _single_class(problem):
        (anchor,) = problem.anchor_by_class(count).values()
        for a in batch:
            others = [(b, composition.others(a, b)) for b in batch if composition.others(a, b) > 0]
            if len(others) < 2:
                continue
            weights = [n * (1 if gram is None else (gram[a][b] * anchor.s).exp()) for b, n in others]
            mass = arb(composition.weight) * composition.samples[a] * reduce(arb.min, map(arb, weights)) / sum(weights)
            resolutions.append(2 * mass * _spread_cost(anchor))
    return reduce(arb.min, resolutions) if resolutions else None


def smallest_dual_weight(problem: OrbitProblem, C: Table, gram: Table) -> arb | None:
    """UFM: the least change of the loss at a point when G_ab of one pair changes by min(tau, 1), or a tie by 1.

    This is the least of 2 n_a n_b |C_ab| min(tau, 1), to first order, over orbits of two classes that repel (C_ab > 0)
    and of one class that attract in mixed batches (C_ab < 0), with C the gradient at the point; and of
    `smallest_tie_weight` there. Without H >= 0 cosines are negative at the optimum, and pairs weigh less there than at
    a frame, by a factor down to e^{-1/tau}. Only a gap that is small relative to this weight says anything about that
    pair. None if nothing is constrained.
    """
    pairs = {
        (a, b): problem.classes[a] == problem.classes[b]
        for batch, count in zip(problem.batches, problem.counts, strict=True)
        if len(count) > 1 or problem.loss.merges_alone
        for a in batch
        for b in batch
        if a < b
    }
    weights = [
        2 * problem.sizes[a] * problem.sizes[b] * abs(C[a][b]) * min(problem.tau, 1.0)
        for (a, b), alike in pairs.items()
        if (C[a][b] < 0 if alike else C[a][b] > 0)
    ]
    tie = smallest_tie_weight(problem, gram)
    resolutions = weights if tie is None else [*weights, tie]
    return reduce(arb.min, resolutions) if resolutions else None


@dataclass(frozen=True)
class Components:
    """What zero excess of UFM+ forces on the orbits (see `ufm.interaction`).

    - joined: the orbits of one set are one unit vector. unit: the orbits for whose samples this is known.
    - crossing: ordered pairs of orbits that are orthogonal; the batch that forces it merges the first of the two.
    - open_batches: batches of one class that tie values and are not merged, with the samples they hold of each orbit.
    """

    joined: _Joined
    unit: set[int]
    crossing: set[Pair]
    open_batches: list[dict[int, int]]

    @classmethod
    def of(cls, problem: OrbitProblem, *, d_equals_k: bool = False) -> Components:
        """From the batches. d_equals_k: add what d = k forces (theory, 3.11 (a)), see `_merge_with_axes`."""
        joined, unit, crossing, classes = _Joined(), set(), set(), problem.classes
        for batch, count in zip(problem.batches, problem.counts, strict=True):
            of_class: dict[int, list[int]] = defaultdict(list)
            for a in batch:
                of_class[classes[a]].append(a)
            for c, samples in count.items():
                if samples >= 2 and (len(count) > 1 or problem.loss.merges_alone):
                    members = of_class[c]
                    joined.union(members)
                    unit.update(members)
                    others = [b for b in batch if classes[b] != c]
                    crossing.update((a, b) for a in members for b in others)
        components = cls(joined, unit, crossing, [composition.samples for _, _, composition in _single_class(problem)])
        while components._merge_batches() or (d_equals_k and components._merge_with_axes(problem)):
            pass
        return components

    def _merge_batches(self) -> bool:
        """Merge the open batches that hold a merged pair. Returns whether there were any."""
        waiting, self.open_batches[:] = list(self.open_batches), []
        for batch in waiting:
            within = any(a in self.unit and samples > 1 for a, samples in batch.items())
            if within or len({self.joined.root(a) for a in batch}) < len(batch):
                self.joined.union(list(batch))
                self.unit.update(batch)
            else:
                self.open_batches.append(batch)
        return len(self.open_batches) < len(waiting)

    def _merge_with_axes(self, problem: OrbitProblem) -> bool:
        """d = k: if the largest components of the k classes are pairwise orthogonal, they are the axes, and a component
        orthogonal to the axes of all other classes is the axis of its class. Merge these; whether there were any."""
        root = self.joined.root
        met = {(root(a), root(b)) for pair in self.crossing for a, b in (pair, pair[::-1])}
        largest: dict[int, int] = {}
        for a, _ in Counter(root(a) for a in sorted(self.unit)).most_common():
            largest.setdefault(problem.classes[a], a)
        axes = set(largest.values())
        if len(axes) < problem.k or any((x, y) not in met for x in axes for y in axes if x != y):
            return False
        loose = {root(a) for a in self.unit} - axes
        on = [a for a in loose if all((a, x) in met for x in axes - {largest[problem.classes[a]]})]
        for a in on:
            self.joined.union([largest[problem.classes[a]], a])
        return bool(on)


def forces_frame(problem: OrbitProblem) -> bool:
    """Whether it is proved that the orthogonal frame's is the only Gram matrix of zero excess (theory, 3.6 and 3.11).

    That is: d >= k, every class is one merged component, by chains of batches (for d = k also of axes), and every two
    classes are orthogonal.
    """
    if problem.d < problem.k or not (problem.d == problem.k or _together(problem) == set(range(len(problem)))):
        return False
    components = Components.of(problem, d_equals_k=problem.d == problem.k)
    classes = problem.classes
    met = {(min(c, e), max(c, e)) for c, e in {(classes[a], classes[b]) for a, b in components.crossing}}
    whole = (
        len(components.unit) == len(problem) and len({components.joined.root(a) for a in components.unit}) == problem.k
    )
    return whole and len(met) == problem.k * (problem.k - 1) // 2


def _together(problem: OrbitProblem) -> set[int]:
    """Orbits whose samples are one vector if they have norm 1 (theory, 6.9): orbits of one sample or image, and orbits
    in a batch that fixes or ties values and holds a second sample or image of them, or another orbit of the class."""
    single = {a for a, size in enumerate(problem.sizes) if size == problem.views}
    alone = 2 if problem.loss.merges_alone else 3 if problem.loss.ties_alone else math.inf
    for batch, count, composition in zip(problem.batches, problem.counts, problem.compositions, strict=True):
        orbits = Counter(problem.classes[a] for a in batch)
        constrained = {c for c, n in count.items() if len(count) > 1 or n >= alone}
        held = {a: problem.classes[a] for a in batch if problem.classes[a] in constrained}
        single |= {a for a, c in held.items() if orbits[c] > 1 or composition.samples[a] > problem.views}
    return single


def largest_violation(problem: OrbitProblem, point: Point) -> float:
    """UFM+: an upper bound on how far a point misses any value that batches fix or tie, directly or in chains (theory,
    3.17).

    Let l <= u be the entrywise least and largest of the rows of a component (`ufm.interaction`). Any two rows of one
    component satisfy 1 - G <= 1 - (least norm)^2 + ||u - l||^2 / 2; rows of two components satisfy
    l . l' <= G <= u . u', since H >= 0. Call within `flint.ctx.workprec`.
    """
    components, rows = Components.of(problem), point.balls()
    root = components.joined.root
    sets: dict[int, list[int]] = defaultdict(list)
    for a in range(len(problem)):
        sets[root(a)].append(a)
    place = {a: i for i, a in enumerate(sets)}
    columns = [list(zip(*(rows[a] for a in members), strict=True)) for members in sets.values()]
    low, high = (arb_mat([[reduce(end, x) for x in of_set] for of_set in columns]) for end in (arb.min, arb.max))
    largest, width, off = high * high.transpose(), high - low, []
    for a in {root(a) for a in components.unit}:
        shortest = arb(min(float(point.norms[b]) for b in sets[a]))
        sides = [width[place[a], j] for j in range(problem.d)]
        off.append(1 - shortest * shortest + sum((x * x for x in sides), ZERO) / 2)  # x**2 is NaN of a ball around 0
    to = {a: place[root(a)] for a in {a for pair in components.crossing for a in pair}}
    crossing = {(to[a], to[b]) for a, b in components.crossing}  # the product is symmetric: each pair once
    off += [largest[i, j] for i, j in crossing if i < j or (j, i) not in crossing]
    values = _Joined()
    for batch in components.open_batches:
        roots = [root(a) for a in batch]
        within = [(a, a) for a, samples in batch.items() if samples > 1]
        values.union([(min(a, b), max(a, b)) for a in roots for b in roots if a < b] + within)
    least = low * low.transpose() if components.open_batches else largest
    for pairs in values.classes():
        ends = [[table[place[a], place[b]] for a, b in pairs] for table in (least, largest)]
        off.append(reduce(arb.max, ends[1]) - reduce(arb.min, ends[0]))
    return upwards(reduce(arb.max, off)) if off else 0.0


class _Joined:
    """Disjoint sets, with unions."""

    def __init__(self) -> None:
        self._parent: dict[Any, Any] = {}

    def root(self, x: Any) -> Any:
        """One member of the set of x."""
        while (above := self._parent.setdefault(x, x)) != x:
            self._parent[x] = x = self._parent[above]
        return x

    def union(self, members: list[Any]) -> None:
        """Join the sets of all members."""
        for x in members:
            self._parent[self.root(x)] = self.root(members[0])

    def classes(self) -> list[list[Any]]:
        """All sets of members seen so far."""
        sets: dict[Any, list[Any]] = defaultdict(list)
        for x in list(self._parent):
            sets[self.root(x)].append(x)
        return list(sets.values())


def _single_class(problem: OrbitProblem) -> Iterator[tuple[tuple[int, ...], Counter[int], Composition]]:
    """The batches of one class that tie something: of three samples or more, under a loss that ties."""
    for batch, count, composition in zip(problem.batches, problem.counts, problem.compositions, strict=True):
        if problem.loss.ties_alone and len(count) == 1 and sum(count.values()) >= 3:
            yield batch, count, composition


def _spread_cost(anchor: Anchor) -> arb:
    """omega log cosh(s / 2)."""
    return anchor.omega * (anchor.s / 2).cosh().log()
