"""A row of a table of figures: what a figure is called, what to see in it, and what draws it from which cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import xarray as xr
from matplotlib.figure import Figure

from experiments.cells import Cell
from experiments.store import Store
from figures import style


class Drawing(NamedTuple):
    """A figure with its title and caption. cells: what `draw` takes, in this order; those of the sweep if empty."""

    title: str
    caption: str
    draw: Callable[[Sequence[xr.Dataset]], Figure]
    cells: tuple[Cell, ...] = ()


def write_drawing(store: Store, name: str, drawing: Drawing, data: Sequence[xr.Dataset]) -> int:
    """Write a figure as PNG and PDF; the bytes of the former."""
    rendered = style.rendered(drawing.draw(data))
    for suffix, content in rendered.items():
        store.write_bytes(f"{name}.{suffix}", content)
    return len(rendered["png"])
