"""What reweighting does: every loss of the family, with and without the ReLU, under STEP imbalance."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import xarray as xr
from rich.console import Console

from experiments import sweep_imbalance
from experiments.harness import command_line, engine, sweep
from experiments.harness.cells import Cell, log_console, run_cells
from experiments.harness.drawing import write_drawing
from experiments.harness.loss_names import NAMES, loss_of
from experiments.harness.store import Store
from experiments.measurements.solutions import KINDS, cosines_by_kind, measure_problem
from experiments.measurements.thresholds import APART, MERGED, threshold
from experiments.reports import losses as losses_report
from experiments.reports import tables
from experiments.reports.losses import judged
from experiments.reports.page import in_words
from solvers.multistart import prepare
from ufm import InvalidInput, Problem
from ufm.errors import checked_seed, real_number, whole_number

CONFIRMED, NOT_CONFIRMED = 0, 1
MODULE = "experiments.sweep_losses"
RELU = {"both": (True, False), "with": (True,), "without": (False,)}
FEWEST_CLASSES = 4  # of which two are minorities


@dataclasses.dataclass(frozen=True)
class Config:
    """Minimise each loss of the family over free embeddings, with and without the ReLU (UFM+ and UFM), at each
    imbalance ratio R and temperature; verify and certify every start; and without the ReLU bracket the ratio R* at
    which all minorities become one vector, between two certificates.

    With the ReLU one theorem covers all losses: every minimiser is an orthogonal frame. Without it each cure alone
    (class weights, averaging over classes, logit adjustment) merges the minorities beyond an R* of its own, plain SCL
    never does, and weights together with averaging give back the simplex frame.

    Exit status: 0 if every start is a certified global minimiser, with the ReLU an orthogonal frame, and every R* is
    bracketed as closely as asked, or proved to be above most-R; 1 if not or if a cell failed; 2 for bad input or a disk
    that cannot be written, 130 or 143 if stopped. SupCon-in without the ReLU is not convex and cannot be certified:
    leave it out, or ask --relu with, for status 0. Finished cells are stored: the same command resumes from them.
    """

    loss: tuple[str, ...] = tuple(name for name in NAMES if name != "supcon-in")
    """Losses by name: scl, class-weights, logit-adjustment, class-averaging, weights-and-averaging, decoupled,
    class-temperatures, sigmoid, supcon-in; numbers after a colon, as in logit-adjustment:0.5 (weights: the power of
    n_min/n_c; temperatures: the last class's over the first's; sigmoid: scale and bias)."""
    R: tuple[float, ...] = (1.0, 10.0, 100.0, 1000.0)
    """Imbalance ratios: half the classes have R times n-min samples."""
    tau: tuple[float, ...] = (1.0,)
    """Temperatures: every loss and R at each of them, and an R* for each."""
    relu: Literal["both", "with", "without"] = "both"
    """With the ReLU (UFM+), without it (UFM), or both."""
    k: int = 10
    """Number of classes, at least 4."""
    n_min: int = 5
    """Samples of a minority class."""
    d: int = 20
    """Embedding dimension, at least k."""
    inits: int = 4
    """Random starts for each loss, R, temperature and model."""
    thresholds: bool = True
    """Bracket R* of each loss at each temperature (without the ReLU). --no-thresholds: leave that out."""
    precision: float = 0.005
    """How closely, relative to R*: 0.01 is one per cent."""
    most_R: float = 1000.0
    """The largest ratio at which collapse is looked for."""
    n_fine: int = 1000
    """Samples of a minority class where R* is looked for: R then goes in steps of 1/n-fine. Costs nothing: samples of a
    class are one point there."""
    seed: int = 0
    """Start s depends on (seed, s) alone."""
    out: Path = Path("runs/losses")
    """Directory of the results. Cells found there, complete and of the same configuration, are not run again."""
    fresh: bool = False
    """Run every cell again."""
    dask: str | None = None
    """Run the cells on dask.distributed: local:4 for 4 worker processes here, or a scheduler's address, HOST:PORT.
    Files and summary are the same."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sweep; the exit status of `Config`."""
    config = command_line.parse(Config, arguments)
    cells, brackets = checked_cells(config)
    store = Store(config.out)
    with store.alone():
        return run_sweep(config, cells, brackets, store)


