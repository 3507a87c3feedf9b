"""Time to the certified optimum, side by side with other ways to get there, and growth with n."""

from __future__ import annotations

import dataclasses
import functools
import resource
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr
from jaxtyping import Float
from rich.console import Console

from experiments.harness import command_line, engine
from experiments.harness.cells import Cell, Computed, ProgressCallback, log_console, run_cells, say
from experiments.harness.store import Store
from experiments.measurements.peers import PEERS, Test
from experiments.measurements.throughput import throughput
from experiments.reports.tables import print_table
from solvers.certification.certifier import Certifier
from solvers.certification.verification import Verifier
from solvers.multistart import solve
from solvers.starts.random_starts import random_start
from ufm import InvalidInput, Problem, step_imbalance

# Average cosine that a point may leave between any two classes and still count as the optimum: a
# thousand times below what merged minorities show.
SEPARATION = 1e-3
# Of the table of stochastic steps.
BATCH, STARTS = 128, 8
MODULE = "experiments.benchmark"
TableRows = list[dict[str, object]]


@dataclasses.dataclass(frozen=True)
class Config:
    """Run the same starts of the same problem through every peer in one process, until the verifier finds the
    excess below the same threshold, which tells merged minorities from separated ones at any R.

    Reported: the share of starts that reach the optimum, the time to it per start (over those that do), and the
    ratio to this project's default. Compilation and the test are off the clock. Needs the extra "bench".

    A cell is one peer at one R. Whatever stopped it, finished cells are stored: the same command resumes from them.
    """

    R: tuple[float, ...] = (10.0, 100.0)
    """Imbalance ratios (STEP)."""
    k: int = 10
    """Number of classes."""
    n_min: int = 5
    """Samples of the smallest class."""
    d: int = 20
    """Embedding dimension."""
    tau: float = 1.0
    """Temperature."""
    starts: int = 4
    """Random starts; the same for every peer."""
    limit: float = 10.0
    """Seconds that a peer may take at one R, the same for each of its starts; twice as many with the tests."""
    peers: tuple[str, ...] = tuple(PEERS)
    """Which peers to run; the ratios are to staircase."""
    growth: tuple[float, ...] = (1e3, 1e4, 4e4)
    """Imbalance ratios of the growth table: one start each, this project's default (4e4: n = 1,000,025)."""
    stochastic: tuple[float, ...] = (1000.0,)
    """Imbalance ratios of the table of stochastic steps: batches of 128, 8 starts, beside PyTorch's SGD."""
    out: Path = Path("runs/benchmark")
    """Directory of the results. In runs/gallery the gallery draws its figure of them."""
    fresh: bool = False
    """Measure every cell again."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0 when it has run, whoever won."""
    config = command_line.parse(Config, arguments)
    unknown = [peer for peer in config.peers if peer not in PEERS]
    if unknown:
        raise InvalidInput("peers", unknown[0], f"choose from {', '.join(PEERS)}")
    if config.starts < 1:
        raise InvalidInput("starts", config.starts, "give at least 1 random start")
    if not config.limit > 0:
        raise InvalidInput("limit", config.limit, "give a positive number of seconds")
    cells = cells_of(config)
    store, console = Store(config.out), log_console()
    with store.alone():
        result = run_cells(cells, store, console, "cells", fresh=config.fresh, dask=None).datasets.values()
        tables = {name: _rows(result, name) for name in TABLES}
        for name, lines in tables.items():
            if lines:
                print_rows(name, config, lines, console)
                store.write_csv(f"{name}.csv", lines)
        if tables["benchmark"] and tables["growth"]:
            store.write_cell(benchmark_cell().file, _dataset(tables["benchmark"], tables["growth"]))
        say(console, f"Tables are in {config.out}")
    return 0


