"""Symmetry: samples of one class in exactly the same batches are exchangeable (theory, 3.1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from ufm.errors import InvalidInput
from ufm.model.problem import PADDING, Problem
from ufm.settings import in_fixed_settings

# Rows compared at once: few enough for the processor's cache.
BLOCK = 2**14


@dataclass(frozen=True)
class SharedRows:
    """An embedding H = rows[index] whose points share rows, so that only distinct rows are stored.

    `numpy.asarray` makes the whole H (n, d) of it. Raises InvalidInput for an index that is not the number of a row.
    """

    rows: Float[np.ndarray, "o d"]
    index: Int[np.ndarray, " n"]

    def __post_init__(self) -> None:
        if self.index.size and not 0 <= self.index.min() <= self.index.max() < len(self.rows):
            fix = f"give numbers of rows, from 0 to {len(self.rows) - 1}"
            raise InvalidInput("index", [int(self.index.min()), int(self.index.max())], fix)

    def __array__(self, dtype: np.typing.DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        """H, always a new array."""
        if copy is False:
            raise ValueError("the whole embedding is always a new array")
        return np.asarray(self.rows[self.index], dtype=dtype)


@dataclass(frozen=True)
class Orbits:
    """The orbits of a problem and the orbit-collapsed problem.

    - index: orbit of each point of the original problem. first: the first point of each orbit.
    - quotient: the problem with one point for each orbit, whose multiplicity is the number of samples in the orbit. If
      rows are identical within each orbit, the loss equals that of the quotient exactly.
    """

    index: Int[np.ndarray, " m"]
    first: Int[np.ndarray, " o"]
    quotient: Problem

    def __len__(self) -> int:
        return self.quotient.num_points

    def mean(self, H: Float[np.ndarray, "m d"], multiplicity: Float[np.ndarray, " m"]) -> Float[np.ndarray, "o d"]:
        """Mean row of each orbit. The mean of feasible rows is feasible: the sets are convex."""
        total = np.zeros((len(self), H.shape[1]))
        np.add.at(total, self.index, H * multiplicity[:, None])
        return total / np.asarray(self.quotient.multiplicity)[:, None]

    def shared(self, H: Float[np.ndarray, "m d"] | SharedRows) -> Float[np.ndarray, "o d"] | None:
        """The rows of the orbits, if all points of every orbit have the same row; else None."""
        if isinstance(H, SharedRows):
            if H.index is self.index or np.array_equal(H.index, self.index):
                return H.rows[: len(self)]
            H = np.asarray(H)
        rows = H[self.first]
        blocks = (slice(start, start + BLOCK) for start in range(0, len(H), BLOCK))
        return rows if all(np.array_equal(H[block], rows[self.index[block]]) for block in blocks) else None


@in_fixed_settings
def orbits(problem: Problem) -> Orbits:
    """Group the points of a problem into orbits and build the quotient problem.

    Runs on the host in O(E log E), where E is the total size of all batches. The points of an expected loss are its
    orbits. Raises InvalidInput for points of multiplicity 0, classes without a sample, or anything but a problem.
    """
    if not isinstance(problem, Problem):
        raise InvalidInput("problem", type(problem).__name__, "give a ufm.Problem")
    labels = np.asarray(problem.labels)
    multiplicity = np.asarray(problem.multiplicity)
    batches = np.asarray(problem.batches)
    if (multiplicity == 0).any():
        raise InvalidInput("multiplicity", 0, "a padded problem has no orbits; give the problem without padding")
    if len(absent := np.flatnonzero(np.asarray(problem.class_sizes) == 0)):
        raise InvalidInput(
            "labels",
            int(absent[0]),
            "this class has no sample, as in a mini-batch; give a problem with samples of every class",
        )
    m = len(labels)
    if problem.is_expected:
        return Orbits(index=np.arange(m), first=np.arange(m), quotient=problem)
    if problem.is_full_batch:
        index, collapsed = labels, None  # every class is present
    else:
        keys = np.column_stack([labels, _memberships(batches, m)])
        index = np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)
        collapsed = [np.unique(index[row[row != PADDING]]) for row in batches]
    first = np.zeros(index.max() + 1, dtype=np.int64)
    first[index[::-1]] = np.arange(m - 1, -1, -1)
    sizes = np.bincount(index, weights=None if (multiplicity == 1).all() else multiplicity)
    d, tau, loss = problem.d, problem.tau, problem.loss
    quotient = Problem(labels[first], d, tau, collapsed, problem.nonneg, multiplicity=sizes, loss=loss)
    return Orbits(index=index, first=first, quotient=quotient)


def _memberships(batches: np.ndarray, m: int) -> np.ndarray:
    """(m, most) the batches of each point in increasing order, padded with -1: equal rows mean equal batches."""
    batch, slot = np.nonzero(batches != PADDING)
    point = batches[batch, slot]
    order = np.lexsort((batch, point))
    point, batch = point[order], batch[order]
    degree = np.bincount(point, minlength=m)
    start = np.concatenate([[0], np.cumsum(degree)[:-1]])
    rank = np.arange(len(point)) - start[point]
    table = np.full((m, max(1, int(degree.max(initial=0)))), PADDING)
    table[point, rank] = batch
    return table
