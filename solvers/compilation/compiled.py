"""Compile ahead of time, once a signature, side by side; what calls wait for it is kept apart from their runs."""

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
    """One traced and compiled function: its name, the shapes it serves, seconds it took on its thread."""

    name: str
    signature: Hashable
    seconds: float


LOG: list[Compilation] = []
# Executables that are kept, those last asked for. Each takes hundreds of mapped regions of memory, and Linux ends a
# process with more than 65,530.
MOST_KEPT = 64
_ASKED: OrderedDict[tuple[int, Hashable], Compiled] = OrderedDict()
_LOCK = Lock()
_waited = 0.0


@dataclass
class Compiled:
    """A function of pytrees of arrays, compiled once for each signature: at its first call, or before.

    Of all functions together MOST_KEPT are kept. Every compilation is logged in `LOG`.

    - quick: to compile it soon matters more than the last share of its speed (`solvers.compilation.disk_cache`).
    """

    function: Callable[..., Any]
    quick: bool = True
    begun: dict[Hashable, Future[Any]] = field(default_factory=dict)
    shapes: dict[Hashable, Any] = field(default_factory=dict)

    @property
    def executables(self) -> dict[Hashable, Any]:
        """What has been compiled, by signature."""
        ended = {signature: future for signature, future in self.begun.items() if future.done()}
        return {s: f.result() for s, f in ended.items() if not f.cancelled() and f.exception() is None}

    @in_fixed_settings
    def __call__(self, *arguments: Any, **static: Hashable) -> Any:
        """Run on arrays; static keyword arguments are part of the signature."""
        global _waited
        leaves, signature = _signed(arguments, static)
        executable = self._asked(signature)
        if executable is None or not executable.done() or executable.cancelled():
            began = time.perf_counter()
            if executable is None or executable.cancel():  # what only waits for its turn is compiled here
                compiled = self._compile(signature, leaves, static)
                executable = self.begun[signature] = Future()
                executable.set_result(compiled)
            executable.exception()
            with _LOCK:
                _waited += time.perf_counter() - began
        return executable.result()(*leaves)

    @in_fixed_settings
    def returned(self, *arguments: Any, **static: Hashable) -> Any:
        """The shapes and dtypes of what a call would return, traced once a signature."""
        _, signature = _signed(arguments, static)
        if signature not in self.shapes:
            self.shapes[signature] = jax.eval_shape(partial(self.function, **static), *arguments)
        return self.shapes[signature]

    @in_fixed_settings
    def prepare(self, *arguments: Any, **static: Hashable) -> None:
        """Compile on another thread, for a call to come with arrays of these shapes; `jax.ShapeDtypeStruct`s will do.

        Compiling lets other threads run. Does nothing where there are several devices: a function is compiled there
        for arrays as they lie on them.
        """
        leaves, signature = _signed(arguments, static)
        if jax.local_device_count() > 1 or self._asked(signature) is not None:
            return
        shapes = [jax.ShapeDtypeStruct(*_shape(leaf)) for leaf in leaves]
        self.begun[signature] = _threads().submit(self._compile, signature, shapes, static)

    def _asked(self, signature: Hashable) -> Future[Any] | None:
        """What was begun of this signature, which is now the last of all to be forgotten."""
        _ASKED[id(self), signature] = self
        _ASKED.move_to_end((id(self), signature))
        while len(_ASKED) > MOST_KEPT:
            (_, oldest), function = _ASKED.popitem(last=False)
            function.begun.pop(oldest, None)
        return self.begun.get(signature)

    @in_fixed_settings
    def _compile(self, signature: Signature, leaves: list[Any], static: dict[str, Hashable]) -> Any:
        """The executable, of the leaves of the arguments: kept by an earlier process, or compiled and kept."""
        start = time.perf_counter()
        executable = disk_cache.executable(self.function, signature[0], leaves, static, quick=self.quick)
        LOG.append(Compilation(self.function.__name__, signature, time.perf_counter() - start))
        return executable


def compile_seconds() -> float:
    """Seconds for which calls have waited for compilations in this process so far."""
    return _waited


def _signed(arguments: Any, static: dict[str, Hashable]) -> tuple[list[Any], Signature]:
    leaves, structure = jax.tree.flatten(arguments)
    return leaves, (structure, tuple(map(_shape, leaves)), tuple(sorted(static.items())))


def _shape(leaf: Any) -> tuple[tuple[int, ...], Any]:
    if isinstance(leaf, (np.ndarray, np.generic, jax.Array, jax.ShapeDtypeStruct)):  # what is asked for at every call
        return leaf.shape, leaf.dtype
    return jax.numpy.shape(leaf), jax.numpy.result_type(leaf)


def abandon() -> None:
    """Compile nothing more of what was prepared and has not begun; a call that needs it compiles it."""
    if _threads.cache_info().currsize:
        _threads().shutdown(wait=False, cancel_futures=True)
        _threads.cache_clear()


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, (os.cpu_count() or 1) - 1), thread_name_prefix="compile")