def cells_of(config: Config) -> list[Cell]:
    """Every peer at every R, then the rows of the other tables. Raises InvalidInput for what is no problem."""
    shared = {name: getattr(config, name) for name in ("k", "n_min", "d", "tau")}
    cells = []
    requested = [("benchmark", R, peer) for R in config.R for peer in config.peers]
    requested += [("growth", R, None) for R in config.growth] + [("stochastic", R, None) for R in config.stochastic]
    for name, R, peer in requested:
        _problem(**shared, R=R)
        parameters = {} if peer is None else {"peer": peer, "starts": config.starts, "limit": config.limit}
        only = {"R": (), "growth": (), "stochastic": (), "R" if name == "benchmark" else name: (R,)}
        cells.append(
            Cell(
                "-".join(filter(None, (name, peer, f"R{R:g}"))),
                MEASURED[name],
                {**shared, "R": R, **parameters},
                title=f"R = {R:g}: {peer or name}",
                alone=command_line.command(
                    MODULE, config, peers=(peer,) if peer else config.peers, fresh=False, **only
                ),
                attrs={"table": name},
            )
        )
    return cells


def benchmark_cell(**parameters: Any) -> Cell:
    """Both tables as one dataset: those of the last benchmark in the store, else of a small one.

    parameters: fields of `Config`, if they are not the small one's.
    """
    return Cell("benchmark-own" if parameters else "benchmark", _small, parameters)


def _small(*, progress: ProgressCallback, **parameters: Any) -> Computed:
    requested = {"R": (10.0, 100.0), "starts": 2, "limit": 10.0, "growth": (10.0, 100.0, 1e3, 1e4), "stochastic": ()}
    config = Config(**{**requested, **parameters})
    cells = {cell.name: cell for cell in cells_of(config)}
    ended = engine.run([engine.Job(name, cell.compute, cell.arguments) for name, cell in cells.items()])
    measured = [one.value[0].assign_attrs(cells[one.job.name].attrs) for one in ended if one.error is None]
    return _dataset(_rows(measured, "benchmark"), _rows(measured, "growth")), {}


def _dataset(rows: TableRows, grown: TableRows) -> xr.Dataset:
    """The lines over the dimension run, and those of growth, growth_NAME, over the dimension size."""
    data = {name: ("run", np.array([row[name] for row in rows])) for name in rows[0]}
    return xr.Dataset(data | {f"growth_{name}": ("size", np.array([row[name] for row in grown])) for name in grown[0]})


def _cell(rows: TableRows) -> Computed:
    """The lines of a table, over the dimension row."""
    return xr.Dataset({name: ("row", np.array([row[name] for row in rows])) for name in rows[0]}), {}


def _rows(cells: Iterable[xr.Dataset], table: str) -> TableRows:
    """The lines of all cells of a table."""
    return [
        {str(name): column.values[row].item() for name, column in cell.data_vars.items()}
        for cell in cells
        if cell.attrs["table"] == table
        for row in range(cell.sizes["row"])
    ]


@functools.lru_cache(maxsize=1)
def _tested(k: int, n_min: int, d: int, tau: float, R: float) -> tuple[Problem, Test]:
    """A problem, and whether an embedding has reached its optimum, compiled: the same for all peers."""
    problem = _problem(k, n_min, d, tau, R)
    verifier = Verifier(problem)
    threshold = SEPARATION * verifier.smallest_weight

    def reached(H: Float[np.ndarray, "n d"]) -> bool:
        return verifier.excess(H) <= threshold

    reached(_starts(problem, 1)[0])
    return problem, reached


def compare(
    *,
    k: int,
    n_min: int,
    d: int,
    tau: float,
    R: float,
    peer: str,
    starts: int,
    limit: float,
    progress: ProgressCallback,
) -> Computed:
    """One line of benchmark.csv a start."""
    problem, reached = _tested(k=k, n_min=n_min, d=d, tau=tau, R=R)
    runs = PEERS[peer](problem, _starts(problem, starts), reached, limit / starts)
    return _cell([{"peer": peer, "R": R, "n": problem.num_samples, **dataclasses.asdict(run)} for run in runs])


