"""Theorem 2 and Corollary 2.1, numerically: does the batch family decide which geometry is learned?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
from rich.console import Console

from experiments.harness import command_line, engine, sweep
from experiments.harness.cells import Cell, log_console
from experiments.harness.loss_names import PLAIN, loss_of
from experiments.harness.store import Store, digest
from experiments.measurements.solutions import measure_families
from experiments.reports import batching as batching_report
from experiments.reports import tables
from experiments.reports.batching import judged, name_of
from experiments.reports.page import in_words
from solvers.parallel.padding import Shape, common_shape
from ufm import InvalidInput, Problem, batching, orbits
from ufm.errors import checked_seed, whole_number

CONFIRMED, NOT_CONFIRMED = 0, 1
MODULE = "experiments.sweep_batching"


@dataclasses.dataclass(frozen=True)
class Families:
    """The families of one cell: of one R, temperature and batch size, bound or as drawn; loss: its name."""

    R: float
    tau: float
    batch_size: int
    bound: bool
    problems: tuple[Problem, ...]
    loss: str = PLAIN

    @property
    def name(self) -> str:
        """Unique within a sweep, and fit for a file."""
        return name_of(sweep.number(self.R), sweep.number(self.tau), self.batch_size, self.bound, self.loss)


@dataclasses.dataclass(frozen=True)
class Config:
    """Minimise the supervised contrastive loss of UFM+ over batch families, random ones or your own, as drawn and bound
    (one sample of each class joins every batch); certify every start; compare where it ends with what theory predicts
    of the family: whether the orthogonal frame is its only minimiser.

    Exit status: 0 if in every cell every start is a certified global minimiser, an orthogonal frame wherever the
    frame is predicted to be the only one, and every other predicted minimiser is certified as well (Theorem 2 and
    Corollary 2.1 of arXiv 2306.07960, sharpened); 1 if not or if a cell failed; 2 for bad input or a disk that
    cannot be written, 130 or 143 if stopped. Finished cells are stored: the same command resumes from them.
    """

    family: str = "partition"
    """partition: one random partition; stratified: one that splits every class evenly; reshuffled: a new partition
    every epoch; or another of `ufm.batching.FAMILIES`."""
    batch_size: tuple[int, ...] = (50,)
    """Samples in a batch, before binding."""
    epochs: int = 5
    """Partitions of the reshuffled family."""
    bind: bool = True
    """Every family bound as well, beside the family as drawn. --no-bind: as drawn only."""
    R: tuple[float, ...] = (1.0, 3.0, 10.0, 30.0)
    """Imbalance ratios: largest over smallest class."""
    k: int = 10
    """Number of classes."""
    n: int | None = None
    """Samples in all: n-min is then the largest that fits, and the largest classes take the rest. 1000 by default."""
    n_min: int | None = None
    """Samples of the smallest class, instead of n."""
    d: int = 20
    """Embedding dimension, at least k: d = k has a rule of its own."""
    tau: tuple[float, ...] = (1.0,)
    """Temperatures of the loss: every R and batch size at each of them."""
    imbalance: Literal["step", "long-tail", "given"] = "step"
    """Class profile: half the classes have R times n-min samples, or geometric decay from R n-min to n-min, or that
    given by --problem."""
    problem: Path | None = None
    """A problem of your own from a file, as in sweep_imbalance: its classes in the place of R, k, n, n-min and
    imbalance, and its batches, if it has any, in the place of family, batch-size, epochs and partitions."""
    loss: str = PLAIN
    """scl, class-weights, logit-adjustment, class-averaging, weights-and-averaging, decoupled, class-temperatures,
    sigmoid or supcon-in; numbers after a colon, as in logit-adjustment:0.5 (weights: the power of n_min/n_c;
    temperatures: the last class's over the first's; sigmoid: scale and bias)."""
    relu: bool = True
    """--no-relu drops H >= 0 (UFM): theory then predicts nothing, and each start is certified as it is."""
    partitions: int = 32
    """Random families for each R and batch size."""
    inits: int = 1
    """Random starts for each family."""
    seed: int = 0
    """Family p and its starts depend on (seed, p) alone."""
    out: Path = Path("runs/batching")
    """Directory of the results. Cells found there, complete and of the same configuration, are not run again."""
    fresh: bool = False
    """Run every cell again."""
    dask: str | None = None
    """Run the cells on dask.distributed: local:4 for 4 worker processes here, or a scheduler's address, HOST:PORT.
    Files and summary are the same."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sweep; the exit status of `Config`."""
    config = command_line.parse(Config, arguments)
    config, cells = checked_cells(config)
    store = Store(config.out)
    with store.alone():
        return run_sweep(config, cells, store)


