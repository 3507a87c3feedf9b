"""`python -m experiments.gallery` draws the figures of the gallery from stored results, and computes missing ones."""

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
    """Draw all figures of the gallery as PNG and PDF, and write the page that shows them with their captions. Stored
    results are used; missing results are computed first.

    Without stored results this takes ten to twenty-five minutes on two cores, with them seconds. The same results give
    the same bytes. With --k, --R or --tau every figure is computed for your number of classes, imbalance ratios or
    temperature, with d in proportion to k. The page then has no captions, since these describe the figures of the
    gallery. The command names the options that do not change a figure. With --width, --font, --font-size and --no-title
    the figures fit your paper:

        python -m experiments.gallery --only F1 --k 6 --R 1 10 --width 3.25 --out my-figures

    In Python the call is experiments.gallery.draw("F1", k=6, R=(1, 10), tau=0.5, width=3.25, title=False). For longer
    limits and more peers in the benchmark's figure run python -m experiments.benchmark --out <results> first.

    Exit status: 0 if all figures were drawn, 1 if not, 2 for invalid input or a disk that cannot be written, 130 or 143
    if stopped. Finished results are stored: after any stop the same command resumes from them.
    """

    only: tuple[str, ...] = ()
    """Draw only these figures, by number or name, for example --only F3 cosines. Default: all."""
    k: int | None = None
    """Number of classes, 4 to 100. Default: 10 in most figures, 2 to 5 in some."""
    R: tuple[float, ...] | None = None
    """Imbalance ratios, for example --R 1 10 100. A figure of one ratio takes the largest."""
    tau: float | None = None
    """Temperature of the loss. Default: 1 in most figures, 0.2 for networks."""
    quick: bool = False
    """Compute with few starts, steps and points, for a first look in a small part of the time."""
    width: float | None = None
    """Width of the figures in inches, 2.5 to 20: 3.25 for one column, 6.75 for two. Below 5 inches the panels stand one
    above the other. Default: each figure has its own width."""
    font: str | None = None
    """An installed font family, for example "DejaVu Serif"."""
    font_size: float | None = None
    """Size of labels in points, 4 to 24; ticks and legends are in proportion. Default: 8."""
    title: bool = True
    """Whether figures have a title. Titles of single panels stay."""
    out: Path = Path("figures/gallery")
    """Directory of the figures and of the page, README.md."""
    results: Path = Path("runs/gallery")
    """Directory of the results. Complete results of the same parameters are not computed again."""
    fresh: bool = False
    """Compute every result again; for the benchmark a small one."""
    dask: str | None = None
    """Compute on dask.distributed: local:4 for 4 worker processes here, or a scheduler's address, HOST:PORT."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the gallery; returns the exit status that `Config` states."""
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
    """Compute the results, draw the figures and write the page; returns the exit status."""
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
    """A figure of the gallery by number or name, as "F4" or "cosines"; the arguments are those of `Config`.

    Results are stored in the directory `results`. Missing results are computed first, and progress is shown. Raises
    InvalidInput for invalid arguments, and RuntimeError if a result could not be computed.
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


def _chosen(requested: Sequence[str]) -> list[str]:
    """File names of the figures requested by number, name or both, in the gallery's order; all if none is requested."""
    known = {word: name for name in FIGURES for word in (_number(name), name.partition("_")[2], name)}
    for word in requested:
        if word not in known:
            raise InvalidInput("only", word, f"choose from {', '.join(map(_number, FIGURES))}, or a name, as cosines")
    wanted = {known[word] for word in requested}
    return [name for name in FIGURES if not requested or name in wanted]


def _look(width: float | None, font: str | None, size: float | None, *, title: bool) -> dict[str, Any]:
    """Arguments of `figures.style.custom`. Raises InvalidInput for invalid values."""
    from figures import style

    look = {"settings": style.fonts(font, size), "width": width, "title": title}
    with style.custom(**look):
        return look


def _unmoved(name: str, setting: Setting) -> list[str]:
    """A line for each option that is set and does not change the figure."""
    lines = FIGURE_ROWS[name].unmoved.items() if name in FIGURE_ROWS else ()
    return [f"{_number(name)}: {said}" for option, said in lines if getattr(setting, option) is not None]


def custom_page(figures: Mapping[str, Drawing], setting: Setting) -> str:
    """The page of figures for another k, R or tau, without the captions, which describe the figures of the gallery."""
    lines = ["# Figures", "", f"Drawn by `python -m {MODULE}` for {setting.said()}.", ""]
    for name, drawing in figures.items():
        lines += [f"## {_number(name)} {drawing.title}", "", f"![{drawing.title}]({name}.png)", ""]
    return "\n".join(lines)


def gallery_page(figures: Mapping[str, Drawing]) -> str:
    """The page of the gallery in Markdown, which links to figures in its own directory."""
    lines = [
        "# Gallery",
        "",
        f"Drawn by `python -m {MODULE}` from stored results; missing results are computed first.",
        "The end of each caption names the module that draws the figure.",
        f"`python -m {MODULE} --help` says how to draw a figure for another k, R, tau, width or font.",
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
