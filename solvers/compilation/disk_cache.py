"""A cache of traced and lowered functions on disk, in the format of jax.export.

jax's own cache only saves the compilation. Tracing and lowering take longer than all steps of a small problem.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import pickle
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import export

from solvers.files import sealed, unsealed, write_atomically
from ufm.losses import Loss

# The packages whose sources are part of a file's name: only functions of theirs are cached.
OUR_PACKAGES = ("ufm", "solvers")
# XLA's options on CPUs. Within a loop over small arrays one thread runs all operations in an order that needs little
# memory, because handing them to other threads takes longer. A single operation is still split between threads.
IN_ORDER = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
# Further options for functions that should compile quickly. XLA's newer emitters of fused loops take half as long
# again. Without them a descent runs as fast, but a loop over random batches at less than half the speed.
QUICK = {"xla_cpu_use_fusion_emitters": False}
_directory: Path | None = None


def keep_in(directory: Path | None) -> None:
    """Set the directory of the cache; None, the default, means no cache. Only this user may be able to write to it."""
    global _directory
    _directory = directory


def executable(
    function: Callable[..., Any], structure: Any, leaves: Sequence[Any], static: dict[str, Any], *, quick: bool = True
) -> Callable[..., Any]:
    """The compiled function, as a function of the leaves of its arguments.

    structure: the pytree structure of the arguments. static: keyword arguments. quick: whether to use QUICK, on a CPU.
    """

    # A new function at every call: jax's caches hold an executable for as long as its function exists.
    def of_leaves(*leaves: Any) -> Any:
        return function(*jax.tree.unflatten(structure, leaves), **static)

    of_leaves.__name__ = function.__name__
    options = _options(quick)
    path = _file_of(function, structure, leaves, static)
    if path is None:
        return jax.jit(of_leaves).lower(*leaves).compile(compiler_options=options)
    lowered = _load(path)
    if lowered is None:
        lowered = _Lowered.of(of_leaves, leaves)
        _save(path, lowered)
    return lowered.compile(options)


class _Lowered(NamedTuple):
    """A traced and lowered function of leaves, and the pytree structure of its result."""

    exported: export.Exported
    returned: Any

    @classmethod
    def of(cls, function: Callable[..., Any], leaves: Sequence[Any]) -> _Lowered:
        returned = []

        def flat(*leaves: Any) -> list[Any]:
            results, structure = jax.tree.flatten(function(*leaves))
            returned.append(structure)
            return results

        flat.__name__ = function.__name__
        return cls(export.export(jax.jit(flat))(*leaves), returned[0])

    def compile(self, options: dict[str, Any]) -> Callable[..., Any]:
        compiled = jax.jit(self.exported.call).lower(*self.exported.in_avals).compile(compiler_options=options)
        return lambda *leaves: jax.tree.unflatten(self.returned, compiled(*leaves))


def _file_of(
    function: Callable[..., Any], structure: Any, leaves: Sequence[Any], static: dict[str, Any]
) -> Path | None:
    """The file of the function in the cache; None if names and our sources do not determine what it computes."""
    if _directory is None or jax.device_count() > 1:
        return None
    shapes = [(jnp.shape(leaf), str(jnp.result_type(leaf))) for leaf in leaves]
    description = repr((function.__module__, function.__qualname__, str(structure), shapes, sorted(static.items())))
    nodes = jax.tree.leaves(jax.tree.unflatten(structure, leaves), is_leaf=lambda node: isinstance(node, Loss))
    ours = function.__module__.split(".")[0] in OUR_PACKAGES and all(map(_prints_fully, static.values()))
    if not ours or " at 0x" in description or any(isinstance(node, Loss) and node.is_custom for node in nodes):
        return None
    return _directory / hashlib.sha256((description + _surroundings()).encode()).hexdigest()


def _prints_fully(value: Any) -> bool:
    """Whether the printed form of a value determines what it computes."""
    if dataclasses.is_dataclass(value):
        fields = (getattr(value, field.name) for field in dataclasses.fields(value))
        return type(value).__module__.split(".")[0] in OUR_PACKAGES and all(map(_prints_fully, fields))
    return isinstance(value, (int, float, str, type(None)))


@cache
def _options(quick: bool) -> dict[str, Any]:
    """The options of IN_ORDER and QUICK that this version of XLA knows; none unless on a CPU."""
    wanted = {**IN_ORDER, **(QUICK if quick else {})} if jax.default_backend() == "cpu" else {}
    return {name: value for name, value in wanted.items() if _knows({name: value})}


def _knows(option: dict[str, Any]) -> bool:
    try:
        jax.jit(lambda x: -x).lower(0.0).compile(compiler_options=option)
    except jax.errors.JaxRuntimeError:
        return False
    return True


def _surroundings() -> str:
    """Everything else that the lowered function depends on: sources, versions, kind of device, and jax's settings.

    Many settings of this thread change the lowered function. The others only cost one more lowering.
    """
    settings = {name: getattr(jax.config, name, value) for name, value in jax.config.values.items()}
    return repr((_sources(), jax.default_backend(), jax.devices()[0].device_kind, sorted(settings.items())))


@cache
def _sources() -> str:
    """A hash of our sources, and the versions of the packages that they call."""
    sources = hashlib.sha256()
    for name in OUR_PACKAGES:
        root = Path(__file__).parents[2] / name
        for path in sorted(root.rglob("*.py")):
            sources.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    versions = [version(name) for name in ("jax", "jaxlib", "equinox", "numpy", "optax")]
    return repr((sources.hexdigest(), versions))


def _load(path: Path) -> _Lowered | None:
    """The stored function; None if there is no file, or, with a warning in the log, if the file is damaged."""
    if not path.is_file():
        return None
    try:
        written = unsealed(path.read_bytes())  # damaged bytes reach neither pickle nor XLA
        if written is None:
            raise ValueError("damaged")
        returned, content = pickle.loads(written)
        lowered = _Lowered(export.deserialize(bytearray(content)), returned)
    except Exception as error:  # also where the platform differs in a way that the name does not show
        logging.getLogger(__name__).warning(
            "%s: the stored function cannot be read and is compiled again (%s)", path, error or type(error).__name__
        )
        return None
    _register_lapack()
    return lowered


def _save(path: Path, lowered: _Lowered) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, sealed(pickle.dumps((lowered.returned, bytes(lowered.exported.serialize())))))
    except OSError:
        return  # the next process has to compile again; this one goes on


@cache
def _register_lapack() -> None:
    """Lower a call of LAPACK: without that, compiling a stored function that calls LAPACK ends the process."""
    jax.jit(jnp.linalg.cholesky).lower(jax.ShapeDtypeStruct((1, 1), jnp.float64))
