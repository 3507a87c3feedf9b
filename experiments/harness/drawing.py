"""A row of a table of figures: what a figure is called, what to see in it, and what draws it from which cells."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import xarray as xr

from experiments.harness.cells import Cell
from experiments.harness.store import Store

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Drawing(NamedTuple):
    """A figure with its title and caption. cells: what `draw` takes, in this order; those of the sweep if empty."""

    title: str
    caption: str
    draw: Callable[[Sequence[xr.Dataset]], Figure]
    cells: tuple[Cell, ...] = ()


def drawn_by(name: str) -> Callable[[Sequence[xr.Dataset]], Figure]:
    """`draw` of the module figures.NAME, which is imported, and matplotlib with it, when it first draws."""

    def draw(data: Sequence[xr.Dataset]) -> Figure:
        return importlib.import_module(f"figures.{name}").draw(data)

    return draw


def import_ahead() -> None:
    """Begin to import what the end of a sweep waits for, a conic solver's modelling and matplotlib; return at once."""

    def imported() -> None:
        for name in ("cvxpy", "figures.style"):
            importlib.import_module(name)

    threading.Thread(target=imported, name="imports").start()


def write_drawing(store: Store, name: str, drawing: Drawing, data: Sequence[xr.Dataset]) -> int:
    """Write a figure as PNG and PDF; the bytes of the former."""
    from figures import style

    rendered = style.rendered(drawing.draw(data))
    for suffix, content in rendered.items():
        store.write_bytes(f"{name}.{suffix}", content)
    return len(rendered["png"])
