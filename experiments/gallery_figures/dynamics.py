"""What the figures of dynamics are drawn from: cells of the sweep over dynamics, and rates near a frame."""

from __future__ import annotations

from typing import Any

from experiments.gallery_figures.setting import Setting
from experiments.harness.cells import Cell
from experiments.measurements.emergence import FULL
from experiments.measurements.mean_square import rate_cell
from experiments.sweep_dynamics import Config, checked_cells

RANDOM = ("uniform", "class-balanced")


def emergence_cells(setting: Setting) -> tuple[Cell, ...]:
    """Over R, at one temperature and batch size, which is in proportion to the number of classes."""
    k, ratios, tau = setting.k or 10, setting.ratios((1.0, 10.0, 100.0)), setting.tau or 1.0
    counts: dict[str, Any] = {"inits": 2, "max_steps": 500} if setting.quick else {"max_steps": 5000}
    requested = Config(
        R=tuple(map(float, ratios)),
        tau=(tau,),
        sampler=(FULL, *RANDOM),
        batch_size=(32 * k // 10,),
        k=k,
        d=2 * k,
        **counts,
    )
    return tuple(checked_cells(requested))


def rate_cells(setting: Setting) -> tuple[Cell, ...]:
    """One of each sampler; a batch has four samples for each class."""
    batch_size = 4 * (setting.k or 4)
    return tuple(
        setting.of(rate_cell(sampler, batch_size, float(setting.ratio(4.0))), "k")
        for sampler in (*RANDOM, "reshuffled")
    )
