"""`python -m experiments.gallery`: every figure of the gallery from stored results, computing what is missing."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from rich import box
from rich.table import Table

from experiments.gallery_figures.table import FIGURES
from experiments.harness import command_line, engine
from experiments.harness.cells import log_console, run_cells, say
from experiments.harness.drawing import Drawing, write_drawing
from experiments.harness.store import Store
from ufm import InvalidInput

DRAWN, NOT_DRAWN = 0, 1
MODULE = "experiments.gallery"


@dataclasses.dataclass(frozen=True)
class Config:
    """Draw the gallery: all its figures, as PNG and PDF, and the page that shows them with their captions, from stored
    results; what is missing is computed first.

    From nothing this takes ten to twenty-five minutes on two cores; with stored results, seconds. The same results
    give the same bytes. For longer limits and more peers in the benchmark's figure run
    python -m experiments.benchmark --out <results> first.

    Exit status: 0 if all was drawn, 1 if not, 2 for bad input or a disk that cannot be written, 130 or 143 if stopped.
    Finished results are kept: the same command goes on from them.
    """

    only: tuple[str, ...] = ()
    """Draw only these, for example --only F3 F7. All if not given."""
    out: Path = Path("figures/gallery")
    """Where the figures go, and the page, README.md."""
    results: Path = Path("runs/gallery")
    """Where results are kept. Complete ones of the same parameters are not computed again."""
    fresh: bool = False
    """Compute every result again, that of the benchmark in small."""
    dask: str | None = None
    """Compute on dask.distributed: local:4 for 4 worker processes here, or a scheduler's address, HOST:PORT."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the gallery; the exit status of `Config`."""
    config = command_line.parse(Config, arguments)
    engine.check(config.dask)
    numbers = {_number(name): name for name in FIGURES}
    for number in config.only:
        if number not in numbers:
            raise InvalidInput("only", number, f"choose from {', '.join(numbers)}")
    chosen = {name: FIGURES[name] for number, name in numbers.items() if not config.only or number in config.only}
    drawn, store = Store(config.out), Store(config.results)
    with store.alone():
        return draw_all(config, chosen, drawn, store)


def draw_all(config: Config, chosen: Mapping[str, Drawing], drawn: Store, store: Store) -> int:
    """Compute, draw, write and say; the exit status."""
    console, began = log_console(), time.perf_counter()
    cells = {}
    for name, drawing in chosen.items():
        alone = command_line.command(MODULE, config, only=(_number(name),), fresh=False, dask=None)
        cells |= {cell.file: dataclasses.replace(cell, alone=alone) for cell in drawing.cells if cell.file not in cells}
    data, computed = run_cells(cells.values(), store, console, "results", fresh=config.fresh, dask=config.dask)
    table = Table("", "figure", "results", "PNG [kB]", box=box.SIMPLE_HEAD)
    missing = 0
    for name, drawing in chosen.items():
        files = [cell.file for cell in drawing.cells]
        lacking = len(set(files) - set(data))
        missing += bool(lacking)
        size = "not drawn"
        if not lacking:
            size = f"{write_drawing(drawn, name, drawing, [data[file] for file in files]) / 1000:.0f}"
        table.add_row(_number(name), drawing.title, str(len(files) - lacking), size)
    drawn.write_bytes("README.md", gallery_page(FIGURES).encode())
    console.print(table)
    say(
        console,
        f"{len(chosen) - missing} figures in {config.out}, {computed} of {len(cells)} results computed, "
        f"{time.perf_counter() - began:.0f} s. Captions: {config.out / 'README.md'}",
    )
    return NOT_DRAWN if missing else DRAWN


def gallery_page(figures: Mapping[str, Drawing]) -> str:
    """The page of the gallery in Markdown, to lie beside the figures."""
    lines = [
        "# Gallery",
        "",
        f"Drawn by `python -m {MODULE}` from stored results; results that are missing are computed first.",
        f"One module a figure in `figures`, one style for all; `python -m {MODULE} --help` says more.",
        "",
    ]
    for name, drawing in figures.items():
        lines += [f"## {_number(name)} {drawing.title}", "", f"![{drawing.title}]({name}.png)", "", drawing.caption, ""]
    return "\n".join(lines)


def _number(name: str) -> str:
    return name.partition("_")[0]


script = partial(command_line.run, main)

if __name__ == "__main__":
    script()
