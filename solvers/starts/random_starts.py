"""Random starts from a counter-based generator: each row can be drawn alone, in any layout in memory."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt32

from solvers.compilation.compiled import Compiled
from ufm.model.problem import Problem

# SplitMix64 (Steele, Lea and Flood, 2014): the Weyl increment and the multipliers of its mixing function.
INCREMENT, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def random_start(
    key: UInt32[Array, " *key"] | Array, index: Int[Array, ""] | int, rows: int, d: int, nonneg: bool
) -> Float[Array, "rows d"]:
    """Start `index`: rows uniform on the unit sphere (its nonnegative part for UFM+), to single precision.

    It does not depend on other starts. The first n rows are the same for any rows >= n.
    """
    direction = random_directions(key, index, jnp.arange(rows), d, nonneg).astype(jnp.float64).T
    return direction / jnp.linalg.norm(direction, axis=-1, keepdims=True)


def random_starts(problem: Problem, inits: int, seed: int) -> Iterator[Float[np.ndarray, "n d"]]:
    """Starts 0 to inits - 1 of a seed, one after the other."""
    key = np.asarray(jax.random.key_data(jax.random.key(seed)))
    for s in range(inits):
        yield np.asarray(_start(key, np.int32(s), rows=problem.num_points, d=problem.d, nonneg=problem.nonneg))


_start = Compiled(random_start)


def random_directions(
    key: UInt32[Array, " *key"] | Array,
    index: Int[Array, ""] | int,
    row: Int[Array, "*shape"],
    d: int,
    nonneg: bool,
) -> Float[Array, " d *shape"]:
    """The rows with numbers `row` of start `index`, before they are normalised: independent normal entries.

    Entry (r, c) depends on key, index and the counter r d + c alone, so that rows can be made in any order and layout:
    it is SplitMix64 of the counter, from a state that threefry makes from key and index. nonneg: absolute values.
    """
    words = jax.random.key_data(jax.random.fold_in(key, index))
    state = (words[0].astype(jnp.uint64) << 32) | words[1].astype(jnp.uint64)
    coordinate = jnp.arange(d, dtype=jnp.uint64).reshape(d, *[1] * row.ndim)
    x = state + (row.astype(jnp.uint64) * jnp.uint64(d) + coordinate) * jnp.uint64(INCREMENT)
    x = (x ^ (x >> 30)) * jnp.uint64(FIRST)
    x = (x ^ (x >> 27)) * jnp.uint64(SECOND)
    x = x ^ (x >> 31)
    # The midpoints of 2^24 equal intervals of (-1, 1): symmetric, and never -1 or 1.
    uniform = ((x >> 40).astype(jnp.int32).astype(jnp.float32) - (2.0**23 - 0.5)) * jnp.float32(2.0**-23)
    normal = jnp.float32(2.0**0.5) * jax.lax.erf_inv(uniform)
    return jnp.abs(normal) if nonneg else normal
