"""Train networks under the supervised contrastive loss, and measure whether their features become a frame."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import xarray as xr
from rich.console import Console

from experiments.harness import command_line, engine, sweep
from experiments.harness.cells import Cell, cell_name, log_console, say
from experiments.harness.store import Store, digest
from experiments.measurements.networks import AUTOPSY, NONNEGATIVE, RECORDED, Recipe, class_sizes, train_cell
from experiments.reports import training as training_report
from experiments.reports.page import in_words
from experiments.reports.training import judged
from networks import ACTIVATIONS, ARCHITECTURES, Dataset, Schedule, imbalanced, law_of, mislabelled, read, synthetic
from networks.architectures import checked_options
from networks.data import CLASSES
from solvers.files import TEMPORARY
from ufm import InvalidInput
from ufm.errors import checked_seed, real_number, whole_number

MODULE = "experiments.train_network"
SYNTHETIC = "synthetic"
# The command makes this directory. Workers write checkpoints where they find it, and do not make it elsewhere.
CHECKPOINTS = "checkpoints"
# Columns of the history that summary.csv lacks; it has the excess as a proved interval.
_CHANGING = ("epoch", "loss", "excess")
MOST_IMAGES, MOST_EPOCHS, MOST_SEEDS = 100_000, 100_000, 1000
Images = dict[tuple[float, int], Dataset]  # by R and seed
# Options that take several values, in their order in the names of cells.
AXES = ("net", "activation", "R", "tau", "batching")


@dataclasses.dataclass(frozen=True)
class Config:
    """Train networks on imbalanced images under the supervised contrastive loss, record the geometry of their features,
    and prove at the end how far these are, at most, from the optimum of UFM+ (of UFM without a final ReLU).

    Every combination of the values of net, activation, R, tau and batching is trained from every seed. Without
    --dataset and --data no file is needed. The options below are the paper's setting. No run of that size has been made
    here, so that its hours and its memory are not known:

        --net resnet18 densenet40 --dataset cifar10 --data DIR --R 1 10 100 --n-maj 5000
        --tau 0.1 --epochs 350 --augment crop-flip --views 2

    Exit status: 0 if every cell was trained, 1 if a cell failed, 2 for invalid input or a disk that cannot be written,
    130 or 143 if stopped. After any stop the same command resumes from the last checkpoint, with the same result.
    """

    net: tuple[str, ...] = ("mlp",)
    """mlp (pixels - 512 - 512 - 128), resnet18 (3x3 stem, no max-pooling), densenet40 (blocks 6-6-6, growth 12)."""
    activation: tuple[str, ...] = ("relu",)
    """The last activation, before features are pooled and normalised: relu, none, leaky-relu, gelu, silu, elu,
    softplus or abs."""
    R: tuple[float, ...] = (10.0,)
    """Imbalance ratios: the size of the largest class divided by that of the smallest."""
    tau: tuple[float, ...] = (0.2,)
    """Temperatures of the loss."""
    batching: tuple[str, ...] = ("reshuffled",)
    """How batches are drawn: reshuffled every epoch, fixed, bound (one image of each class joins every batch),
    bound-fixed, m-per-class, or recycled:E, whose epochs take turns among E partitions."""
    seeds: int = 1
    """Runs of every combination, each with its own images, initial weights, batches and augmentation."""
    seed: int = 0
    """The first seed."""
    dataset: Literal["synthetic", "mnist", "fashion-mnist", "cifar10"] = SYNTHETIC
    """The images to train on. All but synthetic are read from --data; nothing is downloaded."""
    data: Path | None = None
    """Directory of the files: IDX (plain or .gz) of MNIST and Fashion-MNIST, the binary version of CIFAR-10."""
    imbalance: Literal["step", "long-tail"] = "step"
    """Class profile: in step half of the classes are large, in long-tail the sizes fall geometrically."""
    n_maj: int = 200
    """Images of the largest class; the smallest has n-maj / R."""
    k: int = CLASSES
    """Number of classes: the first k of the data set."""
    label_noise: float = 0.0
    """Fraction of the training images that get a random wrong label. The command then records how many of them are
    found by their contributions to the excess, and how many by their distance from their class mean. It needs a final
    activation that is never negative."""
    loss: Literal["scl", "cross-entropy"] = "scl"
    """scl, or the cross-entropy of a linear head on the normalised features, with logits divided by tau."""
    width: int | None = None
    """Hidden units of an MLP, channels of the stem of ResNet-18, growth of DenseNet-40; by default as in the paper."""
    depth: int | None = None
    """Hidden layers of an MLP; by default 2."""
    d: int | None = None
    """Features of an MLP; by default a quarter of its width."""
    batch_norm: bool = False
    """Batch norm before every activation of an MLP; the other networks always have batch norm."""
    batch_size: int = 250
    """Images in a batch; binding adds one image of each class."""
    epochs: int = 60
    """Passes over the images; the learning rate falls to a tenth after 33% and after 66% of them."""
    rate: float = 0.1
    """Learning rate of SGD."""
    momentum: float = 0.9
    """Momentum of SGD."""
    decay: float = 5e-4
    """Weight decay of SGD."""
    augment: Literal["none", "crop", "crop-flip"] = "none"
    """crop: a random crop after padding with 4 pixels of zeros; flip: a mirror image with probability 1/2."""
    views: Literal[1, 2] = 1
    """Augmented views of each image in a batch."""
    record: int = 5
    """Epochs between two measurements of the geometry."""
    checkpoint: int = 5
    """Epochs between two checkpoints."""
    out: Path = Path("runs/networks")
    """Directory of the results. Complete cells of the same configuration in it are not run again."""
    fresh: bool = False
    """Train every network again."""
    dask: str | None = None
    """Run the cells on dask.distributed: local:4 for 4 worker processes here, or a scheduler's address, HOST:PORT."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Train the networks and write the results; returns the exit status that `Config` states."""
    config = command_line.parse(Config, arguments)
    check(config)
    data = images_of(config)
    store = Store(config.out)
    with store.alone():
        cells = cells_of(config, data, store)
        console = log_console()
        datasets = sweep.run_and_write(KIND, config, cells, store, console)
        forget_checkpoints(cells, store)
        if datasets:
            print_summary(config, datasets, len(cells) - len(datasets), console)
        return 0 if len(datasets) == len(cells) else 1


