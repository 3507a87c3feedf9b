"""From which dimension on a floor under the entries costs nothing (theory, 4.20).

An activation that is not normalised keeps features in K = {h : ||h|| <= 1, h >= -c} (`ufm.activations`; GELU: 0.17).
The loss knows the Gram matrix alone, so that vectors may be turned until no entry is below -c: impossible where d is
small, easy where it is large.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float
from scipy.optimize import linprog

from ufm.errors import InvalidInput, real_number, whole_number

# Of a proof in doubles whose terms are below 10 in size: far above their rounding.
MARGIN = 1e-9


def sufficient_dimension(rank: int, entry_bound: float) -> int:
    """The least d with d floor^2 >= rank: from there on K holds every Gram matrix of that rank with diagonal <= 1.

    Minimisers of UFM in the full batch have rank k - 1 at most (theory, 4.20 a). Raises InvalidInput for a floor
    outside [-1, 0).
    """
    rank = whole_number("rank", rank, 1, "give a rank of at least 1")
    return max(rank, math.ceil(rank / _depth(entry_bound) ** 2))


def flat_frame(rank: int, d: int) -> Float[np.ndarray, "d r"]:
    """Orthonormal columns whose rows all have norm sqrt(rank/d): cosines and sines of the discrete Fourier transform.

    Any U (k, rank) with rows in the unit ball has the Gram matrix of U Q^T, whose entries are at least -sqrt(rank/d).
    """
    d = whole_number("d", d, 1, "give a dimension of at least 1")
    rank = whole_number("rank", rank, 1, f"give 1 to d = {d}", d)
    if rank == d:
        return np.eye(d)
    angle = 2 * np.pi * np.outer(np.arange(d), np.arange(1, rank // 2 + 1)) / d
    waves = np.sqrt(2 / d) * np.concatenate([np.cos(angle), np.sin(angle)], axis=1)
    return waves if rank % 2 == 0 else np.concatenate([np.full((d, 1), d**-0.5), waves], axis=1)


def necessary_dimension(most: Float[np.ndarray, "k k"], entry_bound: float) -> int:
    """A dimension below which K holds no vectors of norm 1 whose inner products are at most `most`.

    most: bounds from above, such as those of `Implied.cosine` of a certificate, which speaks of all minimisers; 1 on
    the diagonal. Proved by weights W >= 0 (theory, 4.20 b), found by a linear program, but any would prove.
    1 where they prove nothing.
    """
    c, k = _depth(entry_bound), len(most)
    most = np.minimum((most + most.T) / 2, 1.0)
    sums = np.abs(np.linalg.eigh(most)[1][:, 0])  # of W over rows: a combination that is nearly 0 should not help
    pairs = [(a, b) for a in range(k) for b in range(a, k)]
    of_rows = np.array([[float(a == row) + float(b == row) * (a != b) for a, b in pairs] for row in range(k)])
    cost = [most[a, b] * (1 if a == b else 2) for a, b in pairs]
    found = linprog(cost, A_eq=of_rows, b_eq=sums / sums.sum(), bounds=(0, None))
    if not found.success:
        return 1
    W = np.zeros((k, k))
    for (a, b), weight in zip(pairs, np.maximum(found.x, 0), strict=True):
        W[a, b] = W[b, a] = weight
    r = W.sum(axis=1)
    # Excluded: <W, most> + 2 c sqrt(d r.most.r) + c^2 d sum(r) < 0, a quadratic in sqrt(d).
    constant, linear, square = float((W * most).sum()), c * math.sqrt(max(r @ most @ r, 0.0)), c * c * r.sum()
    if constant >= -MARGIN:
        return 1
    root = (-linear + math.sqrt(linear**2 - square * (constant + MARGIN))) / square
    return max(1, math.ceil(root**2 * (1 - MARGIN)))


def balanced_cosine(k: int, d: int, entry_bound: float) -> float:
    """A lower bound of the mean cosine of k vectors in K, attained by a code whose cosines are all equal where k
    divides d: with equal class sizes and in the full batch that is the minimiser (theory, 4.20 c).

    -1/(k-1), UFM's own for d >= k - 1, from d = 1/((k-1) c^2) on.
    """
    k = whole_number("k", k, 2, "give at least 2 classes")
    d = whole_number("d", d, 1, "give a dimension of at least 1")
    c = _depth(entry_bound)
    if d * (k - 1) * c * c >= 1:
        return -1 / (k - 1)
    return (d / k) * ((k - 2) * c * c - 2 * c * math.sqrt(k / d - (k - 1) * c * c))


def balanced_code(k: int, d: int, entry_bound: float) -> Float[np.ndarray, "k d"]:
    """The code that attains `balanced_cosine`, k dividing d: -c everywhere but in a class's own d/k coordinates."""
    if d % k:
        raise InvalidInput("d", d, f"give a multiple of k = {k}")
    c = min(_depth(entry_bound), (k / (d * (k - 1) * k)) ** 0.5)
    own = math.sqrt(k / d - (k - 1) * c * c)
    return np.where(np.repeat(np.eye(k, dtype=bool), d // k, axis=1), own, -c)


def _depth(entry_bound: float) -> float:
    """c of a floor -c."""
    return -real_number("entry_bound", entry_bound, -1.0, -1e-6, "give a floor from -1 to below 0")
