"""Ahead-of-time compilation on several threads, once per signature; the seconds that calls wait for it are counted."""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache, partial
from threading import Lock
from typing import Any

import jax
import numpy as np

from solvers.compilation import disk_cache
from ufm.settings import in_fixed_settings

# The structure of the arguments, the shapes and dtypes of their leaves, the static keyword arguments.
Signature = tuple[Hashable, Hashable, Hashable]


@dataclass(frozen=True)
class Compilation:
    """One traced and compiled function: its name, its signature, and the seconds it took on its thread."""

    name: str
    signature: Hashable
    seconds: float


LOG: list[Compilation] = []
# The most executables in memory; the one requested least recently is dropped. Each takes hundreds of mapped regions of
# memory, and Linux ends a process that has more than 65,530.
MOST_EXECUTABLES = 64
_RECENT: OrderedDict[tuple[int, Hashable], Compiled] = OrderedDict()
_LOCK = Lock()
_waited = 0.0


@dataclass
class Compiled:
    """A function of pytrees of arrays, compiled once for each signature: at its first call, or before it.

    All such functions together hold MOST_EXECUTABLES executables. Every compilation is logged in `LOG`.

    - quick: compile with options that take less time, at some cost in speed (`solvers.compilation.disk_cache`).
    - begun: compilations by signature. shapes: the results of `returned` by signature.
    """

    function: Callable[..., Any]
    quick: bool = True
    begun: dict[Hashable, Future[Any]] = field(default_factory=dict)
    shapes: dict[Hashable, Any] = field(default_factory=dict)

    @property
    def executables(self) -> dict[Hashable, Any]:
        """The executables that have been compiled, by signature."""
        ended = {signature: future for signature, future in self.begun.items() if future.done()}
        return {s: f.result() for s, f in ended.items() if not f.cancelled() and f.exception() is None}

    @in_fixed_settings
    def __call__(self, *arguments: Any, **static: Hashable) -> Any:
        """Run on arrays; static keyword arguments are part of the signature."""
        global _waited
        leaves, signature = _signed(arguments, static)
        executable = self._requested(signature)
        if executable is None or not executable.done() or executable.cancelled():
            began = time.perf_counter()
            if executable is None or executable.cancel():  # a compilation that has not begun is done here
                compiled = self._compile(signature, leaves, static)
                executable = self.begun[signature] = Future()
                executable.set_result(compiled)
            executable.exception()
            with _LOCK:
                _waited += time.perf_counter() - began
        return executable.result()(*leaves)

    @in_fixed_settings
    def returned(self, *arguments: Any, **static: Hashable) -> Any:
        """The shapes and dtypes that a call would return, traced once per signature."""
        _, signature = _signed(arguments, static)
        if signature not in self.shapes:
            self.shapes[signature] = jax.eval_shape(partial(self.function, **static), *arguments)
        return self.shapes[signature]

    @in_fixed_settings
    def prepare(self, *arguments: Any, **static: Hashable) -> None:
        """Compile on another thread, for a later call with arrays of these shapes, or `jax.ShapeDtypeStruct`s of them.

        Other threads run meanwhile. With several devices it does nothing, because there a function is compiled for the
        placement of its arrays.
        """
        leaves, signature = _signed(arguments, static)
        if jax.local_device_count() > 1 or self._requested(signature) is not None:
            return
        shapes = [jax.ShapeDtypeStruct(*_shape(leaf)) for leaf in leaves]
        self.begun[signature] = _threads().submit(self._compile, signature, shapes, static)

    def _requested(self, signature: Hashable) -> Future[Any] | None:
        """The compilation of this signature, if one was begun; it is now the most recently requested one."""
        _RECENT[id(self), signature] = self
        _RECENT.move_to_end((id(self), signature))
        while len(_RECENT) > MOST_EXECUTABLES:
            (_, oldest), function = _RECENT.popitem(last=False)
            function.begun.pop(oldest, None)
        return self.begun.get(signature)

    @in_fixed_settings
    def _compile(self, signature: Signature, leaves: list[Any], static: dict[str, Hashable]) -> Any:
        """The executable as a function of the leaves: from the cache on disk, or compiled and stored there."""
        start = time.perf_counter()
        executable = disk_cache.executable(self.function, signature[0], leaves, static, quick=self.quick)
        LOG.append(Compilation(self.function.__name__, signature, time.perf_counter() - start))
        return executable


def compile_seconds() -> float:
    """The seconds for which calls in this process have waited for compilations so far."""
    return _waited


def _signed(arguments: Any, static: dict[str, Hashable]) -> tuple[list[Any], Signature]:
    leaves, structure = jax.tree.flatten(arguments)
    return leaves, (structure, tuple(map(_shape, leaves)), tuple(sorted(static.items())))


def _shape(leaf: Any) -> tuple[tuple[int, ...], Any]:
    if isinstance(leaf, (np.ndarray, np.generic, jax.Array, jax.ShapeDtypeStruct)):  # the common case at every call
        return leaf.shape, leaf.dtype
    return jax.numpy.shape(leaf), jax.numpy.result_type(leaf)


def abandon() -> None:
    """Cancel prepared compilations that have not begun; a call that needs one compiles it itself."""
    if _threads.cache_info().currsize:
        _threads().shutdown(wait=False, cancel_futures=True)
        _threads.cache_clear()


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, (os.cpu_count() or 1) - 1), thread_name_prefix="compile")
