"""The gallery: every figure from stored results, running what is missing."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import xarray as xr
from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from experiments import command_line
from experiments.gallery_batches import FAMILIES, batching_piece, graphs_piece, reshuffling_piece
from experiments.gallery_data import (
    RATIOS,
    K,
    Piece,
    basin_piece,
    benchmark_pieces,
    certificates_piece,
    cosines_piece,
    local_piece,
    random_starts_piece,
    sweep_piece,
    temperature_piece,
)
from experiments.store import Store
from figures import (
    basins,
    batching,
    benchmark,
    certificate,
    class_mean_gram,
    cosines,
    geometry,
    interaction_graphs,
    local_convergence,
    reshuffling,
    style,
    temperature,
)
from figures.captions import CAPTIONS

Number = Literal["F1", "F2", "F3", "F4", "F5", "F6", "F7", "F8", "F9", "F10", "F11"]


@dataclasses.dataclass(frozen=True)
class Config:
    """Draw the gallery: the eleven figures, as PNG and PDF, from stored results; what is missing is computed first.

    F1 class-mean Gram matrices. F2 geometry against iterations. F3 excess and the predicted local rate.
    F4 cosines without the ReLU. F5 batch interaction graphs. F6 batch families and batch sizes.
    F7 the best temperature. F8 basins of plain projected gradient. F9 peers. F10 certificates.
    F11 how often batches must be reshuffled.

    From nothing this takes ten to twenty-five minutes on two cores; with stored results, seconds. The same results
    give the same bytes. F9 is drawn from the tables under <results>/benchmark: for longer limits and more peers
    run python -m experiments.benchmark --out <results>/benchmark first.
    """

    only: tuple[Number, ...] = ()
    """Draw only these, for example --only F3 F7. All if not given."""
    out: Path = Path("figures/gallery")
    """Where the figures go."""
    results: Path = Path("runs/gallery")
    """Where results are kept. Complete ones of the same parameters are not computed again."""
    fresh: bool = False
    """Compute every result again, except the tables of the benchmark: delete those to have them made anew."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """A figure: the results it is drawn from in the order `draw` takes them."""

    pieces: tuple[Piece, ...]
    draw: Callable[[list[xr.Dataset]], Figure]


def entries() -> dict[str, Entry]:
    """The gallery."""
    step = tuple(sweep_piece(R) for R in RATIOS)
    long_tail = tuple(sweep_piece(R, imbalance="long-tail") for R in RATIOS)
    no_relu = tuple(sweep_piece(R, nonneg=False, inits=8) for R in RATIOS)
    families = tuple(batching_piece(family, size) for family in FAMILIES for size in (4, 8, 14, 28))
    by_dimension = [(d, R, 1.0) for d in (K, 2 * K, 4 * K, 10 * K) for R in RATIOS]
    by_temperature = [(2 * K, R, tau) for tau in (0.2, 0.5, 2.0, 5.0) for R in RATIOS]
    basin = tuple(basin_piece(d, R, tau) for d, R, tau in by_dimension + by_temperature)
    return {
        "F1": Entry(no_relu + step, class_mean_gram.draw),
        "F2": Entry(step + long_tail, geometry.draw),
        "F3": Entry((random_starts_piece(), *map(local_piece, RATIOS)), local_convergence.draw),
        "F4": Entry((cosines_piece(),), lambda data: cosines.draw(data[0])),
        "F5": Entry((graphs_piece(),), lambda data: interaction_graphs.draw(data[0])),
        "F6": Entry(families, batching.draw),
        "F7": Entry(tuple(map(temperature_piece, RATIOS)), temperature.draw),
        "F8": Entry(basin, basins.draw),
        "F9": Entry(benchmark_pieces(), lambda data: benchmark.draw(*data)),
        "F10": Entry((certificates_piece(),), lambda data: certificate.draw(data[0])),
        "F11": Entry((reshuffling_piece(),), lambda data: reshuffling.draw(data[0])),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the gallery; exit status 0, or 2 for bad input."""
    config = command_line.parse(Config, arguments)
    began = time.perf_counter()
    drawn = Store(config.out)
    store = Store(config.results)
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, 100)
    chosen = {number: entry for number, entry in entries().items() if not config.only or number in config.only}
    pieces = {piece.file: piece for entry in chosen.values() for piece in entry.pieces}
    with store.alone():
        results, computed = gather(pieces, store, console, fresh=config.fresh)
    table = Table("", "figure", "results", "[s]", "PNG [kB]", box=box.SIMPLE_HEAD)
    for number, entry in chosen.items():
        files = style.rendered(entry.draw([results[piece.file] for piece in entry.pieces]))
        for suffix, content in files.items():
            drawn.write_bytes(f"{CAPTIONS[number].file}.{suffix}", content)
        own = {piece.file for piece in entry.pieces}
        seconds = sum(computed.get(file, 0.0) for file in own)
        table.add_row(
            number, CAPTIONS[number].title, str(len(own)), f"{seconds:.0f}", f"{len(files['png']) / 1000:.0f}"
        )
    console.print(table)
    console.print(
        f"{len(chosen)} figures in {config.out}, {len(computed)} of {len(pieces)} results computed, "
        f"{time.perf_counter() - began:.0f} s. Captions: figures/README.md",
        highlight=False,
        soft_wrap=True,
    )
    return 0


def gather(
    pieces: dict[str, Piece], store: Store, console: Console, *, fresh: bool
) -> tuple[dict[str, xr.Dataset], dict[str, float]]:
    """Every result, from the store if it is there, else computed and stored; and the seconds of those computed."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    results, computed = {}, {}
    with Progress(*columns, console=console, transient=not console.is_terminal) as bar:
        task = bar.add_task("", total=len(pieces))
        for file, piece in pieces.items():
            bar.update(task, description=piece.name)
            result = None if fresh else piece.stored(store)
            if result is None:
                began = time.perf_counter()
                result = piece.run(store)
                computed[file] = time.perf_counter() - began
            results[file] = result
            bar.advance(task)
    return results, computed


if __name__ == "__main__":
    command_line.run(lambda: main(sys.argv[1:]))
