r"""What a gap implies without the ReLU: certified intervals of the cosines of all points of UFM with no larger loss.

Full batch only (theory, 4.13 and 4.14): the orbits are the classes a, of n_a samples. A dual (G0, v) with C the
gradient at G0 and S = C + Diag(v) PSD proves the lower bound l = L(G0) - <C, G0> - sum v
(`solvers.certification.lower_bounds`). L(G) - L(G0) - <C, G - G0> is the sum over active anchors of the Bregman
divergences D_i >= 0 of log-sum-exp, so for every feasible G with L(G) <= l + eps

    sum_i D_i + <S, G> + sum_i v_i (1 - G_ii) <= eps,    every term >= 0.                                       (1)

Averaging G over the permutations within classes keeps it feasible, keeps (1), and keeps the class means: with x_ab the
mean of G over pairs of samples of a and b, and g_a that of G_ii, <mu_a, mu_b> = x_ab and
||mu_a||^2 = (g_a + (n_a - 1) x_aa) / n_a >= x_aa. Now, class by class:

- *Norms and spread.* On vectors within a class that sum to 0, S is s_a = v_a - C_aa, so (1) holds s_a sum_i ||h_i -
  mu_a||^2 = s_a (n_a - 1) (g_a - x_aa) and n_a v_a (1 - g_a). Hence 1 - x_aa <= u_a = eps max(1 / (n_a v_a),
  1 / ((n_a - 1) s_a)) for n_a >= 2, 1 - g_a <= u_a = eps / v_a for n_a = 1, and ||h_i - h_j||^2 <= 2 eps / s_a.
- *Rows of an active class a* (n_a >= 2). n_a D_a <= eps. With p the softmax of (n_b - [a = b]) e^{G0_ab / tau} over b
  and y_b = (x_ab - G0_ab) / tau less its mean under p, D_a = log sum_b p_b e^{y_b}, and sum_b p_b y_b = 0, so

      sum_b p_b phi(y_b) = e^{D_a} - 1,  phi(y) = e^y - 1 - y >= y^2 / (2 + |y|):   |y_b| <= r_ab,

  r_ab = (q + sqrt(q^2 + 8 q)) / 2, q = (e^{eps / n_a} - 1) / p_b. So the differences x_ab - G0_ab agree up to tau
  (r_ab + r_aa) with x_aa - G0_aa, and 1 - u_a <= x_aa <= 1 pins that.
- *Two classes a, b of one sample.* C_ab = 0, and ||(S H)_a||^2 <= S_aa <S, G> <= v_a eps, so by its inner product with
  h_b, |v_a x_ab + sum_l n_l C_al x_lb| <= sqrt(v_a eps), l over the active classes.

**Uniqueness** (d >= k). L falls strictly in x_aa, so in a minimiser of the relaxation the samples of an active class
are one unit vector. On the segment between two minimisers L is affine, hence so is every log-sum-exp: the entries of an
anchor's row differ by a constant, which is 0 at its positives. So the rows of active classes are unique. A sample h_b
that is alone in its class minimises a convex function of h_b over the ball, of gradient w = sum_i w_i h_i, w_i > 0. If
its cosines with all active classes are negative, w.h_b < 0, so w is not 0 and h_b = -w / ||w||, whose products are
unique as well. The relaxation then has one minimiser, of rank at most the number of active classes: it is attained
in R^d, and every minimiser of UFM has that Gram matrix. If every class has two samples this needs no gap at all.
"""

from __future__ import annotations

from collections import defaultdict

from flint import arb

from solvers.certification.balls import Table, balls, downwards, upwards
from solvers.certification.lower_bounds import MatrixDual
from solvers.certification.orbit_problem import OrbitProblem, loss_and_gradient
from solvers.certification.stability import Implied


def implied_ufm(problem: OrbitProblem, gap: arb, dual: MatrixDual | None) -> Implied | None:
    """What L - lower bound <= gap implies of the points of UFM; see the head of this module.

    None for losses other than SCL, for batches other than the full one, without a matrix dual, and where one of its v
    or s is not positive. The gap is taken a little larger, so that the claims survive another order of summation. Call
    within `flint.ctx.workprec`.
    """
    k, sizes = problem.k, problem.sizes
    if (
        not problem.loss.is_plain
        or dual is None
        or problem.classes != tuple(range(k))
        or any(len(batch) < k for batch in problem.batches)
    ):
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
    k, sizes, tau = problem.k, problem.sizes, arb(problem.tau)
    several, lone = [a for a in range(k) if sizes[a] > 1], [a for a in range(k) if sizes[a] == 1]
    found: dict[tuple[int, int], list[arb]] = defaultdict(list)
    for a in several:
        weight = [(sizes[b] - (a == b)) * (G0[a][b] / tau).exp() for b in range(k)]
        q = [(eps / sizes[a]).expm1() * sum(weight, arb(0)) / w for w in weight]
        reach = [tau * (x + (x * x + 8 * x).sqrt()) / 2 for x in q]
        for b in (b for b in range(k) if b != a):
            loose = reach[a] + reach[b]
            ball = G0[a][b] + 1 - G0[a][a] + (-short[a] - loose).union(loose)
            found[a, b].append(ball)
            found[b, a].append(ball)
    unit = arb(-1).union(arb(1))
    for a, b in ((a, b) for a in lone for b in lone if a != b):
        drawn = sum((sizes[c] * C[a][c] * found[c, b][0] for c in several), arb(0))
        found[a, b].append(((v[a] * eps).sqrt() * unit - drawn) / v[a])
    return found
