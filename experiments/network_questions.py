"""Four questions about trained networks whose answers need a certified optimum."""

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
# Each question's default options; the first value of an axis belongs to the base setting.
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
    """Train MLPs on imbalanced images, and answer one of four questions about their features. Each answer needs a
    certified optimum.

    landscape: does the loss or the network keep the features from the frame? The features become the start of a free
    problem, which descends by plain projected gradient (does the landscape stop it?) and by the staircase (is the
    optimum there?), for several widths, depths, d, batch norm and final activations.

    autopsy: do contributions to the excess find samples with planted wrong labels, and better than distances from the
    class mean do?

    batches: if the epochs take turns among E partitions, do the features become a frame where theory says that E
    partitions force it?

    activations: do the features after each final activation have the certified geometry of their model, which is the
    frame for ReLU, and that of UFM for activations that reach all directions?

    The first value of every option makes the base setting, and every other value is tried alone. The question chooses
    the options that are not set; config.json records them. Without --dataset and --data no file is needed. No run of
    the paper's size (--n-maj 5000, 350 epochs) has been made here, so that its hours and its memory are not known.

    Exit status: 0 if every network was trained and measured, 1 if a network failed, 2 for invalid input or a disk that
    cannot be written, 130 or 143 if stopped. After any stop the same command resumes from the last checkpoint.
    """

    question: Literal["landscape", "autopsy", "batches", "activations"] = "landscape"
    """The question."""
    width: tuple[int, ...] | None = None
    """Hidden units of a layer. Default: 512; for landscape also 32; for batches 256."""
    depth: tuple[int, ...] | None = None
    """Hidden layers. Default: 2; for landscape also 0 and 4."""
    d: tuple[int, ...] | None = None
    """Features, at least k. Default: 128; for landscape also 16."""
    batch_norm: tuple[Literal["off", "on"], ...] | None = None
    """Batch norm before every activation. Default: off; for landscape also on."""
    activation: tuple[str, ...] | None = None
    """Final activations, see train_network. Default: relu; for landscape also none; for activations also none,
    leaky-relu and gelu."""
    tau: tuple[float, ...] | None = None
    """Temperatures. Default: 0.2; for autopsy also 0.1 and 0.5."""
    batching: tuple[str, ...] | None = None
    """How batches are drawn, see train_network. Default: reshuffled; for batches recycled:E with E = 1, 2, 5, 10, 20
    and 40."""
    R: float | None = None
    """Imbalance ratio. Default: 10; for batches 20."""
    label_noise: float | None = None
    """Fraction of planted wrong labels. Default: 0; for autopsy 0.02."""
    batch_size: int | None = None
    """Images in a batch. Default: 250; for batches 50."""
    record: int | None = None
    """Epochs between two measurements of the geometry. Default: 10; for autopsy 2."""
    n_maj: int = 200
    """Images of each class of the first half; the other classes have n-maj / R."""
    k: int = CLASSES
    """Number of classes: the first k of the data set."""
    epochs: int = 100
    """Passes over the images."""
    seeds: int = 3
    """Runs of every setting, each with its own images, initial weights and batches."""
    seed: int = 0
    """The first seed."""
    dataset: Literal["synthetic", "mnist", "fashion-mnist", "cifar10"] = train_network.SYNTHETIC
    """The images to train on. All but synthetic are read from --data; nothing is downloaded."""
    data: Path | None = None
    """Directory of the files, see train_network. Debian's package dataset-fashion-mnist installs some in
    /usr/share/datasets."""
    out: Path = Path("runs/questions")
    """Directory of the results, which lie in its subdirectory of the question's name. Complete cells in it are not run
    again."""
    fresh: bool = False
    """Train every network again."""
    dask: str | None = None
    """Run the cells on dask.distributed: local:4 for 4 worker processes here, or a scheduler's address, HOST:PORT."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Train the networks and write the answers; returns the exit status that `Config` states."""
    config = completed(command_line.parse(Config, arguments))
    trainings = checked_trainings(config)
    data = train_network.images_of(trainings[0])
    store = Store(config.out / config.question)
    with store.alone():
        cells = cells_of(config, trainings, data, store)
        console = log_console()
        datasets = sweep.run_and_write(kind_of(config.question), config, cells, store, console)
        train_network.forget_checkpoints(cells, store)
        if datasets:
            print_summary(config, datasets, len(cells) - len(datasets), store, console)
        return 0 if len(datasets) == len(cells) else 1


