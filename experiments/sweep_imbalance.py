"""Theorem 1, numerically: does every start end in an orthogonal frame, whatever the imbalance?"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import xarray as xr
from rich.console import Console
from rich.text import Text

from experiments.harness import command_line, engine, sweep
from experiments.harness.cells import Cell, cell_name, log_console, say
from experiments.harness.loss_names import PLAIN, in_names, loss_of
from experiments.harness.store import Store, digest
from experiments.measurements.solutions import measure_problem
from experiments.reports import imbalance as imbalance_report
from experiments.reports.imbalance import judged
from experiments.reports.page import in_words
from solvers.certification.verification import Verdict
from solvers.multistart import METHODS, prepare
from ufm import InvalidInput, Problem
from ufm.errors import checked_seed, whole_number

REPRODUCED, NOT_REPRODUCED = 0, 1
MODULE = "experiments.sweep_imbalance"
Problems = dict[tuple[float, float], Problem]  # by R and tau


@dataclasses.dataclass(frozen=True)
class Config:
    """Minimise the supervised contrastive loss over free embeddings H >= 0, ||h|| <= 1 (UFM+), from many random
    starts at each imbalance ratio R; verify and certify every start; draw the figures.

    Exit status: 0 if every start of every cell is a certified global minimiser and, under UFM+, an orthogonal frame
    (Theorem 1 of arXiv 2306.07960), 1 if not or if a cell failed, 2 for bad input or a disk that cannot be written,
    130 or 143 if stopped. Whatever stopped it, finished cells are stored: the same command resumes from them.
    """

    R: tuple[float, ...] = (1.0, 10.0, 100.0, 1000.0)
    """Imbalance ratios: largest over smallest class."""
    k: int = 10
    """Number of classes."""
    n_min: int = 5
    """Samples of the smallest class. 1 is allowed: such a class has no positives, and its norm is free."""
    d: int = 20
    """Embedding dimension. d < k is allowed: the bound need not be attained then."""
    tau: tuple[float, ...] = (1.0,)
    """Temperatures of the loss: every R at each of them."""
    inits: int = 32
    """Random starts for each R and tau."""
    imbalance: Literal["step", "long-tail", "given"] = "step"
    """Class profile: half the classes have R times n-min samples, or geometric decay from R n-min to n-min, or that
    given by --problem."""
    problem: Path | None = None
    """One problem of your own from a file, in the place of R, k, n-min and imbalance. JSON: {"class_counts": [500, 50]}
    or {"labels": [0, 0, 1]}, and if wanted "batches": [[0, 1], [1, 2]], "tau", "d", "loss", which then go before the
    flags.
    NPZ: the same fields as arrays, batches a matrix padded with -1. CSV: a column class_count, or label, or
    label,batches (numbers of the sample's batches, separated by spaces)."""
    loss: str = PLAIN
    """scl, class-weights, logit-adjustment, class-averaging, weights-and-averaging, decoupled, class-temperatures,
    sigmoid or supcon-in; numbers after a colon, as in logit-adjustment:0.5 (weights: the power of n_min/n_c;
    temperatures: the last class's over the first's; sigmoid: scale and bias)."""
    relu: bool = True
    """--no-relu drops H >= 0 (UFM): the minimiser is then no orthogonal frame, and is certified as it is."""
    method: str = "staircase"
    """staircase (default: lifts starts out of spurious points), quasi-newton (the same descent on all samples, no
    lifts), accelerated, or projected-gradient (reference)."""
    seed: int = 0
    """Start s depends on (seed, s) alone."""
    out: Path = Path("runs/imbalance")
    """Directory of the results. Cells found there, complete and of the same configuration, are not run again."""
    fresh: bool = False
    """Run every cell again."""
    dask: str | None = None
    """Run the cells on dask.distributed: local:4 for 4 worker processes here, or a scheduler's address, HOST:PORT.
    Files and summary are the same."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sweep; the exit status of `Config`."""
    config = command_line.parse(Config, arguments)
    problems = checked_problems(config)
    if config.problem is not None:
        config = sweep.to_dict(config, problems)
    store = Store(config.out)
    with store.alone():
        return run_sweep(config, problems, store)


def run_sweep(config: Config, problems: Problems, store: Store) -> int:
    """Compute, write and say; the exit status."""
    console = log_console()
    for warning in warnings(config):
        console.print(Text.assemble(("note", "yellow"), f"  {warning}"))
    batched = not all(problem.is_full_batch for problem in problems.values())
    cells = [cell_of(config, R, tau, problem) for (R, tau), problem in problems.items()]
    result = sweep.run_and_write(KIND, config, cells, store, console, batched=batched)
    if not result:
        return NOT_REPRODUCED
    failed = len(cells) - len(result)
    print_summary(config, result, failed, console, batched=batched)
    return REPRODUCED if not failed and all(reproduced(cell) for cell in result) else NOT_REPRODUCED


def checked_problems(config: Config) -> Problems:
    """The problem of each R and tau, in the order given; raises InvalidInput before anything is written."""
    for name in ("R", "tau"):
        if not getattr(config, name):
            raise InvalidInput(name, [], "give at least one")
    whole_number("inits", config.inits, 1, f"give 1 to {sweep.MOST_STARTS:,} random starts", sweep.MOST_STARTS)
    checked_seed(config.seed)
    if config.method not in METHODS:
        raise InvalidInput("method", config.method, f"choose one of {', '.join(METHODS)}")
    engine.check(config.dask)
    if config.problem is not None:
        return sweep.stated_problems(config)
    profile = sweep.profile(config.imbalance, config.k, config.n_min, config.d)
    return {
        (R, tau): Problem.from_class_sizes(
            sizes, d=config.d, tau=tau, nonneg=config.relu, loss=loss_of(config.loss, sizes)
        )
        for R, sizes in {R: profile(R) for R in config.R}.items()
        for tau in config.tau
    }


def warnings(config: Config) -> list[str]:
    """What the user should know of an unusual but valid configuration."""
    said = []
    if config.relu and config.d < config.k:
        said.append(
            f"d = {config.d} < k = {config.k}: {config.k} orthogonal nonnegative vectors do not fit, so Theorem 1 does "
            "not apply. Its bound still holds but need not be attained; starts are held against it and the best of them"
        )
    if config.relu and config.n_min == 1 and config.d >= config.k:
        said.append(
            "n-min = 1: a class of one sample has no positive pair; it is no anchor, its norm is free, "
            "and a minimiser need not be an orthogonal frame"
        )
    if not config.relu:
        said.append("--no-relu: Theorem 1 is about UFM+; a start of UFM is certified if its own duality gap closes")
    return said


def cell_of(config: Config, R: float, tau: float, problem: Problem) -> Cell:
    """The cell of a ratio and a temperature."""
    name = cell_name(sweep.number(R), sweep.number(tau), *in_names(config.loss))
    options = {"inits": config.inits, "seed": config.seed, "method": config.method}
    key = sweep.keyed(config)
    if config.problem is not None:  # what the file holds, not where it lies
        key["problem"] = [digest(np.asarray(part).tolist()) for part in (problem.labels, problem.batches)]
        key["problem"] += [] if problem.loss.is_plain else [digest(problem.loss.to_dict())]
    return Cell(
        name,
        measure_problem,
        {"problem": problem, "name": name, **options},
        key={**key, "R": R, "tau": tau},
        parts=config.inits,
        title=f"R = {R:g}, {f'tau = {tau:g}, ' if len(config.tau) > 1 else ''}n = {problem.num_samples:,}",
        alone=command_line.command(MODULE, config, R=(R,), tau=(tau,), fresh=False, dask=None),
        attrs={"R": R, "imbalance": config.imbalance, "loss": problem.loss.name},
        prepare=partial(prepare, problem, config.inits, config.method),
    )


def summary_row(cell: xr.Dataset) -> dict[str, object]:
    """One line of summary.csv."""
    attrs = cell.attrs
    return {
        **{name: sweep.number(attrs[name]) for name in ("R", "k", "d", "tau", "n", "inits")},
        "certified": int(cell["certified"].sum()),
        "orthogonal_frames": int(cell["orthogonal_frame"].sum()),
        "loss_bound": float(attrs["loss_bound"]),
        "lower_bound": float(attrs["lower_bound"]),
        **sweep.over_starts(cell),
    }


def init_rows(cell: xr.Dataset) -> list[dict[str, object]]:
    """The lines of inits.csv for one cell."""
    return [
        {
            **{name: sweep.number(cell.attrs[name]) for name in ("R", "tau")},
            "init": start,
            "status": str(cell["status"].values[start]),
            "certified": bool(cell["certified"].values[start]),
            "orthogonal_frame": bool(cell["orthogonal_frame"].values[start]),
            "excess": float(cell["excess"].values[start]),
            "gap": float(cell["gap"].values[start]),
            "delta_gm": float(cell["delta_gm"].values[start]),
            "beta_nc": float(cell["beta_nc"].values[start]),
            "trace_sw": float(cell["trace_sw"].values[start]),
            "max_cosine": float(cell["max_cosine"].values[start]),
            "iterations": int(cell["iterations"].values[start]),
        }
        for start in range(cell.sizes["init"])
    ]


def reproduced(cell: xr.Dataset) -> bool:
    """Every start is certified and measured; under UFM+ every start is an orthogonal frame as well."""
    frames = cell["orthogonal_frame"].all() or not cell.attrs["nonneg"]
    return bool(cell["certified"].all() and frames and sweep.is_measured(cell))


def print_summary(
    config: Config, cells: list[xr.Dataset], failed: int, console: Console, *, batched: bool = False
) -> None:
    """The closing table, what is no frame, and the verdict in a sentence. batched: whether a file gave batches."""
    model, several = "UFM+" if config.relu else "UFM", len(config.tau) > 1
    model = ", ".join((model, *in_names(config.loss)))
    title = (
        f"{model}, {config.imbalance} imbalance, k = {config.k}, d = {config.d}, tau = {in_words(config.tau)}, "
        f"{config.inits} random starts for each {'R and tau' if several else 'R'}, {config.method}"
    )
    sweep.print_table(title, cells, _columns(config), console)
    for cell in cells:
        seen = collections.Counter(str(phrase) for phrase in cell["evidence"].values if phrase and cell.attrs["nonneg"])
        name = f"R = {cell.attrs['R']:g}" + (f", tau = {cell.attrs['tau']:g}" if several else "")
        for phrase, count in seen.most_common(3):
            say(console, f"  {name}: {count} x {phrase}")
        if len(seen) > 3:
            say(console, f"  {name}: {len(seen) - 3} more kinds, see the evidence in the cell")
    _, sentence = judged(sweep.plain(config), [summary_row(cell) for cell in cells], failed, batched)
    sweep.print_verdict(sentence, config.out, console)


def _columns(config: Config) -> dict[str, Callable[[xr.Dataset], str]]:
    """The closing table: a heading, and how a cell is shown below it."""
    ended = (Verdict.SPURIOUS, Verdict.STATIONARY, Verdict.GLOBAL_MINIMISER)

    def count(cell: xr.Dataset, *verdicts: Verdict) -> int:
        return int(np.isin(cell["verdict"].values, [str(verdict) for verdict in verdicts]).sum())

    temperature: dict[str, Callable[[xr.Dataset], str]] = {"tau": lambda cell: f"{cell.attrs['tau']:g}"}
    return {
        "R": lambda cell: f"{cell.attrs['R']:g}",
        **(temperature if len(config.tau) > 1 else {}),
        "n": lambda cell: f"{cell.attrs['n']:,}",
        "certified": lambda cell: sweep.certified(cell, bool(cell["certified"].all())),
        "largest cosine": sweep.largest("max_cosine"),
        "k-OF": lambda cell: str(int(cell["orthogonal_frame"].sum())),
        "spurious": lambda cell: str(count(cell, Verdict.SPURIOUS)),
        "open": lambda cell: str(count(cell, Verdict.STATIONARY)),
        "unfinished": lambda cell: str(cell.sizes["init"] - count(cell, *ended)),
        **sweep.worst(config.relu),
        "median steps": lambda cell: f"{np.median(cell['iterations'].values):.0f}",
    }


KIND = sweep.Kind(summary_row, init_rows, imbalance_report.DRAWINGS, imbalance_report.rendered)


script = partial(command_line.run, main)

if __name__ == "__main__":
    script()
