"""How fast does the frame emerge? Steps from random starts against R, temperature, sampler and batch size."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import xarray as xr
from rich.console import Console

from experiments.harness import command_line, engine, sweep
from experiments.harness.cells import Cell, cell_name, log_console
from experiments.harness.store import Store
from experiments.measurements.emergence import EMERGED, FULL, emergence, sampler_of
from experiments.reports import dynamics as dynamics_report
from experiments.reports.dynamics import exponents, judged
from ufm import InvalidInput
from ufm.errors import LARGEST_COUNT, checked_seed, real_number, whole_number
from ufm.model.problem import LARGEST_TAU, SMALLEST_TAU

DONE, NOT_DONE = 0, 1
MODULE = "experiments.sweep_dynamics"
# Entries of an embedding on all samples: memory.
MOST_ENTRIES = 2**28


@dataclasses.dataclass(frozen=True)
class Config:
    """Count the steps that projected gradient, plain and with random batches, takes from random starts until the class
    means are an orthogonal frame (delta_gm < 0.001), at every combination of R, tau, sampler and batch size; and set
    beside them what theory predicts.

    Medians are over the starts whose frame emerged. The others are stuck (a descent from where they are ends at no
    frame) or not there yet. Theory: steps in which deviations within a class fall by a thousand, by the rate near a
    frame (theory, 5.10 and 5.20), and steps in which two of the smallest classes turn from the angle of random starts
    to a right angle (ufm.theory.separation). Of growth with R that neither explains the exponent is fitted, and called
    so.

    full is the full batch: it is run on class means, since classes collapse in a few steps and then move as one; any R
    is as cheap as another. Random batches move free embeddings, one row a sample, R n-min k/2 of them: the steps of one
    start take time that does not grow with R, but every sample must be drawn to move at all.

    Exit status: 0 if every cell was computed, 1 if one failed, 2 for bad input or a disk that cannot be written, 130 or
    143 if stopped. Finished cells are stored: the same command resumes from them.
    """

    R: tuple[float, ...] = (1.0, 10.0, 100.0)
    """Imbalance ratios (STEP): half the classes have R times n-min samples."""
    tau: tuple[float, ...] = (1.0,)
    """Temperatures of the loss."""
    sampler: tuple[str, ...] = (FULL, "uniform", "reshuffled", "class-balanced", "m-per-class")
    """full (plain projected gradient), uniform (a fresh random batch every step), reshuffled (epochs), class-balanced
    (as many of each class as there are, equally), m-per-class (m = batch size / k, at least 2, of as many classes as
    fit). With +bound, as in uniform+bound, one sample of each class joins every batch."""
    batch_size: tuple[int, ...] = (32,)
    """Samples of a batch; of no matter to full."""
    eta: float = 0.1
    """The step, on the summed loss of a batch."""
    k: int = 10
    """Number of classes."""
    n_min: int = 5
    """Samples of a minority class, at least 2."""
    d: int = 20
    """Embedding dimension, at least k."""
    inits: int = 32
    """Random starts of each cell."""
    max_steps: int = 10_000
    """Steps of a start: one whose frame has not emerged by then is stuck or not there yet."""
    seed: int = 0
    """Start s depends on (seed, s) alone."""
    out: Path = Path("runs/dynamics")
    """Directory of the results. Cells found there, complete and of the same configuration, are not run again."""
    fresh: bool = False
    """Run every cell again."""
    dask: str | None = None
    """Run the cells on dask.distributed: local:4 for 4 worker processes here, or a scheduler's address, HOST:PORT.
    Files and summary are the same."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sweep; the exit status of `Config`."""
    config = command_line.parse(Config, arguments)
    cells = checked_cells(config)
    store = Store(config.out)
    with store.alone():
        return run_sweep(config, cells, store)


def run_sweep(config: Config, cells: Sequence[Cell], store: Store) -> int:
    """Compute, write and say; the exit status."""
    console = log_console()
    result = sweep.run_and_write(KIND, config, cells, store, console)
    if not result:
        return NOT_DONE
    rows = [summary_row(cell) for cell in result]
    print_summary(config, result, console)
    done, sentence = judged(rows, len(cells) - len(result))
    sweep.print_verdict(sentence, config.out, console, certificates=False)
    return DONE if done else NOT_DONE


def checked_cells(config: Config) -> list[Cell]:
    """The cells in the order given; raises InvalidInput before anything is written."""
    for name in ("R", "tau", "sampler", "batch_size"):
        if not getattr(config, name):
            raise InvalidInput(name, [], "give at least one")
    whole_number("inits", config.inits, 1, f"give 1 to {sweep.MOST_STARTS:,} random starts", sweep.MOST_STARTS)
    whole_number("max_steps", config.max_steps, 1, "give at least 1 step", LARGEST_COUNT)
    whole_number("d", config.d, config.k, f"give at least k = {config.k} dimensions: fewer hold no frame")
    whole_number("n_min", config.n_min, 2, "give at least 2 samples a class, that all are anchors")
    real_number("eta", config.eta, 1e-12, 1e12)
    for tau in config.tau:
        real_number("tau", tau, SMALLEST_TAU, LARGEST_TAU)
    checked_seed(config.seed)
    engine.check(config.dask)
    profile = sweep.profile("step", config.k, config.n_min, config.d)
    return [
        cell_of(config, R, tau, sampler, batch_size, sizes)
        for R, sizes in {R: profile(R) for R in config.R}.items()
        for tau in dict.fromkeys(config.tau)
        for sampler in dict.fromkeys(config.sampler)
        for batch_size in (dict.fromkeys(config.batch_size) if sampler != FULL else (0,))
    ]


