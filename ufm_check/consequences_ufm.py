"""What a gap implies without the ReLU, in the full batch: intervals of cosines (theory, 4.14, 4.17, 6.14)."""

from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, NamedTuple

from flint import arb, arb_mat

from ufm_check.consequences import norms_and_spreads
from ufm_check.fields import doubles, items, prove, record, shown
from ufm_check.losses import Anchor, rows
from ufm_check.reading import Statement

UNIT = arb(-1).union(arb(1))


class Intervals(NamedTuple):
    """What a file claims: bounds of the cosines of class means, of distances within classes, and of mean norms."""

    most: list[list[arb]]
    least: list[list[arb]]
    spreads: list[arb]
    norms: list[arb]


class Dual(NamedTuple):
    """The dual over classes in the full batch: sizes n, G0, v, C, s = v - diag C, and the gap eps (theory, 4.14).

    short: 1 minus the squared norm of each class mean is at most this.
    """

    n: list[int]
    G0: list[list[arb]]
    v: list[arb]
    C: list[list[arb]]
    s: list[arb]
    eps: arb
    short: list[arb]


def of_anchors(row: Anchor, n: list[int], G0: list[arb], C: list[arb], v: arb, short: arb, eps: arb) -> dict[int, arb]:
    """UFM: balls that hold the mean cosines of a class with the others, of two samples or more (theory, 4.17)."""
    a, s = row.c, row.s

    def reach(fraction: arb, paid: arb) -> arb:
        """How far a term that contributes this fraction of the logarithm's argument may move at this cost."""
        x = paid.expm1() / fraction
        return UNIT * (x + (x * x + 8 * x).sqrt()) / (2 * s)

    if row.kind == "sigmoid":
        balls = {}
        for b in row.negatives:
            fraction, paid = 1 / (1 + (-s * G0[b] - row.b).exp()), eps / (n[a] * n[b])
            balls[b] = G0[b] + reach(fraction, paid) + reach(1 - fraction, paid)
        return balls
    terms = {b: (n[b] - (a == b)) * f * (s * G0[b]).exp() for b, f in row.factor.items() if not f.is_zero()}
    total = sum(terms.values(), arb(0))
    near = {b: G0[b] + reach(term / total, eps / (n[a] * row.omega)) for b, term in terms.items()}
    mean_norm = (1 - short).union(arb(1))
    if a in near:  # positives in the denominator: their cosine shows by how much all have moved together
        move = mean_norm - near.pop(a)
    else:
        pull = v + (n[a] - 1) * C[a]
        push = sum((n[b] * C[b] for b in near), arb(0))
        rest = pull * mean_norm + sum((n[b] * C[b] * x for b, x in near.items()), arb(0))
        move = (UNIT * (pull * eps / n[a]).sqrt() - rest) / push
    return {b: x + move for b, x in near.items()}


def distances(C: list[list[arb]], s: list[arb], n: list[int], eps: arb) -> dict[tuple[int, int], arb]:
    """UFM: at most the squares of the distances of class means, if the matrix over classes is proved invertible."""
    pairs = [(a, b) for a in range(len(n)) for b in range(len(n))]
    with suppress(ZeroDivisionError):
        X = arb_mat(len(n), len(n), [n[a] * (n[b] * C[a][b] + (s[a] if a == b else 0)) for a, b in pairs]).inv()
        return {(a, b): eps * (X[a, a] + X[b, b] - 2 * X[a, b]) for a, b in pairs if a != b}
    return {}


def read_intervals(claims: Any, k: int) -> Intervals:
    """The claims of a file."""
    cosine, spread, norm, least = record(claims, "implied", "cosine", "spread", "norm", "least_cosine")
    return Intervals(
        [doubles(row, "cosine", k, -1.0, 1.0) for row in items(cosine, "cosine", k)],
        [doubles(row, "cosine", k, -1.0, 1.0) for row in items(least, "cosine", k)],
        doubles(spread, "spread", k, 0.0, 2.0),
        doubles(norm, "norm", k, 0.0, 1.0),
    )


