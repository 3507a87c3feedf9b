"""Settings of JAX and NumPy that results rest on: the package's own, whatever the user's are.

Doubles, since a minority moves the loss by less than float32 can see; and the defaults of what users switch on for
their own training code: strict promotion, checks for NaN, no compiling, floating-point errors.
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
    """The function, computed in doubles and under the other settings of the package, whatever the user has switched.

    Settings are of a thread, and so is this: what a function hands to other threads needs it again.

    **In a trace of the user's without doubles** JAX has rounded traced arguments to float32 before, and a loop or a
    branch around the function wants one type throughout: results are float32 too. JAX does not differentiate doubles
    there, so that only a function with derivatives of its own computes in them; with `traced=False` the others follow
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