def run_sweep(config: Config, families: Sequence[Families], store: Store) -> int:
    """Compute, write and say; the exit status."""
    console = log_console()
    if not config.relu:
        console.print("[yellow]note[/]  --no-relu: Theorem 2 is about UFM+; a start is certified if its own gap closes")
    shapes = _shapes(families)
    cells = [cell_of(config, of_cell, shapes[of_cell.bound]) for of_cell in families]
    result = sweep.run_and_write(KIND, config, cells, store, console)
    if not result:
        return NOT_CONFIRMED
    failed = len(cells) - len(result)
    print_summary(config, result, failed, console)
    return CONFIRMED if not failed and all(confirmed(cell) for cell in result) else NOT_CONFIRMED


def checked_cells(config: Config) -> tuple[Config, list[Families]]:
    """Every cell's families, and the configuration as the file of a problem completes it.

    Raises InvalidInput before anything is written.
    """
    for name in ("R", "tau", "batch_size"):
        if not getattr(config, name):
            raise InvalidInput(name, [], "give at least one")
    for name in ("partitions", "inits", "epochs"):
        most = sweep.MOST_STARTS
        whole_number(name, getattr(config, name), 1, f"give a whole number from 1 to {most:,}", most)
    checked_seed(config.seed)
    engine.check(config.dask)
    config, value = stated_family(config)
    if config.d < config.k:
        raise InvalidInput("d", config.d, f"give at least k = {config.k}: below it the bound need not be attained")
    families = []
    for R in dict.fromkeys(config.R):
        labels = np.repeat(np.arange(config.k), class_sizes(config, R)) if value is None else np.asarray(value.labels)
        drawn = {
            size: [drawn_family(config, labels, size, p, value) for p in range(config.partitions)]
            for size in dict.fromkeys(config.batch_size)
        }
        loss = loss_of(config.loss, np.bincount(labels)) if value is None else value.loss
        for tau in dict.fromkeys(config.tau):
            for size, as_drawn in drawn.items():
                for bound in (False, True) if config.bind else (False,):
                    kind = as_drawn
                    if bound:
                        kind = [batching.bind(one, labels, 1, _seed(config, p)) for p, one in enumerate(as_drawn)]
                    problems = tuple(Problem(labels, config.d, tau, one, config.relu, loss=loss) for one in kind)
                    families.append(Families(R, tau, size, bound, problems, config.loss))
    return config, families


def stated_family(config: Config) -> tuple[Config, Problem | None]:
    """The problem of the file, if there is one, and the configuration that it completes."""
    problems = {} if config.problem is None else sweep.stated_problems(config)
    problem = next(iter(problems.values()), None)
    if (problem is None or problem.is_full_batch) and config.family not in batching.FAMILIES:
        raise InvalidInput("family", config.family, f"choose one of {', '.join(batching.FAMILIES)}")
    if problem is None:
        return config, None
    parameters: dict[str, Any] = {"n": None}
    if not problem.is_full_batch:
        parameters |= {"family": sweep.STATED, "batch_size": (problem.batches.shape[1],), "epochs": 1, "partitions": 1}
    return sweep.to_dict(config, problems, **parameters), problem


