"""Long scans, piece by piece: shown while they last, and stopped between two pieces."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

Piece = TypeVar("Piece")
# Called with the name of the scan, how much of it is done and how much there is.
ProgressCallback = Callable[[str, float, float], None]
PATIENCE = 1.5  # seconds before a bar appears


class Stopped(KeyboardInterrupt):
    """Ctrl-C during a scan: what was being done, how far it had come, and what is known."""


def followed(
    work: Callable[[Piece], None],
    pieces: Iterable[tuple[Piece, float]],
    what: str,
    total: float,
    progress: ProgressCallback | None = None,
    found: Callable[[], str] = lambda: "nothing was decided",
) -> None:
    """Do the work on the pieces in turn; each comes with its share of `total`.

    After each `progress` is called; without it a bar with the time that remains is shown on a terminal, once the scan
    has lasted PATIENCE. Raises Stopped, a KeyboardInterrupt that says how far it came and what it `found`, for Ctrl-C.
    """
    done, began = 0.0, time.monotonic()
    bar: Progress | None = None
    try:
        for piece, share in pieces:
            work(piece)
            done += share
            if progress is not None:
                progress(what, done, total)
            elif bar is not None:
                bar.update(bar.task_ids[0], completed=done)
            elif sys.stderr.isatty() and time.monotonic() - began > PATIENCE:
                bar = _bar(what, done, total)
    except KeyboardInterrupt:
        raise Stopped(f"{what}: stopped at {done / total:.0%}; {found()}") from None
    finally:
        if bar is not None:
            bar.stop()


def _bar(what: str, done: float, total: float) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f}%"))
    bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
    bar.update(bar.add_task(what, total=total), completed=done)
    bar.start()
    return bar
