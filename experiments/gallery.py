"""`python -m experiments.gallery`: every figure of the gallery from stored results, computing what is missing."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

from experiments.gallery_figures.setting import Setting
from experiments.gallery_figures.table import FIGURE_ROWS, FIGURES, figures_for
from experiments.harness import command_line, engine
from experiments.harness.cells import log_console, run_cells, say
from experiments.harness.drawing import Drawing, write_drawing
from experiments.harness.store import Store
from ufm import InvalidInput

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWN, NOT_DRAWN = 0, 1
MODULE = "experiments.gallery"


@dataclasses.dataclass(frozen=True)
class Config:
    """Draw the gallery: all its figures, as PNG and PDF, and the page that shows them with their captions, from stored
    results; what is missing is computed first.

    From nothing this takes ten to twenty-five minutes on two cores; with stored results, seconds. The same results
    give the same bytes. With --k, --R or --tau every figure is computed for classes, imbalance ratios and a temperature
    of your own, in d in proportion to k; the page then leaves out the captions, which describe the gallery's own. What
    an option does not change is said. With --width, --font, --font-size and --no-title figures fit your paper:

        python -m experiments.gallery --only F1 --k 6 --R 1 10 --tau 0.5 --width 3.25 --no-title --out my-figures

    From Python: experiments.gallery.draw("F1", k=6, R=(1, 10), tau=0.5, width=3.25, title=False). For longer
    limits and more peers in the benchmark's figure run python -m experiments.benchmark --out <results> first.

    Exit status: 0 if all was drawn, 1 if not, 2 for bad input or a disk that cannot be written, 130 or 143 if stopped.
    Finished results are stored: the same command resumes from them.
    """

    only: tuple[str, ...] = ()
    """Draw only these, by number or name, for example --only F3 cosines. All if not given."""
    k: int | None = None
    """Number of classes, 4 to 100; 10 in most figures of the gallery, 2 to 5 in some."""
    R: tuple[float, ...] | None = None
    """Imbalance ratios, for example --R 1 10 100; a figure of one ratio takes the largest."""
    tau: float | None = None
    """Temperature of the loss; 1 in most figures of the gallery, 0.2 in networks."""
    quick: bool = False
    """Compute with few starts, steps and points: a first look, in a small part of the time."""
    width: float | None = None
    """Width of the figures in inches, 2.5 to 20: 3.25 for one column, 6.75 for two. Of less than 5, panels stand one
    above the other. Each figure's own width if not given."""
    font: str | None = None
    """Font family, one that is installed, for example "DejaVu Serif"."""
    font_size: float | None = None
    """Size of labels in points, 4 to 24; ticks and legends are in proportion. 8 if not given."""
    title: bool = True
    """Whether figures have a title; what names one panel among several stays."""
    out: Path = Path("figures/gallery")
    """Where the figures go, and the page, README.md."""
    results: Path = Path("runs/gallery")
    """Where results are stored. Complete ones of the same parameters are not computed again."""
    fresh: bool = False
    """Compute every result again, that of the benchmark in small."""
    dask: str | None = None
    """Compute on dask.distributed: local:4 for 4 worker processes here, or a scheduler's address, HOST:PORT."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the gallery; the exit status of `Config`."""
    config = command_line.parse(Config, arguments)
    engine.check(config.dask)
    setting = Setting(config.k, config.R, config.tau, config.quick).checked()
    figures = FIGURES if setting == Setting() else figures_for(setting)
    chosen = {name: figures[name] for name in _chosen(config.only)}
    look = _look(config.width, config.font, config.font_size, title=config.title)
    drawn, store = Store(config.out), Store(config.results)
    with store.alone():
        return draw_all(config, setting, chosen, look, drawn, store)


def draw_all(
    config: Config,
    setting: Setting,
    chosen: Mapping[str, Drawing],
    look: Mapping[str, Any],
    drawn: Store,
    store: Store,
) -> int:
    """Compute, draw, write and say; the exit status."""
    from figures import style

    console, began = log_console(), time.perf_counter()
    for name in chosen:
        for line in _unmoved(name, setting):
            say(console, line)
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
            with style.custom(**look):
                size = f"{write_drawing(drawn, name, drawing, [data[file] for file in files]) / 1000:.0f}"
        table.add_row(_number(name), drawing.title, str(len(files) - lacking), size)
    page = gallery_page(FIGURES) if setting == Setting() else custom_page(chosen, setting)
    drawn.write_bytes("README.md", page.encode())
    console.print(table)
    say(
        console,
        f"{len(chosen) - missing} figures in {config.out}, {computed} of {len(cells)} results computed, "
        f"{time.perf_counter() - began:.0f} s. Captions: {config.out / 'README.md'}",
    )
    return NOT_DRAWN if missing else DRAWN