def forget_checkpoints(cells: Sequence[Cell], store: Store) -> None:
    """Remove the checkpoints of stored cells, with the temporary files that a killed process left."""
    for cell in cells:
        if (store.root / f"{cell.file}.sha256").is_file():
            checkpoint = Path(cell.arguments["checkpoint"])
            checkpoint.unlink(missing_ok=True)
            for path in list(checkpoint.parent.iterdir()) if checkpoint.parent.is_dir() else ():
                if path.name.startswith(f".{checkpoint.name}.") and path.suffix == TEMPORARY:
                    path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # the directory is not empty or does not exist
        (store.root / CHECKPOINTS).rmdir()


def check(config: Config) -> None:
    """Raises InvalidInput, before anything is written, for options that cannot be trained; images are not read."""
    known = {"net": ARCHITECTURES, "activation": ACTIVATIONS}
    for name in AXES:
        if not getattr(config, name):
            raise InvalidInput(name, [], "give at least one")
        for value in getattr(config, name) if name in known else ():
            if value not in known[name]:
                raise InvalidInput(name, value, f"choose one of {', '.join(known[name])}")
    for batching in config.batching:
        law_of(batching)
    for tau in config.tau:
        real_number("tau", tau, 0.01, 1e4)
    for name in ("rate", "momentum", "decay"):
        real_number(name, getattr(config, name), 0.0, 1.0 if name == "momentum" else 100.0)
    limits = {"seeds": MOST_SEEDS, "n_maj": MOST_IMAGES, "batch_size": MOST_IMAGES, "epochs": MOST_EPOCHS}
    for name, most in {**limits, "record": MOST_EPOCHS, "checkpoint": MOST_EPOCHS}.items():
        least = 2 if name in ("batch_size", "n_maj") else 1
        whole_number(name, getattr(config, name), least, f"give {least} to {most:,}", most)
    checked_seed(config.seed + config.seeds - 1)
    for net in config.net:
        checked_options(net, config.width, depth=config.depth, d=config.d, batch_norm=config.batch_norm)
    whole_number("k", config.k, 2, f"give 2 to {CLASSES} classes", CLASSES)
    if "m-per-class" in config.batching and config.batch_size < config.k:
        raise InvalidInput("batch_size", config.batch_size, f"m-per-class needs one sample of each class, {config.k}")
    engine.check(config.dask)
    real_number("label_noise", config.label_noise, 0.0, 0.5)
    if config.label_noise and not NONNEGATIVE.issuperset(config.activation):
        raise InvalidInput(
            "label_noise", config.label_noise, f"give activations among {', '.join(sorted(NONNEGATIVE))}"
        )
    for R in config.R:
        class_sizes(config.imbalance, config.k, config.n_maj, R)
    if config.data is None and config.dataset != SYNTHETIC:
        raise InvalidInput("data", None, f"give the directory that holds {config.dataset}; nothing is downloaded")
    if config.data is not None and config.dataset == SYNTHETIC:
        raise InvalidInput("data", str(config.data), "name its data set with --dataset")