def class_sizes(config: Config, R: float) -> np.ndarray:
    """Samples of each class: the profile of n_min, or of the largest n_min with at most n samples, the rest dealt
    out to the largest classes. Raises InvalidInput if even n_min = 1 is too large for n."""
    if config.n_min is not None:
        if config.n is not None:
            raise InvalidInput("n", config.n, "give n or n-min, not both")
        return sweep.profile(config.imbalance, config.k, config.n_min, config.d)(R)
    most = sweep.MOST_SAMPLES
    n = whole_number("n", 1000 if config.n is None else config.n, 2, f"give 2 to {most:,} samples", most)
    least = int(np.sum(sweep.profile(config.imbalance, config.k, 1, config.d)(R)))
    profile = sweep.PROFILES[config.imbalance]
    if least > n:
        raise InvalidInput("n", n, f"R = {R:g} with k = {config.k} takes at least {least} samples")
    smallest = n // least
    while np.sum(profile(config.k, smallest + 1, R)) <= n:
        smallest += 1
    while np.sum(profile(config.k, smallest, R)) > n:
        smallest -= 1
    sizes = np.array(profile(config.k, smallest, R))
    largest = np.flatnonzero(sizes == sizes.max())
    rest = n - int(sizes.sum())
    sizes[largest] += rest // len(largest)
    sizes[largest[: rest % len(largest)]] += 1
    return sizes


def drawn_family(
    config: Config, labels: np.ndarray, batch_size: int, p: int, stated: Problem | None = None
) -> batching.Family:
    """Random family p, or the one that a file gave."""
    if stated is not None and config.family == sweep.STATED:
        return np.asarray(stated.batches)
    return batching.FAMILIES[config.family](labels, batch_size, config.epochs, _seed(config, p))


def _seed(config: Config, p: int) -> int:
    return int(np.random.SeedSequence([config.seed, p]).generate_state(1)[0])


def cell_of(config: Config, families: Families, shape: Shape) -> Cell:
    """The cell of its families."""
    parameters = {name: getattr(families, name) for name in ("R", "tau", "batch_size", "bound")}
    alone = {**{name: (parameters[name],) for name in ("R", "tau", "batch_size")}, "bind": families.bound}
    key = {field: value for field, value in sweep.keyed(config).items() if field not in ("bind", "problem")}
    first = families.problems[0]
    if config.problem is not None:  # what the file holds, not where it lies
        key["problem"] = [digest(np.asarray(part).tolist()) for part in (first.labels, first.batches)]
        key["problem"] += [] if first.loss.is_plain else [digest(first.loss.to_dict())]
    seeds = [_seed(config, p) for p in range(config.partitions)]
    arguments = {"problems": families.problems, "inits": config.inits, "seeds": seeds, "shape": shape}
    return Cell(
        families.name,
        measure_families,
        {**arguments, "name": families.name},
        key={**key, **parameters},
        parts=config.partitions * config.inits,
        title=families.name,
        alone=command_line.command(MODULE, config, **alone, fresh=False, dask=None),
        attrs={
            **{name: getattr(config, name) for name in ("family", "imbalance", "seed", "epochs")},
            **{"R": families.R, "batch_size": families.batch_size, "bound": int(families.bound)},
            "loss": first.loss.name,
        },
    )


def _shapes(cells: Sequence[Families]) -> dict[bool, Shape]:
    """One shape for all orbit problems as drawn and one for the bound ones: each is compiled once.

    Of all cells, found or not, so that a sweep that was stopped ends as one that was not.
    """
    quotients: dict[bool, list[Problem]] = {}
    for cell in cells:
        quotients.setdefault(cell.bound, []).extend(orbits(problem).quotient for problem in cell.problems)
    return {bound: common_shape(problems) for bound, problems in quotients.items()}


def summary_row(cell: xr.Dataset) -> dict[str, object]:
    """One line of summary.csv.

    Counts of families: unique, not_unique, undetermined, plain_claims (what the plain
    graph of Corollary 2.1 would claim unique), counterexamples (certified); the others count starts.
    """
    attrs, once = cell.attrs, cell["start"].values == 0
    unique = cell["unique"].values[once]
    return {
        **{name: sweep.number(attrs[name]) for name in ("R", "batch_size")},
        "family": attrs["family"],
        "bound": bool(attrs["bound"]),
        **{name: sweep.number(attrs[name]) for name in ("k", "d", "tau", "n", "batches", "partitions", "inits")},
        **{name: int((unique == said).sum()) for name, said in _SAID.items()},
        "plain_claims": int(cell["plain_claim"].values[once].sum()),
        "counterexamples": int((cell["counterexample_certified"].values[once] == "True").sum()),
        "certified": int(cell["certified"].sum()),
        "orthogonal_frames": int(cell["orthogonal_frame"].sum()),
        **sweep.over_starts(cell),
    }


