"""The loss and its lower bounds in balls (theory, 6.3 and 6.4), and the least cost of a broken pair or tie (6.5)."""

from collections import defaultdict
from collections.abc import Sequence
from functools import reduce
from typing import Any

from flint import arb

from ufm_check.fields import doubles, items, need, prove
from ufm_check.losses import rows
from ufm_check.reading import MOST_IN_A_MATRIX, Gram, Statement

INFINITY = arb.pos_inf()
Edges = dict[tuple[int, int], arb]


def loss(problem: Statement, gram: Gram, gradient: Sequence[list[arb]] = ()) -> arb:
    """L. Its derivatives are added to `gradient`: C_ab for one pair of samples of orbits a and b."""
    total, memo, classes = arb(0), {}, problem.classes
    for (batch, count), composition in zip(problem.batches, problem.compositions, strict=True):
        anchors = rows(problem, count)
        for a in (a for a in batch if classes[a] in anchors):
            anchor, met, others = anchors[classes[a]], [], [b for b in batch if composition.pairs(a, b)]
            for b in others:
                low, high = min(a, b), max(a, b)
                key = (low, high, anchor.c if "taus" in problem.loss.numbers else 0)
                if key not in memo:
                    memo[key] = (anchor.s * gram(low, high)).exp()
                met.append((classes[b], composition.held[b] - (a == b), gram(low, high), memo[key]))
            value, slopes = anchor.pays(met)
            total += composition.weight * composition.held[a] * value
            for b, slope in zip(others, slopes if gradient else (), strict=False):
                half = composition.met(a, b) * slope / 2
                gradient[a][b] += half
                gradient[b][a] += half
    return total


def counted(problem: Statement, free: bool = False) -> arb:
    """The loss of the frame, with G = 0 for negatives; or a lower bound without H >= 0 (`free`), with G = 1 - x."""
    total = arb(0)
    for (_, count), composition in zip(problem.batches, problem.compositions, strict=True):
        x = arb(2) if free else arb(1)
        if free and problem.loss.plain and len(set(count.values())) == 1 < len(count):
            x = arb(len(count)) / (len(count) - 1)
        terms = (count[c] * anchor.pays(anchor.at(x))[0] for c, anchor in rows(problem, count).items())
        total += composition.weight * sum(terms, arb(0))
    return total


def matrix_bound(problem: Statement, gram: Any, v: Any, N: Any) -> tuple[arb, list[Any]]:
    """L(G0) - <C, G0> - sum_a n_a v_a, after a proof that S = C + Diag(v) - N is PSD; and [G0 (its triangle), v, C]."""
    m, sizes = len(problem.sizes), problem.sizes
    prove(problem.loss.kind != "supcon-in", "a dual: the loss is not convex")
    one_view = all(composition.views == 1 for composition in problem.compositions)
    prove(problem.nonneg or m == problem.k or one_view, "a dual: the views of an image may have different rows")
    need(m <= MOST_IN_A_MATRIX, f"more than {MOST_IN_A_MATRIX} orbits in a matrix")
    lower = [doubles(row, "gram", a + 1, -4.0, 4.0) for a, row in enumerate(items(gram, "gram", m))]
    N_rows = [doubles(row, "N", a + 1, 0.0, 1e300 * problem.nonneg) for a, row in enumerate(items(N, "N", m))]
    v_read, C = doubles(v, "v", m, 0.0), [[arb(0)] * m for _ in range(m)]
    bound = loss(problem, lambda a, b: lower[max(a, b)][min(a, b)], C)
    T = [[C[a][b] - N_rows[a][b] for b in range(a + 1)] for a in range(m)]
    for a, n in enumerate(sizes):
        prove(n == 1 or v_read[a] >= T[a][a], "S is PSD within an orbit")
        T[a][a] = (v_read[a] + (n - 1) * T[a][a]) / n
        pairs = (n * (n - 1) if a == b else 2 * n * sizes[b] for b in range(a + 1))
        bound -= n * v_read[a] + sum((w * C[a][b] * lower[a][b] for b, w in enumerate(pairs)), arb(0))
    for p in range(m):
        prove(T[p][p] > 0, "S is PSD across orbits")
        column = [T[b][p] for b in range(p + 1, m)]
        for a, x in enumerate(column, p + 1):
            factor = x / T[p][p]
            T[a][p + 1 :] = [t - factor * y for t, y in zip(T[a][p + 1 :], column, strict=False)]
    return bound, [lower, v_read, C]


def pair_weights(problem: Statement) -> tuple[Edges, Edges, arb]:
    """A and N at the frame for pairs a <= b of orbits, and the least weight that a batch gives to all such pairs."""
    smallest_weight, within, across = INFINITY, defaultdict(arb), defaultdict(arb)
    for (batch, count), composition in zip(problem.batches, problem.compositions, strict=True):
        forces = {c: anchor.forces() for c, anchor in rows(problem, count).items()}
        merges = len(count) > 1 or problem.loss.kind == "sigmoid"
        for position, a in enumerate(batch):
            c = problem.classes[a]
            for b in batch[position:]:
                e, pairs = problem.classes[b], composition.alike(a, b)
                acting = [forces[i][j] for i, j in ((c, e), (e, c)) if i in forces]
                if acting and pairs and (merges or c != e):
                    weight, edges = sum(acting, arb(0)) / 2, within if c == e else across
                    if composition.sure(a, b) > 0:
                        edges[a, b] += composition.sure(a, b) * weight
                    smallest_weight = smallest_weight.min(composition.weight * pairs * weight)
    return within, across, smallest_weight


def smallest_tie_weight(problem: Statement, gram: Gram) -> arb:
    """The least cost if values differ by 1: those of all anchors of an orbit with two orbits of a one-class batch."""
    least = INFINITY
    for (batch, count), held in zip(problem.batches, problem.compositions, strict=True):
        for anchor in rows(problem, count).values() if problem.loss.alone == 3 and len(count) == 1 else ():
            for a in batch:
                terms = [(held.held[b] - (a == b)) * (gram(a, b) * anchor.s).exp() for b in batch if held.pairs(a, b)]
                cost = 2 * anchor.omega * (anchor.s / 2).cosh().log() * held.weight * held.held[a]
                if len(terms) > 1:
                    least = least.min(cost * reduce(arb.min, terms) / sum(terms, arb(0)))
    return least


def smallest_dual_weight(problem: Statement, C: list[list[arb]]) -> arb:
    """UFM: the least first-order change of L when the cosine of two orbits of a mixed batch changes by min(tau, 1)."""
    mixed = (batch for batch, count in problem.batches if len(count) > 1 or problem.loss.kind == "sigmoid")
    pairs = {(a, b, problem.classes[a] == problem.classes[b]) for batch in mixed for a in batch for b in batch if a < b}
    acting = ((a, b) for a, b, alike in pairs if (C[a][b] < 0 if alike else C[a][b] > 0))
    weights = (2 * problem.sizes[a] * problem.sizes[b] * abs(C[a][b]) for a, b in acting)
    return reduce(arb.min, weights, INFINITY) * problem.tau.min(arb(1))
