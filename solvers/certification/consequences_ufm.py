r"""What a gap implies without the ReLU: certified intervals of the cosines of all points of UFM of no larger loss.

Full batch, convex losses of the family (theory, 4.13, 4.14 and 4.17): the orbits are the classes a, of n_a samples. A
dual (G0, v) with C the gradient at G0 and S = C + Diag(v) PSD proves the lower bound l = L(G0) - <C, G0> - sum v
(`solvers.certification.dual_bounds`). L(G) - L(G0) - <C, G - G0> is the sum over active anchors of the Bregman
divergences D_i >= 0 of their losses, so for every feasible G with L(G) <= l + eps

    sum_i D_i + <S, G> + sum_i v_i (1 - G_ii) <= eps,    every term >= 0.                                       (1)

Averaging G over the permutations within classes keeps it feasible, keeps (1), and keeps the class means: with x_ab the
mean of G over pairs of samples of a and b, and g_a the mean of G_ii, <mu_a, mu_b> = x_ab and
||mu_a||^2 = (g_a + (n_a - 1) x_aa) / n_a >= x_aa. Now, class by class:

- *Norms and spread.* On vectors within a class that sum to 0, S is s_a = v_a - C_aa, so (1) holds s_a sum_i ||h_i -
  mu_a||^2 = s_a (n_a - 1) (g_a - x_aa) and n_a v_a (1 - g_a) as terms. Hence 1 - x_aa <= u_a = eps max(1 / (n_a v_a),
  1 / ((n_a - 1) s_a)) for n_a >= 2, 1 - g_a <= u_a = eps / v_a for n_a = 1, and ||h_i - h_j||^2 <= 2 eps / s_a.
- *Rows of an active class a* (n_a >= 2). If D is the divergence of log sum_b w_b e^{z_b}, p the softmax of its terms at
  G0 and y_b the change of z_b less its mean under p, sum_b p_b y_b = 0, so

      sum_b p_b phi(y_b) = e^D - 1,  phi(y) = e^y - 1 - y >= y^2 / (2 + |y|):   |y_b| <= r(q / p_b),

  q = e^D - 1, r(x) = (x + sqrt(x^2 + 8 x)) / 2 (`_reach`). Log-sum-exp: n_a omega_a D <= eps, z_b = s x_ab, so all
  x_ab - G0_ab in the logarithm agree up to r / s. If it contains positives, 1 - u_a <= x_aa <= 1 bounds them. Else
  (decoupled) the row of S H bounds them: ||n_a T_aa mu_a + sum_b n_b C_ab mu_b||^2 <= T_aa eps, with
  T_aa = (v_a + (n_a - 1) C_aa) / n_a, and its product with mu_a. Sigmoid: each pair has a logarithm of two terms, one
  of which is 1.
- *Two classes a, b of one sample.* C_ab = 0, and ||(S H)_a||^2 <= S_aa <S, G> <= v_a eps, so by its inner product with
  h_b, |v_a x_ab + sum_l n_l C_al x_lb| <= sqrt(v_a eps), l over the active classes.
- *Two merged classes.* With T_ab = C_ab off the diagonal, <S, G> >= sum_ab n_a n_b T_ab <mu_a, mu_b>, and T is
  positive definite, so ||mu_a - mu_b||^2 <= eps z' T^-1 z, z_a = 1 / n_a, z_b = -1 / n_b: x_ab is near 1 where S
  penalises a difference.

**Uniqueness** (d >= k) is 4.13 and 4.17: the rows of active classes are the same in all minimisers; a sample that is
alone in its class is determined if its cosines with all active classes are negative. If every class has two samples
this needs no gap at all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from flint import arb, arb_mat

from solvers.certification.anchors import ONE, Anchor
from solvers.certification.balls import ZERO, Table, balls, downwards, upwards
from solvers.certification.consequences import Implied
from solvers.certification.dual_bounds import MatrixDual, sums_over_orbits
from solvers.certification.orbit_problem import OrbitProblem, loss_and_gradient

SIGNS = arb(-1).union(ONE)  # every number from -1 to 1


def implied_ufm(problem: OrbitProblem, gap: arb, dual: MatrixDual | None) -> Implied | None:
    """What L - lower bound <= gap implies of the points of UFM; see the module docstring.

    None for other batches than the full one (also for expected losses), without a matrix dual, and where one of its v
    or s is not positive. The gap is enlarged a little, so that every claim survives another order of summation. Call
    within `flint.ctx.workprec`.
    """
    k, sizes = problem.k, problem.sizes
    partial = problem.held is not None or any(len(batch) < k for batch in problem.batches)
    if dual is None or problem.classes != tuple(range(k)) or partial:
        return None
    eps = arb(max(upwards(gap), 0.0)) * (1 + arb(2) ** -20)
    v, G0 = [arb(x) for x in dual.v.tolist()], balls(dual.gram)
    _, C = loss_and_gradient(problem, G0)
    s = [v[a] - C[a][a] for a in range(k)]
    if not all(x > 0 for x in (*v, *s)):
        return None
    short = [eps / v[a] if n == 1 else (eps / (n * v[a])).max(eps / ((n - 1) * s[a])) for a, n in enumerate(sizes)]
    norm = [max(downwards((1 - u).sqrt()), 0.0) if u < 1 else 0.0 for u in short]
    most = [[1.0] * k for _ in range(k)]
    least = [[1.0 if a == b else -1.0 for b in range(k)] for a in range(k)]
    for (a, b), products in _inner_products(problem, G0, C, v, short, eps).items():
        if norm[a] > 0 and norm[b] > 0:
            # Norms of means lie between these bounds and 1.
            cosines = [x.union(x / (arb(norm[a]) * arb(norm[b]))) for x in products]
            most[a][b] = min(1.0, *map(upwards, cosines))
            least[a][b] = max(-1.0, *map(downwards, cosines))
    several = [a for a in range(k) if sizes[a] > 1]
    apart = all(most[a][b] < 0 for a in range(k) if sizes[a] == 1 for b in several)
    return Implied(
        cosine=tuple(map(tuple, most)),
        spread=tuple(0.0 if n == 1 else min(upwards((2 * eps / s[a]).sqrt()), 2.0) for a, n in enumerate(sizes)),
        norm=tuple(norm),
        rigid=problem.d >= k and bool(several) and apart,
        least_cosine=tuple(map(tuple, least)),
    )


def _inner_products(
    problem: OrbitProblem, G0: Table, C: Table, v: list[arb], short: list[arb], eps: arb
) -> dict[tuple[int, int], list[arb]]:
    """Balls that hold x_ab, for ordered pairs of classes."""
    k, sizes = problem.k, problem.sizes
    several, lone = [a for a in range(k) if sizes[a] > 1], [a for a in range(k) if sizes[a] == 1]
    intervals: dict[tuple[int, int], list[arb]] = defaultdict(list)
    anchors = problem.anchor_by_class(problem.counts[0])
    for a in several:
        for b, ball in _of_row(anchors[a], sizes, G0[a], C[a], v[a], short[a], eps).items():
            intervals[a, b].append(ball)
            intervals[b, a].append(ball)
    for a, b in ((a, b) for a in lone for b in lone if a != b):
        drawn = sum((sizes[c] * C[a][c] * intervals[c, b][0] for c in several), ZERO)
        intervals[a, b].append(((v[a] * eps).sqrt() * SIGNS - drawn) / v[a])
    for (a, b), squared in _distances(sums_over_orbits(problem, C, v), sizes, eps).items():
        intervals[a, b].append((1 - (short[a] + short[b] + squared) / 2).union(ONE))
    return intervals


def _distances(T: Table, sizes: Sequence[int], eps: arb) -> dict[tuple[int, int], arb]:
    """Upper bounds on ||mu_a - mu_b||^2 for ordered pairs of classes; none if T is not proved to be invertible."""
    try:
        X = arb_mat(T).inv()
    except ZeroDivisionError:
        return {}
    pairs = ((a, b) for a in range(len(T)) for b in range(len(T)) if a != b)
    return {
        (a, b): eps * (X[a, a] / sizes[a] ** 2 + X[b, b] / sizes[b] ** 2 - 2 * X[a, b] / (sizes[a] * sizes[b]))
        for a, b in pairs
    }


def _of_row(
    anchor: Anchor, sizes: Sequence[int], G0: list[arb], C: list[arb], v: arb, short: arb, eps: arb
) -> dict[int, arb]:
    """Balls that hold x_ab of an active class a, by b; G0, C, v, short: of a."""
    a, n, s = anchor.c, sizes[anchor.c], anchor.s
    if anchor.kind == "sigmoid":
        odds = {b: (s * G0[b] + anchor.bias).exp() for b in anchor.negatives}
        q = {b: (eps / (n * m)).expm1() for b, m in anchor.negatives.items()}
        return {b: G0[b] + SIGNS * (_reach(q[b] * (1 + 1 / x)) + _reach(q[b] * (1 + x))) / s for b, x in odds.items()}
    weight = {b: m * anchor.factor(b) * (s * G0[b]).exp() for b, m in anchor.negatives.items()}
    positives = anchor.positives * anchor.factor(a) * (s * G0[a]).exp()
    q = (eps / (n * anchor.omega)).expm1() * sum(weight.values(), positives)
    ball = {b: G0[b] + SIGNS * _reach(q / w) / s for b, w in weight.items()}
    if anchor.held:
        shift = (1 - short).union(ONE) - G0[a] + SIGNS * _reach(q / positives) / s
    else:
        pull, push = v + (n - 1) * C[a], sum((sizes[b] * C[b] for b in ball), ZERO)
        drawn = sum((sizes[b] * C[b] * x for b, x in ball.items()), pull * (1 - short).union(ONE))
        shift = (SIGNS * (pull * eps / n).sqrt() - drawn) / push
    return {b: x + shift for b, x in ball.items()}


def _reach(x: arb) -> arb:
    """An upper bound on every |y| with phi(y) <= x."""
    return (x + (x * x + 8 * x).sqrt()) / 2
