"""What the figures of dynamics are drawn from: cells of the sweep over dynamics, and rates near a frame."""

from __future__ import annotations

from experiments.harness.cells import Cell
from experiments.measurements.emergence import FULL
from experiments.measurements.mean_square import rate_cell
from experiments.sweep_dynamics import Config, checked_cells

RANDOM = ("uniform", "class-balanced")


def emergence_cells() -> tuple[Cell, ...]:
    """Over R, at one temperature and batch size."""
    asked = Config(R=(1.0, 10.0, 100.0), sampler=(FULL, *RANDOM), max_steps=5000)
    return tuple(checked_cells(asked))


def rate_cells() -> tuple[Cell, ...]:
    """One of each sampler."""
    return tuple(rate_cell(sampler, 16, 4.0) for sampler in (*RANDOM, "reshuffled"))
