"""What every sweep shares: how it names cells, shows progress, and closes."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn, TimeElapsedColumn

from ufm import long_tail_imbalance, step_imbalance

PROFILES = {"step": step_imbalance, "long-tail": long_tail_imbalance}


def console() -> Console:
    """Where a sweep speaks; a log file has no narrow window."""
    made = Console()
    if not made.is_terminal:
        made.width = max(made.width, 100)
    return made


def progress_columns(what: str) -> tuple[ProgressColumn, ...]:
    """A bar with a description, how many of `what` are done, and the time."""
    return TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(what), TimeElapsedColumn()


def close(sentence: str, out: Path, console: Console) -> None:
    """The verdict in a sentence, and where the results are."""
    console.print(f"[bold]{sentence}[/]")
    console.print(f"Tables, cells, certificates and figures are in {out}", highlight=False)
    console.print(
        f"Check a certificate without this package's solver: python -m solvers.check {out}/certificates/*.json",
        highlight=False,
        soft_wrap=True,
    )


def versions() -> dict[str, str]:
    """Of this package, Python, the machine's kind, and the libraries that compute."""
    names = ("ufm-scl", "jax", "jaxlib", "optax", "numpy", "cvxpy", "clarabel", "scs", "python-flint")
    found = {"python": platform.python_version(), "machine": platform.machine(), "system": platform.system()}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def plain(config: Any) -> dict[str, Any]:
    """The fields of a configuration as they go into JSON."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in vars(config).items()}


def number(value: Any) -> int | float:
    """Whole floats without their point, numpy scalars as Python ones."""
    as_float = float(value)
    return int(as_float) if as_float.is_integer() else as_float
