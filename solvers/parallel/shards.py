"""Sums over samples that lie on several devices."""

from __future__ import annotations

import jax
from jaxtyping import Array, Float

# The name of the axis of `jax.shard_map` over which the samples are dealt out; None if they are all here.
Axis = str | None


def summed(part: Float[Array, "*shape"], axis: Axis) -> Float[Array, "*shape"]:
    """The sum of the devices' parts, on each of them."""
    return part if axis is None else jax.lax.psum(part, axis)


def largest(part: Float[Array, "*shape"], axis: Axis) -> Float[Array, "*shape"]:
    """The largest of the devices' parts, on each of them. Not differentiable."""
    return part if axis is None else jax.lax.pmax(part, axis)
