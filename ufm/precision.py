"""Doubles, whatever the user's setting: a minority moves the loss by less than float32 can see."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import jax
from jax.core import Tracer

P = ParamSpec("P")
T = TypeVar("T")


def in_64_bits(function: Callable[P, T], *, traced: bool = True) -> Callable[P, T]:
    """The function, computed in doubles even where the user has switched `jax_enable_x64` off.

    JAX's setting is of a thread, and so is this: what a function hands to other threads needs it again.

    **In a trace of the user's without doubles** JAX has rounded traced arguments to float32 before, and a loop or a
    branch around the function wants one type throughout: results are float32 too. JAX does not differentiate doubles
    there, so that only a function with derivatives of its own computes in them; with `traced=False` the others follow
    the user.
    """

    @wraps(function)
    def computed(*args: P.args, **kwargs: P.kwargs) -> T:
        doubles = jax.config.read("jax_enable_x64")
        if not traced and any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((args, kwargs))):
            return function(*args, **kwargs)
        with jax.enable_x64(True):
            result = function(*args, **kwargs)
            return result if doubles else jax.tree.map(_as_traced, result)

    return computed


def _as_traced(leaf: Any) -> Any:
    return leaf.astype("float32") if isinstance(leaf, Tracer) and leaf.dtype == "float64" else leaf
