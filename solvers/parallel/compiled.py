"""Compile ahead of time, once a signature, and keep the time it took apart from the time of the runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import jax


@dataclass(frozen=True)
class Compilation:
    """One traced and compiled function: its name, the shapes it serves, seconds it took."""

    name: str
    signature: Hashable
    seconds: float


LOG: list[Compilation] = []


@dataclass
class Compiled:
    """A function of pytrees of arrays, compiled at the first call with each signature.

    A signature is the structure of the arguments, their shapes and dtypes, and the static keyword
    arguments. Every compilation is logged in `LOG`.
    """

    function: Callable[..., Any]
    executables: dict[Hashable, Any] = field(default_factory=dict)

    def __call__(self, *arguments: Any, **static: Hashable) -> Any:
        """Run on arrays; static keyword arguments are part of the signature."""
        leaves, structure = jax.tree.flatten(arguments)
        shapes = tuple((jax.numpy.shape(leaf), jax.numpy.result_type(leaf)) for leaf in leaves)
        signature = (structure, shapes, tuple(sorted(static.items())))
        if signature not in self.executables:
            start = time.perf_counter()
            jitted = jax.jit(self.function, static_argnames=tuple(static))
            self.executables[signature] = jitted.lower(*arguments, **static).compile()
            seconds = time.perf_counter() - start
            LOG.append(Compilation(self.function.__name__, signature, seconds))
        return self.executables[signature](*arguments)


def compile_seconds() -> float:
    """Seconds spent compiling in this process so far."""
    return sum(entry.seconds for entry in LOG)
