"""Where the cells of a sweep run: in this process, or on the workers of dask.distributed."""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from solvers.parallel.compiled import abandon
from ufm.errors import InvalidInput

if TYPE_CHECKING:
    from distributed import Client

_LOCAL = re.compile(r"local:([1-9]\d{0,3})")
_ADDRESS = re.compile(r"(?!local:)(?:[a-z]+://)?[^\s:/]+:\d{1,5}")
# Jobs prepared before the first of them runs.
AHEAD = 4
FULL = (errno.ENOSPC, errno.EDQUOT)
_worker = False


@dataclass(frozen=True)
class Job:
    """One cell to compute: a name unique among its like, a function of a module, picklable arguments.

    - tell: called with the number of parts that have ended, so far as they can be told apart where the job runs.
    - parts: how many those are.
    - prepare: see `experiments.cells.Cell`.
    """

    name: str
    compute: Callable[..., Any]
    arguments: Mapping[str, Any]
    parts: int = 1
    tell: Callable[[int], None] = field(default=lambda ended: None)
    prepare: Callable[[], None] = field(default=lambda: None)


@dataclass(frozen=True)
class Ended:
    """What came of a job: its value, or the error it raised."""

    job: Job
    value: Any = None
    error: Exception | None = None


def is_worker() -> bool:
    """Whether this process computes for a command that runs elsewhere."""
    return _worker


def check(engine: str | None) -> None:
    """Raises InvalidInput unless the engine is None (this process), "local:WORKERS" or a scheduler's address."""
    if engine is not None and not _LOCAL.fullmatch(engine) and not _ADDRESS.fullmatch(engine):
        raise InvalidInput("dask", engine, "give local:4 for 4 worker processes, or a scheduler's address, HOST:PORT")
    if engine is not None and importlib.util.find_spec("distributed") is None:
        raise InvalidInput("dask", engine, "dask is not installed; pip install 'ufm-scl[dask]'")


def run(jobs: Sequence[Job], engine: str | None = None) -> Generator[Ended]:
    """Every job, in the order in which they end. One that raises is reported and stops no other.

    With dask the jobs of a lost worker run again on another. Raises InvalidInput if the engine cannot be
    reached, OSError if a disk is full.
    """
    check(engine)
    for ended in _here(jobs) if engine is None or not jobs else _on_dask(jobs, engine):
        if isinstance(ended.error, OSError) and ended.error.errno in FULL:
            raise ended.error
        yield ended


def _here(jobs: Sequence[Job]) -> Generator[Ended]:
    prepared = 0
    try:
        for place, job in enumerate(jobs):
            for following in jobs[prepared : place + AHEAD]:
                with contextlib.suppress(Exception):  # which its own run will raise
                    following.prepare()
            prepared = place + AHEAD
            try:
                value = job.compute(**job.arguments, progress=job.tell)
            except Exception as error:
                yield Ended(job, error=error)
            else:
                yield Ended(job, value)
    finally:
        abandon()


def _on_dask(jobs: Sequence[Job], engine: str) -> Generator[Ended]:
    with _connected(engine) as client:
        from distributed import as_completed

        futures = {
            client.submit(job.compute, **job.arguments, progress=_untold, key=job.name, pure=False): job for job in jobs
        }
        for future in as_completed(futures, loop=client.loop):
            job, error = futures[future], future.exception()
            if error is None:
                job.tell(job.parts)
                yield Ended(job, future.result())
            else:
                yield Ended(job, error=error)
            future.release()


def _connected(engine: str) -> Client:
    from distributed import Client

    local = _LOCAL.fullmatch(engine)
    try:
        # Not the default client: xarray would send its own locks through it.
        if local:
            workers = {"n_workers": int(local[1]), "threads_per_worker": 1, "processes": True}
            return Client(**workers, dashboard_address=None, set_as_default=False)
        return Client(engine, timeout="10s", set_as_default=False)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InvalidInput("dask", engine, f"no scheduler answers there ({reason})") from None


def _untold(ended: int) -> None:
    """Progress within a job stays on its worker."""
