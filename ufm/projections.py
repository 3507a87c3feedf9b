"""The feasible sets of UFM and UFM+, and their exact Euclidean projections, row by row."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from ufm.settings import in_own_settings


@in_own_settings
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


@in_own_settings
def project_nonnegative_ball(H: Float[Array, "*rows d"]) -> Float[Array, "*rows d"]:
    r"""The feasible set of UFM+: argmin_X ||X - H|| subject to X >= 0 and ||x_i|| <= 1.

    The orthant is a closed convex cone with its apex at the ball's centre, so projecting on the
    cone and then on the ball is exact. A row without a positive entry projects to zero.
    """
    return project_ball(jnp.maximum(H, 0.0))


@in_own_settings
def project_floored_ball(H: Float[Array, "*rows d"], floor: float | Float[Array, ""]) -> Float[Array, "*rows d"]:
    r"""The ball above a floor, of an activation that is not normalised: argmin_X ||X - H|| subject to
    X >= floor and ||x_i|| <= 1, for a floor from -1 to 0 (theory, 1.6).

    x = max(floor, t h) with t = 1/(1 + lambda), lambda >= 0 the multiplier of the norm: t = 1 if that is inside the
    ball, else the root of sum_j max(floor, t h_j)^2 = 1, whose left side does not decrease in t. Between two places
    where an entry reaches the floor it is quadratic, so that sorting gives the root with no iteration. Rounding leaves
    rows inside; rows that are not finite give NaN.
    """
    largest = jnp.maximum(jnp.max(jnp.abs(H), axis=-1, keepdims=True), 1.0)
    ordered = jnp.sort(H / largest, axis=-1)
    squares = jnp.cumsum(ordered[..., ::-1] ** 2, axis=-1)[..., ::-1]  # of entry m and of those above it
    left = 1.0 - floor**2 * jnp.arange(H.shape[-1])  # of the norm, by the m lowest entries on the floor
    solvable = (left > 0) & (squares > 0)
    root = jnp.sqrt(jnp.where(solvable, left, 0.0) / jnp.where(solvable, squares, 1.0))
    # The first m that leaves entry m above the floor; with none left above it there is no root, and t is 1.
    above = solvable & (root * ordered >= floor)
    first = jnp.argmax(above, axis=-1, keepdims=True)
    t = jnp.where(jnp.any(above, axis=-1, keepdims=True), jnp.take_along_axis(root, first, axis=-1), jnp.inf)
    return project_ball(jnp.maximum(H * jnp.minimum(1.0, t / largest), floor))


@in_own_settings
def project(H: Float[Array, "*rows d"], nonneg: bool, floor: float | None = None) -> Float[Array, "*rows d"]:
    """The projection that belongs to a problem: UFM+ if nonneg, else UFM, if wanted with a floor in the place of 0."""
    if floor is not None:
        return project_floored_ball(H, floor)
    return project_nonnegative_ball(H) if nonneg else project_ball(H)
