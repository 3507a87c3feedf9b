"""The devices of this process, and functions that run on all of them.

Starts do not exchange anything: the shard of a device stops when its own starts have. The samples of a
start too large for one device are dealt out instead, and the devices meet in sums over samples.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ufm.errors import InvalidInput

# The one axis of the mesh.
AXIS = "devices"
# The largest embedding, in entries, that one device holds whole; the samples of a larger one are dealt out. While a
# start collapses it takes little more than the memory of its embedding: at the default some 1.5 GiB.
MOST_ENTRIES = 2**27
VARIABLE = "UFM_SCL_DEVICE_ENTRIES"


def count() -> int:
    """Devices that this process computes on: all that are its own."""
    return jax.local_device_count()


def holds_whole(entries: int) -> bool:
    """Whether one device holds an embedding of so many entries: up to MOST_ENTRIES or what the environment says.

    Raises InvalidInput if that is no whole number.
    """
    given = os.environ.get(VARIABLE, "")
    if given and not given.isdecimal():
        raise InvalidInput(VARIABLE, given, "give a whole number of entries")
    return count() == 1 or entries <= (int(given) if given else MOST_ENTRIES)


def shared_out(function: Callable[..., Any], in_axes: Any, out_axes: int | None = 0) -> Callable[..., Any]:
    """The function on a shard of its arguments on each device; with one device, the function itself.

    in_axes, out_axes: as of `jax.vmap`: 0 where the leading axis is dealt out in equal blocks, None where
    every device has all. What comes out under None must be equal on all devices.
    """
    if count() == 1:
        return function
    # Unchecked: a loop whose number of steps differs between devices is what is wanted.
    return jax.shard_map(
        function, mesh=_mesh(), in_specs=_specifications(in_axes), out_specs=_specifications(out_axes), check_vma=False
    )


def sharded(arrays: Any) -> Any:
    """Arrays with equal blocks of their leading axis on each device; with one device, as they are."""
    return arrays if count() == 1 else jax.device_put(arrays, NamedSharding(_mesh(), PartitionSpec(AXIS)))


def _specifications(axes: Any) -> Any:
    return jax.tree.map(
        lambda axis: PartitionSpec() if axis is None else PartitionSpec(AXIS), axes, is_leaf=lambda axis: axis is None
    )


@cache
def _mesh() -> Mesh:
    return Mesh(np.array(jax.local_devices()), (AXIS,))
