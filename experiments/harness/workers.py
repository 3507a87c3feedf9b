"""Workers of dask.distributed: they compute with what the command has, or are refused."""

from __future__ import annotations

import contextlib
import errno
import logging
import pickle
import re
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from experiments.harness.compile_cache import enable
from ufm.errors import InvalidInput

if TYPE_CHECKING:
    from distributed import Client

LOCAL = re.compile(r"local:([1-9]\d{0,3})")
# What determines a result: sources of these packages, and versions of these libraries.
PACKAGES = ("ufm", "ufm_check", "solvers", "networks", "experiments")
LIBRARIES = ("ufm-scl", "jax", "jaxlib", "optax", "numpy", "cvxpy", "clarabel", "scs", "python-flint")
# Seconds without any worker after which a command gives up.
PATIENCE = 600.0
_PAUSE, _LOOK = 0.05, 2.0
_serving = False


class Task(NamedTuple):
    """A function of a module and its picklable arguments, by a name unique among its like."""

    name: str
    compute: Callable[..., Any]
    arguments: Mapping[str, Any]


def is_worker() -> bool:
    """Whether this process computes for a command that runs elsewhere."""
    return _serving


def serve() -> None:
    """What a worker does before it computes: compiled functions are cached there as well."""
    global _serving
    if not _serving:
        _serving = True
        enable()


def run(tasks: Sequence[Task], engine: str) -> Generator[tuple[Task, Any, Exception | None]]:
    """Every task with its value or the error it raised, in the order in which they end.

    The tasks of a lost worker run again on another. Raises InvalidInput if the scheduler cannot be reached, or a worker
    computes with other sources or versions; OSError, naming the scheduler, if it or all workers are lost.
    """
    with _connected(engine) as client:
        from distributed import as_completed

        expected, compute = surroundings(), _by_value()[1]
        futures = {
            client.submit(
                compute, expected, pickle.dumps((task.compute, dict(task.arguments))), key=task.name, pure=False
            ): task
            for task in tasks
        }
        ended = as_completed(futures, loop=client.loop)
        for _ in _each_ready(ended, client, engine):
            future = next(ended)
            if future.status == "cancelled":
                raise _lost(engine, "the scheduler is lost")
            error = future.exception()
            if error is None:
                worker, result, value = future.result()
                _check(engine, worker, result, expected)
            else:
                value = None
            yield futures[future], value, error
            future.release()


def surroundings() -> dict[str, str]:
    """What this process computes with: a hash of the sources, and versions."""
    return _by_value()[0](PACKAGES, LIBRARIES)


def _by_value() -> tuple[Callable[..., dict[str, str]], Callable[..., tuple[str, dict[str, str], Any]]]:
    """What says what a process computes with, and what computes on a worker.

    Functions within a function are sent as they are, not by name: a worker of another version runs these, and nothing
    of its own before it has been compared.
    """

    def progress(packages: Sequence[str], libraries: Sequence[str]) -> dict[str, str]:
        import hashlib
        import importlib.metadata
        import importlib.util
        import pathlib
        import platform

        result = {"python": platform.python_version(), "machine": platform.machine(), "system": platform.system()}
        for name in libraries:
            try:
                result[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                result[name] = "not installed"
        sources = hashlib.sha256()
        for name in packages:
            spec = importlib.util.find_spec(name)
            for folder in spec.submodule_search_locations or () if spec else ():
                for path in sorted(pathlib.Path(folder).rglob("*.py")):
                    sources.update(f"{name}/{path.relative_to(folder)}\0".encode() + path.read_bytes() + b"\0")
        return {**result, "sources": sources.hexdigest()}

    def compute(expected: dict[str, str], packed: bytes) -> tuple[str, dict[str, str], Any]:
        import pickle

        from distributed import get_worker

        worker, result = get_worker(), progress(PACKAGES, LIBRARIES)
        # Sources may have changed since this process read them.
        first = vars(worker).setdefault("ufm_scl", result)
        for now in (first, result):
            if now != expected:
                return worker.address, now, None
        from experiments.harness import workers

        workers.serve()
        function, arguments = pickle.loads(packed)
        return worker.address, result, function(**arguments, progress=workers.untold)

    return progress, compute


def untold(ended: int) -> None:
    """Progress within a task stays on its worker."""


def _check(engine: str, worker: str, versions: Mapping[str, str], expected: Mapping[str, str]) -> None:
    differ = [
        f"other {name}" if name == "sources" else f"{name} {versions.get(name)} instead of {expected[name]}"
        for name in expected
        if versions.get(name) != expected[name]
    ]
    if differ:
        fix = "install the same there and start it again; finished cells are kept"
        raise InvalidInput("dask", engine, f"worker {worker} computes with {', '.join(differ)}; {fix}")


def _each_ready(ended: Any, client: Client, engine: str) -> Iterator[None]:
    """Whenever a task has ended. Without a worker that is said, and raised after PATIENCE."""
    looked = seen = time.monotonic()
    said = False
    while ended.count():
        if ended.has_ready():
            yield
            continue
        time.sleep(_PAUSE)
        if (now := time.monotonic()) < looked + _LOOK and looked != seen:
            continue
        looked = now
        with contextlib.suppress(OSError):
            if client.scheduler_info()["workers"]:
                seen, said = now, False
        if now > seen + PATIENCE:
            raise _lost(engine, f"no worker for {PATIENCE:g} s")
        if now > seen + _LOOK and not said:
            said = True
            print(f"{engine}: no worker there yet; start one, gives up after {PATIENCE:g} s", file=sys.stderr)


def _lost(engine: str, reason: str) -> OSError:
    return OSError(errno.ECONNRESET, reason, engine)


@contextlib.contextmanager
def _connected(engine: str) -> Iterator[Client]:
    from distributed import Client

    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what ends a run is said in one line
    local = LOCAL.fullmatch(engine)
    try:
        # Not the default client: xarray would send its own locks through it.
        if local:
            workers = {"n_workers": int(local[1]), "threads_per_worker": 1, "processes": True}
            client = Client(**workers, dashboard_address=None, set_as_default=False)
        else:
            client = Client(engine, timeout="10s", set_as_default=False)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InvalidInput("dask", engine, f"no scheduler answers there ({reason})") from None
    with client:
        yield client