def images_of(config: Config) -> Images:
    """The images of each R and seed. Raises InvalidInput for files that do not hold the data set."""
    sizes = {R: class_sizes(config.imbalance, config.k, config.n_maj, R) for R in config.R}
    seeds = range(config.seed, config.seed + config.seeds)
    if config.dataset == SYNTHETIC:
        return {(R, seed): synthetic(of_classes, seed) for R, of_classes in sizes.items() for seed in seeds}
    assert config.data is not None
    whole = read(config.dataset, config.data)
    return {
        (R, seed): Dataset(imbalanced(whole.train, of_classes, seed), whole.test)
        for R, of_classes in sizes.items()
        for seed in seeds
    }


def cells_of(config: Config, data: Images, store: Store | None) -> list[Cell]:
    """One cell for each network. Its argument "checkpoint" is the file of its state; it is None without a store."""
    schedule = Schedule(config.epochs, config.rate, config.momentum, config.decay)
    fields = ("width", "depth", "d", "batch_norm", "batch_size", "loss", "augment", "views")
    shared = {name: getattr(config, name) for name in fields}
    options = {"schedule": schedule, "record": config.record, "checkpoint": config.checkpoint, **shared}
    contents = {place: _digest_of(images) for place, images in data.items()}
    cells = []
    for net, activation, R, tau, batching in itertools.product(*(getattr(config, name) for name in AXES)):
        for seed in range(config.seed, config.seed + config.seeds):
            recipe = Recipe(net=net, activation=activation, tau=tau, batching=batching, seed=seed, **options)
            details = (cell_name(sweep.number(R), sweep.number(tau)), batching.replace(":", ""), f"seed{seed}")
            name = "-".join((net, activation, *details))
            changed = recipe._asdict().items() - Recipe._field_defaults.items()
            key = {**dict(changed), "schedule": dataclasses.asdict(schedule), "images": contents[R, seed]}
            key |= {"label_noise": config.label_noise} if config.label_noise else {}
            images, planted = mislabelled(data[R, seed].train, config.label_noise, seed)
            noisy = {"planted": planted} if len(planted) else {}
            cell = Cell(
                name,
                train_cell,
                {"recipe": recipe, "data": data[R, seed]._replace(train=images), "name": name, **noisy},
                key={"key": key, "imbalance": config.imbalance},
                parts=config.epochs,
                title=name.replace("-", " "),
                alone=command_line.command(MODULE, config, net=(net,), activation=(activation,), R=(R,), tau=(tau,),
                                           batching=(batching,), seed=seed, seeds=1, fresh=False, dask=None),
                attrs={"R": R, "imbalance": config.imbalance, "dataset": config.dataset},
            )  # fmt: skip
            checkpoint = None
            if store is not None:
                checkpoint = store.path(f"{CHECKPOINTS}/{Path(cell.file).with_suffix('.npz').name}").absolute()
                if config.fresh:
                    checkpoint.unlink(missing_ok=True)
            arguments = {**cell.arguments, "checkpoint": None if checkpoint is None else str(checkpoint)}
            cells.append(dataclasses.replace(cell, arguments=arguments))
    return cells