def completed(config: Config) -> Config:
    """The configuration, with the question's default for every option that is not given."""
    defaults = {**COMMON, **DEFAULTS[config.question]}
    return dataclasses.replace(
        config, **{name: value for name, value in defaults.items() if getattr(config, name) is None}
    )


def trainings_of(config: Config) -> list[train_network.Config]:
    """The base setting, and every other value of an axis alone: one configuration for each network."""
    base = {name: getattr(config, name)[0] for name in VARIED}
    chosen = [base] + [{**base, name: value} for name in VARIED for value in dict.fromkeys(getattr(config, name)[1:])]
    shared = ("label_noise", "batch_size", "record", "n_maj", "k", "epochs", "seeds", "seed", "dataset", "data")
    same: dict[str, Any] = {name: getattr(config, name) for name in (*shared, "fresh", "dask")} | {"R": (config.R,)}
    several = ("activation", "tau", "batching")
    trainings = []
    for one in chosen:
        options: dict[str, Any] = {name: (value,) if name in several else value for name, value in one.items()}
        trainings.append(train_network.Config(**{**same, **options, "batch_norm": one["batch_norm"] == "on"}))
    return trainings


def checked_trainings(config: Config) -> list[train_network.Config]:
    """`trainings_of`. Raises InvalidInput, before anything is written, for options that cannot be run."""
    for name in VARIED:
        if not getattr(config, name):
            raise InvalidInput(name, [], "give at least one")
    trainings = trainings_of(config)
    for training in trainings:
        train_network.check(training)
    values: dict[str, Any] = vars(config)
    sizes = train_network.class_sizes("step", config.k, config.n_maj, values["R"])
    whole_number("n_maj", config.n_maj, 2, f"all classes together may have at most {MOST_RELEASED:,} images",
                 MOST_RELEASED * config.n_maj // int(sizes.sum()))  # fmt: skip
    if config.question == "autopsy" and not config.label_noise:
        raise InvalidInput("label_noise", config.label_noise, "give the fraction of wrong labels, for example 0.02")
    if min(values["d"]) < config.k:
        raise InvalidInput("d", min(values["d"]), f"give at least k = {config.k} features")
    return trainings


def cells_of(
    config: Config, trainings: Sequence[train_network.Config], data: train_network.Images, store: Store
) -> list[Cell]:
    """One cell for each network, with the command that runs it alone."""
    cells = []
    for training in trainings:
        alone = {name: (value,) for name, value in varied(training).items()}
        for cell in network_cells(config.question, training, data, store):
            options = {**alone, "seed": cell.arguments["recipe"].seed, "seeds": 1, "fresh": False, "dask": None}
            cells.append(dataclasses.replace(cell, alone=command_line.command(MODULE, config, **options)))
    return cells


def network_cells(
    question: str, training: train_network.Config, data: train_network.Images, store: Store | None
) -> list[Cell]:
    """The cells of one training, one for each seed, which answer the question at their end."""
    one, cells = varied(training), []
    for cell in train_network.cells_of(training, data, store):
        layout = (f"width{one['width']}", f"depth{one['depth']}", f"d{one['d']}", f"norm{one['batch_norm']}")
        name = "-".join((*layout, cell.name.removeprefix("mlp-")))
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
    """The setting of a training: one value of every axis."""
    values = {name: getattr(training, name) for name in VARIED}
    values = {name: value[0] if isinstance(value, tuple) else value for name, value in values.items()}
    return {**values, "batch_norm": "on" if training.batch_norm else "off"}


def kind_of(question: str) -> sweep.Kind:
    """The tables, figure and page of a question."""
    report = questions_report.QUESTIONS[question]
    return sweep.Kind(
        functools.partial(summary_row, question),
        train_network.epoch_rows,
        report.drawings,
        questions_report.rendered,
        table="epochs.csv",
        parts="epochs",
    )


def summary_row(question: str, cell: xr.Dataset) -> dict[str, object]:
    """One line of summary.csv: the columns of the network, then those of the answer."""
    row = train_network.summary_row(cell)
    setting = {name: cell.attrs[name] for name in VARIED if name not in row}
    return {**row, **setting, **{name: questions_report.value(cell, name) for name in
                             questions_report.QUESTIONS[question].columns}}  # fmt: skip


def print_summary(config: Config, cells: list[xr.Dataset], failed: int, store: Store, console: Console) -> None:
    """Print the closing table and the answer in a sentence."""
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
    "gap": "proved upper bound of the loss minus the minimum",
    "delta_gm": "distance of the class means from an orthogonal frame",
}


script = functools.partial(command_line.run, main)

if __name__ == "__main__":
    script()
