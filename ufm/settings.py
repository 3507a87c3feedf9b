"""The settings of JAX and NumPy under which results are computed, whatever the user has set.

They are doubles, since a minority class changes the loss by less than float32 resolves; and the defaults of options
that users may switch on for their training code: strict promotion, checks for NaN, no compilation, floating-point
errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np
from jax.core import Tracer

P = ParamSpec("P")
T = TypeVar("T")


@contextmanager
def fixed_settings(*, doubles: bool = True) -> Iterator[None]:
    """The settings of the package, in this thread, until the end of the block.

    doubles: whether double precision is among them.
    """
    with (
        jax.enable_x64(doubles or jax.config.read("jax_enable_x64")),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        jax.debug_nans(False),
        jax.debug_infs(False),
        jax.disable_jit(False),
        np.errstate(all="warn", under="ignore"),
    ):
        yield


def in_fixed_settings(function: Callable[P, T], *, traced: bool = True) -> Callable[P, T]:
    """The function, computed in doubles and under the other settings of the package, whatever the user has set.

    Settings belong to a thread, so a function that runs in another thread needs this decorator again.

    **In a user's trace without doubles** JAX has already rounded traced arguments to float32, and a loop or branch
    around the function requires one type throughout, so results are float32 too. JAX does not differentiate doubles
    there, so that only a function that defines its derivatives computes in them. Functions with `traced=False` follow
    the user's precision.
    """

    @wraps(function)
    def computed(*args: P.args, **kwargs: P.kwargs) -> T:
        doubles = jax.config.read("jax_enable_x64")
        if not traced and any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((args, kwargs))):
            with fixed_settings(doubles=False):
                return function(*args, **kwargs)
        with fixed_settings():
            result = function(*args, **kwargs)
            return result if doubles else jax.tree.map(_as_traced, result)

    return computed


def _as_traced(leaf: Any) -> Any:
    return leaf.astype("float32") if isinstance(leaf, Tracer) and leaf.dtype == "float64" else leaf