def _digest_of(data: Dataset) -> str:
    return digest([hashlib.sha256(part.tobytes()).hexdigest() for samples in data for part in samples])


def recorded(cell: xr.Dataset) -> list[str]:
    """The columns of the history of a cell."""
    return [name for name in (*RECORDED, *AUTOPSY) if f"history_{name}" in cell]


def summary_row(cell: xr.Dataset) -> dict[str, object]:
    """One line of summary.csv."""
    attrs = cell.attrs
    names = ("net", "activation", "R", "tau", "batching", "seed", "loss", "k", "d", "n", "epochs", "parameters")
    values = {name: attrs[name] for name in names}
    values |= {name: sweep.number(values[name]) for name in names if not isinstance(values[name], str)}
    last = {name: float(cell[f"history_{name}"].values[-1]) for name in recorded(cell) if name not in _CHANGING}
    proved = {name: float(attrs[name]) for name in ("loss_bound", "excess_lower", "excess_upper", "gap")}
    seconds = {name: round(float(attrs[name]), 3) for name in ("seconds_train", "seconds_certify")}
    return {**values, **last, **proved, **seconds}


def epoch_rows(cell: xr.Dataset) -> list[dict[str, object]]:
    """The lines of epochs.csv for one cell."""
    names = {name: cell.attrs[name] for name in ("net", "activation", "R", "tau", "batching", "seed")}
    return [
        {**names, **{name: float(cell[f"history_{name}"].values[record]) for name in recorded(cell)}}
        for record in range(cell.sizes["record"])
    ]


def print_summary(config: Config, cells: list[xr.Dataset], failed: int, console: Console) -> None:
    """Print the closing table, the attribution of the largest excess, and the verdict in a sentence."""
    several = [name for name in AXES if len(getattr(config, name)) > 1]
    shown = [*dict.fromkeys((*several, "R", "seed"))]
    columns: dict[str, Any] = {
        name: functools.partial(lambda name, cell: in_words(cell.attrs[name]), name) for name in shown
    }
    row = {id(cell): summary_row(cell) for cell in cells}
    for heading, name in {
        "delta_gm": "delta_gm", "largest cosine": "max_cosine", "proved excess": "excess_upper",
        "accuracy": "accuracy_balanced", "accuracy of majorities": "accuracy_majority",
        "accuracy of minorities": "accuracy_minority",
    }.items():  # fmt: skip
        columns[heading] = functools.partial(lambda name, cell: f"{row[id(cell)][name]:.3g}", name)
    title = (
        f"{config.dataset}, {config.imbalance} imbalance, n_maj = {config.n_maj}, {config.loss}, {config.epochs} epochs"
    )
    seconds = {"seconds_train": "train", "seconds_certify": "certify"}
    sweep.print_table(title, cells, columns, console, seconds, keys=shown, legend=LEGEND)
    blamed = [cell for cell in cells if "blamed_pair" in cell and cell.attrs["excess_upper"] > 0]
    if blamed:
        worst = max(blamed, key=lambda cell: cell.attrs["excess_upper"])
        share = float(worst["blamed_sample_share"].values.sum() / worst.attrs["excess_upper"])
        pair = str(worst["blamed_pair"].values[0]) if worst["blamed_pair"].size else ""
        largest, blamed_samples = worst.attrs["excess_upper"], worst["blamed_sample"].size
        say(
            console,
            f"  largest excess: {largest:.3g}; {blamed_samples} samples contribute {share:.0%} of it; {pair}",
        )
    _, sentence = judged([summary_row(cell) for cell in cells], failed)
    sweep.print_verdict(sentence, config.out, console, certificates=False)


LEGEND = {
    "delta_gm": "distance of the class means from an orthogonal frame",
    "proved excess": "proved upper bound of the loss of the training features minus the loss of a frame",
}


KIND = sweep.Kind(
    summary_row, epoch_rows, training_report.DRAWINGS, training_report.rendered, table="epochs.csv", parts="epochs"
)


script = functools.partial(command_line.run, main)

if __name__ == "__main__":
    script()
