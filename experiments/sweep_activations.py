"""Which activation leads where: descent through each, and the geometry that its constraint set has."""

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
from experiments.measurements.activations import measure_activation
from experiments.reports import activations as activations_report
from experiments.reports.activations import judged
from experiments.reports.page import in_words
from ufm import InvalidInput, Problem
from ufm.activations import UFM_PLUS, activation
from ufm.errors import LARGEST_COUNT, checked_seed, real_number, whole_number

AS_THEORY, NOT_THERE = 0, 1
MODULE = "experiments.sweep_activations"


@dataclasses.dataclass(frozen=True)
class Config:
    """Descend through each activation sigma, h = sigma(z)/||sigma(z)|| with z free, and compare where it ends with the
    minimisers of its constraint set.

    The infimum of sigma decides. ReLU, |z| and softplus keep features nonnegative (UFM+): every minimiser is an
    orthogonal frame. LeakyReLU, and after normalisation GELU, SiLU and ELU, reach every direction (UFM): the minimiser
    is the imbalanced geometry, certified; but a small slope makes descent come near a frame first. --no-normalised cuts
    to the ball instead: GELU's features then have no entry below -0.17, and it depends on d what that costs.

    Exit status: 0 if all starts end where theory says, nonnegative ones in certified frames, after the staircase has
    freed those that descent left in spurious points, the others within 1e-3 of UFM's Gram matrix; 1 if some are not yet
    there (it is said how many steps more, extrapolated) or a cell failed; 2 for bad input or a disk that cannot be
    written, 130 or 143 if stopped. Finished cells are stored: the same command resumes from them.
    """

    activation: tuple[str, ...] = ("relu", "abs", "softplus", "leaky-relu:0.1", "gelu", "silu", "elu")
    """Names: relu, abs, softplus, leaky-relu (slope 0.01) or leaky-relu:SLOPE, gelu, silu, elu, none."""
    R: tuple[float, ...] = (1.0, 10.0, 100.0)
    """Imbalance ratios: half the classes have R times n-min samples."""
    k: int = 10
    """Number of classes."""
    n_min: int = 5
    """Samples of a minority class, at least 2."""
    d: int = 20
    """Embedding dimension, at least k."""
    tau: float = 1.0
    """Temperature."""
    normalised: bool = True
    """--no-normalised: sigma(z) cut to the unit ball, and not scaled to norm 1."""
    samples: bool = False
    """--samples: every sample is a free embedding; else one point a class, which costs nothing."""
    scale: float = 1.0
    """Norm of the rows of z at the start."""
    step: float = 0.01
    """Step of Adam; it falls to 0 over the last fifth of all steps."""
    steps: int = 20_000
    """Steps of every start."""
    inits: int = 8
    """Random starts for each activation and R."""
    seed: int = 0
    """Start s depends on (seed, s) alone."""
    out: Path = Path("runs/activations")
    """Directory of the results. Cells found there, complete and of the same configuration, are not run again."""
    fresh: bool = False
    """Run every cell again."""
    dask: str | None = None
    """Run the cells on dask.distributed: local:4 for 4 worker processes here, or a scheduler's address, HOST:PORT."""


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
        return NOT_THERE
    print_summary(config, result, console)
    good, sentence = judged([summary_row(cell) for cell in result], len(cells) - len(result))
    sweep.print_verdict(sentence, config.out, console)
    return AS_THEORY if good else NOT_THERE


def checked_cells(config: Config) -> list[Cell]:
    """The cells; raises InvalidInput before anything is written."""
    for name in ("activation", "R"):
        if not getattr(config, name):
            raise InvalidInput(name, [], "give at least one")
    whole_number("inits", config.inits, 1, f"give 1 to {sweep.MOST_STARTS:,} random starts", sweep.MOST_STARTS)
    whole_number("k", config.k, 2, "give at least 2 classes")
    whole_number("n_min", config.n_min, 2, "give at least 2 samples a class, that all are anchors")
    whole_number("d", config.d, config.k, f"give at least k = {config.k} dimensions")
    whole_number("steps", config.steps, 10, "give at least 10 steps", LARGEST_COUNT)
    real_number("step", config.step, 1e-9, 10.0)
    real_number("scale", config.scale, 1e-6, 1e6)
    checked_seed(config.seed)
    engine.check(config.dask)
    profile = sweep.profile("step", config.k, config.n_min, config.d)
    cells = []
    for name in dict.fromkeys(config.activation):
        nonneg = activation(name).entry_bound(normalised=config.normalised) == UFM_PLUS
        for R in dict.fromkeys(config.R):
            sizes = profile(R)
            if config.samples:
                problem = Problem.from_class_sizes(sizes, config.d, config.tau, nonneg=nonneg)
            else:
                problem = Problem(np.arange(config.k), config.d, config.tau, nonneg=nonneg, multiplicity=sizes)
            cells.append(cell_of(config, name, R, problem))
    return cells


