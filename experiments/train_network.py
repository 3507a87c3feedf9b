"""Networks trained under the supervised contrastive loss: do their features become the frame that theory names?"""

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
# Made here: workers keep a state where they find this directory, and make none of this name on another machine.
CHECKPOINTS = "checkpoints"
# Of the history, what summary.csv has no column of: excess is there as its proved interval.
_CHANGING = ("epoch", "loss", "excess")
MOST_IMAGES, MOST_EPOCHS, MOST_SEEDS = 100_000, 100_000, 1000
# What several values may be given of, in the order in which names of cells tell them.
Images = dict[tuple[float, int], Dataset]  # by R and seed
AXES = ("net", "activation", "R", "tau", "batching")


@dataclasses.dataclass(frozen=True)
class Config:
    """Train networks on imbalanced images under the supervised contrastive loss, record the geometry of their features,
    and bound at the end, rigorously, how far these are from the optimum of UFM+ (of UFM without a final ReLU).

    Every combination of the values given of net, activation, R, tau and batching is trained from every seed. Without
    --dataset and --data it needs no file. The paper's setting: --net resnet18 densenet40 --dataset cifar10 --data DIR
    --R 1 10 100 --n-maj 5000 --tau 0.1 --epochs 350 --augment crop-flip --views 2.

    Exit status: 0 if every cell was trained, 1 if one failed, 2 for bad input or a disk that cannot be written, 130 or
    143 if stopped. Whatever stopped it, the same command goes on from the last checkpoint, to the same result.
    """

    net: tuple[str, ...] = ("mlp",)
    """mlp (pixels - 512 - 512 - 128), resnet18 (3x3 stem, no max-pooling), densenet40 (blocks 6-6-6, growth 12)."""
    activation: tuple[str, ...] = ("relu",)
    """The last activation, after which features are pooled and normalised: relu, none, leaky-relu, gelu, silu, elu,
    softplus or abs."""
    R: tuple[float, ...] = (10.0,)
    """Imbalance ratios: largest over smallest class."""
    tau: tuple[float, ...] = (0.2,)
    """Temperatures of the loss."""
    batching: tuple[str, ...] = ("reshuffled",)
    """reshuffled every epoch, fixed, bound (one image of each class joins every batch), bound-fixed, m-per-class, or
    recycled:E, whose epochs take turns among E partitions."""
    seeds: int = 1
    """Runs of every combination: subset of the images, initial weights, batches and augmentation are all drawn anew."""
    seed: int = 0
    """The first seed."""
    dataset: Literal["synthetic", "mnist", "fashion-mnist", "cifar10"] = SYNTHETIC
    """What to train on. All but synthetic are read from --data; nothing is downloaded."""
    data: Path | None = None
    """Directory of the files: IDX (plain or .gz) of MNIST and Fashion-MNIST, the binary version of CIFAR-10."""
    imbalance: Literal["step", "long-tail"] = "step"
    """Class profile: half the classes are majorities, or geometric decay."""
    n_maj: int = 200
    """Images of the largest class; the smallest has n-maj / R."""
    k: int = CLASSES
    """Number of classes: the first k of the data set."""
    label_noise: float = 0.0
    """Share of the training images that get the label of another class, drawn at random; how many of them are found by
    their shares in the excess, and by their distance from their class mean, is then recorded. For features that are
    never negative."""
    loss: Literal["scl", "cross-entropy"] = "scl"
    """cross-entropy: of a linear head on the normalised features, logits over tau."""
    width: int | None = None
    """Hidden units of an MLP, channels of the stem of ResNet-18, growth of DenseNet-40; the paper's if not given."""
    depth: int | None = None
    """Hidden layers of an MLP; 2 if not given."""
    d: int | None = None
    """Features of an MLP; a quarter of its width if not given."""
    batch_norm: bool = False
    """Batch norm before every activation of an MLP; the other networks have theirs."""
    batch_size: int = 250
    """Images of a batch; binding adds one of each class."""
    epochs: int = 60
    """Passes over the images; the rate falls to a tenth after 33% and 66% of them."""
    rate: float = 0.1
    """Learning rate of SGD."""
    momentum: float = 0.9
    """Its momentum."""
    decay: float = 5e-4
    """Its weight decay."""
    augment: Literal["none", "crop", "crop-flip"] = "none"
    """crop: from 4 pixels of zeros around the image; flip: mirrored half the time."""
    views: Literal[1, 2] = 1
    """Augmented views of every image in a batch."""
    record: int = 5
    """Epochs from one measurement of the geometry to the next."""
    checkpoint: int = 5
    """Epochs from one checkpoint to the next."""
    out: Path = Path("runs/networks")
    """Directory of the results. Cells found there, complete and of the same configuration, are not run again."""
    fresh: bool = False
    """Train every network again."""
    dask: str | None = None
    """Run the cells on dask.distributed: local:4 for 4 worker processes here, or a scheduler's address, HOST:PORT."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, write and say; the exit status of `Config`."""
    config = command_line.parse(Config, arguments)
    check(config)
    data = images_of(config)
    store = Store(config.out)
    with store.alone():
        cells = cells_of(config, data, store)
        console = log_console()
        result = sweep.run_and_write(KIND, config, cells, store, console)
        forget_checkpoints(cells, store)
        if result:
            print_summary(config, result, len(cells) - len(result), console)
        return 0 if len(result) == len(cells) else 1


