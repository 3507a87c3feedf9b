"""One's own k, R and tau, and fewer starts, in the cells of the gallery."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

from experiments.harness.cells import Cell
from ufm import InvalidInput
from ufm.errors import real_number, whole_number
from ufm.model.problem import LARGEST_TAU, SMALLEST_TAU

# At most so much of each in a quick figure, and these grids.
QUICK_COUNTS = {"inits": 2, "starts": 2, "families": 4, "max_steps": 1000, "steps": 500, "n_min": 10}
QUICK_THIN = ("fine", "coarse", "taus", "etas", "ratios", "batch_sizes", "epochs")
# A certified threshold between two ratios this far apart, relatively.
QUICK_PRECISION = 0.1
MOST_CLASSES, LARGEST_R = 100, 1e6


class Setting(NamedTuple):
    """What is asked of all figures; what is None stays each figure's own. quick: fewer starts, steps and points."""

    k: int | None = None
    R: tuple[float, ...] | None = None
    tau: float | None = None
    quick: bool = False

    def checked(self) -> Setting:
        """The same; InvalidInput for what no figure can be drawn for."""
        if self.k is not None:
            whole_number("k", self.k, 4, f"give 4 to {MOST_CLASSES} classes: pairs need two of each size", MOST_CLASSES)
        if self.R is not None and not self.R:
            raise InvalidInput("R", self.R, "give at least one imbalance ratio")
        for R in self.R or ():
            real_number("R", R, 1.0, LARGEST_R, f"give imbalance ratios from 1 to {LARGEST_R:g}")
        if self.tau is not None:
            real_number("tau", self.tau, SMALLEST_TAU, LARGEST_TAU)
        return self

    def ratios(self, default: tuple[float, ...]) -> tuple[float, ...]:
        """The ratios asked for, in rising order, or the figure's own."""
        return default if self.R is None else tuple(sorted(set(map(_plain, self.R))))

    def ratio(self, default: float) -> float:
        """The largest ratio asked for, of a figure that has one; or the figure's own."""
        return default if self.R is None else _plain(max(self.R))

    def said(self) -> str:
        """In words, for the page."""
        parts = [f"k = {self.k}"] if self.k is not None else []
        parts += [f"R = {', '.join(f'{R:g}' for R in self.ratios(()))}"] if self.R is not None else []
        parts += [f"tau = {self.tau:g}"] if self.tau is not None else []
        return ", ".join(parts + ["computed quickly"] * self.quick)

    def of(self, cell: Cell, *taken: str) -> Cell:
        """The cell with what is asked for of "k" and "tau", if `taken` names them, d in proportion to k.

        What a cell does not have in its arguments it has by default: temperature 1. A cell that differs from the
        gallery's has another name, which its files are called after.
        """
        requested = cell.arguments
        changes: dict[str, Any] = {}
        if "k" in taken and self.k not in (None, requested["k"]):
            changes = {"k": self.k} | {
                n: _scaled(requested[n], self.k / requested["k"]) for n in ("d", "most") if n in requested
            }
        if "tau" in taken and self.tau not in (None, requested.get("tau", 1.0)):
            changes["tau"] = self.tau
        words = [f"{name}{changes[name]:g}" for name in ("k", "tau") if name in changes]
        return changed(cell, {**changes, **(quickly(requested) if self.quick else {})}, words + ["quick"] * self.quick)


def changed(cell: Cell, changes: Mapping[str, Any], words: list[str]) -> Cell:
    """The cell with other arguments, called after them; the cell itself if nothing changes."""
    if not words:
        return cell
    unknown = set(changes) - set(inspect.signature(cell.compute).parameters)
    assert not unknown, f"{cell.name} knows no {unknown}"
    name = "-".join((cell.name, *words))
    arguments = {**cell.arguments, **changes} | ({"name": name} if "name" in cell.arguments else {})
    parts = min(cell.parts, arguments.get("inits", cell.parts))
    return dataclasses.replace(cell, name=name, arguments=arguments, parts=parts)


def quickly(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that make a cell cheap: few starts, steps and losses, every third point of a grid."""
    few = {name: min(most, arguments[name]) for name, most in QUICK_COUNTS.items() if name in arguments}
    thin = {name: _thinned(arguments[name]) for name in QUICK_THIN if isinstance(arguments.get(name), list)}
    thin |= {"losses": arguments["losses"][:3]} if "losses" in arguments else {}
    return few | thin | ({"precision": QUICK_PRECISION} if "precision" in arguments else {})


def _thinned(grid: list[Any]) -> list[Any]:
    """First and last, and one in three between."""
    return grid if len(grid) < 5 else [*grid[:-1:3], grid[-1]]


def _plain(R: float) -> float:
    """Whole ratios as whole numbers, as the gallery's own are written: the same ratio is the same cell."""
    return int(R) if int(R) == R else float(R)


def _scaled(d: int, share: float) -> int:
    return max(1, round(d * share))