def growth(*, k: int, n_min: int, d: int, tau: float, R: float, progress: ProgressCallback) -> Computed:
    """One start of the default method, solved, verified and certified; the second run counts.

    seconds_copy: the limit of memory, one copy of H.
    """
    problem = _problem(k, n_min, d, tau, R)
    solve(problem, 1)
    solution = solve(problem, 1)
    H = solution.embedding(0)
    began = time.perf_counter()
    certificate = Certifier(problem).certify(H)
    row = {
        "R": R,
        "n": problem.num_samples,
        "seconds_solve": round(solution.timings.solve, 4),
        "seconds_certify": round(time.perf_counter() - began, 4),
        "seconds_copy": float(f"{_seconds_to_copy(H):.3g}"),
        "certified": str(certificate.status),
        "orthogonal_frame": Verifier(problem).verify(H).is_orthogonal_frame,
        "peak_GiB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }
    return _cell([row])


def stochastic_steps(*, k: int, n_min: int, d: int, tau: float, R: float, progress: ProgressCallback) -> Computed:
    """One line of stochastic.csv a peer. Raises ImportError without PyTorch."""
    problem = _problem(k, n_min, d, tau, R)
    return _cell([{"R": R, **row} for row in throughput(problem, _starts(problem, STARTS), BATCH)])


MEASURED = {"benchmark": compare, "growth": growth, "stochastic": stochastic_steps}
TABLES = {
    "benchmark": "time to the optimum, same starts, same stop",
    "growth": "growth: one start, compile apart",
    "stochastic": "stochastic steps, uniform batches, same loss",
}


def _seconds_to_copy(H: Float[np.ndarray, "n d"]) -> float:
    """To read H and write it once, the best of five: no step on all samples can take less."""
    to, seconds = np.empty_like(H), []
    for _ in range(5):
        began = time.perf_counter()
        np.copyto(to, H)
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def print_rows(name: str, config: Config, rows: TableRows, console: Console) -> None:
    """The lines of a table, by its name."""
    shown = compared(config, rows) if name == "benchmark" else rows
    text = [{column.replace("_", " "): str(value) for column, value in line.items()} for line in shown]
    print_table(TABLES[name], text, console, keys=("R", "peer"))


def compared(config: Config, rows: TableRows) -> TableRows:
    """Per peer and R: share of starts, median seconds over those that reached the optimum, ratio to staircase."""
    shown: TableRows = []
    for R in config.R:
        ours = _median_seconds([row for row in rows if row["R"] == R and row["peer"] == "staircase"])
        for peer in config.peers:
            runs = [row for row in rows if row["R"] == R and row["peer"] == peer]
            if not runs:
                continue
            reached = sum(bool(row["reached"]) for row in runs)
            seconds = _median_seconds(runs)
            value = max(float(row["seconds"]) for row in runs)  # type: ignore[arg-type]
            shown.append(
                {
                    "R": f"{R:g}",
                    "n": f"{runs[0]['n']:,}",
                    "peer": peer,
                    "reached": f"{reached}/{len(runs)}",
                    "seconds a start": f"{seconds:.4g}" if seconds else f"never, in {value:.3g}",
                    "ratio": _ratio(seconds, value, ours),
                }
            )
    return shown


def _ratio(seconds: float | None, theirs: float, ours: float | None) -> str:
    if not ours:
        return ""
    return f"{seconds / ours:.1f}" if seconds else f"> {theirs / ours:.0f}"


def _median_seconds(runs: TableRows) -> float | None:
    seconds = [float(row["seconds"]) for row in runs if row["reached"]]  # type: ignore[arg-type]
    return float(np.median(seconds)) if seconds else None


def _problem(k: int, n_min: int, d: int, tau: float, R: float) -> Problem:
    return Problem.from_class_sizes(step_imbalance(k, n_min, R), d=d, tau=tau)


def _starts(problem: Problem, count: int) -> Float[np.ndarray, "s n d"]:
    """The starts that `solve` makes of seed 0."""
    key = jax.random.key_data(jax.random.key(0))
    return np.stack(
        [np.asarray(random_start(key, s, problem.num_points, problem.d, problem.nonneg)) for s in range(count)]
    )


script = functools.partial(command_line.run, main)

if __name__ == "__main__":
    script()
