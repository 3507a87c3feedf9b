"""What the figures of trained networks are drawn from: `experiments.network_questions` on images that need no file."""

from __future__ import annotations

import dataclasses
from typing import Any

from experiments import train_network
from experiments.harness import sweep
from experiments.harness.cells import Cell, Computed, ProgressCallback
from experiments.network_questions import Config, cells_of_training, completed, trainings_of

_APART = ("out", "fresh", "dask", "data", "checkpoint")


def question_cells(question: str, **settings: Any) -> tuple[Cell, ...]:
    """The networks of a question, setting after setting, from every seed. asked: fields of its `Config`; None
    leaves a field its own value."""
    chosen = {name: value for name, value in settings.items() if value is not None}
    config = completed(Config(**{"question": question, **chosen}))
    cells = []
    for place, training in enumerate(trainings_of(config)):
        for seed in range(config.seed, config.seed + config.seeds):
            one = dataclasses.replace(training, seed=seed, seeds=1)
            key = {name: value for name, value in sweep.plain(one).items() if name not in _APART}
            arguments = {"question": question, "training": one}
            cells.append(Cell(f"{question}-{place}-seed{seed}", _question, arguments, key=key, parts=config.epochs))
    return tuple(cells)


def _question(*, question: str, training: train_network.Config, progress: ProgressCallback) -> Computed:
    (cell,) = cells_of_training(question, training, train_network.images_of(training), None)
    dataset, _ = cell.compute(**cell.arguments, progress=progress)
    return dataset.assign_attrs(cell.attrs), {}
