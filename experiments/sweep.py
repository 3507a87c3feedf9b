"""What every sweep shares: how it runs its cells, shows progress, and closes."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn

from experiments import engine, report
from experiments.problem_file import MOST_COORDINATES, MOST_SAMPLES
from experiments.store import Store
from ufm import InvalidInput, long_tail_imbalance, step_imbalance
from ufm.errors import whole_number

PROFILES = {"step": step_imbalance, "long-tail": long_tail_imbalance}
MOST_STARTS = 1_000_000


def console() -> Console:
    """Where a sweep speaks; a log file has no narrow window."""
    made = Console()
    if not made.is_terminal:
        made.width = max(made.width, 100)
    return made


def progress_columns(what: str) -> tuple[ProgressColumn, ...]:
    """A bar with a description, how many of `what` are done, and the time."""
    return TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(what), TimeElapsedColumn()


@dataclass(frozen=True)
class Cell:
    """A cell as a sweep asks for it.

    - job: named as the file that the cell is stored in; computes a dataset, and the files that belong to it by name.
    - title: what it is called while the sweep runs. alone: the command that repeats it alone.
    - attrs: what the sweep knows of the cell, added to the attributes of the dataset.
    """

    job: engine.Job
    title: str
    alone: str
    attrs: Mapping[str, Any] = field(default_factory=dict)


def run_cells(
    cells: Sequence[Cell], store: Store, console: Console, what: str, *, fresh: bool, dask: str | None
) -> list[xr.Dataset]:
    """Every cell, from the store where it is there, else run and stored; those that fail are said and left out.

    what: the parts of the jobs, as the progress bar names them.
    """
    stored = {cell.job.name: None if fresh else store.read_cell(cell.job.name) for cell in cells}
    found = {name: cell for name, cell in stored.items() if cell is not None}
    waiting = {cell.job.name: cell for cell in cells if cell.job.name not in found}
    parts = {cell.job.name: cell.job.parts for cell in cells}
    with Progress(*progress_columns(what), console=console, transient=not console.is_terminal) as bar:
        task = bar.add_task("", total=sum(parts.values()), completed=sum(parts[name] for name in found))

        def tell(title: str, ended: int) -> None:
            bar.update(task, advance=ended, description=title)

        jobs = [replace(cell.job, tell=partial(tell, cell.title)) for cell in waiting.values()]
        for job in jobs[:1]:
            job.tell(0)
        with contextlib.closing(engine.run(jobs, dask)) as results:
            for ended in results:
                cell = waiting[ended.job.name]
                if ended.error is not None:
                    reason = " ".join(f"{type(ended.error).__name__}: {ended.error}".split())
                    console.print(f"[red]failed[/]  {cell.title}: {escape(reason)}")
                    console.print(f"        alone: {escape(cell.alone)}", highlight=False, soft_wrap=True)
                    continue
                made, files = ended.value
                found[ended.job.name] = made.assign_attrs(cell.attrs)
                store.write_cell(ended.job.name, found[ended.job.name], files)
    return [found[name] for name in parts if name in found]


def close(sentence: str, out: Path, console: Console) -> None:
    """The verdict in a sentence, and where the results are."""
    console.print(f"[bold]{sentence}[/]")
    page = f", all on one page in {out / report.NAME}" if (out / report.NAME).is_file() else ""
    console.print(f"Tables, cells, certificates and figures are in {out}{page}", highlight=False, soft_wrap=True)
    console.print(
        f"Check a certificate without this package's solver: python -m solvers.check {out}/certificates/*.json",
        highlight=False,
        soft_wrap=True,
    )


def profile(imbalance: str, k: int, n_min: int, d: int) -> Callable[[float], np.ndarray]:
    """The class sizes of a ratio R, by the profile of that name.

    Raises InvalidInput, also from the function returned, for what is no profile or does not fit a machine.
    """
    whole_number("d", d, 1, f"give 1 to {MOST_COORDINATES:,} dimensions", MOST_COORDINATES)
    whole_number("k", k, 2, f"give 2 to {MOST_SAMPLES:,} classes", MOST_SAMPLES)
    whole_number("n_min", n_min, 1, f"give 1 to {MOST_SAMPLES:,} samples", MOST_SAMPLES)
    if k * n_min > MOST_SAMPLES:
        raise InvalidInput(
            "n_min", n_min, f"{k} such classes are more than {MOST_SAMPLES:,} samples in all; give fewer"
        )

    def sizes(R: float) -> np.ndarray:
        of_classes = np.asarray(PROFILES[imbalance](k, n_min, R))
        if of_classes.sum() > MOST_SAMPLES:
            raise InvalidInput("R", R, f"that makes more than {MOST_SAMPLES:,} samples in all; give a smaller ratio")
        return of_classes

    return sizes


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


def over_starts(cell: xr.Dataset) -> dict[str, float]:
    """The columns of summary.csv over the starts of a cell, and its seconds.

    A NaN of any start shows (xarray's own statistics would leave it out).
    """
    largest = {"worst_excess": "excess", "worst_gap": "gap", "delta_gm_max": "delta_gm", "beta_nc_max": "beta_nc"}
    largest |= {"trace_sw_max": "trace_sw", "max_cosine": "max_cosine"}
    return {
        "best_excess": float(cell["excess"].values.min()),
        **{column: float(cell[name].values.max()) for column, name in largest.items()},
        "iterations_median": float(np.median(cell["iterations"].values)),
        **{name: round(float(cell.attrs[name]), 3) for name in ("seconds_compile", "seconds_solve", "seconds_certify")},
    }


def is_measured(cell: xr.Dataset) -> bool:
    """Whether excess and residual of every start are finite numbers: nothing is concluded from others."""
    return bool(np.isfinite([cell["excess"].values, cell["residual"].values]).all())


def number(value: Any) -> int | float:
    """Whole floats without their point, numpy scalars as Python ones."""
    as_float = float(value)
    return int(as_float) if as_float.is_integer() else as_float
