"""The loss and its lower bounds in balls (theory, 6.3 and 6.4), and the least that a broken pair or tie costs (6.5)."""

from collections import defaultdict
from collections.abc import Sequence
from functools import reduce
from typing import Any

from flint import arb

from solvers.checking.reading import MOST_IN_A_MATRIX, Gram, Problem, doubles, items, need, prove

INFINITY = arb.pos_inf()
Edges = dict[tuple[int, int], arb]


def least(values: Sequence[arb]) -> arb:
    """The least; infinite of none."""
    return reduce(arb.min, values, INFINITY)


def loss(problem: Problem, gram: Gram, gradient: Sequence[list[arb]] = ()) -> arb:
    """L, and, added to `gradient`, its derivative: C_ab for one pair of samples of orbits a and b."""
    total, memo, classes = arb(0), {}, problem.classes
    for batch, count in problem.batches:
        for a in (a for a in batch if count[classes[a]] > 1):
            partition, pull, positives = arb(0), arb(0), count[classes[a]] - 1
            for b in batch:
                key, others = (min(a, b), max(a, b)), problem.sizes[b] - (a == b)
                if key not in memo:
                    memo[key] = (gram(*key) / problem.tau).exp()
                partition += others * memo[key]
                pull += others * gram(*key) if classes[a] == classes[b] else 0
            total += problem.sizes[a] * (partition.log() - pull / (positives * problem.tau))
            for b in batch if gradient else ():
                share = memo[min(a, b), max(a, b)] / partition - arb(classes[a] == classes[b]) / positives
                gradient[a][b] += share / (2 * problem.tau)
                gradient[b][a] += share / (2 * problem.tau)
    return total


def counted(problem: Problem, free: bool = False) -> arb:
    """sum_B sum_{c: n_{B,c} >= 2} n_{B,c} log(n_{B,c} - 1 + (n_B - n_{B,c}) e^{-x/tau}), x = 1; or `free` of H >= 0."""
    total = arb(0)
    for _, count in problem.batches:
        alike, everyone = len(set(count.values())) == 1 < len(count), sum(count.values())
        x = (arb(len(count)) / (len(count) - 1) if alike else arb(2)) if free else arb(1)
        decay = (-x / problem.tau).exp()
        total += sum((n * (n - 1 + (everyone - n) * decay).log() for n in count.values() if n >= 2), arb(0))
    return total


def matrix_bound(problem: Problem, gram: Any, v: Any, N: Any) -> tuple[arb, list[Any]]:
    """L(G0) - <C, G0> - sum_a n_a v_a, once S = C + Diag(v) - N is proved PSD; and G0 (its lower triangle), v and C."""
    m, sizes = len(problem.sizes), problem.sizes
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
        for a in range(p + 1, m):
            factor = T[a][p] / T[p][p]
            for b in range(p + 1, a + 1):
                T[a][b] -= factor * T[b][p]
    return bound, [lower, raised, C]


def pair_weights(problem: Problem) -> tuple[Edges, Edges, arb]:
    """A and N at the frame on pairs a <= b of orbits, and the least weight a batch gives to all samples of a pair."""
    decay, weakest = (-1 / problem.tau).exp(), INFINITY
    within, across = defaultdict(arb), defaultdict(arb)
    for batch, count in problem.batches:
        everyone = sum(count.values())
        inverse = {c: 1 / (n - 1 + (everyone - n) * decay) if n >= 2 else arb(0) for c, n in count.items()}
        for position, a in enumerate(batch):
            c, n, size = problem.classes[a], count[problem.classes[a]], problem.sizes[a]
            for b in batch[position:]:
                other, pairs = problem.classes[b], size * (size - 1) if a == b else 2 * size * problem.sizes[b]
                if c != other and (n >= 2 or count[other] >= 2):
                    weight, edges = decay * (inverse[c] + inverse[other]) / (2 * problem.tau), across
                elif c == other and 2 <= n < everyone and pairs:
                    weight, edges = (everyone - n) * decay * inverse[c] / ((n - 1) * problem.tau), within
                else:
                    continue
                edges[a, b] += weight
                weakest = weakest.min(pairs * weight)
    return within, across, weakest


def weakest_tie(problem: Problem, gram: Gram) -> arb:
    """The least that all anchors of an orbit pay if their values with two orbits of a one-class batch differ by 1."""
    masses, sizes = [], problem.sizes
    for batch in (batch for batch, count in problem.batches if len(count) == 1):
        for a in batch:
            each = [(sizes[b] - (a == b)) * (gram(a, b) / problem.tau).exp() for b in batch if sizes[b] > (a == b)]
            masses += [sizes[a] * least(each) / sum(each, arb(0))] if len(each) > 1 else []
    return 2 * least(masses) * (1 / (2 * problem.tau)).cosh().log()


def weakest_force(problem: Problem, C: list[list[arb]]) -> arb:
    """UFM: the least first-order change of L as two orbits of a mixed batch turn by min(tau, 1)."""
    mixed = (batch for batch, count in problem.batches if len(count) > 1)
    pairs = {(a, b, problem.classes[a] == problem.classes[b]) for batch in mixed for a in batch for b in batch if a < b}
    acting = ((a, b) for a, b, alike in pairs if (C[a][b] < 0 if alike else C[a][b] > 0))
    return least([2 * problem.sizes[a] * problem.sizes[b] * abs(C[a][b]) for a, b in acting]) * problem.tau.min(arb(1))
