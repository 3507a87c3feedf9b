"""The devices of this process, and functions that run on all of them.

Starts exchange nothing: each device has its own starts and stops when they have. Only a start that is too large for
one device is itself sharded, by samples, and then the devices exchange sums over samples.
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
# The largest embedding, in entries, that one device holds whole; a larger one is sharded by samples. During its
# collapse a start takes little more memory than its embedding: about 1.5 GiB at the default.
MOST_ENTRIES = 2**27
VARIABLE = "UFM_SCL_DEVICE_ENTRIES"


def count() -> int:
    """The number of devices on which this process computes: all its local devices."""
    return jax.local_device_count()


def holds_whole(entries: int) -> bool:
    """Whether one device holds an embedding of so many entries whole.

    The limit is MOST_ENTRIES, or the environment variable VARIABLE. Raises InvalidInput if that is not a whole number.
    """
    value = os.environ.get(VARIABLE, "")
    if value and not value.isdecimal():
        raise InvalidInput(VARIABLE, value, "give a whole number of entries")
    return count() == 1 or entries <= (int(value) if value else MOST_ENTRIES)


def split_over_devices(function: Callable[..., Any], in_axes: Any, out_axes: int | None = 0) -> Callable[..., Any]:
    """The function, run on each device with its shard of the arguments; with one device, the function itself.

    in_axes, out_axes: as for `jax.vmap`: 0 where the leading axis is sharded in equal blocks, None where every device
    has the whole array. Results with None must be equal on all devices.
    """
    if count() == 1:
        return function
    # Unchecked, because a loop may have different numbers of steps on different devices.
    return jax.shard_map(
        function, mesh=_mesh(), in_specs=_specifications(in_axes), out_specs=_specifications(out_axes), check_vma=False
    )


def sharded(arrays: Any) -> Any:
    """The arrays with their leading axis sharded in equal blocks; with one device, unchanged."""
    return arrays if count() == 1 else jax.device_put(arrays, NamedSharding(_mesh(), PartitionSpec(AXIS)))


def _specifications(axes: Any) -> Any:
    return jax.tree.map(
        lambda axis: PartitionSpec() if axis is None else PartitionSpec(AXIS), axes, is_leaf=lambda axis: axis is None
    )


@cache
def _mesh() -> Mesh:
    return Mesh(np.array(jax.local_devices()), (AXIS,))
