"""The feasible sets of UFM and UFM+, and their exact Euclidean projections, row by row."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from ufm.errors import InvalidInput, real_array
from ufm.settings import in_fixed_settings

# Rows in whatever real numbers; projections come in the same where these are floating point, else in doubles.
Given = Num[Array, "*rows d"] | Any


@in_fixed_settings
def project_ball(H: Given) -> Float[Array, "*rows d"]:
    r"""The feasible set of UFM: argmin_X ||X - H|| subject to ||x_i|| <= 1 for every row.

    Rows inside the ball are returned untouched; others are divided by their norm and by 1 + 2^-50, so
    that rounding leaves them inside: the excess of a projected point is then not negative. Exact near
    overflow; a zero row stays zero and has a finite derivative. Rows with an entry that is NaN or
    infinite have no projection and give NaN. Numbers shorter than doubles are projected in doubles and rounded towards
    zero. Raises InvalidInput for what is no array of rows.
    """
    given = _rows(H)
    H = given.astype(jnp.float64)
    largest = jnp.max(jnp.abs(H), axis=-1, keepdims=True)
    shrink = jnp.where(largest > 1e100, 2.0**-600, 1.0)  # before squares overflow
    rows = H * shrink
    squared = jnp.sum(rows**2, axis=-1, keepdims=True)
    norm = jnp.sqrt(jnp.where(squared > 0, squared, 1.0))
    return _rounded(jnp.where(norm <= shrink, H, rows / (norm * (1.0 + 2.0**-50))), given.dtype)


@in_fixed_settings
def project_nonnegative_ball(H: Given) -> Float[Array, "*rows d"]:
    r"""The feasible set of UFM+: argmin_X ||X - H|| subject to X >= 0 and ||x_i|| <= 1.

    The orthant is a closed convex cone with its apex at the ball's centre, so projecting on the
    cone and then on the ball is exact. A row without a positive entry projects to zero. Numbers as in
    `project_ball`. Raises InvalidInput as it does.
    """
    return project_ball(jnp.maximum(_rows(H), 0.0))


@in_fixed_settings
def project_bounded_below(H: Given, entry_bound: float | Float[Array, ""]) -> Float[Array, "*rows d"]:
    r"""The ball above a floor, of an activation that is not normalised: argmin_X ||X - H|| subject to
    X >= floor and ||x_i|| <= 1, for a floor from -1 to 0 (theory, 1.6).

    x = max(floor, t h) with t = 1/(1 + lambda), lambda >= 0 the multiplier of the norm: t = 1 if that is inside the
    ball, else the root of sum_j max(floor, t h_j)^2 = 1, whose left side does not decrease in t. Between two places
    where an entry reaches the floor it is quadratic, so that sorting gives the root with no iteration. Rounding leaves
    rows inside; rows that are not finite give NaN. Numbers as in `project_ball`. Raises InvalidInput as it does.
    """
    given = _rows(H)
    H = given.astype(jnp.float64)
    largest = jnp.maximum(jnp.max(jnp.abs(H), axis=-1, keepdims=True), 1.0)
    ordered = jnp.sort(H / largest, axis=-1)
    squares = jnp.cumsum(ordered[..., ::-1] ** 2, axis=-1)[..., ::-1]  # of entry m and of those above it
    left = 1.0 - entry_bound**2 * jnp.arange(H.shape[-1])  # of the norm, by the m lowest entries on the floor
    solvable = (left > 0) & (squares > 0)
    root = jnp.sqrt(jnp.where(solvable, left, 0.0) / jnp.where(solvable, squares, 1.0))
    # The first m that leaves entry m above the floor; with none left above it there is no root, and t is 1.
    above = solvable & (root * ordered >= entry_bound)
    first = jnp.argmax(above, axis=-1, keepdims=True)
    t = jnp.where(jnp.any(above, axis=-1, keepdims=True), jnp.take_along_axis(root, first, axis=-1), jnp.inf)
    return _rounded(project_ball(jnp.maximum(H * jnp.minimum(1.0, t / largest), entry_bound)), given.dtype)


@in_fixed_settings
def project(H: Given, nonneg: bool, entry_bound: float | None = None) -> Float[Array, "*rows d"]:
    """The projection that belongs to a problem: UFM+ if nonneg, else UFM, if wanted with a floor in the place of 0.

    Numbers as in `project_ball`. Raises InvalidInput as it does.
    """
    if entry_bound is not None:
        return project_bounded_below(H, entry_bound)
    return project_nonnegative_ball(H) if nonneg else project_ball(H)


def _rows(H: Any) -> Float[Array, "*rows d"]:
    """The rows as an array of JAX in a floating type of it: their own, or doubles; or InvalidInput."""
    fix = "give a real array (..., d)"
    rows = H if isinstance(H, Array) else real_array("H", H, fix)
    if jnp.iscomplexobj(rows) or rows.ndim == 0 or rows.shape[-1] == 0:
        raise InvalidInput("H", f"{rows.dtype} array of shape {rows.shape}", fix)
    own = getattr(H, "dtype", rows.dtype)
    if not jnp.issubdtype(own, jnp.floating) or own.itemsize > rows.dtype.itemsize:
        own = jnp.float64
    return jnp.asarray(rows).astype(jnp.dtype(own).newbyteorder("="))


def _rounded(X: Float[Array, "*rows d"], dtype: Any) -> Float[Array, "*rows d"]:
    """Doubles in shorter numbers, towards zero: no row leaves the ball, no entry its floor."""
    if dtype == X.dtype:
        return X
    nearest = X.astype(dtype)
    held = jax.lax.stop_gradient(nearest)
    outward = jnp.abs(held.astype(X.dtype)) > jnp.abs(jax.lax.stop_gradient(X))
    return nearest - jnp.where(outward, held - jnp.nextafter(held, jnp.zeros_like(held)), jnp.zeros_like(held))
