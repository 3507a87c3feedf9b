"""Tables for a terminal: headings of whole words, and as many tables below one another as the width asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

# What headings mean, for the line below a table.
LEGEND = {
    "k-OF": "starts that ended in an orthogonal frame",
    "spurious": "stationary, but another point is better",
    "open": "stationary, and not known whether another point is better",
    "unfinished": "not stationary, or not finite",
}


def print_table(
    title: str,
    rows: Sequence[Mapping[str, str]],
    console: Console,
    *,
    keys: Sequence[str],
    legend: Mapping[str, str] | None = None,
) -> None:
    """Rows by heading; a heading has one word to a line.

    What does not fit beside each other is printed below, with the columns `keys` repeated, so that no width cuts a
    column or a word. legend: what headings mean, said below for those that are there. Cells may hold markup.
    """
    console.print(title, style="italic", markup=False, highlight=False)
    for headings in _blocks(rows, keys, console):
        console.print(_table(rows, headings))
    said = "; ".join(f"{name}: {meaning}" for name, meaning in (legend or {}).items() if name in rows[0])
    if said:
        console.print(f"{said}.\n", style="dim", markup=False, highlight=False)


def small(value: float) -> str:
    """A number in one or two digits: "4e-20", "0.35", "-8.2"; exact zero is "0"."""
    return f"{value:.0e}" if 0 < abs(value) < 1e-3 else f"{abs(value) and value:.2g}"


def _blocks(rows: Sequence[Mapping[str, str]], keys: Sequence[str], console: Console) -> list[list[str]]:
    """The headings of each table: as many as fit in the console's width, at least one beside the keys."""
    keys = [name for name in keys if name in rows[0]]
    blocks: list[list[str]] = [[]]
    for name in (name for name in rows[0] if name not in keys):
        if blocks[-1] and _width(_table(rows, [*keys, *blocks[-1], name]), console) > console.width:
            blocks.append([])
        blocks[-1].append(name)
    return [[*keys, *block] for block in blocks]


def _width(table: Table, console: Console) -> int:
    return Measurement.get(console, console.options.update(max_width=10_000), table).maximum


def _table(rows: Sequence[Mapping[str, str]], headings: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in headings:
        style = "dim" if name.endswith("(s)") else ""
        table.add_column(Text(name.replace(" ", "\n")), justify="right", style=style, no_wrap=True)
    for row in rows:
        table.add_row(*(row[name] for name in headings))
    return table
