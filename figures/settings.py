"""The settings that distinguish trained networks, in the words of a legend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import xarray as xr

# The settings that questions about networks vary, one at a time.
VARIED = ("width", "depth", "d", "batch_norm", "activation", "tau", "batching")
_IN_WORDS = {"batch_norm": "batch norm {}", "activation": "{}", "batching": "{}", "tau": r"$\tau$ = {:g}"}


def settings(cells: Sequence[xr.Dataset]) -> dict[str, list[xr.Dataset]]:
    """The cells by setting, seeds together, in their order; the first setting is the base.

    The name of a setting lists its values that differ from the base. If only one setting varies, the base is named by
    its value too.
    """
    base = _values(cells[0])
    differ = [name for name in VARIED if len({_values(cell)[name] for cell in cells}) > 1]
    groups: dict[str, list[xr.Dataset]] = {}
    for cell in cells:
        values = _values(cell)
        named = [name for name in differ if values[name] != base[name] or len(differ) == 1]
        groups.setdefault(", ".join(_said(name, values[name]) for name in named) or "base", []).append(cell)
    return groups


def common(cells: Sequence[xr.Dataset]) -> str:
    """The settings that all cells share, in words."""
    attrs, base = cells[0].attrs, _values(cells[0])
    differ = [name for name in VARIED if len({_values(cell)[name] for cell in cells}) > 1]
    shown = [name for name in ("activation", "tau") if name not in differ]
    return ", ".join(
        (f"MLP on {attrs['dataset']}", f"R = {attrs['R']:g}", f"n = {attrs['n']}",
         *(_said(name, base[name]) for name in shown), f"{attrs['epochs']} epochs")
    )  # fmt: skip


def _values(cell: xr.Dataset) -> dict[str, Any]:
    return {name: getattr(cell.attrs[name], "item", lambda name=name: cell.attrs[name])() for name in VARIED}


def _said(name: str, value: Any) -> str:
    if (name, value) == ("activation", "none"):
        return "no final activation"
    return _IN_WORDS.get(name, f"{name} = {{}}").format(value)