def run_sweep(config: Config, cells: Sequence[Cell], brackets: Sequence[Cell], store: Store) -> int:
    """Compute, write and say; the exit status."""
    console = log_console()
    requested = run_cells(brackets, store, console, "thresholds", fresh=config.fresh, dask=config.dask)
    bracketed = list(requested.datasets.values())
    rows = [threshold_row(cell) for cell in bracketed]
    if rows:
        store.write_csv(losses_report.THRESHOLDS, rows)
        write_drawing(store, "figures/thresholds", losses_report.DRAWINGS["thresholds"], bracketed)
    result = sweep.run_and_write(KIND, config, cells, store, console, brackets=len(brackets))
    if not result:
        return NOT_CONFIRMED
    failed = len(cells) + len(brackets) - len(result) - len(bracketed)
    print_summary(config, result, console)
    good, sentence = judged(sweep.plain(config), [summary_row(cell) for cell in result], rows, failed)
    sweep.print_verdict(sentence, config.out, console)
    return CONFIRMED if good else NOT_CONFIRMED


def checked_cells(config: Config) -> tuple[list[Cell], list[Cell]]:
    """The cells of the geometry, and of the thresholds; raises InvalidInput before anything is written."""
    for name in ("loss", "R", "tau"):
        if not getattr(config, name):
            raise InvalidInput(name, [], "give at least one")
    whole_number("inits", config.inits, 1, f"give 1 to {sweep.MOST_STARTS:,} random starts", sweep.MOST_STARTS)
    whole_number("k", config.k, FEWEST_CLASSES, f"give at least {FEWEST_CLASSES} classes: two minorities or more")
    whole_number("d", config.d, config.k, f"give at least k = {config.k} dimensions")
    whole_number("n_min", config.n_min, 2, "give at least 2 samples a class, that all are anchors")
    whole_number("n_fine", config.n_fine, 2, "give at least 2 samples")
    real_number("precision", config.precision, 1e-6, 1.0)
    real_number("most_R", config.most_R, 1.0, (2**31 - 1) / config.n_fine)
    checked_seed(config.seed)
    engine.check(config.dask)
    profile = sweep.profile("step", config.k, config.n_min, config.d)
    cells, brackets = [], []
    for loss in dict.fromkeys(config.loss):
        for tau in dict.fromkeys(config.tau):
            for R, sizes in {R: profile(R) for R in config.R}.items():
                made = loss_of(loss, sizes)
                cells += [
                    cell_of(
                        config, loss, R, Problem.from_class_sizes(sizes, d=config.d, tau=tau, nonneg=relu, loss=made)
                    )
                    for relu in RELU[config.relu]
                ]
            if config.thresholds and config.relu != "with" and made.is_convex:
                brackets.append(threshold_cell(config, loss, tau))
    return cells, brackets


def cell_of(config: Config, loss: str, R: float, problem: Problem) -> Cell:
    """The cell of a loss, a ratio, a temperature and a model."""
    tau, model = float(problem.tau), losses_report.model(problem.nonneg)
    name = losses_report.name_of(sweep.number(R), sweep.number(tau), model, loss)
    parameters = {"loss": loss, "R": R, "tau": tau, "relu": problem.nonneg}
    shared = {field: getattr(config, field) for field in ("k", "n_min", "d", "inits", "seed")}
    alone = {"loss": (loss,), "R": (R,), "tau": (tau,), "relu": "with" if problem.nonneg else "without"}
    return Cell(
        name,
        measure_problem,
        {"problem": problem, "name": name, "inits": config.inits, "seed": config.seed, "method": "staircase"},
        key={**shared, **parameters},
        parts=config.inits,
        title=f"{loss}, {model}, R = {R:g}, tau = {tau:g}",
        alone=command_line.command(MODULE, config, **alone, thresholds=False, fresh=False, dask=None),
        attrs={"R": R, "imbalance": "step", "loss": loss},
        prepare=partial(prepare, problem, config.inits, "staircase"),
    )


