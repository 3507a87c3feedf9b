"""What a gap implies without the ReLU, in the full batch: intervals of cosines (theory, 4.14, 4.17, 6.14)."""

from collections import defaultdict
from contextlib import suppress
from typing import Any

from flint import arb, arb_mat

from ufm_check.consequences import norms_and_spreads
from ufm_check.losses import Anchor, rows
from ufm_check.reading import Statement, doubles, items, prove, record, shown

UNIT = arb(-1).union(arb(1))


def of_anchors(row: Anchor, n: list[int], G0: list[arb], C: list[arb], v: arb, short: arb, eps: arb) -> dict[int, arb]:
    """UFM: balls that hold the mean cosines of a class with the others, of two samples or more (theory, 4.17)."""
    a, s = row.c, row.s

    def reach(inside: arb, paid: arb) -> arb:  # how far a term that holds such a share of its logarithm may move
        x = paid.expm1() / inside
        return UNIT * (x + (x * x + 8 * x).sqrt()) / (2 * s)

    if row.kind == "sigmoid":
        share = {b: 1 / (1 + (-s * G0[b] - row.b).exp()) for b in row.negatives}
        paid = {b: eps / (n[a] * n[b]) for b in share}
        return {b: G0[b] + reach(p, paid[b]) + reach(1 - p, paid[b]) for b, p in share.items()}
    held = {b: (n[b] - (a == b)) * f * (s * G0[b]).exp() for b, f in row.factor.items() if not f.is_zero()}
    total = sum(held.values(), arb(0))
    near = {b: G0[b] + reach(w / total, eps / (n[a] * row.omega)) for b, w in held.items()}
    one = (1 - short).union(arb(1))
    if a in held:
        move = one - near.pop(a)
    else:
        gradient_scale = v + (n[a] - 1) * C[a]
        rest = gradient_scale * one + sum((n[b] * C[b] * x for b, x in near.items()), arb(0))
        move = (UNIT * (gradient_scale * eps / n[a]).sqrt() - rest) / sum((n[b] * C[b] for b in near), arb(0))
    return {b: x + move for b, x in near.items()}


def distances(C: list[list[arb]], s: list[arb], n: list[int], eps: arb) -> dict[tuple[int, int], arb]:
    """UFM: at most the squares of the distances of class means, if the matrix over classes is proved invertible."""
    pairs = [(a, b) for a in range(len(n)) for b in range(len(n))]
    with suppress(ZeroDivisionError):
        X = arb_mat(len(n), len(n), [n[a] * (n[b] * C[a][b] + (s[a] if a == b else 0)) for a, b in pairs]).inv()
        return {(a, b): eps * (X[a, a] + X[b, b] - 2 * X[a, b]) for a, b in pairs if a != b}
    return {}


def check_intervals(problem: Statement, dual: list[Any], eps: arb, claims: Any, unique: Any) -> str:
    """UFM: redo the bounds on spreads, norms and cosines, and uniqueness; what they say."""
    k, n, (lower, v, C) = problem.k, problem.sizes, dual
    cosine, spread, norm, least = record(claims, "implied", "cosine", "spread", "norm", "least_cosine")
    most, least = ([doubles(row, "cosine", k, -1.0, 1.0) for row in items(t, "cosine", k)] for t in (cosine, least))
    spreads, norms = doubles(spread, "spread", k, 0.0, 2.0), doubles(norm, "norm", k, 0.0, 1.0)
    full = problem.batches != [] and all(len(batch) == k for batch, _ in problem.batches)
    prove(full and not problem.expected and problem.classes == list(range(k)), "a full batch")
    s, products = [v[a] - C[a][a] for a in range(k)], defaultdict(list)
    prove(all(x > 0 for x in (*v, *s)), "the multipliers are positive")
    short = [eps / v[a] if m == 1 else (eps / (m * v[a])).max(eps / ((m - 1) * s[a])) for a, m in enumerate(n)]
    several, lone = [a for a in range(k) if n[a] > 1], [a for a in range(k) if n[a] == 1]
    for a, row in rows(problem, problem.batches[0][1]).items():
        near = [lower[max(a, b)][min(a, b)] for b in range(k)]
        for b, ball in of_anchors(row, n, near, C[a], v[a], short[a], eps).items():
            products[a, b].append(ball)
            products[b, a].append(ball)
    for a, b in ((a, b) for a in lone for b in lone):
        drawn = sum((n[c] * C[a][c] * products[c, b][0] for c in several), arb(0))
        products[a, b].append(((v[a] * eps).sqrt() * UNIT - drawn) / v[a])
    for (a, b), squared in distances(C, s, n, eps).items():
        products[a, b].append((1 - (short[a] + short[b] + squared) / 2).union(arb(1)))
    for c in range(k):
        prove(most[c][c] == 1 and least[c][c] == 1, f"the cosine of {c} with itself")
        prove(norms[c] ** 2 <= 1 - short[c] or norms[c] <= 0, f"the norm of the mean of class {c}")
        prove(n[c] == 1 or spreads[c] >= 2 or spreads[c] ** 2 * s[c] >= 2 * eps, f"the spread of class {c}")
        for e in (e for e in range(k) if e != c):
            scale = norms[c] * norms[e]
            found = [x.union(x / scale) for x in products[c, e] if scale > 0]
            below = least[c][e] <= -1 or any(x >= least[c][e] for x in found)
            prove(below and (most[c][e] >= 1 or any(x <= most[c][e] for x in found)), f"the cosine of {c} and {e}")
    prove(unique is not True or (several != [] and all(most[a][b] < 0 for a in lone for b in several)), "uniqueness")
    widest = max(float(most[c][e] - least[c][e]) for c in range(k) for e in range(c))
    others = norms_and_spreads(norms, spreads)
    return f"class means of cosines in the file's intervals, at most {shown(widest)} wide, {others}"
