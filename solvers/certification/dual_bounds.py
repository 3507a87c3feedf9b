r"""Lower bounds on the loss of every feasible point, in ball arithmetic, and the sources of their duals.

**Lower bound.** L is convex in G, so for every G0, feasible or not, with C the gradient at G0,

    L(G) >= L(G0) + <C, G - G0> >= L(G0) - <C, G0> - sum_a n_a v_a

for all G of the relaxation { PSD, diag <= 1, and G >= 0 for UFM+ } whenever S = C + Diag(v) - N is
PSD, v >= 0, and N >= 0 (N = 0 for UFM) (theory, 4.5). S is PSD over the samples iff

    v_a - s_aa >= 0 for every orbit with n_a >= 2   (differences within an orbit), and
    T is PSD, T_ab = s_ab for a != b, T_aa = (v_a + (n_a - 1) s_aa) / n_a   (sums over orbits).

**Laplacian dual.** At the Gram matrix of an orthogonal frame C = -A + N, A >= 0 within classes and N >= 0 across;
v = A 1 makes S = Diag(A 1) - A a graph Laplacian, PSD whatever the batch family, and the bound is the
loss of the frame itself (theory, 4.4). It needs no matrix, so it serves any number of orbits.

Doubles are converted exactly. No decision is made in floating point.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from flint import arb, ctx
from jaxtyping import Float

from solvers.certification.balls import ZERO, Table, balls, downwards, is_positive_definite
from solvers.certification.orbit_problem import OrbitProblem, Point, loss_and_gradient

MOST_ORBITS_IN_A_MATRIX = 256


@dataclass(frozen=True)
class LowerBound:
    """A rigorous lower bound on the loss of every feasible point of a problem.

    - value: the bound, rounded down.
    - kind: "laplacian" (UFM+), "matrix" (any model; `dual` holds it), "elementary" (UFM: G >= -1), or "none" (a custom
      loss).
    - source: where the dual comes from, in words.
    - ball: the bound before rounding. It is known only right after the computation; files and copies do not hold it.
    """

    value: float
    kind: str
    source: str
    dual: MatrixDual | None = None
    ball: arb | None = field(default=None, compare=False, repr=False)

    def __getstate__(self) -> dict[str, object]:
        # As in files: balls cannot be pickled, and the value alone is a bound.
        return {**self.__dict__, "ball": None}


def frame_loss(problem: OrbitProblem) -> arb:
    """The loss of an orthogonal frame, the bound of Theorems 1 and 2, sum_B sum_{c: n_{B,c} >= 2} n_{B,c} log Z for SCL
    (theory, 2.2 and 2.14)."""
    return _counted(problem, lambda count: arb(1))


def elementary_bound(problem: OrbitProblem) -> arb:
    """sum_B sum_{c: n_{B,c} >= 2} n_{B,c} log(n_{B,c} - 1 + (n_B - n_{B,c}) e^{-x/tau}), valid for UFM and UFM+.

    By Jensen's inequality over the positives, with g_i their mean, an anchor loss is at least log(p + q e^{x_i/tau}),
    where x_i is the mean of G_il - g_i over the q negatives; x_i >= -2. Where the k_B >= 2 classes of a batch have
    equally many samples (p + 1 each), Jensen over the anchors leaves the mean of x_i. Since all entries of G sum to at
    least 0, sum_across >= -sum_within - tr G, and the mean is at least -1 - (p + 1)/q = -k_B/(k_B - 1): the simplex.
    For the other losses of the family, an anchor loss is at least its value at G_ij = 1 and G_il = -1 (theory, 4.16).
    """

    def drop(count: Counter[int]) -> arb:
        equally_many = problem.loss.is_plain and len(set(count.values())) == 1 < len(count)
        return arb(len(count)) / (len(count) - 1) if equally_many else arb(2)

    return _counted(problem, drop)


def _counted(problem: OrbitProblem, drop: Callable[[Counter[int]], arb]) -> arb:
    total = ZERO
    for count, composition in zip(problem.counts, problem.compositions, strict=True):
        for c, anchor in problem.anchor_by_class(count).items():
            total += arb(composition.weight) * count[c] * anchor.least(drop(count))
    return total


@dataclass(frozen=True)
class MatrixDual:
    """A dual point (G0, v, N) in doubles; see the module docstring.

    - source: where it comes from, in words.
    - gram: G0 (m, m), symmetric. v: (m,). N: (m, m) symmetric, zero for UFM.
    """

    source: str
    gram: Float[np.ndarray, "m m"]
    v: Float[np.ndarray, " m"]
    N: Float[np.ndarray, "m m"]


def matrix_bound(problem: OrbitProblem, dual: MatrixDual) -> arb | None:
    """The lower bound that a dual proves, or None if it proves nothing. Call within `flint.ctx.workprec`."""
    v = [arb(entry) for entry in dual.v.tolist()]
    if not problem.loss.is_convex:
        return None
    if not (dual.v >= 0).all() or not (dual.N >= 0).all() or (not problem.nonneg and (dual.N != 0).any()):
        return None
    gram = balls(dual.gram)
    value, C = loss_and_gradient(problem, gram)
    S = slack(C, dual.N)
    sizes, m = problem.sizes, len(problem)
    if not all(sizes[a] == 1 or v[a] >= S[a][a] for a in range(m)):
        return None
    if not is_positive_definite(sums_over_orbits(problem, S, v)):
        return None
    for a in range(m):
        value -= sizes[a] * v[a]
        for b in range(m):
            value -= sizes[a] * (sizes[b] - (a == b)) * C[a][b] * gram[a][b]
    return value


def slack(C: Table, N: Float[np.ndarray, "m m"]) -> Table:
    """C - N."""
    return [[C[a][b] - arb(N_ab) for b, N_ab in enumerate(N_a)] for a, N_a in enumerate(N.tolist())]


def sums_over_orbits(problem: OrbitProblem, S: Table, v: Sequence[arb]) -> Table:
    """T of the module docstring: S on vectors constant on orbits, in the basis of orbit indicators over sizes."""
    T = [list(row) for row in S]
    for a, size in enumerate(problem.sizes):
        T[a][a] = (v[a] + (size - 1) * S[a][a]) / size
    return T


def repaired(problem: OrbitProblem, dual: MatrixDual) -> MatrixDual | None:
    """An approximate dual with v raised a little, so that it is provably feasible; None if no such dual was found.

    Clips v and N at 0, measures in floating point how far S is from PSD, raises every v_a in proportion to its scale
    (so that the bound loses little at a small class), and accepts only a dual that `matrix_bound` proves.
    """
    N = np.maximum(dual.N, 0.0) if problem.nonneg else np.zeros_like(dual.N)
    N = (N + N.T) / 2
    sizes = np.array(problem.sizes, dtype=float)
    with ctx.workprec(problem.bits):
        _, C = loss_and_gradient(problem, balls(dual.gram))
        S = slack(C, N)
        slacks = np.array([[float(entry) for entry in row] for row in S])
        v = np.maximum(dual.v, 0.0)
        v = np.where(sizes > 1, np.maximum(v, np.diag(slacks)), v)
        scale = np.maximum(v, np.abs(slacks) @ sizes)
        scale = np.maximum(scale, 1e-18 * (float(scale.max()) or 1.0))
        T = np.array([[float(entry) for entry in row] for row in sums_over_orbits(problem, S, [arb(x) for x in v])])
        root = np.sqrt(sizes / scale)
        smallest = float(np.linalg.eigvalsh(T * np.outer(root, root))[0])
        shift = max(-smallest, 0.0) + 1e-16
        for _ in range(12):
            raised = MatrixDual(dual.source, dual.gram, v + shift * scale, N)
            if matrix_bound(problem, raised) is not None:
                return raised
            shift = 2 * shift + 1e-16
    return None


def kkt_dual(
    problem: OrbitProblem,
    gram: Float[np.ndarray, "m m"],
    *,
    touching: float = 1e-9,
    means: Float[np.ndarray, "m m"] | None = None,
) -> MatrixDual:
    """The multipliers read off a stationary point: v_a = -(C G)_aa / G_aa, N = max(C, 0) where G <= touching.

    Orbits with G_aa <= touching get v_a = 0. This needs no conic solver (theory, 4.7). The result is approximate; see
    `repaired`.
    means: where samples of an orbit differ, the inner products of the means of orbits (theory, 4.22). The diagonal of
    `gram` then belongs to two different samples, and the conditions on sums over orbits are those of the means.
    """
    gram = (gram + gram.T) / 2
    means = gram if means is None else means
    sizes = np.array(problem.sizes, dtype=float)
    with ctx.workprec(problem.bits):
        _, table = loss_and_gradient(problem, balls(gram))
    C = np.array([[float(entry) for entry in row] for row in table])
    paired = (C * means) @ sizes - np.diag(C) * np.diag(means)
    norms = np.diag(means)
    alive = norms > touching
    v = np.where(alive, -paired / np.where(alive, norms, 1.0), 0.0)
    N = np.where((gram <= touching) & (C > 0), C, 0.0) if problem.nonneg else np.zeros_like(C)
    return MatrixDual("stationarity conditions at a point", gram, np.maximum(v, 0.0), N)


def laplacian(problem: OrbitProblem) -> LowerBound:
    """The loss of the frame: the optimum of UFM+ for d >= k, and a bound for every d (theory, 4.4)."""
    with ctx.workprec(problem.bits):
        bound = frame_loss(problem)
        return LowerBound(downwards(bound), "laplacian", "graph Laplacian of the attractions", ball=bound)


def elementary(problem: OrbitProblem) -> LowerBound:
    """`elementary_bound`, rounded down; it needs no matrix and serves any number of orbits."""
    with ctx.workprec(problem.bits):
        bound = elementary_bound(problem)
        return LowerBound(downwards(bound), "elementary", "every cosine is at least -1", ball=bound)


def stationarity_bound(problem: OrbitProblem, point: Point) -> LowerBound | None:
    """The lower bound whose dual is read off the point itself (theory, 4.7); None if nothing is proved."""
    if len(problem) > MOST_ORBITS_IN_A_MATRIX:
        return None
    with ctx.workprec(problem.bits):
        gram = np.array([[float(entry) for entry in row] for row in point.gram()])
    return evaluated(problem, repaired(problem, kkt_dual(problem, gram)))


def evaluated(problem: OrbitProblem, dual: MatrixDual | None) -> LowerBound | None:
    """The bound that a dual proves (`matrix_bound`), rounded down; None if it proves nothing."""
    if dual is None:
        return None
    with ctx.workprec(problem.bits):
        value = matrix_bound(problem, dual)
        return None if value is None else LowerBound(downwards(value), "matrix", dual.source, dual, value)
