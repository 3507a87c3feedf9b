"""Long scans in pieces: a progress bar shows them, and they can be stopped between two pieces."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

Piece = TypeVar("Piece")
# Called with the name of the scan, the amount that is done, and the total amount.
ProgressCallback = Callable[[str, float, float], None]
PATIENCE = 1.5  # seconds before a bar appears


class Stopped(KeyboardInterrupt):
    """Ctrl-C during a scan. The message says what ran, how much was done, and what is known."""


def followed(
    work: Callable[[Piece], None],
    pieces: Iterable[tuple[Piece, float]],
    what: str,
    total: float,
    progress: ProgressCallback | None = None,
    known: Callable[[], str] = lambda: "nothing was decided",
) -> None:
    """Work on the pieces in turn; each comes with its part of `total`.

    After each piece `progress` is called. Without it, a terminal shows a bar with the remaining time once the scan has
    lasted for PATIENCE. On Ctrl-C, raises Stopped, a KeyboardInterrupt that says how much was done and what is `known`.
    """
    done, began = 0.0, time.monotonic()
    bar: Progress | None = None
    try:
        for piece, amount in pieces:
            work(piece)
            done += amount
            if progress is not None:
                progress(what, done, total)
            elif bar is not None:
                bar.update(bar.task_ids[0], completed=done)
            elif sys.stderr.isatty() and time.monotonic() - began > PATIENCE:
                bar = _bar(what, done, total)
    except KeyboardInterrupt:
        raise Stopped(f"{what}: stopped at {done / total:.0%}; {known()}") from None
    finally:
        if bar is not None:
            bar.stop()


def _bar(what: str, done: float, total: float) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f}%"))
    bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
    bar.update(bar.add_task(what, total=total), completed=done)
    bar.start()
    return bar
