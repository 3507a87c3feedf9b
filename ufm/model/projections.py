"""The feasible sets of UFM and UFM+, and their exact Euclidean projections, row by row."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from ufm.errors import InvalidInput, real_array
from ufm.settings import in_fixed_settings

# Rows of any real type; projections have the same type if it is floating point, and are doubles otherwise.
RealRows = Num[Array, "*rows d"] | Any


@in_fixed_settings
def project_ball(H: RealRows) -> Float[Array, "*rows d"]:
    r"""The feasible set of UFM: argmin_X ||X - H|| subject to ||x_i|| <= 1 for every row.

    Rows inside the ball are returned unchanged. Others are divided by their norm and by 1 + 2^-50, so that they are
    inside in spite of rounding, and the excess of a projected point is not negative. The result is exact near overflow
    too. A zero row stays zero and has a finite derivative. Rows with an entry that is NaN or infinite give NaN. Numbers
    shorter than doubles are projected in doubles and rounded towards zero. Raises InvalidInput unless H is an array of
    rows.
    """
    rows_in = _rows(H)
    H = rows_in.astype(jnp.float64)
    largest = jnp.max(jnp.abs(H), axis=-1, keepdims=True)
    shrink = jnp.where(largest > 1e100, 2.0**-600, 1.0)  # before squares overflow
    rescaled = H * shrink
    squared = jnp.sum(rescaled**2, axis=-1, keepdims=True)
    norm = jnp.sqrt(jnp.where(squared > 0, squared, 1.0))
    return _rounded(jnp.where(norm <= shrink, H, rescaled / (norm * (1.0 + 2.0**-50))), rows_in.dtype)


@in_fixed_settings
def project_nonnegative_ball(H: RealRows) -> Float[Array, "*rows d"]:
    r"""The feasible set of UFM+: argmin_X ||X - H|| subject to X >= 0 and ||x_i|| <= 1.

    The orthant is a closed convex cone with its apex at the ball's centre, so projecting on the
    cone and then on the ball is exact. A row without a positive entry is projected to zero. Numbers as in
    `project_ball`. Raises InvalidInput as it does.
    """
    return project_ball(jnp.maximum(_rows(H), 0.0))


@in_fixed_settings
def project_bounded_below(H: RealRows, entry_bound: float | Float[Array, ""]) -> Float[Array, "*rows d"]:
    r"""The feasible set of an activation that is not normalised: argmin_X ||X - H|| subject to X >= f and
    ||x_i|| <= 1, for an entry lower bound f from -1 to 0 (theory, 1.6).

    x = max(f, t h) with t = 1/(1 + lambda), where lambda >= 0 is the multiplier of the norm: t = 1 if this is inside
    the ball, else the root of sum_j max(f, t h_j)^2 = 1, whose left side does not decrease in t. Between two values of
    t at which an entry reaches f it is quadratic, so that sorting gives the root without iteration. Rows are inside in
    spite of rounding; rows that are not finite give NaN. Numbers as in `project_ball`. Raises InvalidInput as it does.
    """
    rows_in = _rows(H)
    H = rows_in.astype(jnp.float64)
    largest = jnp.maximum(jnp.max(jnp.abs(H), axis=-1, keepdims=True), 1.0)
    ordered = jnp.sort(H / largest, axis=-1)
    squares = jnp.cumsum(ordered[..., ::-1] ** 2, axis=-1)[..., ::-1]  # sums over entry m and larger ones
    left = 1.0 - entry_bound**2 * jnp.arange(
        H.shape[-1]
    )  # of the squared norm, if the m smallest entries are at the bound
    solvable = (left > 0) & (squares > 0)
    root = jnp.sqrt(jnp.where(solvable, left, 0.0) / jnp.where(solvable, squares, 1.0))
    # The first m for which entry m is above the bound; if there is none, there is no root, and t is 1.
    above = solvable & (root * ordered >= entry_bound)
    first = jnp.argmax(above, axis=-1, keepdims=True)
    t = jnp.where(jnp.any(above, axis=-1, keepdims=True), jnp.take_along_axis(root, first, axis=-1), jnp.inf)
    return _rounded(project_ball(jnp.maximum(H * jnp.minimum(1.0, t / largest), entry_bound)), rows_in.dtype)


@in_fixed_settings
def project(H: RealRows, nonneg: bool, entry_bound: float | None = None) -> Float[Array, "*rows d"]:
    """The projection on the feasible set of a problem: UFM+ if nonneg, else UFM.

    entry_bound: if not None, an entry lower bound that replaces these constraints on entries. Numbers as in
    `project_ball`. Raises InvalidInput as it does.
    """
    if entry_bound is not None:
        return project_bounded_below(H, entry_bound)
    return project_nonnegative_ball(H) if nonneg else project_ball(H)


def _rows(H: Any) -> Float[Array, "*rows d"]:
    """The rows as a JAX array, in their floating type if JAX has it, else in doubles; or InvalidInput."""
    fix = "give a real array (..., d)"
    rows = H if isinstance(H, Array) else real_array("H", H, fix)
    if jnp.iscomplexobj(rows) or rows.ndim == 0 or rows.shape[-1] == 0:
        raise InvalidInput("H", f"{rows.dtype} array of shape {rows.shape}", fix)
    dtype = getattr(H, "dtype", rows.dtype)
    if not jnp.issubdtype(dtype, jnp.floating) or dtype.itemsize > rows.dtype.itemsize:
        dtype = jnp.float64
    return jnp.asarray(rows).astype(jnp.dtype(dtype).newbyteorder("="))


def _rounded(X: Float[Array, "*rows d"], dtype: Any) -> Float[Array, "*rows d"]:
    """Doubles rounded to a shorter type, towards zero: no row leaves the ball, no entry falls below its bound."""
    if dtype == X.dtype:
        return X
    nearest = X.astype(dtype)
    held = jax.lax.stop_gradient(nearest)
    outward = jnp.abs(held.astype(X.dtype)) > jnp.abs(jax.lax.stop_gradient(X))
    return nearest - jnp.where(outward, held - jnp.nextafter(held, jnp.zeros_like(held)), jnp.zeros_like(held))