def cell_of(config: Config, name: str, R: float, problem: Problem) -> Cell:
    """The cell of an activation and a ratio."""
    called = cell_name(sweep.number(R), sweep.number(config.tau), activations_report.in_files(name))
    fields = ("normalised", "scale", "step", "steps", "inits", "seed")
    parameters = {"activation": name, **{field: getattr(config, field) for field in fields}}
    shared = {field: getattr(config, field) for field in ("k", "n_min", "d", "tau", "samples")}
    alone = {"activation": (name,), "R": (R,), "fresh": False, "dask": None}
    return Cell(
        called,
        measure_activation,
        {"problem": problem, "name": called, **parameters},
        key={**parameters, **shared, "R": R},
        parts=config.inits,
        title=f"{name}, R = {R:g}",
        alone=command_line.command(MODULE, config, **alone),
        attrs={"R": R, "imbalance": "step", "activation": name, "normalised": int(config.normalised)},
    )


def summary_row(cell: xr.Dataset) -> dict[str, object]:
    """One line of summary.csv."""
    attrs, largest = cell.attrs, {"distance_max": "distance", "max_cosine": "max_cosine_final"}
    return {
        "activation": attrs["activation"],
        **{name: sweep.number(attrs[name]) for name in ("R", "k", "d", "tau", "n", "inits")},
        "minimiser": activations_report.minimiser(float(attrs["floor"])),
        "reached": int(cell["reached"].sum()),
        "lifted": int(cell["lifted"].sum()),
        "certified": int(cell["certified"].sum()),
        **{column: float(cell[name].values.max()) for column, name in largest.items()},
        "steps_left": float(cell["steps_left"].values.max()),
        "best_excess": float(cell["excess"].values.min()),
        "worst_gap": float(cell["gap"].values.max()),
        "loss_bound": float(attrs["loss_bound"]),
        "lower_bound": float(attrs["lower_bound"]),
        "iterations_median": float(np.median(cell["iterations"].values)),
        **{name: round(float(attrs[name]), 3) for name in sweep.SECONDS},
    }


def init_rows(cell: xr.Dataset) -> list[dict[str, object]]:
    """The lines of inits.csv for one cell."""
    parameters = {"activation": cell.attrs["activation"], "R": sweep.number(cell.attrs["R"])}
    columns = [name for name, values in cell.data_vars.items() if values.dims == ("init",)]
    return [
        {**parameters, "init": start, **{str(name): np.asarray(cell[name].values[start]).item() for name in columns}}
        for start in range(cell.sizes["init"])
    ]


def print_summary(config: Config, cells: Sequence[xr.Dataset], console: Console) -> None:
    """The closing table."""
    form = "normalised" if config.normalised else "cut to the ball"
    title = (
        f"{form}, step imbalance, k = {config.k}, d = {config.d}, tau = {in_words(config.tau)}, {config.inits} starts, "
        f"{config.steps:,} steps of Adam"
    )

    def number(column: str, form: str) -> Callable[[xr.Dataset], str]:
        return lambda cell: format(summary_row(cell)[column], form)

    columns: dict[str, Callable[[xr.Dataset], str]] = {
        "activation": lambda cell: str(cell.attrs["activation"]),
        "R": lambda cell: f"{cell.attrs['R']:g}",
        "theory": number("minimiser", ""),
        "reached": lambda cell: f"{int(cell['reached'].sum())}/{cell.sizes['init']}",
        "freed": number("lifted", "d"),
        "certified": lambda cell: sweep.certified(cell, bool(cell["certified"].all())),
        "largest distance": sweep.largest("distance"),
        "largest cosine": sweep.largest("max_cosine_final"),
        "steps left": number("steps_left", ".2g"),
    }
    sweep.print_table(title, cells, columns, console, keys=("activation", "R"), legend=LEGEND)


LEGEND = {
    "reached": "starts that descent alone led to the minimiser of theory",
    "freed": "starts that the staircase freed from a spurious point",
    "largest distance": "of Gram matrices of class means from the minimiser's, relative",
    "steps left": "extrapolated",
}


KIND = sweep.Kind(summary_row, init_rows, activations_report.DRAWINGS, activations_report.rendered)


script = partial(command_line.run, main)

if __name__ == "__main__":
    script()