_SAID = {"unique": "True", "not_unique": "False", "undetermined": "None"}


def init_rows(cell: xr.Dataset) -> list[dict[str, object]]:
    """The lines of inits.csv for one cell."""
    kinds: dict[str, Any] = {
        "partition": int,
        "start": int,
        "unique": str,
        "plain_claim": bool,
        "counterexample_certified": str,
        "status": str,
        "certified": bool,
        "orthogonal_frame": bool,
        **dict.fromkeys(("excess", "gap", "loss_bound", "delta_gm", "beta_nc", "trace_sw", "max_cosine"), float),
        "iterations": int,
        "lifts": int,
        "reason": str,
    }
    parameters = {
        **{name: sweep.number(cell.attrs[name]) for name in ("R", "tau")},
        "batch_size": int(cell.attrs["batch_size"]),
        "bound": bool(cell.attrs["bound"]),
    }
    return [
        {**parameters, **{name: kind(cell[name].values[i]) for name, kind in kinds.items()}}
        for i in range(cell.sizes["init"])
    ]


def confirmed(cell: xr.Dataset) -> bool:
    """Every start is certified and measured, a frame where that is predicted; every counterexample is one."""
    return judged(_judged_rows([cell]), bool(cell.attrs["nonneg"]))[0] and sweep.is_measured(cell)


def _judged_rows(cells: Sequence[xr.Dataset]) -> list[Mapping[str, Any]]:
    names = ("unique", "start", "certified", "orthogonal_frame", "counterexample_certified", "excess")
    return [{name: cell[name].values[i] for name in names} for cell in cells for i in range(cell.sizes["init"])]


def print_summary(config: Config, cells: Sequence[xr.Dataset], failed: int, console: Console) -> None:
    """The closing table and the verdict in a sentence."""
    model = "UFM+" if config.relu else "UFM"
    title = (
        f"{model}, {config.family} batches, {config.imbalance} imbalance, k = {config.k}, d = {config.d}, "
        f"tau = {in_words(config.tau)}, {config.partitions} families x {config.inits} starts"
    )
    temperature: dict[str, Callable[[xr.Dataset], str]] = {"tau": lambda cell: f"{cell.attrs['tau']:g}"}
    columns: dict[str, Callable[[xr.Dataset], str]] = {
        "R": lambda cell: f"{cell.attrs['R']:g}",
        **(temperature if len(config.tau) > 1 else {}),
        "batch size": lambda cell: str(cell.attrs["batch_size"]),
        "bound": lambda cell: "yes" if cell.attrs["bound"] else "no",
        "unique": lambda cell: str(summary_row(cell)["unique"]),
        "not unique": lambda cell: str(summary_row(cell)["not_unique"]),
        "undetermined": lambda cell: str(summary_row(cell)["undetermined"]),
        "certified": lambda cell: sweep.certified(cell, confirmed(cell)),
        "largest cosine": sweep.largest("max_cosine"),
        "k-OF": lambda cell: str(int(cell["orthogonal_frame"].sum())),
        **sweep.worst(config.relu),
        "median steps": lambda cell: f"{np.median(cell['iterations'].values):.0f}",
    }
    sweep.print_table(title, cells, columns, console, keys=("R", "tau", "batch size", "bound"), legend=LEGEND)
    _, sentence = judged(_judged_rows(cells), config.relu, failed, failed + len(cells))
    sweep.print_verdict(sentence, config.out, console)


LEGEND = {
    "bound": "whether the same samples of each class joined every batch",
    "unique": "families of batches whose only minimiser is the frame, by theory",
    "k-OF": tables.LEGEND["k-OF"],
}


KIND = sweep.Kind(summary_row, init_rows, batching_report.DRAWINGS, batching_report.rendered)


script = partial(command_line.run, main)

if __name__ == "__main__":
    script()
