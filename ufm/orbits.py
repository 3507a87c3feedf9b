"""Symmetry: samples of one class in exactly the same batches are exchangeable (design, section 2.5)."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ufm.errors import InvalidInput
from ufm.problem import PADDING, Problem


@dataclass(frozen=True)
class Orbits:
    """The orbits of a problem and the orbit-collapsed problem.

    - index: orbit of each point of the original problem.
    - quotient: one point an orbit, multiplicity = samples in the orbit. The loss of identical rows
      within each orbit equals the loss of the quotient, exactly.
    """

    index: Int[np.ndarray, " m"]
    quotient: Problem

    def __len__(self) -> int:
        return self.quotient.num_points

    def mean(self, H: Float[Array, "m d"], multiplicity: Float[Array, " m"]) -> Float[Array, "o d"]:
        """Mean row of each orbit. The mean of feasible rows is feasible: the sets are convex."""
        total = jax.ops.segment_sum(H * multiplicity[:, None], jnp.asarray(self.index), len(self))
        return total / self.quotient.multiplicity[:, None]

    def expand(self, U: Float[Array, "o d"]) -> Float[Array, "m d"]:
        """Every sample gets the row of its orbit."""
        return U[jnp.asarray(self.index)]


def orbits(problem: Problem) -> Orbits:
    """Group the points of a problem into orbits and build the quotient problem.

    Runs on the host in O(E log E), E the total size of all batches. Raises InvalidInput for
    points of multiplicity 0.
    """
    labels = np.asarray(problem.labels)
    multiplicity = np.asarray(problem.multiplicity)
    batches = np.asarray(problem.batches)
    if (multiplicity == 0).any():
        raise InvalidInput("multiplicity", 0, "a padded problem has no orbits; take those of the unpadded one")
    m = len(labels)
    keys = labels[:, None] if problem.is_full_batch else np.column_stack([labels, _memberships(batches, m)])
    _, first, index = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    index = index.reshape(-1)
    sizes = np.bincount(index, weights=multiplicity)
    collapsed = [np.unique(index[row[row != PADDING]]) for row in batches]
    quotient = Problem(labels[first], problem.d, problem.tau, collapsed, problem.nonneg, multiplicity=sizes)
    return Orbits(index=index, quotient=quotient)


def _memberships(batches: np.ndarray, m: int) -> np.ndarray:
    """(m, most) batches of each point in increasing order, padded with -1: equal rows, same batches."""
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