def full_batch_dual(problem: Statement, matrices: list[Any], eps: arb) -> Dual:
    """The dual of a full batch, with what it says of the norms of class means."""
    k, n, (lower, v, C) = problem.k, problem.sizes, matrices
    full = problem.batches != [] and all(len(batch) == k for batch, _ in problem.batches)
    prove(full and not problem.expected and problem.classes == list(range(k)), "a full batch")
    s = [v[a] - C[a][a] for a in range(k)]
    prove(all(x > 0 for x in (*v, *s)), "the multipliers are positive")
    short = [eps / (n[a] * v[a]) for a in range(k)]
    for a in (a for a in range(k) if n[a] > 1):
        short[a] = short[a].max(eps / ((n[a] - 1) * s[a]))
    G0 = [[lower[max(a, b)][min(a, b)] for b in range(k)] for a in range(k)]
    return Dual(n, G0, v, C, s, eps, short)


def inner_products(problem: Statement, dual: Dual) -> dict[tuple[int, int], list[arb]]:
    """Balls that hold the inner product of two class means, all that are known of each pair."""
    n, v, C, products = dual.n, dual.v, dual.C, defaultdict(list)
    _, count = problem.batches[0]
    for a, row in rows(problem, count).items():
        for b, ball in of_anchors(row, n, dual.G0[a], C[a], v[a], dual.short[a], dual.eps).items():
            products[a, b].append(ball)
            products[b, a].append(ball)
    several, lone = [a for a in range(len(n)) if n[a] > 1], [a for a in range(len(n)) if n[a] == 1]
    for a in lone:
        for b in lone:
            towards = sum((n[c] * C[a][c] * products[c, b][0] for c in several), arb(0))
            products[a, b].append(((v[a] * dual.eps).sqrt() * UNIT - towards) / v[a])
    for (a, b), squared in distances(C, dual.s, n, dual.eps).items():
        products[a, b].append((1 - (dual.short[a] + dual.short[b] + squared) / 2).union(arb(1)))
    return products


def check_cosine(c: int, e: int, claimed: Intervals, products: Iterable[arb]) -> None:
    """Prove the interval that is claimed of the cosine of two class means, from balls of their inner product."""
    scale, most, least = claimed.norms[c] * claimed.norms[e], claimed.most[c][e], claimed.least[c][e]
    cosines = [x.union(x / scale) for x in products] if scale > 0 else []
    bounded_below = least <= -1 or any(x >= least for x in cosines)
    bounded_above = most >= 1 or any(x <= most for x in cosines)
    prove(bounded_below and bounded_above, f"the cosine of {c} and {e}")


def check_intervals(problem: Statement, matrices: list[Any], eps: arb, claims: Any, unique: Any) -> str:
    """UFM: prove the bounds on spreads, norms and cosines again, and uniqueness; what they say."""
    k = problem.k
    claimed, dual = read_intervals(claims, k), full_batch_dual(problem, matrices, eps)
    products = inner_products(problem, dual)
    for c in range(k):
        norm, spread = claimed.norms[c], claimed.spreads[c]
        prove(claimed.most[c][c] == 1 and claimed.least[c][c] == 1, f"the cosine of {c} with itself")
        prove(norm**2 <= 1 - dual.short[c] or norm <= 0, f"the norm of the mean of class {c}")
        proved_spread = dual.n[c] == 1 or spread >= 2 or spread**2 * dual.s[c] >= 2 * eps
        prove(proved_spread, f"the spread of class {c}")
        for e in range(k):
            if e != c:
                check_cosine(c, e, claimed, products[c, e])
    if unique is True:
        several = [b for b in range(k) if dual.n[b] > 1]
        pushed_apart = all(claimed.most[a][b] < 0 for a in range(k) if dual.n[a] == 1 for b in several)
        prove(several != [] and pushed_apart, "uniqueness")
    widest = max(float(claimed.most[c][e] - claimed.least[c][e]) for c in range(k) for e in range(c))
    others = norms_and_spreads(claimed.norms, claimed.spreads)
    return f"class means of cosines in the file's intervals, which are at most {shown(widest)} wide, {others}"
