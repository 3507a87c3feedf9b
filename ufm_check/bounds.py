"""The loss and its lower bounds in balls (theory, 6.3 and 6.4), and the least that a broken pair or tie costs (6.5)."""

from collections import defaultdict
from collections.abc import Sequence
from functools import reduce
from typing import Any

from flint import arb

from ufm_check.losses import rows
from ufm_check.reading import MOST_IN_A_MATRIX, Gram, Statement, doubles, items, need, prove

INFINITY = arb.pos_inf()
Edges = dict[tuple[int, int], arb]


def loss(problem: Statement, gram: Gram, gradient: Sequence[list[arb]] = ()) -> arb:
    """L, and, added to `gradient`, its derivative: C_ab for one pair of samples of orbits a and b."""
    total, memo, classes = arb(0), {}, problem.classes
    for (batch, count), share in zip(problem.batches, problem.compositions, strict=True):
        of_class = rows(problem, count)
        for a, row in ((a, of_class[classes[a]]) for a in batch if classes[a] in of_class):
            met, others = [], [b for b in batch if share.pairs(a, b)]
            for b in others:
                key = (min(a, b), max(a, b), row.c if "taus" in problem.loss.numbers else 0)
                if key not in memo:
                    memo[key] = (row.s * gram(*key[:2])).exp()
                met.append((classes[b], share.held[b] - (a == b), gram(*key[:2]), memo[key]))
            value, slopes = row.pays(met)
            total += share.weight * share.held[a] * value
            for b, slope in zip(others, slopes if gradient else (), strict=False):
                half = share.met(a, b) * slope / 2
                gradient[a][b] += half
                gradient[b][a] += half
    return total


def counted(problem: Statement, free: bool = False) -> arb:
    """The loss of the frame, negatives at G = 1 - x, x = 1; or a bound `free` of H >= 0, x = 2 or a simplex's."""
    total = arb(0)
    for (_, count), share in zip(problem.batches, problem.compositions, strict=True):
        alike = problem.loss.plain and len(set(count.values())) == 1 < len(count)
        x = (arb(len(count)) / (len(count) - 1) if alike else arb(2)) if free else arb(1)
        paid = (count[c] * row.pays(row.at(x))[0] for c, row in rows(problem, count).items())
        total += share.weight * sum(paid, arb(0))
    return total


def matrix_bound(problem: Statement, gram: Any, v: Any, N: Any) -> tuple[arb, list[Any]]:
    """L(G0) - <C, G0> - sum_a n_a v_a, once S = C + Diag(v) - N is proved PSD; and G0 (its lower triangle), v and C."""
    m, sizes = len(problem.sizes), problem.sizes
    prove(problem.loss.kind != "supcon-in", "a dual: the loss is not convex")
    alike = problem.nonneg or m == problem.k or all(share.views == 1 for share in problem.compositions)
    prove(alike, "a dual: the views of an image may part")
    need(m <= MOST_IN_A_MATRIX, f"more than {MOST_IN_A_MATRIX} orbits in a matrix")
    lower = [doubles(row, "gram", a + 1, -4.0, 4.0) for a, row in enumerate(items(gram, "gram", m))]
    held = [doubles(row, "N", a + 1, 0.0, 1e300 * problem.nonneg) for a, row in enumerate(items(N, "N", m))]
    raised, C = doubles(v, "v", m, 0.0), [[arb(0)] * m for _ in range(m)]
    bound = loss(problem, lambda a, b: lower[max(a, b)][min(a, b)], C)
    T = [[C[a][b] - held[a][b] for b in range(a + 1)] for a in range(m)]
    for a, n in enumerate(sizes):
        prove(n == 1 or raised[a] >= T[a][a], "S is PSD within an orbit")
        T[a][a] = (raised[a] + (n - 1) * T[a][a]) / n
        pairs = (n * (n - 1) if a == b else 2 * n * sizes[b] for b in range(a + 1))
        bound -= n * raised[a] + sum((w * C[a][b] * lower[a][b] for b, w in enumerate(pairs)), arb(0))
    for p in range(m):
        prove(T[p][p] > 0, "S is PSD across orbits")
        column = [T[b][p] for b in range(p + 1, m)]
        for a, x in enumerate(column, p + 1):
            factor = x / T[p][p]
            T[a][p + 1 :] = [t - factor * y for t, y in zip(T[a][p + 1 :], column, strict=False)]
    return bound, [lower, raised, C]


def pair_weights(problem: Statement) -> tuple[Edges, Edges, arb]:
    """A and N at the frame on pairs a <= b of orbits, and the least weight that a batch gives to all of such a pair."""
    smallest_weight, within, across = INFINITY, defaultdict(arb), defaultdict(arb)
    for (batch, count), share in zip(problem.batches, problem.compositions, strict=True):
        forces = {c: row.forces() for c, row in rows(problem, count).items()}
        glues = len(count) > 1 or problem.loss.kind == "sigmoid"
        for position, a in enumerate(batch):
            c = problem.classes[a]
            for b in batch[position:]:
                e, pairs = problem.classes[b], share.alike(a, b)
                acting = [forces[i][j] for i, j in ((c, e), (e, c)) if i in forces]
                if acting and pairs and (glues or c != e):
                    weight, edges = sum(acting, arb(0)) / 2, within if c == e else across
                    if share.sure(a, b) > 0:
                        edges[a, b] += share.sure(a, b) * weight
                    smallest_weight = smallest_weight.min(share.weight * pairs * weight)
    return within, across, smallest_weight


def smallest_tie_weight(problem: Statement, gram: Gram) -> arb:
    """The least that all anchors of an orbit pay if their values with two orbits of a one-class batch differ by 1."""
    resolutions, together = [], zip(problem.batches, problem.compositions, strict=True)
    for batch, count, of in ((b, n, of) for (b, n), of in together if problem.loss.alone == 3 and len(n) == 1):
        for row, a in ((row, a) for row in rows(problem, count).values() for a in batch):
            each = [(of.held[b] - (a == b)) * (gram(a, b) * row.s).exp() for b in batch if of.pairs(a, b)]
            cost = 2 * row.omega * (row.s / 2).cosh().log() * of.weight * of.held[a]
            resolutions += [cost * reduce(arb.min, each) / sum(each, arb(0))] if len(each) > 1 else []
    return reduce(arb.min, resolutions, INFINITY)


def smallest_dual_weight(problem: Statement, C: list[list[arb]]) -> arb:
    """UFM: the least first-order change of L as two orbits of a mixed batch turn by min(tau, 1)."""
    mixed = (batch for batch, count in problem.batches if len(count) > 1 or problem.loss.kind == "sigmoid")
    pairs = {(a, b, problem.classes[a] == problem.classes[b]) for batch in mixed for a in batch for b in batch if a < b}
    acting = ((a, b) for a, b, alike in pairs if (C[a][b] < 0 if alike else C[a][b] > 0))
    forces = (2 * problem.sizes[a] * problem.sizes[b] * abs(C[a][b]) for a, b in acting)
    return reduce(arb.min, forces, INFINITY) * problem.tau.min(arb(1))