def cell_of(config: Config, R: float, tau: float, sampler: str, batch_size: int, sizes: np.ndarray) -> Cell:
    """The cell of a combination; batch size 0 is the full batch."""
    if sampler != FULL and int(sizes.sum()) * config.d > MOST_ENTRIES:
        raise InvalidInput("R", R, f"free embeddings of {sizes.sum():,} samples do not fit; only {FULL} goes so far")
    made = sampler_of(sampler, batch_size, sizes)
    if made is not None:
        made.law(sizes)  # raises for what it cannot draw
    parameters = {"tau": tau, "sampler": sampler, "batch_size": batch_size}
    shared = {name: getattr(config, name) for name in ("d", "eta", "inits", "seed", "max_steps")}
    words = (sampler.replace("+", "-"), f"b{batch_size}") if made is not None else (sampler,)
    alone = {"R": (R,), "tau": (tau,), "sampler": (sampler,), "batch_size": (batch_size or config.batch_size[0],)}
    return Cell(
        cell_name(sweep.number(R), sweep.number(tau), *words),
        emergence,
        {"sizes": tuple(sizes.tolist()), **parameters, **shared},
        parts=config.inits,
        title=f"{sampler}{f' {batch_size}' if batch_size else ''}, R = {R:g}, tau = {tau:g}",
        alone=command_line.command(MODULE, config, **alone, fresh=False, dask=None),
        attrs={"R": R, "imbalance": "step", "n_min": config.n_min},
    )


def summary_row(cell: xr.Dataset) -> dict[str, object]:
    """One line of summary.csv. Quantiles over starts whose frame emerged."""
    attrs, steps = cell.attrs, cell["steps"].values
    there = steps[np.isfinite(steps)]
    quantiles = np.quantile(there, [0.25, 0.5, 0.75]) if len(there) else [np.nan] * 3
    return {
        "sampler": attrs["sampler"],
        **{name: sweep.number(attrs[name]) for name in ("batch_size", "R", "k", "d", "tau", "n", "inits", "max_steps")},
        "emerged": len(there),
        "stuck": int(cell["stuck"].sum()),
        "not_yet": cell.sizes["init"] - len(there) - int(cell["stuck"].sum()),
        **dict(zip(("steps_quarter", "steps_median", "steps_three_quarters"), map(float, quantiles), strict=True)),
        **{name: float(attrs[name]) for name in ("rate", "steps_collapse", "steps_separate")},
        "seconds_solve": round(float(attrs["seconds_solve"]), 3),
    }


def init_rows(cell: xr.Dataset) -> list[dict[str, object]]:
    """The lines of inits.csv for one cell."""
    parameters = {"sampler": cell.attrs["sampler"]}
    parameters |= {name: sweep.number(cell.attrs[name]) for name in ("batch_size", "R", "tau")}
    return [
        {
            **parameters,
            "init": start,
            "steps": float(cell["steps"].values[start]),
            "stuck": bool(cell["stuck"].values[start]),
            "delta_gm": float(cell["history_delta_gm"].values[start, -1]),
            "max_cosine": float(cell["history_max_cosine"].values[start, -1]),
        }
        for start in range(cell.sizes["init"])
    ]


def exponent_rows(cells: Sequence[xr.Dataset]) -> list[dict[str, object]]:
    """The lines of exponents.csv."""
    return exponents([summary_row(cell) for cell in cells])


def print_summary(config: Config, cells: Sequence[xr.Dataset], console: Console) -> None:
    """The closing table."""

    def of(name: str) -> Callable[[xr.Dataset], str]:
        return lambda cell: f"{float(str(summary_row(cell)[name])):.3g}"

    columns: dict[str, Callable[[xr.Dataset], str]] = {
        "sampler": lambda cell: str(cell.attrs["sampler"]),
        "batch": lambda cell: str(cell.attrs["batch_size"] or cell.attrs["n"]),
        "R": lambda cell: f"{cell.attrs['R']:g}",
        "tau": lambda cell: f"{cell.attrs['tau']:g}",
        "emerged": lambda cell: f"{summary_row(cell)['emerged']}/{cell.sizes['init']}",
        "stuck": lambda cell: str(summary_row(cell)["stuck"]),
        "not yet": lambda cell: str(summary_row(cell)["not_yet"]),
        "median steps": of("steps_median"),
        "steps to collapse": of("steps_collapse"),
        "steps to separate": of("steps_separate"),
    }
    title = f"step imbalance, k = {config.k}, d = {config.d}, eta = {config.eta:g}: steps until delta_gm < {EMERGED:g}"
    sweep.print_table(title, cells, columns, console, {"seconds_solve": "solve"}, keys=KEYS, legend=LEGEND)


KEYS = ("sampler", "batch", "R", "tau")
LEGEND = {
    "stuck": "no descent from where it ended leads to a frame",
    "median steps": "of the starts whose frame emerged",
    "steps to collapse": "predicted for deviations within a class",
    "steps to separate": "predicted for two of the smallest classes",
}


KIND = sweep.Kind(
    summary_row,
    init_rows,
    dynamics_report.DRAWINGS,
    dynamics_report.rendered,
    more={dynamics_report.EXPONENTS: exponent_rows},
)


script = partial(command_line.run, main)

if __name__ == "__main__":
    script()
