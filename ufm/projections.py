"""The feasible sets of UFM and UFM+, and their exact Euclidean projections, row by row."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float


def project_ball(H: Float[Array, "*rows d"]) -> Float[Array, "*rows d"]:
    r"""The feasible set of UFM: argmin_X ||X - H|| subject to ||x_i|| <= 1 for every row.

    Rows inside the ball are returned untouched; others are divided by their norm and by 1 + 2^-50, so
    that rounding leaves them inside: the excess of a projected point is then not negative. Exact near
    overflow; a zero row stays zero and has a finite derivative. Rows with an entry that is NaN or
    infinite have no projection and give NaN.
    """
    largest = jnp.max(jnp.abs(H), axis=-1, keepdims=True)
    shrink = jnp.where(largest > 1e100, 2.0**-600, 1.0)  # before squares overflow
    rows = H * shrink
    squared = jnp.sum(rows**2, axis=-1, keepdims=True)
    norm = jnp.sqrt(jnp.where(squared > 0, squared, 1.0))
    return jnp.where(norm <= shrink, H, rows / (norm * (1.0 + 2.0**-50)))


def project_nonnegative_ball(H: Float[Array, "*rows d"]) -> Float[Array, "*rows d"]:
    r"""The feasible set of UFM+: argmin_X ||X - H|| subject to X >= 0 and ||x_i|| <= 1.

    The orthant is a closed convex cone with its apex at the ball's centre, so projecting on the
    cone and then on the ball is exact. A row without a positive entry projects to zero.
    """
    return project_ball(jnp.maximum(H, 0.0))


def project(H: Float[Array, "*rows d"], nonneg: bool) -> Float[Array, "*rows d"]:
    """The projection that belongs to a problem: UFM+ if nonneg, else UFM."""
    return project_nonnegative_ball(H) if nonneg else project_ball(H)
