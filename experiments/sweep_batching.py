"""Theorem 2 and Corollary 2.1, numerically: does the batch family decide which geometry is learned?"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
from rich import box
from rich.console import Console
from rich.table import Table

from experiments import batching_report, command_line, engine, sweep
from experiments.batching_cells import Cell, run_cell
from experiments.report import write_report
from experiments.store import Store, digest
from figures import batch_sweep, style
from solvers.parallel.padding import Shape, common_shape
from ufm import InvalidInput, Problem, batching, orbits
from ufm.errors import checked_seed, whole_number

CONFIRMED, NOT_CONFIRMED = 0, 1
# Part of every cell's name: a change of what a cell holds makes a new cell.
SCHEMA = 3
MODULE = "experiments.sweep_batching"


@dataclasses.dataclass(frozen=True)
class Config:
    """Minimise the supervised contrastive loss of UFM+ over random batch families, as drawn and bound (one sample
    of each class joins every batch); certify every start; compare where it ends with what theory predicts of the
    family: whether the orthogonal frame is its only minimiser.

    Exit status: 0 if in every cell every start is a certified global minimiser, an orthogonal frame wherever the
    frame is predicted to be the only one, and every other predicted minimiser is certified as well (Theorem 2 and
    Corollary 2.1 of arXiv 2306.07960, sharpened); 1 if not or if a cell failed; 2 for bad input or a disk that
    cannot be written, 130 or 143 if stopped. Finished cells are kept: the same command goes on from them.
    """

    family: Literal["partition", "stratified", "reshuffled"] = "partition"
    """One random partition; one that splits every class evenly; or a new partition every epoch."""
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
    tau: float = 1.0
    """Temperature of the loss."""
    imbalance: Literal["step", "long-tail"] = "step"
    """Class profile: half the classes have R times n-min samples, or geometric decay from R n-min to n-min."""
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
    cells = checked_cells(config)
    store = Store(config.out)
    with store.alone():
        return swept(config, cells, store)


def swept(config: Config, cells: Sequence[Cell], store: Store) -> int:
    """Run, write and report; the exit status."""
    console = sweep.console()
    configuration = {"config": sweep.plain(config), "versions": sweep.versions(), "cells": len(cells)}
    store.write_json("config.json", configuration)
    measured = run_cells(config, cells, store, console)
    if not measured:
        return NOT_CONFIRMED
    store.write_csv("summary.csv", [summary_row(cell) for cell in measured])
    store.write_csv("inits.csv", [row for cell in measured for row in init_rows(cell)])
    for suffix, content in style.rendered(batch_sweep.draw(measured)).items():
        store.write_bytes(f"figures/batching.{suffix}", content)
    write_report(store, batching_report.rendered)
    failed = len(cells) - len(measured)
    report(config, measured, failed, console)
    return CONFIRMED if not failed and all(confirmed(cell) for cell in measured) else NOT_CONFIRMED


def checked_cells(config: Config) -> list[Cell]:
    """Every cell with its problems; raises InvalidInput before anything is written."""
    for name in ("R", "batch_size"):
        if not getattr(config, name):
            raise InvalidInput(name, [], "give at least one")
    for name in ("partitions", "inits", "epochs"):
        most = sweep.MOST_STARTS
        whole_number(name, getattr(config, name), 1, f"give a whole number from 1 to {most:,}", most)
    checked_seed(config.seed)
    engine.check(config.dask)
    if config.d < config.k:
        raise InvalidInput("d", config.d, f"give at least k = {config.k}: below it the bound is not attained")
    cells = []
    for R in dict.fromkeys(config.R):
        labels = np.repeat(np.arange(config.k), class_sizes(config, R))
        if config.family == "reshuffled" and config.epochs * len(labels) > sweep.MOST_SAMPLES:
            raise InvalidInput("epochs", config.epochs, f"with {len(labels):,} samples that is too much; give fewer")
        for batch_size in dict.fromkeys(config.batch_size):
            drawn = [drawn_family(config, labels, batch_size, p) for p in range(config.partitions)]
            for bound in (False, True) if config.bind else (False,):
                families = drawn
                if bound:
                    families = [batching.bind(one, labels, 1, _seed(config, p)) for p, one in enumerate(drawn)]
                problems = tuple(Problem(labels, config.d, config.tau, one) for one in families)
                cells.append(Cell(R, batch_size, bound, problems))
    return cells


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


def drawn_family(config: Config, labels: np.ndarray, batch_size: int, p: int) -> batching.Family:
    """Random family p."""
    seed = _seed(config, p)
    if config.family == "stratified":
        return batching.stratified_partition(labels, batch_size, seed)
    if config.family == "reshuffled":
        return batching.reshuffled(len(labels), batch_size, config.epochs, seed)
    return batching.partition(len(labels), batch_size, seed)


def _seed(config: Config, p: int) -> int:
    return int(np.random.SeedSequence([config.seed, p]).generate_state(1)[0])


def run_cells(config: Config, cells: Sequence[Cell], store: Store, console: Console) -> list[xr.Dataset]:
    """Every cell, in the order given; see `sweep.run_cells`."""
    shapes = _shapes(cells)
    asked = [_cell(config, cell, shapes[cell.bound]) for cell in cells]
    return sweep.run_cells(asked, store, console, "starts", fresh=config.fresh, dask=config.dask)


def _cell(config: Config, cell: Cell, shape: Shape) -> sweep.Cell:
    seeds = [_seed(config, p) for p in range(config.partitions)]
    arguments = {"cell": cell, "inits": config.inits, "seeds": seeds, "shape": shape}
    own = {"R": (cell.R,), "batch_size": (cell.batch_size,), "bind": cell.bound}
    return sweep.Cell(
        engine.Job(
            f"cells/{cell.name}-{digest(_cell_key(config, cell))}.nc",
            run_cell,
            arguments,
            config.partitions * config.inits,
        ),
        title=cell.name,
        alone=command_line.command(MODULE, config, **own, fresh=False, dask=None),
        attrs={name: getattr(config, name) for name in ("family", "imbalance", "seed", "epochs")},
    )


def _shapes(cells: Sequence[Cell]) -> dict[bool, Shape]:
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
    own = {
        "R": sweep.number(cell.attrs["R"]),
        "batch_size": int(cell.attrs["batch_size"]),
        "bound": bool(cell.attrs["bound"]),
    }
    return [
        {**own, **{name: kind(cell[name].values[i]) for name, kind in kinds.items()}} for i in range(cell.sizes["init"])
    ]


def confirmed(cell: xr.Dataset) -> bool:
    """Every start is certified and measured, a frame where that is predicted; every counterexample is one."""
    unique, frame = cell["unique"].values, cell["orthogonal_frame"].values
    refuted = cell["counterexample_certified"].values == "True"
    kept = np.where(unique == "True", frame, np.where(unique == "False", refuted, True))
    return bool((kept & cell["certified"].values).all() and sweep.is_measured(cell))


def report(config: Config, cells: Sequence[xr.Dataset], failed: int, console: Console) -> None:
    """The closing table and a verdict in a sentence."""
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title=f"UFM+, {config.family} batches, {config.imbalance} imbalance, k = {config.k}, d = {config.d}, "
        f"tau = {config.tau:g}, {config.partitions} families x {config.inits} starts",
        title_justify="left",
    )
    heads = ("R", "batch\nsize", "bound", "unique", "not\nunique", "open", "certi-\nfied", "k-OF", "worst\nexcess")
    for name in (*heads, "steps"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("com-\npile", "solve", "cer-\ntify"):
        table.add_column(f"{name}\n[s]", justify="right", style="dim", no_wrap=True)
    for cell in cells:
        row, total = summary_row(cell), cell.sizes["init"]
        colour = "green" if confirmed(cell) else "red"
        table.add_row(
            f"{cell.attrs['R']:g}",
            str(row["batch_size"]),
            "yes" if row["bound"] else "no",
            *(str(row[name]) for name in _SAID),
            f"[{colour}]{row['certified']}/{total}[/]",
            str(row["orthogonal_frames"]),
            f"{row['worst_excess']:.0e}",
            f"{row['iterations_median']:.0f}",
            *(f"{cell.attrs[name]:.1f}" for name in ("seconds_compile", "seconds_solve", "seconds_certify")),
        )
    console.print(table)
    good = sum(confirmed(cell) for cell in cells)
    if failed:
        sentence = f"Not confirmed: {failed} of {failed + len(cells)} cells failed; see above."
    elif good == len(cells):
        sentence = (
            "Confirmed: every start is a certified global minimiser, a frame wherever that is predicted to be the only "
            "one, and every other minimiser that is predicted is certified."
        )
    else:
        sentence = f"Not confirmed in {len(cells) - good} of {len(cells)} cells; see the table and inits.csv."
    sweep.close(sentence, config.out, console)


def _cell_key(config: Config, cell: Cell) -> dict[str, object]:
    plain = sweep.plain(config)
    for name in ("R", "batch_size", "bind", "out", "fresh", "dask"):
        del plain[name]
    own = {"R": cell.R, "batch_size": cell.batch_size, "bound": cell.bound}
    return {**plain, **own, "schema": SCHEMA, "versions": sweep.versions()}


if __name__ == "__main__":
    command_line.run(lambda: main(sys.argv[1:]))
