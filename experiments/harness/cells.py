"""Cells: the results that a sweep or the gallery is made of, each computed anywhere and written to one store."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import xarray as xr
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from experiments.harness import engine
from experiments.harness.store import Store, digest
from experiments.harness.workers import surroundings

# Part of every cell's file name: a change of what a cell holds makes a new cell.
SCHEMA = 5
# Seconds between two lines of progress in a log.
EVERY = 10.0

Computed = tuple[xr.Dataset, Mapping[str, bytes]]
ProgressCallback = Callable[[int], None]


@dataclass(frozen=True)
class Cell:
    """A dataset to be computed, with the files that belong to it.

    - name: unique among its like; its files are called after it.
    - compute: a function of a module, of the arguments and of `progress`, which it may call with the number of parts
      that have ended. Returns the dataset, and files by name. It writes nothing: a cell is computed on any machine.
    - arguments: picklable. key: what determines the result, as JSON; the arguments themselves if None.
    - parts: as `progress` counts them.
    - title: what it is called while it runs; the name if empty. alone: the command that computes it alone.
    - attrs: added to those of the dataset.
    - prepare: begins, while earlier cells are computed here, what this one would wait for; returns at once.
    """

    name: str
    compute: Callable[..., Computed]
    arguments: Mapping[str, Any]
    key: Any = None
    parts: int = 1
    title: str = ""
    alone: str = ""
    attrs: Mapping[str, Any] = field(default_factory=dict)
    prepare: Callable[[], None] = field(default=lambda: None)

    @functools.cached_property
    def file(self) -> str:
        """Where a store keeps the dataset."""
        key = dict(self.arguments) if self.key is None else self.key
        return f"cells/{self.name}-{digest([self.name, key, SCHEMA, versions()])}.nc"


def cell_name(R: float | str, tau: float | str, *others: str) -> str:
    """The name of a cell of a sweep, from the numbers as they stand in summary.csv."""
    return "-".join((f"R{number_in_names(R)}", f"tau{number_in_names(tau)}", *others))


def number_in_names(number: float | str) -> str:
    """A number of many digits is rounded, and six digits of its hash tell it from others that round to the same."""
    text = str(number)
    if len(text) <= 10 or "." not in text:
        return text
    return f"{float(text):.6g}_{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def certificate_file(cell: str, which: int | str, family: int | None = None) -> str:
    """Where the certificate of a start, or another of that name, is stored."""
    start = which if isinstance(which, str) else f"start{which:03d}"
    return f"certificates/{cell}{'' if family is None else f'-family{family:03d}'}-{start}.json"


class CellResults(NamedTuple):
    """Datasets by `Cell.file`, in the order asked, and how many of them were not in the store."""

    datasets: dict[str, xr.Dataset]
    computed: int


def run_cells(
    cells: Iterable[Cell], store: Store, console: Console, what: str, *, fresh: bool, dask: str | None
) -> CellResults:
    """Every cell, from the store where it is there, else computed and stored; those that fail are said and left out.

    what: the parts of the cells, as the progress bar names them. dask: where they run, see
    `experiments.harness.engine`.
    """
    requested = {cell.file: cell for cell in cells}
    stored = {file: None if fresh else store.read_cell(file) for file in requested}
    result = {file: dataset for file, dataset in stored.items() if dataset is not None}
    waiting = {file: cell for file, cell in requested.items() if file not in result}
    if result:
        say(console, f"{len(result)} of {len(requested)} cells found, {len(waiting)} to run")
    done = {file: requested[file].parts for file in result}
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TextColumn(what))
    with Progress(
        *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=not console.is_terminal
    ) as bar:
        total = sum(cell.parts for cell in requested.values())
        task = bar.add_task("", total=total, completed=sum(done.values()))
        log = _Progress(console, total, what)

        def progress(file: str, ended: int) -> None:
            done[file] = done.get(file, 0) + ended
            title = waiting[file].title or waiting[file].name
            bar.update(task, completed=sum(done.values()), description=title)
            log.progress(title, sum(done.values()))

        jobs = [
            engine.Job(file, cell.compute, cell.arguments, cell.parts, partial(progress, file), cell.prepare)
            for file, cell in waiting.items()
        ]
        for job in jobs[:1]:
            job.progress(0)
        with contextlib.closing(engine.run(jobs, dask)) as results:
            for ended in results:
                file, cell = ended.job.name, waiting[ended.job.name]
                if ended.error is not None:
                    print_failure(cell, ended.error, console)
                    continue
                dataset, files = ended.value
                result[file] = dataset.assign_attrs(cell.attrs)
                store.write_cell(file, result[file], files)
                ended.job.progress(cell.parts - done.get(file, 0))
    return CellResults(
        {file: result[file] for file in requested if file in result}, sum(file in result for file in waiting)
    )


class _Progress:
    """Lines of progress where no bar is drawn, as in a log file: one at most every EVERY seconds."""

    def __init__(self, console: Console, total: int, what: str) -> None:
        self._console, self._total, self._what = console, total, what
        self._began = self._said = time.monotonic()

    def progress(self, title: str, ended: int) -> None:
        now = time.monotonic()
        if self._console.is_terminal or now < self._said + EVERY:
            return
        self._said = now
        say(self._console, f"{ended} of {self._total} {self._what}, {now - self._began:.0f} s: {title}")


def print_failure(cell: Cell, error: Exception, console: Console) -> None:
    """Two lines: why the cell is not there, and the command that computes it alone."""
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    console.print(Text.assemble(("failed", "red"), f"  {cell.title or cell.name}: {reason}"))
    say(console, f"        alone: {cell.alone}")


def say(console: Console, line: str) -> None:
    """A line as it is: whatever a path or a message holds is no markup, is not coloured and not broken."""
    console.out(line, highlight=False)


class _Log(Console):
    """Nothing is concluded from an output that nobody reads: the status is that of a program which SIGPIPE ended."""

    def on_broken_pipe(self) -> None:
        try:
            super().on_broken_pipe()
        except SystemExit:
            sys.exit(128 + signal.SIGPIPE)


def log_console() -> Console:
    """Where a command speaks; a log file has no narrow window."""
    made = _Log()
    if not made.is_terminal:
        made.width = max(made.width, 100)
    return made


@functools.cache
def versions() -> dict[str, str]:
    """Of this package, Python, the machine's kind, and the libraries that compute."""
    return {name: value for name, value in surroundings().items() if name != "sources"}