def forget_checkpoints(cells: Sequence[Cell], store: Store) -> None:
    """Remove those of cells that are stored, and what a killed process was writing of them."""
    for cell in cells:
        if (store.root / f"{cell.file}.sha256").is_file():
            stored = Path(cell.arguments["kept"])
            stored.unlink(missing_ok=True)
            for path in list(stored.parent.iterdir()) if stored.parent.is_dir() else ():
                if path.name.startswith(f".{stored.name}.") and path.suffix == TEMPORARY:
                    path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # it is not empty, or not there
        (store.root / CHECKPOINTS).rmdir()


def check(config: Config) -> None:
    """Raises InvalidInput for whatever cannot be trained, all but the images, before anything is written."""
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
        raise InvalidInput("batch_size", config.batch_size, f"m-per-class needs one sample a class, {config.k}")
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
        raise InvalidInput("data", str(config.data), "say with --dataset what it holds")


def images_of(config: Config) -> Images:
    """The images by R and seed. Raises InvalidInput for files that do not hold them."""
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
    """One cell a network; its argument "kept" is the file of its checkpoint: None without a store."""
    schedule = Schedule(config.epochs, config.rate, config.momentum, config.decay)
    fields = ("width", "depth", "d", "batch_norm", "batch_size", "loss", "augment", "views")
    shared = {name: getattr(config, name) for name in fields}
    settings = {"schedule": schedule, "record": config.record, "checkpoint": config.checkpoint, **shared}
    contents = {place: _digest_of(images) for place, images in data.items()}
    cells = []
    for net, activation, R, tau, batching in itertools.product(*(getattr(config, name) for name in AXES)):
        for seed in range(config.seed, config.seed + config.seeds):
            recipe = Recipe(net=net, activation=activation, tau=tau, batching=batching, seed=seed, **settings)
            labels = (cell_name(sweep.number(R), sweep.number(tau)), batching.replace(":", ""), f"seed{seed}")
            name = "-".join((net, activation, *labels))
            value = recipe._asdict().items() - Recipe._field_defaults.items()
            key = {**dict(value), "schedule": dataclasses.asdict(schedule), "images": contents[R, seed]}
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
            stored = None
            if store is not None:
                stored = store.path(f"{CHECKPOINTS}/{Path(cell.file).with_suffix('.npz').name}").absolute()
                if config.fresh:
                    stored.unlink(missing_ok=True)
            arguments = {**cell.arguments, "kept": None if stored is None else str(stored)}
            cells.append(dataclasses.replace(cell, arguments=arguments))
    return cells


def _digest_of(data: Dataset) -> str:
    return digest([hashlib.sha256(part.tobytes()).hexdigest() for samples in data for part in samples])


def recorded(cell: xr.Dataset) -> list[str]:
    """What the history of a cell holds."""
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
    """The closing table, the attribution of the largest excess, and the verdict in a sentence."""
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
            f"  largest excess, {largest:.3g}: {blamed_samples} samples are to blame for {share:.0%} of it; {pair}",
        )
    _, sentence = judged([summary_row(cell) for cell in cells], failed)
    sweep.print_verdict(sentence, config.out, console, certificates=False)


LEGEND = {
    "delta_gm": "distance of the class means from an orthogonal frame",
    "proved excess": "proved upper bound of the loss of the training features minus that of a frame",
}


KIND = sweep.Kind(
    summary_row, epoch_rows, training_report.DRAWINGS, training_report.rendered, table="epochs.csv", parts="epochs"
)


script = functools.partial(command_line.run, main)

if __name__ == "__main__":
    script()
