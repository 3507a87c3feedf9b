"""Four questions to trained networks that need a certified optimum to be answered."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import xarray as xr
from rich.console import Console

from experiments import train_network
from experiments.harness import command_line, sweep
from experiments.harness.cells import Cell, log_console
from experiments.harness.store import Store
from experiments.measurements.questions import MOST_RELEASED, question_cell
from experiments.reports import questions as questions_report
from figures.settings import VARIED, settings
from networks.data import CLASSES
from ufm import InvalidInput
from ufm.errors import whole_number

MODULE = "experiments.network_questions"
# The defaults of each question; the first value of an axis belongs to the base.
DEFAULTS: dict[str, dict[str, Any]] = {
    "landscape": {
        "width": (512, 32), "depth": (2, 0, 4), "d": (128, 16), "batch_norm": ("off", "on"),
        "activation": ("relu", "none"),
    },
    "autopsy": {"tau": (0.2, 0.1, 0.5), "label_noise": 0.02, "record": 2},
    "batches": {
        "batching": tuple(f"recycled:{pool}" for pool in (1, 2, 5, 10, 20, 40)), "R": 20.0, "batch_size": 50,
        "width": (256,),
    },
    "activations": {"activation": ("relu", "none", "leaky-relu", "gelu")},
}  # fmt: skip
COMMON = {
    "width": (512,), "depth": (2,), "d": (128,), "batch_norm": ("off",), "activation": ("relu",), "tau": (0.2,),
    "batching": ("reshuffled",), "R": 10.0, "label_noise": 0.0, "batch_size": 250, "record": 10,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Config:
    """Train MLPs on imbalanced images, and ask of their features what only a certified optimum can answer:

    landscape: is it the loss or the network that keeps features from the frame? Released as free embeddings they
    descend by plain projected gradient (does the landscape stop them?) and by the staircase (is the optimum there?),
    over width, depth, d, batch norm and final activation.

    autopsy: are wrong labels, planted, found by their shares in the excess, and better than by their distance from the
    class mean?

    batches: if the epochs take turns among E partitions, do features become a frame where theory says that E force it?

    activations: is the geometry after each final activation the certified one of its model, the frame for ReLU, that
    of UFM for activations that reach all directions?

    Of the options with several values the first one of each makes the base, and every other value is tried alone. What
    is not given is chosen for the question (config.json says it). Without --dataset and --data no file is needed.

    Exit status: 0 if every network was trained and asked, 1 if one failed, 2 for bad input or a disk that cannot be
    written, 130 or 143 if stopped. Whatever stopped it, the same command goes on from the last checkpoint.
    """

    question: Literal["landscape", "autopsy", "batches", "activations"] = "landscape"
    """What is asked."""
    width: tuple[int, ...] | None = None
    """Hidden units of a layer; 512, landscape also 32, batches 256."""
    depth: tuple[int, ...] | None = None
    """Hidden layers; 2, landscape also 0 and 4."""
    d: tuple[int, ...] | None = None
    """Features; 128, landscape also 16. At least k + 1 leave room for the frame."""
    batch_norm: tuple[Literal["off", "on"], ...] | None = None
    """Batch norm before every activation; off, landscape also on."""
    activation: tuple[str, ...] | None = None
    """Last activations, see train_network; relu, landscape also none, activations none, leaky-relu and gelu."""
    tau: tuple[float, ...] | None = None
    """Temperatures; 0.2, autopsy also 0.1 and 0.5."""
    batching: tuple[str, ...] | None = None
    """How batches are drawn, see train_network; reshuffled, batches recycled:1, :2, :5, :10, :20 and :40."""
    R: float | None = None
    """Imbalance ratio; 10, batches 20."""
    label_noise: float | None = None
    """Share of wrong labels planted; 0, autopsy 0.02."""
    batch_size: int | None = None
    """Images of a batch; 250, batches 50."""
    record: int | None = None
    """Epochs from one measurement of the geometry to the next; 10, autopsy 2."""
    n_maj: int = 200
    """Images of the largest class; half of the classes have so many, the others n-maj / R."""
    k: int = CLASSES
    """Number of classes: the first k of the data set."""
    epochs: int = 100
    """Passes over the images."""
    seeds: int = 3
    """Runs of every setting: images, initial weights and batches are drawn anew."""
    seed: int = 0
    """The first seed."""
    dataset: Literal["synthetic", "mnist", "fashion-mnist", "cifar10"] = train_network.SYNTHETIC
    """What to train on. All but synthetic are read from --data; nothing is downloaded."""
    data: Path | None = None
    """Directory of the files, see train_network; Debian's dataset-fashion-mnist puts some into /usr/share/datasets."""
    out: Path = Path("runs/questions")
    """The results go into a directory of the question's name in it; cells found there are not run again."""
    fresh: bool = False
    """Train every network again."""
    dask: str | None = None
    """Run the cells on dask.distributed: local:4 for 4 worker processes here, or a scheduler's address, HOST:PORT."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, ask, write and say; the exit status of `Config`."""
    config = completed(command_line.parse(Config, arguments))
    trainings = checked_trainings(config)
    data = train_network.images_of(trainings[0])
    store = Store(config.out / config.question)
    with store.alone():
        cells = cells_of(config, trainings, data, store)
        console = log_console()
        result = sweep.run_and_write(kind_of(config.question), config, cells, store, console)
        train_network.forget_checkpoints(cells, store)
        if result:
            print_summary(config, result, len(cells) - len(result), store, console)
        return 0 if len(result) == len(cells) else 1


def completed(config: Config) -> Config:
    """With the question's own value of whatever is not given."""
    parameters = {**COMMON, **DEFAULTS[config.question]}
    return dataclasses.replace(
        config, **{name: value for name, value in parameters.items() if getattr(config, name) is None}
    )


