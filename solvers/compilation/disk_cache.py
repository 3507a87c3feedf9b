"""Functions traced and lowered once, kept from one process to the next as jax.export writes them.

jax's own cache saves the compiling. What comes before it takes longer than all steps of a small problem.
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

# Packages whose sources are part of a file's name: what is traced is theirs alone.
OUR_PACKAGES = ("ufm", "solvers")
# Of XLA on CPUs. What is ready in a loop over small arrays is run by one thread, in an order that needs little memory:
# to hand it to others takes longer. A single operation is still shared out between threads.
IN_ORDER = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
# And for what is to compile quickly. XLA's newer emitters of fused loops take half as long again; a descent runs as
# fast without them, a loop over random batches less than half as fast.
QUICK = {"xla_cpu_use_fusion_emitters": False}
_directory: Path | None = None


def keep_in(directory: Path | None) -> None:
    """Where this process keeps and looks for functions; None, the default: nowhere. Nobody else may write there."""
    global _directory
    _directory = directory


def executable(
    function: Callable[..., Any], structure: Any, leaves: Sequence[Any], static: dict[str, Any], *, quick: bool = True
) -> Callable[..., Any]:
    """The function of its arguments' leaves, compiled. structure: of the arguments. static: its keyword arguments.

    quick: with QUICK, on a CPU.
    """

    # A new function every time: jax's caches hold an executable for as long as its function lives.
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
    """A function of leaves that has been traced and lowered, and the structure of what it returns."""

    exported: export.Exported
    returned: Any

    @classmethod
    def of(cls, function: Callable[..., Any], leaves: Sequence[Any]) -> _Lowered:
        returned = []

        def flat(*leaves: Any) -> list[Any]:
            found, structure = jax.tree.flatten(function(*leaves))
            returned.append(structure)
            return found

        flat.__name__ = function.__name__
        return cls(export.export(jax.jit(flat))(*leaves), returned[0])

    def compile(self, options: dict[str, Any]) -> Callable[..., Any]:
        compiled = jax.jit(self.exported.call).lower(*self.exported.in_avals).compile(compiler_options=options)
        return lambda *leaves: jax.tree.unflatten(self.returned, compiled(*leaves))


def _file_of(
    function: Callable[..., Any], structure: Any, leaves: Sequence[Any], static: dict[str, Any]
) -> Path | None:
    """Where the function is kept; None if what it computes is not told by names and our sources."""
    if _directory is None or jax.device_count() > 1:
        return None
    shapes = [(jnp.shape(leaf), str(jnp.result_type(leaf))) for leaf in leaves]
    to_dict = repr((function.__module__, function.__qualname__, str(structure), shapes, sorted(static.items())))
    given = jax.tree.leaves(jax.tree.unflatten(structure, leaves), is_leaf=lambda node: isinstance(node, Loss))
    ours = function.__module__.split(".")[0] in OUR_PACKAGES and all(map(_tells, static.values()))
    if not ours or " at 0x" in to_dict or any(isinstance(node, Loss) and node.is_custom for node in given):
        return None
    return _directory / hashlib.sha256((to_dict + _surroundings()).encode()).hexdigest()


def _tells(value: Any) -> bool:
    """Whether its printed form says all that it computes."""
    if dataclasses.is_dataclass(value):
        fields = (getattr(value, field.name) for field in dataclasses.fields(value))
        return type(value).__module__.split(".")[0] in OUR_PACKAGES and all(map(_tells, fields))
    return isinstance(value, (int, float, str, type(None)))


@cache
def _options(quick: bool) -> dict[str, Any]:
    """What this XLA knows of IN_ORDER and QUICK; nothing but on a CPU."""
    wanted = {**IN_ORDER, **(QUICK if quick else {})} if jax.default_backend() == "cpu" else {}
    return {name: value for name, value in wanted.items() if _knows({name: value})}


def _knows(option: dict[str, Any]) -> bool:
    try:
        jax.jit(lambda x: -x).lower(0.0).compile(compiler_options=option)
    except jax.errors.JaxRuntimeError:
        return False
    return True


def _surroundings() -> str:
    """What else it depends on: our sources, versions, the device's kind and all of jax's settings on this thread.

    Many settings change what is lowered, and others are no harm in a name but that of lowering once more.
    """
    settings = {name: getattr(jax.config, name, value) for name, value in jax.config.values.items()}
    return repr((_sources(), jax.default_backend(), jax.devices()[0].device_kind, sorted(settings.items())))


@cache
def _sources() -> str:
    """A sum of our sources, and the versions of what they call."""
    sources = hashlib.sha256()
    for name in OUR_PACKAGES:
        root = Path(__file__).parents[2] / name
        for path in sorted(root.rglob("*.py")):
            sources.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    versions = [version(name) for name in ("jax", "jaxlib", "equinox", "numpy", "optax")]
    return repr((sources.hexdigest(), versions))


def _load(path: Path) -> _Lowered | None:
    """What a file holds; None if there is none, or, in a line of the log, none that is as it was written."""
    if not path.is_file():
        return None
    try:
        written = unsealed(path.read_bytes())  # what is damaged reaches neither pickle nor XLA
        if written is None:
            raise ValueError("damaged")
        returned, content = pickle.loads(written)
        lowered = _Lowered(export.deserialize(bytearray(content)), returned)
    except Exception as error:  # or by what differs in a way that its name does not tell
        logging.getLogger(__name__).warning("%s: a kept function, made anew (%s)", path, error or type(error).__name__)
        return None
    _register_lapack()
    return lowered


def _save(path: Path, lowered: _Lowered) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, sealed(pickle.dumps((lowered.returned, bytes(lowered.exported.serialize())))))
    except OSError:
        return  # costs the next process time, not this one its run


@cache
def _register_lapack() -> None:
    """What calls LAPACK may be compiled once such a call has been lowered here; before that it ends the process."""
    jax.jit(jnp.linalg.cholesky).lower(jax.ShapeDtypeStruct((1, 1), jnp.float64))