def threshold_cell(config: Config, loss: str, tau: float) -> Cell:
    """The cell of the bracket of a loss at a temperature."""
    name = losses_report.star_of(sweep.number(tau), loss)
    requested = {"loss": loss, "tau": tau, "k": config.k, "n_min": config.n_fine, "d": config.d}
    requested |= {"precision": config.precision, "most_R": config.most_R}
    alone = {"loss": (loss,), "tau": (tau,), "relu": "without", "fresh": False, "dask": None}
    command = command_line.command(MODULE, config, **alone)
    title = f"R* of {loss}, tau = {tau:g}"
    return Cell(name, threshold, {**requested, "name": name}, key=requested, title=title, alone=command)


def summary_row(cell: xr.Dataset) -> dict[str, object]:
    """One line of summary.csv; the cosines are those of the start with the smallest gap."""
    attrs = cell.attrs
    gram = cell["gram"].values[int(cell["gap"].values.argmin())]
    return {
        "loss": attrs["loss"],
        "relu": bool(attrs["nonneg"]),
        **{name: sweep.number(attrs[name]) for name in ("R", "k", "d", "tau", "n", "inits")},
        "certified": int(cell["certified"].sum()),
        "orthogonal_frames": int(cell["orthogonal_frame"].sum()),
        **{f"{kind}_cosine": value for kind, value in zip(KINDS, cosines_by_kind(gram), strict=True)},
        "loss_bound": float(attrs["loss_bound"]),
        "lower_bound": float(attrs["lower_bound"]),
        **sweep.over_starts(cell),
    }


def init_rows(cell: xr.Dataset) -> list[dict[str, object]]:
    """The lines of inits.csv for one cell."""
    parameters = {"loss": cell.attrs["loss"], "relu": bool(cell.attrs["nonneg"])}
    return [{**parameters, **row} for row in sweep_imbalance.init_rows(cell)]


def threshold_row(cell: xr.Dataset) -> dict[str, object]:
    """One line of thresholds.csv: R*, between which ratios, and what is proved of all angles of minorities there."""
    attrs, ends = cell.attrs, (f"R_{APART}", f"angle_{APART}", f"R_{MERGED}", f"angle_{MERGED}")
    return {
        "loss": attrs["loss"],
        **{name: sweep.number(attrs[name]) for name in ("tau", "k", "d", "n_min", "precision", "most_R")},
        **{name: float(attrs[name]) for name in ends},
        "ratios": cell.sizes["R"],
    }


def print_summary(config: Config, cells: Sequence[xr.Dataset], console: Console) -> None:
    """The closing table."""
    shared = f"k = {config.k}, d = {config.d}, tau = {in_words(config.tau)}"
    title = f"step imbalance, {shared}, {config.inits} starts a cell"
    temperature: dict[str, Callable[[xr.Dataset], str]] = {"tau": lambda cell: f"{cell.attrs['tau']:g}"}

    def cosine(kind: str) -> Callable[[xr.Dataset], str]:
        return lambda cell: f"{float(str(summary_row(cell)[f'{kind}_cosine'])):.3f}"

    columns: dict[str, Callable[[xr.Dataset], str]] = {
        "loss": lambda cell: str(cell.attrs["loss"]),
        "ReLU": lambda cell: "yes" if cell.attrs["nonneg"] else "no",
        "R": lambda cell: f"{cell.attrs['R']:g}",
        **(temperature if len(config.tau) > 1 else {}),
        "certified": lambda cell: sweep.certified(cell, bool(cell["certified"].all())),
        "largest cosine": sweep.largest("max_cosine"),
        "k-OF": lambda cell: str(int(cell["orthogonal_frame"].sum())),
        "two minorities": cosine("minority"),
        "two majorities": cosine("majority"),
        "one of each": cosine("between"),
        "largest proved gap": sweep.largest("gap"),
    }
    sweep.print_table(title, cells, columns, console, keys=("loss", "ReLU", "R", "tau"), legend=LEGEND)


LEGEND = {
    "k-OF": tables.LEGEND["k-OF"],
    "two minorities": "mean cosine of two minority classes",
    "two majorities": "of two majority classes",
    "one of each": "of a minority and a majority class",
}


KIND = sweep.Kind(summary_row, init_rows, {"cosines": losses_report.DRAWINGS["cosines"]}, losses_report.rendered)


script = partial(command_line.run, main)

if __name__ == "__main__":
    script()
