"""Time to the certified optimum, side by side with other ways to get there, and growth with n."""

from __future__ import annotations

import dataclasses
import resource
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax
import numpy as np
import xarray as xr
from jaxtyping import Float
from rich import box
from rich.console import Console
from rich.table import Table

from experiments import command_line
from experiments.cells import Cell, Computed, Tell, log_console
from experiments.peers import PEERS, Run, Test
from experiments.store import Store
from experiments.throughput import throughput
from solvers.certification.certifier import Certifier
from solvers.descent.random_starts import random_start
from solvers.multistart import solve
from solvers.verification import Verifier
from ufm import InvalidInput, Problem, step_imbalance

# Average cosine that a point may leave between any two classes and still count as the optimum: a
# thousand times below what merged minorities show.
SEPARATION = 1e-3
# Of the table of stochastic steps.
BATCH, STARTS = 128, 8
Rows = list[dict[str, object]]


@dataclasses.dataclass(frozen=True)
class Config:
    """Run the same starts of the same problem through every peer in one process, until the verifier finds the
    excess below the same threshold, which tells merged minorities from separated ones at any R.

    Reported: the share of starts that reach the optimum, the time to it per start (over those that do), and the
    ratio to this project's default. Compilation and the test are off the clock. Needs the extra "bench".
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
    limit: float = 60.0
    """Seconds a start of a peer may take."""
    peers: tuple[str, ...] = tuple(PEERS)
    """Which peers to run; the ratios are to staircase."""
    growth: tuple[float, ...] = (1e3, 1e4, 4e4)
    """Imbalance ratios of the growth table: one start each, this project's default (4e4: n = 1,000,025)."""
    stochastic: tuple[float, ...] = (1000.0,)
    """Imbalance ratios of the table of stochastic steps: batches of 128, 8 starts, beside PyTorch's SGD."""
    out: Path = Path("runs/benchmark")
    """Directory of the results. In runs/gallery the gallery draws its figure of them."""


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
    problems = {R: _problem(config, R) for R in config.R}
    large = {R: _problem(config, R) for R in config.growth}
    stepped = {R: _problem(config, R) for R in config.stochastic}
    store, console = Store(config.out), log_console()
    with store.alone():
        rows, grown = measure(config, problems, large, console)
        stochastic = stochastic_steps(stepped, console)
        for name, lines in (("benchmark", rows), ("growth", grown), ("stochastic", stochastic)):
            if lines:
                store.write_csv(f"{name}.csv", lines)
        if rows and grown:
            store.write_cell(benchmark_cell().file, _dataset(rows, grown))
        console.print(f"Tables are in {config.out}", highlight=False)
    return 0


def benchmark_cell() -> Cell:
    """Both tables as one dataset: those of the last benchmark in the store, else of a small one."""
    return Cell("benchmark", _small, {})


def _small(*, progress: Tell) -> Computed:
    config = Config(R=(10.0, 100.0), starts=2, limit=5.0, growth=(10.0, 100.0, 1e3, 1e4))
    problems, large = ({R: _problem(config, R) for R in ratios} for ratios in (config.R, config.growth))
    return _dataset(*measure(config, problems, large, Console(quiet=True))), {}


def _dataset(rows: Rows, grown: Rows) -> xr.Dataset:
    """The lines over the dimension run, and those of growth, growth_NAME, over the dimension size."""
    data = {name: ("run", np.array([row[name] for row in rows])) for name in rows[0]}
    return xr.Dataset(data | {f"growth_{name}": ("size", np.array([row[name] for row in grown])) for name in grown[0]})


def measure(
    config: Config, problems: dict[float, Problem], large: dict[float, Problem], console: Console
) -> tuple[Rows, Rows]:
    """The lines of both tables, shown as well."""
    rows = [row for R, problem in problems.items() for row in compare(config, R, problem, console)]
    if rows:
        console.print(table(config, rows))
    grown = growth(large, console)
    if grown:
        console.print(_plain_table("growth: one start, compile apart", grown))
    return rows, grown


def compare(config: Config, R: float, problem: Problem, console: Console) -> Rows:
    """One line of benchmark.csv a peer and start."""
    verifier = Verifier(problem)
    threshold = SEPARATION * verifier.weakest

    def reached(H: Float[np.ndarray, "n d"]) -> bool:
        return verifier.excess(H) <= threshold

    reached(_starts(problem, 1)[0])  # compiles
    rows = []
    for name in config.peers:
        console.print(f"R = {R:g}, n = {problem.num_samples:,}: {name}", highlight=False)
        for run in _guarded(name, problem, _starts(problem, config.starts), reached, config.limit, console):
            rows.append({"peer": name, "R": R, "n": problem.num_samples, **dataclasses.asdict(run)})
    return rows


