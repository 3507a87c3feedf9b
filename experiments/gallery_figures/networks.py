"""Cells of the figures on trained networks: `experiments.network_questions` on synthetic images."""

from __future__ import annotations

import dataclasses
from typing import Any

from experiments import train_network
from experiments.harness import sweep
from experiments.harness.cells import Cell, Computed, ProgressCallback
from experiments.network_questions import Config, completed, network_cells, trainings_of

_APART = ("out", "fresh", "dask", "data", "checkpoint")


def question_cells(question: str, **fields: Any) -> tuple[Cell, ...]:
    """The networks of a question, setting after setting, from every seed. fields: those of its `Config`; None
    stands for the question's default."""
    chosen = {name: value for name, value in fields.items() if value is not None}
    config = completed(Config(**{"question": question, **chosen}))
    cells = []
    for place, training in enumerate(trainings_of(config)):
        for seed in range(config.seed, config.seed + config.seeds):
            one = dataclasses.replace(training, seed=seed, seeds=1)
            key = {name: value for name, value in sweep.plain(one).items() if name not in _APART}
            arguments = {"question": question, "training": one}
            cells.append(Cell(f"{question}-{place}-seed{seed}", _answered, arguments, key=key, parts=config.epochs))
    return tuple(cells)


def _answered(*, question: str, training: train_network.Config, progress: ProgressCallback) -> Computed:
    (cell,) = network_cells(question, training, train_network.images_of(training), None)
    dataset, _ = cell.compute(**cell.arguments, progress=progress)
    return dataset.assign_attrs(cell.attrs), {}