def draw(
    name: str,
    *,
    k: int | None = None,
    R: Sequence[float] | None = None,
    tau: float | None = None,
    quick: bool = False,
    width: float | None = None,
    font: str | None = None,
    font_size: float | None = None,
    title: bool = True,
    results: Path | str = Path("runs/gallery"),
) -> Figure:
    """A figure of the gallery, as `Config` says it: by number or name, "F4" or "cosines".

    Results are stored in the directory `results`; what is missing is computed first, and progress is shown. Raises
    InvalidInput for what cannot be drawn, RuntimeError if a result could not be computed.
    """
    from figures import style

    setting = Setting(k, None if R is None else tuple(R), tau, quick).checked()
    (chosen,) = _chosen([name])
    look, drawing = _look(width, font, font_size, title=title), figures_for(setting)[chosen]
    console, store = log_console(), Store(Path(results))
    for line in _unmoved(chosen, setting):
        say(console, line)
    with store.alone():
        data, _ = run_cells(drawing.cells, store, console, "results", fresh=False, dask=None)
    lacking = [cell.name for cell in drawing.cells if cell.file not in data]
    if lacking:
        raise RuntimeError(f"{chosen}: {', '.join(lacking)} could not be computed")
    with style.custom(**look):
        return drawing.draw([data[cell.file] for cell in drawing.cells])


def _chosen(names: Sequence[str]) -> list[str]:
    """File names of the figures asked for by number, name or both, in the gallery's order; all if none is."""
    known = {word: name for name in FIGURES for word in (_number(name), name.partition("_")[2], name)}
    for word in names:
        if word not in known:
            raise InvalidInput("only", word, f"choose from {', '.join(map(_number, FIGURES))}, or a name as cosines")
    wanted = {known[word] for word in names}
    return [name for name in FIGURES if not names or name in wanted]


def _look(width: float | None, font: str | None, size: float | None, *, title: bool) -> dict[str, Any]:
    """Arguments of `figures.style.custom`; InvalidInput for what cannot be."""
    from figures import style

    look = {"settings": style.fonts(font, size), "width": width, "title": title}
    with style.custom(**look):
        return look


def _unmoved(name: str, setting: Setting) -> list[str]:
    """A line for each option that was given and does not change the figure."""
    lines = FIGURE_ROWS[name].unmoved.items() if name in FIGURE_ROWS else ()
    return [f"{_number(name)}: {said}" for option, said in lines if getattr(setting, option) is not None]


def custom_page(figures: Mapping[str, Drawing], setting: Setting) -> str:
    """The page of figures for one's own k, R or tau: without captions, which tell what the gallery's own show."""
    lines = ["# Figures", "", f"Drawn by `python -m {MODULE}` for {setting.said()}.", ""]
    for name, drawing in figures.items():
        lines += [f"## {_number(name)} {drawing.title}", "", f"![{drawing.title}]({name}.png)", ""]
    return "\n".join(lines)


def gallery_page(figures: Mapping[str, Drawing]) -> str:
    """The page of the gallery in Markdown, to lie beside the figures."""
    lines = [
        "# Gallery",
        "",
        f"Drawn by `python -m {MODULE}` from stored results; results that are missing are computed first.",
        "Each is drawn by the module of its name: F8 by `figures.basins`, as the end of each caption says.",
        f"`python -m {MODULE} --help` says how to draw one for k, R, tau, a width and fonts of your own.",
        "",
    ]
    for name, drawing in figures.items():
        lines += [f"## {_number(name)} {drawing.title}", "", f"![{drawing.title}]({name}.png)", ""]
        lines += [f"{drawing.caption} (`figures.{name.partition('_')[2]}`)", ""]
    return "\n".join(lines)


def _number(name: str) -> str:
    return name.partition("_")[0]


script = partial(command_line.run, main)

if __name__ == "__main__":
    script()
