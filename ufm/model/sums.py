"""Sums over groups of rows, by a matrix product if it is small, else row by row."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

# The most entries of the matrix that says which row is in which group. While it is small, a product with it is as fast
# as a scatter, and compiles much faster.
MOST_ENTRIES = 2**12


def grouped_sum(values: Float[Array, "m ..."], group: Int[Array, " m"], groups: int) -> Float[Array, "g ..."]:
    """The sum of the rows of each group 0..groups - 1; rows of group -1 are left out, and must be finite."""
    if len(group) * groups > MOST_ENTRIES:
        outside = jnp.where(group < 0, groups, group)
        return jnp.zeros((groups, *values.shape[1:]), values.dtype).at[outside].add(values, mode="drop")
    belongs = (group == jnp.arange(groups)[:, None]).astype(values.dtype)
    return jax.lax.dot(belongs, values.reshape(len(group), -1)).reshape(groups, *values.shape[1:])
