r"""Rigorous bounds of the loss in ball arithmetic, over orbits.

Samples of one orbit are exchangeable (theory, 3.1), so everything here lives on orbits
a = 0..m-1 of class c_a with n_a samples. A point is one row an orbit; a Gram matrix has one number
G_ab for all pairs of samples of two orbits, and G_aa for the pairs within an orbit.

**Upper bound.** The loss at a point that is feasible by construction (`Point`), in ball arithmetic.

**Lower bound.** L is convex in G, so for every G0, feasible or not, with C the gradient at G0,

    L(G) >= L(G0) + <C, G - G0> >= L(G0) - <C, G0> - sum_a n_a v_a

for all G of the relaxation { PSD, diag <= 1, and G >= 0 for UFM+ } whenever S = C + Diag(v) - N is
PSD, v >= 0, and N >= 0 (N = 0 for UFM) (theory, 4.5). S is PSD over the samples iff

    v_a - s_aa >= 0 for every orbit with n_a >= 2   (differences within an orbit), and
    T is PSD, T_ab = s_ab for a != b, T_aa = (v_a + (n_a - 1) s_aa) / n_a   (sums over orbits).

**Laplacian dual.** At the orthogonal-frame Gram C = -A + N, A >= 0 within classes and N >= 0 across;
v = A 1 makes S = Diag(A 1) - A a graph Laplacian, PSD whatever the batch family, and the bound is the
loss of the frame itself (theory, 4.4). It needs no matrix, so it serves any number of orbits.

Doubles enter exactly. Nothing is decided in floating point.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from flint import arb, arb_mat, ctx
from jaxtyping import Float

from ufm import Problem
from ufm.problem import PADDING

Table = list[list[arb]]
ZERO = arb(0)


def precision(tau: float) -> int:
    """Working precision in bits: e^{-1/tau} must stay far above the last one."""
    return 256 + math.ceil(6 / tau)


def upwards(x: arb) -> float:
    """A double that is provably not below x (inf for a ball without bounds)."""
    value = float(x.upper())
    if math.isnan(value):
        return math.inf
    while not arb(value) >= x and value < math.inf:
        value = math.nextafter(value, math.inf)
    return value


def downwards(x: arb) -> float:
    """A double that is provably not above x (-inf for a ball without bounds)."""
    return -upwards(-x)


@dataclass(frozen=True)
class OrbitProblem:
    """A problem over its orbits, in plain Python numbers.

    - classes, sizes: class and number of samples of each orbit.
    - batches: the orbits in each batch; all samples of an orbit are in the same batches.
    - tau, d, nonneg: as `ufm.Problem`.
    """

    classes: tuple[int, ...]
    sizes: tuple[int, ...]
    batches: tuple[tuple[int, ...], ...]
    tau: float
    d: int
    nonneg: bool

    @classmethod
    def of(cls, quotient: Problem) -> OrbitProblem:
        """From the orbit-collapsed problem, `ufm.orbits(problem).quotient`."""
        return cls(
            classes=tuple(np.asarray(quotient.labels).tolist()),
            sizes=tuple(int(size) for size in np.asarray(quotient.multiplicity)),
            batches=tuple(tuple(sorted(row[row != PADDING].tolist())) for row in np.asarray(quotient.batches)),
            tau=float(quotient.tau),
            d=quotient.d,
            nonneg=quotient.nonneg,
        )

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def k(self) -> int:
        """Number of classes."""
        return max(self.classes) + 1

    @property
    def model(self) -> str:
        """UFM+ (with the ReLU) or UFM."""
        return "UFM+" if self.nonneg else "UFM"

    @cached_property
    def counts(self) -> tuple[Counter[int], ...]:
        """Samples of each class in each batch (the paper's n_{B,c})."""
        counted = []
        for batch in self.batches:
            count: Counter[int] = Counter()
            for a in batch:
                count[self.classes[a]] += self.sizes[a]
            counted.append(count)
        return tuple(counted)

    def describe(self) -> dict[str, object]:
        """The content of a certificate's "problem", without digests."""
        return {
            "model": self.model,
            "d": self.d,
            "tau": self.tau.hex(),
            "classes": list(self.classes),
            "sizes": list(self.sizes),
            "batches": [list(batch) for batch in self.batches],
        }

    def digest(self) -> str:
        """sha256 of `describe()` as compact JSON with sorted keys."""
        text = json.dumps(self.describe(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Point:
    """A point that is feasible by construction: h_a = norms[a] rows[a] / ||rows[a]||, norms in [0, 1].

    The division is meant exactly, so that a row of norm 1 - 1e-16 stands for one of norm 1. A row of
    zeros has norm 0. For UFM+ rows >= 0 as well.
    """

    rows: Float[np.ndarray, "m d"]
    norms: Float[np.ndarray, " m"]

    def placed(self) -> Float[np.ndarray, "m d"]:
        """The rows h_a in floating point."""
        lengths = np.linalg.norm(self.rows, axis=1)
        return self.rows * (self.norms / np.where(lengths > 0, lengths, 1.0))[:, None]

    def gram(self) -> Table:
        """G in balls. Call within `flint.ctx.workprec`."""
        rows = arb_mat(self.rows.tolist())
        products = rows * rows.transpose()
        m = len(self.norms)
        scale = [arb(float(self.norms[a])) * products[a, a].rsqrt() if self.norms[a] > 0 else ZERO for a in range(m)]
        table = [[ZERO] * m for _ in range(m)]
        for a in range(m):
            table[a][a] = arb(float(self.norms[a])) ** 2
            for b in range(a):
                table[a][b] = table[b][a] = products[a, b] * scale[a] * scale[b]
        return table


def orthogonal_frame(problem: OrbitProblem) -> Point:
    """Every class at its own unit vector (k-OF with neural collapse). Needs d >= k."""
    rows = np.zeros((len(problem), problem.d))
    rows[np.arange(len(problem)), np.array(problem.classes)] = 1.0
    return Point(rows, np.ones(len(problem)))


def loss(problem: OrbitProblem, gram: Table) -> arb:
    """L at an orbit-constant G: sum over batches B and active orbits a of n_a f_{B,a} (theory, 1.3)."""
    return _sweep(problem, gram, None)


def loss_and_gradient(problem: OrbitProblem, gram: Table) -> tuple[arb, Table]:
    """L and C, the symmetric gradient in the entries of the sample Gram matrix, one number a pair of orbits."""
    m = len(problem)
    towards = [[ZERO] * m for _ in range(m)]
    value = _sweep(problem, gram, towards)
    half = arb(0.5)
    return value, [[(towards[a][b] + towards[b][a]) * half for b in range(m)] for a in range(m)]


def _sweep(problem: OrbitProblem, gram: Table, towards: Table | None) -> arb:
    """L; adds d f_a / d G_aj, j a sample of orbit b, to towards[a][b] unless that is None."""
    tau, sizes, classes = arb(problem.tau), problem.sizes, problem.classes
    total = ZERO
    exponentials: dict[tuple[int, int], arb] = {}

    def exponential(a: int, b: int) -> arb:
        key = (a, b) if a <= b else (b, a)
        if key not in exponentials:
            exponentials[key] = (gram[a][b] / tau).exp()
        return exponentials[key]

    for batch, count in zip(problem.batches, problem.counts, strict=True):
        for a in batch:
            positives = count[classes[a]] - 1
            if positives < 1:
                continue
            partition, mean = ZERO, ZERO
            for b in batch:
                others = sizes[b] - (a == b)
                if others:
                    partition += others * exponential(a, b)
                    if classes[a] == classes[b]:
                        mean += others * gram[a][b]
            total += sizes[a] * (partition.log() - mean / (positives * tau))
            if towards is not None:
                for b in batch:
                    pull = arb(1) / positives if classes[a] == classes[b] else ZERO
                    towards[a][b] += (exponential(a, b) / partition - pull) / tau
    return total


def frame_loss(problem: OrbitProblem) -> arb:
    """sum_B sum_{c: n_{B,c} >= 2} n_{B,c} log Z: the loss of an orthogonal frame, the bound of Theorems 1 and 2."""
    return _counted(problem, lambda count: arb(1))


def _counted(problem: OrbitProblem, drop: Callable[[Counter[int]], arb]) -> arb:
    total = ZERO
    for count in problem.counts:
        size, decay = sum(count.values()), (-drop(count) / problem.tau).exp()
        for own in count.values():
            if own >= 2:
                total += own * (own - 1 + (size - own) * decay).log()
    return total


def elementary_bound(problem: OrbitProblem) -> arb:
    """sum_B sum_{c: n_{B,c} >= 2} n_{B,c} log(n_{B,c} - 1 + (n_B - n_{B,c}) e^{-x/tau}), valid for UFM and UFM+.

    By Jensen's inequality over the positives, with g_i their mean, an anchor pays at least log(p + q e^{x_i/tau}),
    x_i the mean of G_il - g_i over its q negatives; x_i >= -2. Where the k_B >= 2 classes of a batch are equally
    many (p + 1 samples each), Jensen over the anchors leaves the mean of x_i, and since all entries of G sum to at
    least 0, sum_across >= -sum_within - tr G, it is at least -1 - (p + 1)/q = -k_B/(k_B - 1): the simplex.
    """

    def drop(count: Counter[int]) -> arb:
        equally_many = len(set(count.values())) == 1 < len(count)
        return arb(len(count)) / (len(count) - 1) if equally_many else arb(2)

    return _counted(problem, drop)


@dataclass(frozen=True)
class MatrixDual:
    """A dual point (G0, v, N) in doubles; see the head of this module.

    - source: where it comes from, in words.
    - gram: G0 (m, m), symmetric. v: (m,). N: (m, m) symmetric, zero for UFM.
    """

    source: str
    gram: Float[np.ndarray, "m m"]
    v: Float[np.ndarray, " m"]
    N: Float[np.ndarray, "m m"]


def balls(matrix: Float[np.ndarray, "m m"]) -> Table:
    """Doubles as exact balls."""
    return [[arb(entry) for entry in row] for row in matrix.tolist()]


def matrix_bound(problem: OrbitProblem, dual: MatrixDual) -> arb | None:
    """The lower bound that a dual proves, or None if it proves nothing. Call within `flint.ctx.workprec`."""
    v = [arb(entry) for entry in dual.v.tolist()]
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
    """T of the head of this module: S on vectors constant on orbits, in the basis of orbit indicators over sizes."""
    T = [list(row) for row in S]
    for a, size in enumerate(problem.sizes):
        T[a][a] = (v[a] + (size - 1) * S[a][a]) / size
    return T


def is_positive_definite(T: Table) -> bool:
    """Whether interval LDL^T elimination proves a symmetric matrix positive definite (lower triangle read)."""
    T = [row[: a + 1] for a, row in enumerate(T)]
    for p in range(len(T)):
        pivot = T[p][p]
        if not pivot > 0:
            return False
        for a in range(p + 1, len(T)):
            if T[a][p].is_zero():
                continue
            factor = T[a][p] / pivot
            for b in range(p + 1, a + 1):
                T[a][b] -= factor * T[b][p]
    return True


def repaired(problem: OrbitProblem, dual: MatrixDual) -> MatrixDual | None:
    """The smallest raise of v that makes an approximate dual provably feasible, or None if none was found.

    Clips v and N at 0, measures how far S is from PSD in floating point, raises v in proportion to
    its own scale (so that a small class pays little), and accepts only what `matrix_bound` proves.
    """
    N = np.maximum(dual.N, 0.0) if problem.nonneg else np.zeros_like(dual.N)
    N = (N + N.T) / 2
    sizes = np.array(problem.sizes, dtype=float)
    with ctx.workprec(precision(problem.tau)):
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


def kkt_dual(problem: OrbitProblem, gram: Float[np.ndarray, "m m"], *, touching: float = 1e-9) -> MatrixDual:
    """The multipliers read off a stationary point: v_a = -(C G)_aa / G_aa, N = max(C, 0) where G <= touching.

    Orbits with G_aa <= touching get v_a = 0. No conic solver and no theorem (theory, 4.7). The result
    is approximate; see `repaired`.
    """
    gram = (gram + gram.T) / 2
    sizes = np.array(problem.sizes, dtype=float)
    with ctx.workprec(precision(problem.tau)):
        _, table = loss_and_gradient(problem, balls(gram))
    C = np.array([[float(entry) for entry in row] for row in table])
    paired = (C * gram) @ sizes - np.diag(C) * np.diag(gram)
    norms = np.diag(gram)
    alive = norms > touching
    v = np.where(alive, -paired / np.where(alive, norms, 1.0), 0.0)
    N = np.where((gram <= touching) & (C > 0), C, 0.0) if problem.nonneg else np.zeros_like(C)
    return MatrixDual("stationarity conditions at a point", gram, np.maximum(v, 0.0), N)
