"""What the figures of dynamics are drawn from: cells of the sweep over dynamics, and rates near a frame."""

from __future__ import annotations

import dataclasses

from experiments.cells import Cell
from experiments.emergence import FULL
from experiments.mean_square import rate_cell
from experiments.sweep_dynamics import Config, checked_cells

RANDOM = ("uniform", "class-balanced")


def emergence_cells() -> tuple[Cell, ...]:
    """Over R at one temperature and batch size, and over each of these at one R; the full batch for longer."""
    config = Config(max_steps=5000)
    asked = [
        {"R": (1.0, 10.0, 100.0), "sampler": (FULL, *RANDOM)},
        {"R": (1e3,), "sampler": (FULL,), "max_steps": 50_000},
        {"R": (10.0,), "tau": (0.2, 0.5, 3.0), "sampler": (FULL, *RANDOM)},
        {"R": (10.0,), "batch_size": (16, 64), "sampler": RANDOM},
    ]
    cells = [cell for own in asked for cell in checked_cells(dataclasses.replace(config, **own))]
    return tuple({cell.file: cell for cell in cells}.values())


def rate_cells() -> tuple[Cell, ...]:
    """One of each sampler."""
    return tuple(rate_cell(sampler, 16, 4.0) for sampler in (*RANDOM, "reshuffled"))
