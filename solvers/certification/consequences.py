r"""What a gap implies: rigorous bounds on the geometry of every point of UFM+ of no larger loss.

At the orthogonal frame the gradient in G is C = -A + N (theory, 2.6 and 2.7), so convexity gives,
for every feasible H of UFM+, with sums over ordered pairs of samples,

    L(H) - L(frame) >= sum_within A_ij (1 - G_ij) + sum_across N_ij G_ij,   every term >= 0,

where for SCL A_ij = sum_B q e^{-1/tau} / (p Z tau) with p = n_{B,c} - 1 positives and q = n_B - n_{B,c} negatives,
and N_ij = (1/2) sum_B e^{-1/tau} (1/Z_i + 1/Z_j) / tau over active anchors; the weights of the other losses are those
of theory, 2.15. A gap eps on the left therefore bounds

- across orbits a, b:  mean G_ij <= eps / (2 n_a n_b N_ab);
- within a class:  sum_{i<j} A_ij ||h_i - h_j||^2 <= eps, so ||h_i - h_j||^2 <= eps R_ij, with R_ij the effective
  resistance between i and j in the network of conductances A (Thomson's principle). R is a metric, so
  resistances add along a path of orbits. They are at most (more edges conduct no less, Rayleigh)
  (n_a + n_b - 1) / (n_a n_b A_ab) between orbits, 2 / (n_a A_aa) within one, 2 / (n_b A_ab) through a neighbour;
- norms:  some pair of a class has G_ij >= 1 - eps / (2 n_a n_b A_ab) (within an orbit: n_a (n_a - 1) in place
  of 2 n_a n_b), hence ||h_i|| is at least this, too;
- ties: in a batch of N + 1 >= 3 samples, all of one class, two values of one anchor differ by an r with
  (2 / N) log cosh(r / (2 tau)) <= eps (`solvers.certification.constraints`).
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce

from flint import arb

from solvers.certification.anchors import Anchor
from solvers.certification.balls import downwards, upwards
from solvers.certification.constraints import forces_frame
from solvers.certification.orbit_problem import OrbitProblem

# The consequences are not derived for more pairs of orbits within batches than this.
MOST_PAIRS = 2**21

Edges = dict[tuple[int, int], arb]


@dataclass(frozen=True)
class Implied:
    """Proved bounds for every feasible point whose loss is at most that of the certified point.

    - cosine: (k, k) upper bounds on the cosine of two class means; 1 is trivial.
    - spread: (k,) upper bounds on the distance of two samples of a class; 2 is trivial.
    - norm: (k,) lower bounds on the norm of a class mean; 0 is trivial.
    - rigid: whether it is proved that all minimisers have the same Gram matrix (UFM+: the orthogonal frame's).
    - tie: UFM+: (k,) upper bounds on the difference of two values G_ij, G_il of one sample in a batch that holds only
      its class; 1 is trivial (always so for a loss without ties), and 0 means that no such batch has three samples.
      None for UFM.
    - least_cosine: UFM: (k, k) lower bounds on the cosine of two class means; -1 is trivial. None for UFM+, where
      no cosine is negative.
    """

    cosine: tuple[tuple[float, ...], ...]
    spread: tuple[float, ...]
    norm: tuple[float, ...]
    rigid: bool
    tie: tuple[float, ...] | None = None
    least_cosine: tuple[tuple[float, ...], ...] | None = None


def pair_weights(problem: OrbitProblem) -> tuple[Edges, Edges]:
    """A and N of the module docstring on the pairs a <= b of orbits that some batch constrains.

    Where the pairs within an orbit have different weights (two views), the least: more conductance only lowers
    resistances.
    """
    within: Edges = defaultdict(arb)
    across: Edges = defaultdict(arb)
    classes, merges_alone = problem.classes, problem.loss.merges_alone
    for batch, count, composition in zip(problem.batches, problem.counts, problem.compositions, strict=True):
        anchors, whole = problem.anchor_by_class(count), composition.is_whole
        attraction = {c: anchor.attraction for c, anchor in anchors.items()} if len(count) > 1 or merges_alone else {}
        repulsion = _repulsions(anchors, count)
        for position, a in enumerate(batch):
            c = classes[a]
            for b in batch[position:]:
                other = classes[b]
                if c != other:
                    gradient_scale = repulsion.get((c, other) if c < other else (other, c))
                    if gradient_scale is not None:
                        across[a, b] += gradient_scale if whole else composition.met(a, b) * gradient_scale
                elif c in attraction and composition.pairs(a, b) and (met := composition.sure(a, b)) > 0:
                    within[a, b] += met * attraction[c]
    return within, across


def _repulsions(anchors: Mapping[int, Anchor], count: Mapping[int, int]) -> Edges:
    """N of one pair in one batch: half the sum of both anchors' derivatives; for classes c < e, one of them active."""
    repelling: Edges = {}
    for c, anchor in anchors.items():
        for e in count:
            if e in anchors and e > c:
                repelling[c, e] = (anchor.repulsion(e) + anchors[e].repulsion(c)) / 2
            elif e not in anchors:
                repelling[min(c, e), max(c, e)] = anchor.repulsion(e) / 2
    return repelling


def may_imply(problem: OrbitProblem) -> bool:
    """Whether bounds are derived from a gap: for UFM+ with at most MOST_PAIRS pairs."""
    return problem.nonneg and sum(len(batch) ** 2 for batch in problem.batches) <= MOST_PAIRS


def implied(problem: OrbitProblem, gap: arb, weights: tuple[Edges, Edges] | None = None) -> Implied | None:
    """What L(H) - L(frame) <= gap implies; None for UFM, and beyond MOST_PAIRS.

    weights: `pair_weights`, if already computed. The gap is enlarged a little, so that every claim survives another
    order of summation.
    """
    if not may_imply(problem):
        return None
    gap = arb(max(upwards(gap), 0.0)) * (1 + arb(2) ** -40)
    within, across = pair_weights(problem) if weights is None else weights
    members: dict[int, list[int]] = defaultdict(list)
    for a, c in enumerate(problem.classes):
        members[c].append(a)

    of_class: dict[int, Edges] = defaultdict(dict)
    for (a, b), weight in within.items():
        of_class[problem.classes[a]][a, b] = weight
    resistances = [_largest_resistance(problem, members[c], of_class[c]) for c in range(problem.k)]
    spread = [2.0 if r is None else min(upwards((gap * r).sqrt()), 2.0) for r in resistances]
    strongest = [0.0] * problem.k
    for (a, b), weight in within.items():
        c = problem.classes[a]
        pairs = problem.sizes[a] * (problem.sizes[a] - 1) if a == b else 2 * problem.sizes[a] * problem.sizes[b]
        strongest[c] = max(strongest[c], downwards(1 - gap / (pairs * weight)))
    norm = [max(downwards(arb(strongest[c]) - arb(spread[c])), 0.0) for c in range(problem.k)]

    cosine = [[1.0] * problem.k for _ in range(problem.k)]
    slackness = [arb(spread[c]) if len(members[c]) > 1 else arb(0) for c in range(problem.k)]
    for (a, b), weight in across.items():
        c, other = problem.classes[a], problem.classes[b]
        if norm[c] > 0 and norm[other] > 0:
            product = gap / (2 * problem.sizes[a] * problem.sizes[b] * weight) + slackness[c] + slackness[other]
            bound = min(upwards(product / (arb(norm[c]) * arb(norm[other]))), cosine[c][other])
            cosine[c][other] = cosine[other][c] = bound
    return Implied(tuple(map(tuple, cosine)), tuple(spread), tuple(norm), forces_frame(problem), _ties(problem, gap))


def _ties(problem: OrbitProblem, gap: arb) -> tuple[float, ...]:
    widest = [0.0] * problem.k
    for count in problem.counts:
        if len(count) == 1 and sum(count.values()) >= 3:
            # A single batch of an expected loss has next to no weight: it ties values very loosely.
            anchors = problem.anchor_by_class(count) if problem.loss.ties_alone and problem.held is None else {}
            for c in count:
                # acosh(e^x) = asinh sqrt(e^{2 x} - 1)
                off = (
                    2 / anchors[c].s * (anchors[c].positives * gap / anchors[c].omega).expm1().sqrt().asinh()
                    if anchors
                    else arb(1)
                )
                widest[c] = max(widest[c], min(upwards(off), 1.0))
    return tuple(widest)


def _largest_resistance(problem: OrbitProblem, members: list[int], within: Edges) -> arb | None:
    """A bound on the effective resistance between any two samples of a class; None if the class is not connected.

    within: the conductances of this class. Paths run through one sample of the first orbit of the class. The
    bound is 0 for a class of one sample.
    """
    sizes = problem.sizes
    hub = members[0]
    neighbours: dict[int, list[tuple[int, arb]]] = defaultdict(list)
    for (a, b), weight in within.items():
        if a != b:
            resistance = (sizes[a] + sizes[b] - 1) / (sizes[a] * sizes[b] * weight)
            neighbours[a].append((b, resistance))
            neighbours[b].append((a, resistance))
    reached: dict[int, arb] = {}
    queue = [(0.0, hub, arb(0))]
    while queue:
        _, a, resistance = heapq.heappop(queue)
        if a not in reached:
            reached[a] = resistance
            for b, step in neighbours[a]:
                if b not in reached:
                    heapq.heappush(queue, (float(resistance + step), b, resistance + step))
    if len(reached) < len(members):
        return None
    if sizes[hub] >= 2:
        ways = [2 / (sizes[b] * within[min(hub, b), max(hub, b)]) for b, _ in neighbours[hub]]
        if (hub, hub) in within:
            ways.append(2 / (sizes[hub] * within[hub, hub]))
        if not ways:
            return None
        reached[hub] = min(ways, key=float)
    if len(members) == 1:
        return reached[hub]
    return 2 * reduce(arb.max, reached.values())
