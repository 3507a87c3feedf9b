"""Where the cells of a sweep run: in this process, or on the workers of dask.distributed."""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from experiments.harness import workers
from solvers.compilation.compiled import abandon
from ufm.errors import InvalidInput

_ADDRESS = re.compile(r"(?!local:)(?:[a-z]+://)?[^\s:/]+:\d{1,5}")
# Jobs prepared before the first of them runs.
AHEAD = 4
FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Job:
    """One cell to compute: a name unique among its like, a function of a module, picklable arguments.

    - progress: called with the number of parts that have ended, so far as they can be told apart where the job runs.
    - parts: how many those are.
    - prepare: see `experiments.harness.cells.Cell`.
    """

    name: str
    compute: Callable[..., Any]
    arguments: Mapping[str, Any]
    parts: int = 1
    progress: Callable[[int], None] = field(default=lambda ended: None)
    prepare: Callable[[], None] = field(default=lambda: None)


@dataclass(frozen=True)
class Ended:
    """What came of a job: its value, or the error it raised."""

    job: Job
    value: Any = None
    error: Exception | None = None


def check(engine: str | None) -> None:
    """Raises InvalidInput unless the engine is None (this process), "local:WORKERS" or a scheduler's address."""
    if engine is not None and not workers.LOCAL.fullmatch(engine) and not _ADDRESS.fullmatch(engine):
        raise InvalidInput("dask", engine, "give local:4 for 4 worker processes, or a scheduler's address, HOST:PORT")
    if engine is not None and importlib.util.find_spec("distributed") is None:
        raise InvalidInput("dask", engine, "dask is not installed; pip install 'ufm-scl[dask]'")


def run(jobs: Sequence[Job], engine: str | None = None) -> Generator[Ended]:
    """Every job, in the order in which they end. One that raises is reported and stops no other.

    With dask the jobs of a lost worker run again on another. Raises InvalidInput if the engine cannot be
    reached, or a worker there has other sources or versions; OSError if a disk here is full, or the engine is lost.
    """
    check(engine)
    yield from _here(jobs) if engine is None or not jobs else _on_dask(jobs, engine)


def _here(jobs: Sequence[Job]) -> Generator[Ended]:
    prepared = 0
    try:
        for place, job in enumerate(jobs):
            for following in jobs[prepared : place + AHEAD]:
                with contextlib.suppress(Exception):  # which its own run will raise
                    following.prepare()
            prepared = place + AHEAD
            try:
                value = job.compute(**job.arguments, progress=job.progress)
            except Exception as error:
                if isinstance(error, OSError) and error.errno in FULL:
                    raise
                yield Ended(job, error=error)
            else:
                yield Ended(job, value)
    finally:
        abandon()


def _on_dask(jobs: Sequence[Job], engine: str) -> Generator[Ended]:
    by_name = {job.name: job for job in jobs}
    tasks = [workers.Task(job.name, job.compute, job.arguments) for job in jobs]
    with contextlib.closing(workers.run(tasks, engine)) as results:
        for task, value, error in results:
            job = by_name[task.name]
            if error is None:
                job.progress(job.parts)
            yield Ended(job, value, error)
