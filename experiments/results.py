"""The results of a sweep: all cells of an out-folder as one xarray dataset, or as a pandas table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from experiments.harness.store import COORDINATES, opened
from ufm.errors import InvalidInput

if TYPE_CHECKING:
    import pandas as pd


def read(folder: str | Path) -> xr.Dataset:
    """All cells of the out-folder of an experiment as one dataset, along the new dimension `cell`.

    - coordinates along cell: R and tau, where cells have them, and `name`, the file of the cell. Cells are sorted by R,
      tau and name.
    - Attributes that differ between cells become variables along cell; the others stay attributes.
    - Cells with fewer starts, records or samples than others are filled up: with NaN, text with "". Whole numbers and
      truth values become floats where that happens.

    Raises InvalidInput if there is no cell, if a cell is damaged, or if cells of different experiments are mixed.
    """
    cells = _cells(Path(folder))
    names = list(cells)
    parts = list(cells.values())
    variables = {name: None for cell in parts for name in cell.data_vars}
    shared, differing = _attributes(parts)
    data: dict[str, Any] = {name: ("cell", values) for name, values in differing.items() if name not in variables}
    data |= {str(name): _stacked(str(name), parts) for name in variables}
    coordinates: dict[str, Any] = {"name": ("cell", names)}
    for name in COORDINATES:
        if all(name in cell.coords and not cell[name].dims for cell in parts):
            coordinates[name] = ("cell", [float(cell[name]) for cell in parts])
    for name in {str(name): None for cell in parts for name in cell.coords if cell[name].dims}:
        values = [cell[name] for cell in parts if name in cell.coords]
        longest = max(values, key=lambda one: one.size)
        if all(one.dims == longest.dims and np.array_equal(one, longest[: one.size]) for one in values):
            coordinates[name] = longest.variable
        else:  # each cell has values of its own
            data[f"{name}_of_cell"] = _stacked(name, parts)
    return xr.Dataset(data, coordinates, shared)


def frame(folder: str | Path, along: str = "init") -> pd.DataFrame:
    """A pandas table with one line for each start of each cell of an out-folder.

    Columns: the name of the cell; its attributes that are numbers or text; the start; and every variable that has one
    value for each start. along: another dimension than the starts. Raises InvalidInput as `read` does, and if no cell
    has that dimension.
    """
    import pandas as pd

    tables = []
    for name, cell in _cells(Path(folder)).items():
        if along not in cell.dims:
            continue
        columns = {str(name): cell[name].values for name in cell.data_vars if cell[name].dims == (along,)}
        index = cell[along].values if along in cell.coords else np.arange(cell.sizes[along])
        attributes = {key: value for key, value in cell.attrs.items() if np.ndim(value) == 0 and key not in columns}
        tables.append(pd.DataFrame({"name": name, **attributes, along: index, **columns}))
    if not tables:
        raise InvalidInput("along", along, "no cell has this dimension")
    return pd.concat(tables, ignore_index=True)


def _cells(folder: Path) -> dict[str, xr.Dataset]:
    """The cells by file name, sorted by R, tau and name."""
    cells = {}
    for path in (folder / "cells").glob("*.nc"):
        try:
            cells[path.name], _ = opened(path, path.with_name(f"{path.name}.sha256"), f"cells/{path.name}")
        except Exception as error:  # whatever a damaged file raises
            raise InvalidInput("folder", str(folder), f"cell {path.name} cannot be read: {error}") from error
    if not cells:
        raise InvalidInput("folder", str(folder), "there is no cell; give the folder that --out named")

    def place(name: str) -> tuple[Any, ...]:
        coordinates = cells[name].coords
        return *(
            float(coordinates[of]) if of in coordinates and not coordinates[of].dims else 0.0 for of in COORDINATES
        ), name

    return {name: cells[name] for name in sorted(cells, key=place)}


def _attributes(cells: Sequence[xr.Dataset]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Attributes that all cells share, and the values of the others: numbers, or text where some are no numbers."""
    shared, differing = {}, {}
    for name in {name: None for cell in cells for name in cell.attrs}:
        values: list[Any] = [cell.attrs.get(name) for cell in cells]
        if all(np.array_equal(value, values[0]) for value in values):
            shared[name] = values[0]
        elif all(np.ndim(value) == 0 for value in values) and name not in COORDINATES:
            is_number = all(value is None or isinstance(value, (int, float, np.number)) for value in values)
            fill: Any = np.nan if is_number else ""
            filled = [fill if value is None else value if is_number else str(value) for value in values]
            differing[name] = np.array(filled)
    return shared, differing


def _stacked(name: str, cells: Sequence[xr.Dataset]) -> tuple[tuple[str, ...], np.ndarray]:
    """One variable of all cells along cell, filled up to the largest size."""
    present = [cell[name] for cell in cells if name in cell.variables]
    dims = tuple(str(dim) for dim in present[0].dims)
    if any(one.dims != present[0].dims for one in present):
        raise InvalidInput("folder", name, "this variable has other dimensions in other cells; read them one by one")
    shape = tuple(max(one.sizes[dim] for one in present) for dim in dims)
    whole = len(present) == len(cells) and all(one.shape == shape for one in present)
    are_numbers = all(one.dtype.kind in "biuf" for one in present)
    if are_numbers and whole:
        stacked = np.zeros((len(cells), *shape), np.result_type(*(one.dtype for one in present)))
    elif are_numbers:
        stacked = np.full((len(cells), *shape), np.nan)
    else:
        stacked = np.full((len(cells), *shape), "", object)
    for place, cell in enumerate(cells):
        if name in cell.variables:
            stacked[(place, *(slice(size) for size in cell[name].shape))] = cell[name].values
    return ("cell", *dims), stacked if are_numbers else stacked.astype(str)
