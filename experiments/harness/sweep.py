"""What every sweep shares: what it may be asked, what it writes, and what it says at the end."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import xarray as xr
from rich.console import Console

from experiments.harness.cells import Cell, run_cells, say, versions
from experiments.harness.drawing import Drawing, import_ahead, write_drawing
from experiments.harness.loss_names import PLAIN
from experiments.harness.problem_file import MOST_COORDINATES, MOST_SAMPLES, read_problem
from experiments.harness.store import Store
from experiments.reports import page as report
from experiments.reports import tables
from ufm import InvalidInput, Problem, long_tail_imbalance, step_imbalance
from ufm.errors import whole_number

PROFILES = {"step": step_imbalance, "long-tail": long_tail_imbalance}
MOST_STARTS = 1_000_000
STATED = "given"  # the class profile, or the batches, of a file
SECONDS = {"seconds_compile": "compile", "seconds_solve": "solve", "seconds_certify": "certify"}
Config = TypeVar("Config")
TableRow = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Kind:
    """What tells one sweep from another.

    - summary_row, rows: the lines of a cell in summary.csv, and in the table of parts.
    - drawings: figures of all cells, by file name.
    - page: the report, made from the files in a directory.
    - table, parts: the file of that table (one of `experiments.reports.page.TABLES`), and what cells consist of.
    - more: further tables by file name, lines of all cells together; none is written without lines.
    """

    summary_row: Callable[[xr.Dataset], TableRow]
    rows: Callable[[xr.Dataset], Sequence[TableRow]]
    drawings: Mapping[str, Drawing]
    page: Callable[[Path], str]
    table: str = "inits.csv"
    parts: str = "starts"
    more: Mapping[str, Callable[[Sequence[xr.Dataset]], Sequence[TableRow]]] = dataclasses.field(default_factory=dict)


def run_and_write(
    kind: Kind, config: Any, cells: Sequence[Cell], store: Store, console: Console, **recorded: Any
) -> list[xr.Dataset]:
    """Compute what is missing of the cells, and write all that a sweep leaves; the cells that did not fail.

    recorded: goes into config.json beside the configuration. Of no cells, nothing but config.json is written. Tables,
    figures and page of another configuration do not stay beside it; cells and certificates do.
    """
    requested = {"config": plain(config), "versions": versions(), "cells": len(cells), **recorded}
    if store.read_json("config.json") not in (None, json.loads(json.dumps(requested))):
        drawn = [f"figures/{name}.{suffix}" for name in kind.drawings for suffix in ("png", "pdf")]
        store.remove([report.NAME, "summary.csv", kind.table, *kind.more, *drawn])
    store.write_json("config.json", requested)
    import_ahead()
    result = list(run_cells(cells, store, console, kind.parts, fresh=config.fresh, dask=config.dask).datasets.values())
    if result:
        store.write_csv("summary.csv", [kind.summary_row(cell) for cell in result])
        store.write_csv(kind.table, [row for cell in result for row in kind.rows(cell)])
        for name, lines in ((name, lines_of(result)) for name, lines_of in kind.more.items()):
            if lines:
                store.write_csv(name, lines)
        for name, drawing in kind.drawings.items():
            write_drawing(store, f"figures/{name}", drawing, result)
        report.write_report(store, kind.page)
    return result


def print_table(
    title: str,
    cells: Sequence[xr.Dataset],
    columns: Mapping[str, Callable[[xr.Dataset], str]],
    console: Console,
    seconds: Mapping[str, str] = SECONDS,
    *,
    keys: Sequence[str] = ("R", "tau"),
    legend: Mapping[str, str] = tables.LEGEND,
) -> None:
    """A line a cell, the columns by heading, and its seconds, by attribute and heading. See `tables.print_table`."""
    spent = {f"{heading} (s)": name for name, heading in seconds.items()}
    rows = [
        {heading: text(cell) for heading, text in columns.items()}
        | {heading: f"{cell.attrs[name]:.1f}" for heading, name in spent.items()}
        for cell in cells
    ]
    tables.print_table(title, rows, console, keys=keys, legend=legend)


def certified(cell: xr.Dataset, good: bool) -> str:
    """How many starts of a cell are certified, for a table; green where the cell is as it should be."""
    return f"[{'green' if good else 'red'}]{int(cell['certified'].sum())}/{cell.sizes['init']}[/]"


def worst(relu: bool) -> dict[str, Callable[[xr.Dataset], str]]:
    """The column of the largest distance from what bounds the loss: without the ReLU the frame's loss does not."""
    name, heading = ("excess", "largest excess") if relu else ("gap", "largest proved gap")
    return {heading: largest(name)}


def largest(name: str) -> Callable[[xr.Dataset], str]:
    """The largest value over the starts of a cell, for a table."""
    return lambda cell: tables.small(float(cell[name].values.max()))


def print_verdict(sentence: str, out: Path, console: Console, *, certificates: bool = True) -> None:
    """The verdict in a sentence, and where the results are. certificates: whether there are such files."""
    console.print(sentence, style="bold", markup=False)
    page = f", all on one page in {out / report.NAME}" if (out / report.NAME).is_file() else ""
    files = "certificates and figures" if certificates else "networks and figures"
    say(console, f"Tables, cells, {files} are in {out}{page}")
    if certificates:
        say(console, f"Check a certificate without this package's solver: {report.check_all(out)}")


def profile(imbalance: str, k: int, n_min: int, d: int) -> Callable[[float], np.ndarray]:
    """The class sizes of a ratio R, by the profile of that name.

    Raises InvalidInput, also from the function returned, for what is no profile or does not fit a machine.
    """
    if imbalance == STATED:
        raise InvalidInput("imbalance", STATED, "give its file as well, with --problem")
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


def stated_problems(config: Any) -> dict[tuple[float, float], Problem]:
    """The problem of a configuration's file by R and tau, at every temperature unless the file fixes it.

    Raises InvalidInput, naming file and field.
    """
    requested = {"d": config.d, "nonneg": config.relu, "loss": config.loss}
    value = [read_problem(config.problem, tau=tau, **requested) for tau in config.tau]
    sizes = np.asarray(value[0].class_sizes)
    return {(float(sizes.max() / sizes.min()), float(problem.tau)): problem for problem in value}


def to_dict(config: Config, problems: Mapping[tuple[float, float], Problem], **settings: Any) -> Config:
    """The configuration with the parameters of the problem that a file gave, at each temperature."""
    (R, _), problem = next(iter(problems.items()))
    smallest, temperatures = int(np.asarray(problem.class_sizes).min()), tuple(tau for _, tau in problems)
    result = {"R": (R,), "k": problem.k, "n_min": smallest, "d": problem.d, "tau": temperatures}
    return dataclasses.replace(config, imbalance=STATED, **result, **settings)  # type: ignore[type-var]


def plain(config: Any) -> dict[str, Any]:
    """The fields of a configuration as they go into JSON."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in vars(config).items()}


def keyed(config: Any) -> dict[str, Any]:
    """What of a configuration tells its cells from others'; plain SCL as before there were other losses."""
    apart = ("out", "fresh", "dask", *(["loss"] if config.loss == PLAIN else []))
    return {field: value for field, value in plain(config).items() if field not in apart}


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