def _guarded(
    name: str, problem: Problem, starts: Float[np.ndarray, "s n d"], reached: Test, limit: float, console: Console
) -> list[Run]:
    """A peer that is not installed or fails is said so, and takes no other with it."""
    try:
        return PEERS[name](problem, starts, reached, limit)
    except Exception as error:
        console.print(f"  {name} did not run: {type(error).__name__}: {error}", highlight=False)
        return []


def growth(problems: dict[float, Problem], console: Console) -> Rows:
    """One start of the default method at each n, solved, verified and certified; the second run of each counts.

    seconds_copy: the limit of memory, one copy of H.
    """
    rows = []
    for R, problem in problems.items():
        console.print(f"R = {R:g}, n = {problem.num_samples:,}: growth", highlight=False)
        solve(problem, 1)
        solution = solve(problem, 1)
        H = solution.embedding(0)
        began = time.perf_counter()
        certificate = Certifier(problem).certify(H)
        rows.append(
            {
                "R": R,
                "n": problem.num_samples,
                "seconds_solve": round(solution.timings.solve, 4),
                "seconds_certify": round(time.perf_counter() - began, 4),
                "seconds_copy": float(f"{_seconds_to_copy(H):.3g}"),
                "certified": str(certificate.status),
                "orthogonal_frame": Verifier(problem).verify(H).is_orthogonal_frame,
                "peak_GiB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
            }
        )
    return rows


def stochastic_steps(problems: dict[float, Problem], console: Console) -> Rows:
    """One line of stochastic.csv a problem and peer."""
    rows: Rows = []
    for R, problem in problems.items():
        console.print(f"R = {R:g}, n = {problem.num_samples:,}: stochastic steps", highlight=False)
        try:
            rows += [{"R": R, **row} for row in throughput(problem, _starts(problem, STARTS), BATCH)]
        except ImportError as error:
            console.print(f"  PyTorch did not run: {error}", highlight=False)
    if rows:
        console.print(_plain_table("stochastic steps, uniform batches, same loss", rows))
    return rows


def _seconds_to_copy(H: Float[np.ndarray, "n d"]) -> float:
    """To read H and write it once, the best of five: no step on all samples can take less."""
    to, seconds = np.empty_like(H), []
    for _ in range(5):
        began = time.perf_counter()
        np.copyto(to, H)
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def table(config: Config, rows: Rows) -> Table:
    """Per peer and R: share of starts, median seconds over those that reached the optimum, ratio to staircase."""
    shown = []
    for R in config.R:
        ours = _median_seconds([row for row in rows if row["R"] == R and row["peer"] == "staircase"])
        for peer in config.peers:
            runs = [row for row in rows if row["R"] == R and row["peer"] == peer]
            if not runs:
                continue
            reached = sum(bool(row["reached"]) for row in runs)
            seconds = _median_seconds(runs)
            given = max(float(row["seconds"]) for row in runs)  # type: ignore[arg-type]
            shown.append(
                {
                    "R": f"{R:g}",
                    "n": f"{runs[0]['n']:,}",
                    "peer": peer,
                    "reached": f"{reached}/{len(runs)}",
                    "seconds a start": f"{seconds:.4g}" if seconds else f"never, in {given:.3g}",
                    "ratio": _ratio(seconds, given, ours),
                }
            )
    return _plain_table("time to the optimum, same starts, same stop", shown)


def _ratio(seconds: float | None, given: float, ours: float | None) -> str:
    if not ours:
        return ""
    return f"{seconds / ours:.1f}" if seconds else f"> {given / ours:.0f}"


def _median_seconds(runs: Rows) -> float | None:
    seconds = [float(row["seconds"]) for row in runs if row["reached"]]  # type: ignore[arg-type]
    return float(np.median(seconds)) if seconds else None


def _plain_table(title: str, rows: Rows) -> Table:
    shown = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for name in rows[0]:
        shown.add_column(name, justify="right")
    for row in rows:
        shown.add_row(*(str(value) for value in row.values()))
    return shown


def _problem(config: Config, R: float) -> Problem:
    return Problem.from_class_sizes(step_imbalance(config.k, config.n_min, R), d=config.d, tau=config.tau)


def _starts(problem: Problem, count: int) -> Float[np.ndarray, "s n d"]:
    """The starts that `solve` makes of seed 0."""
    key = jax.random.key_data(jax.random.key(0))
    return np.stack(
        [np.asarray(random_start(key, s, problem.num_points, problem.d, problem.nonneg)) for s in range(count)]
    )


script = partial(command_line.run, main)

if __name__ == "__main__":
    script()
