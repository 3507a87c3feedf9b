"""Sums over samples that are sharded over devices."""

from __future__ import annotations

import jax
from jaxtyping import Array, Float

# The axis of `jax.shard_map` over which the samples are sharded; None if one device has them all.
Axis = str | None


def summed(part: Float[Array, "*shape"], axis: Axis) -> Float[Array, "*shape"]:
    """The sum over the parts of all devices, on each device."""
    return part if axis is None else jax.lax.psum(part, axis)


def largest(part: Float[Array, "*shape"], axis: Axis) -> Float[Array, "*shape"]:
    """The maximum over the parts of all devices, on each device. Not differentiable."""
    return part if axis is None else jax.lax.pmax(part, axis)