def trainings_of(config: Config) -> list[train_network.Config]:
    """The base, and every other value of an axis alone, as configurations of one network each."""
    base = {name: getattr(config, name)[0] for name in VARIED}
    chosen = [base] + [{**base, name: value} for name in VARIED for value in dict.fromkeys(getattr(config, name)[1:])]
    shared = ("label_noise", "batch_size", "record", "n_maj", "k", "epochs", "seeds", "seed", "dataset", "data")
    same: dict[str, Any] = {name: getattr(config, name) for name in (*shared, "fresh", "dask")} | {"R": (config.R,)}
    several = ("activation", "tau", "batching")
    trainings = []
    for one in chosen:
        parameters: dict[str, Any] = {name: (value,) if name in several else value for name, value in one.items()}
        trainings.append(train_network.Config(**{**same, **parameters, "batch_norm": one["batch_norm"] == "on"}))
    return trainings


def checked_trainings(config: Config) -> list[train_network.Config]:
    """`trainings_of`. Raises InvalidInput for what cannot be trained or asked, before anything is written."""
    for name in VARIED:
        if not getattr(config, name):
            raise InvalidInput(name, [], "give at least one")
    trainings = trainings_of(config)
    for training in trainings:
        train_network.check(training)
    requested: dict[str, Any] = vars(config)
    sizes = train_network.class_sizes("step", config.k, config.n_maj, requested["R"])
    whole_number("n_maj", config.n_maj, 2, f"of all classes at most {MOST_RELEASED:,} images are asked of",
                 MOST_RELEASED * config.n_maj // int(sizes.sum()))  # fmt: skip
    if config.question == "autopsy" and not config.label_noise:
        raise InvalidInput("label_noise", config.label_noise, "give the share of wrong labels to plant, as in 0.02")
    if min(requested["d"]) < config.k:
        raise InvalidInput("d", min(requested["d"]), f"give at least k = {config.k} features")
    return trainings


def cells_of(
    config: Config, trainings: Sequence[train_network.Config], data: train_network.Images, store: Store
) -> list[Cell]:
    """One cell a network, with the command that asks it alone."""
    cells = []
    for training in trainings:
        alone = {name: (value,) for name, value in varied(training).items()}
        for cell in cells_of_training(config.question, training, data, store):
            parameters = {**alone, "seed": cell.arguments["recipe"].seed, "seeds": 1, "fresh": False, "dask": None}
            cells.append(dataclasses.replace(cell, alone=command_line.command(MODULE, config, **parameters)))
    return cells


def cells_of_training(
    question: str, training: train_network.Config, data: train_network.Images, store: Store | None
) -> list[Cell]:
    """The cells of a training of one setting, a seed each, and the question asked at their end."""
    one, cells = varied(training), []
    for cell in train_network.cells_of(training, data, store):
        labels = (f"width{one['width']}", f"depth{one['depth']}", f"d{one['d']}", f"norm{one['batch_norm']}")
        name = "-".join((*labels, cell.name.removeprefix("mlp-")))
        cells.append(
            dataclasses.replace(
                cell,
                name=name,
                compute=question_cell,
                arguments={**cell.arguments, "name": name, "question": question},
                key={"question": question, "training": cell.key},
                title=name.replace("-", " "),
                attrs={**cell.attrs, **one, "label_noise": training.label_noise},
            )
        )
    return cells


def varied(training: train_network.Config) -> dict[str, Any]:
    """The setting of a training: its value of every axis."""
    values = {name: getattr(training, name) for name in VARIED}
    values = {name: value[0] if isinstance(value, tuple) else value for name, value in values.items()}
    return {**values, "batch_norm": "on" if training.batch_norm else "off"}


def kind_of(question: str) -> sweep.Kind:
    """The tables, figure and page of a question."""
    requested = questions_report.QUESTIONS[question]
    return sweep.Kind(
        functools.partial(summary_row, question),
        train_network.epoch_rows,
        requested.drawings,
        questions_report.rendered,
        table="epochs.csv",
        parts="epochs",
    )


def summary_row(question: str, cell: xr.Dataset) -> dict[str, object]:
    """One line of summary.csv: the network's, and the answer."""
    row = train_network.summary_row(cell)
    parameters = {name: cell.attrs[name] for name in VARIED if name not in row}
    return {**row, **parameters, **{name: questions_report.value(cell, name) for name in
                             questions_report.QUESTIONS[question].columns}}  # fmt: skip


def print_summary(config: Config, cells: list[xr.Dataset], failed: int, store: Store, console: Console) -> None:
    """The closing table and the answer in a sentence."""
    labels = {id(cell): label for label, group in settings(cells).items() for cell in group}
    columns: dict[str, Any] = {"setting": lambda cell: labels[id(cell)], "seed": lambda cell: f"{cell.attrs['seed']}"}
    for name, heading in questions_report.QUESTIONS[config.question].columns.items():
        columns[heading] = functools.partial(lambda name, cell: questions_report.shown(cell, name), name)
    title = f"{config.question}: {config.dataset}, n_maj = {config.n_maj}, R = {config.R:g}, {config.epochs} epochs"
    sweep.print_table(
        title, cells, columns, console, {"seconds_train": "train"}, keys=("setting", "seed"), legend=LEGEND
    )
    rows = [summary_row(config.question, cell) for cell in cells]
    _, sentence = questions_report.judged(config.question, rows, failed)
    sweep.print_verdict(sentence, store.root, console, certificates=False)


LEGEND = {
    "gap": "proved distance of the loss from the minimum, at most",
    "delta_gm": "distance of the class means from an orthogonal frame",
}


script = functools.partial(command_line.run, main)

if __name__ == "__main__":
    script()
