"""What is computed and measured of one trained network: a cell of `experiments.train_network`."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
import xarray as xr
from jaxtyping import Float, Int

import ufm
from experiments.harness import engine, workers
from experiments.harness.cells import Computed, ProgressCallback
from networks import Dataset, Samples, Schedule, State, Training, build, epoch_of
from networks.training import restored, serialised
from solvers.certification.features import renormalised
from solvers.certification.suboptimality import suboptimality
from solvers.files import sealed, unsealed, write_atomically
from ufm import activations
from ufm.model.geometry import class_means

# Final activations whose features are >= 0: UFM+ is their model, UFM that of the others.
NONNEGATIVE = frozenset(
    name for name, row in activations.ACTIVATIONS.items() if row.entry_bound(normalised=True) == activations.UFM_PLUS
)
# Features are stored if they are at most this many numbers.
MOST_FEATURES = 2**23
BLAMED = 20
METRICS = ("delta_gm", "beta_nc", "mean_cosine", "max_cosine")
ACCURACIES = ("balanced", "majority", "minority")
RECORDED = ("epoch", "loss", "excess", *METRICS, *(f"accuracy_{name}" for name in ACCURACIES))
AUTOPSY = ("found_by_blame", "found_by_distance")
History = dict[str, list[float]]
_HISTORY = "history_"


class Recipe(NamedTuple):
    """How a network is made and trained; all but the images.

    - net, width, depth, d, batch_norm, activation, tau, batching, batch_size, loss, augment, views, seed: see
      `networks`.
    - record, checkpoint: after how many epochs the geometry is measured, and the state is saved.
    """

    net: str
    width: int | None
    activation: str
    tau: float
    batching: str
    batch_size: int
    loss: str
    augment: str
    views: int
    schedule: Schedule
    seed: int
    record: int
    checkpoint: int
    depth: int | None = None
    d: int | None = None
    batch_norm: bool = False


def train_cell(
    recipe: Recipe,
    data: Dataset,
    name: str,
    checkpoint: str | None,
    progress: ProgressCallback,
    planted: Int[np.ndarray, " p"] | None = None,
) -> Computed:
    """Train, record and judge one network; the dataset, and its final state as a file.

    planted: training samples of a wrong label, to be found by their shares in the excess.
    checkpoint: where the state is saved while it trains, if the machine that trains has such a directory; the same
    call goes
    on from there, with the same result to the last bit. It is left there: who has stored the result removes it.
    """
    settings = {"depth": recipe.depth, "d": recipe.d, "batch_norm": recipe.batch_norm}
    network, running = build(recipe.net, data.train.shape, recipe.activation, recipe.width, recipe.seed, **settings)
    options = {"tau": recipe.tau, "schedule": recipe.schedule, "seed": recipe.seed, "loss": recipe.loss}
    training = Training(network, running, data.train, **options, augment=recipe.augment, views=recipe.views)
    problem = ufm.Problem(data.train.labels, training.d, recipe.tau, nonneg=recipe.activation in NONNEGATIVE)
    path = None if checkpoint is None else Path(checkpoint)
    first, state, history = _taken_up(path, training.start)
    progress(first)
    began = time.perf_counter()
    for epoch in range(first, recipe.schedule.epochs):
        batches = epoch_of(recipe.batching, data.train.labels, recipe.batch_size, epoch, recipe.seed)
        state, loss = training.epoch(state, epoch, batches)
        ended, last = epoch + 1, epoch + 1 == recipe.schedule.epochs
        if last or ended % recipe.record == 0 or ended == 1:
            for column, value in _measured(training, state, data, problem, ended, loss, planted).items():
                history.setdefault(column, []).append(value)
        if path is not None and (last or ended % recipe.checkpoint == 0) and not _keep(path, ended, state, history):
            path = None
        progress(1)
    trained = time.perf_counter() - began
    return _dataset(recipe, training, state, data, problem, history, trained), {
        f"networks/{name}.eqx": serialised(state)
    }


def accuracies(
    features: tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "m d"]], train: Samples, test: Samples
) -> dict[str, float]:
    """Shares of test images whose nearest training class mean is that of their class, averaged over classes:
    all, majorities (with the most training images of any class, or more than half of those), and the others."""
    sizes = np.bincount(train.labels)
    means = class_means(features[0], train.labels, np.ones(len(train.labels)))
    known = test.labels < len(means)
    distance = ((means**2).sum(axis=1) - 2 * features[1][known] @ means.T).argmin(axis=1)
    labels = test.labels[known]
    right = np.bincount(labels, distance == labels, len(means)) / np.maximum(
        np.bincount(labels, minlength=len(means)), 1
    )
    majority = 2 * sizes > sizes.max()
    chosen = {"balanced": np.ones_like(majority), "majority": majority, "minority": ~majority}
    return {name: float(right[of].mean()) if of.any() else float(right.mean()) for name, of in chosen.items()}


def autopsy(H: Float[np.ndarray, "n d"], problem: ufm.Problem, planted: Int[np.ndarray, " p"]) -> dict[str, float]:
    """Shares of the planted samples among as many with the largest share in the excess, and among as many with the
    smallest cosine with their class mean."""
    labels, attribution = np.asarray(problem.labels), suboptimality(H, problem).attribution
    if attribution is None:
        raise ufm.InvalidInput("label_noise", len(planted), "shares are those of nonnegative features")
    means = class_means(H, labels, np.ones(len(labels)))[labels]
    lengths = np.linalg.norm(means, axis=1) * np.linalg.norm(H, axis=1)
    cosine = (H * means).sum(axis=1) / np.where(lengths > 0, lengths, 1.0)

    def precision(score: Float[np.ndarray, " n"]) -> float:
        return float(np.isin(np.argsort(-score, kind="stable")[: len(planted)], planted).mean())

    return {"found_by_blame": precision(attribution.samples), "found_by_distance": precision(-cosine)}


def _measured(
    training: Training,
    state: State,
    data: Dataset,
    problem: ufm.Problem,
    epoch: int,
    loss: float,
    planted: Int[np.ndarray, " p"] | None,
) -> dict[str, float]:
    """A line of the history, in RECORDED's order; all in float64 but the loss, a mean over an epoch's batches."""
    H, _ = renormalised(training.features(state, data.train.images).astype(np.float64))
    at = ufm.geometry_metrics(H, data.train.labels)
    tested = training.features(state, data.test.images).astype(np.float64)
    right = accuracies((H, tested), data.train, data.test)
    return {
        "epoch": float(epoch),
        "loss": loss,
        "excess": float(ufm.excess(H, problem)),
        **{name: float(getattr(at, name)) for name in METRICS},
        **{f"accuracy_{name}": right[name] for name in ACCURACIES},
        **({} if planted is None else autopsy(H, problem, planted)),
    }


def _dataset(
    recipe: Recipe,
    training: Training,
    state: State,
    data: Dataset,
    problem: ufm.Problem,
    history: History,
    seconds: float,
) -> xr.Dataset:
    began = time.perf_counter()
    H = training.features(state, data.train.images)
    result = suboptimality(H, problem)
    sizes, labels = np.bincount(data.train.labels), data.train.labels
    variables: dict[str, Any] = {f"{_HISTORY}{name}": ("record", np.array(values)) for name, values in history.items()}
    variables["gram"] = (
        ("class", "class_"),
        np.asarray(ufm.geometry_metrics(renormalised(H.astype(float))[0], labels).gram),
    )
    variables["class_sizes"] = ("class", sizes)
    if result.attribution is not None:
        samples, pairs = result.attribution.worst_samples(BLAMED), result.attribution.worst_pairs(BLAMED)
        variables["blamed_sample"] = ("blamed", np.array([one.sample for one in samples]))
        variables["blamed_sample_share"] = ("blamed", np.array([one.share for one in samples]))
        variables["blamed_pair"] = ("blamed_pair_", np.array([str(one) for one in pairs], dtype=str))
        variables["blamed_pair_share"] = ("blamed_pair_", np.array([one.share for one in pairs]))
    if H.size <= MOST_FEATURES:
        variables["features"] = (("sample", "coordinate"), H)
        variables["labels"] = ("sample", labels)
    attrs = {
        "net": recipe.net, "activation": recipe.activation, "tau": recipe.tau, "batching": recipe.batching,
        "loss": recipe.loss, "seed": recipe.seed, "epochs": recipe.schedule.epochs, "batch_size": recipe.batch_size,
        "k": training.k, "d": training.d, "n": len(labels), "nonneg": int(problem.nonneg),
        "parameters": _parameters(state),
        "loss_bound": float(ufm.loss_bound(problem)),
        "excess_lower": result.excess.lower, "excess_upper": result.excess.upper, "gap": result.gap,
        "moved": result.moved,
        "seconds_train": seconds, "seconds_certify": time.perf_counter() - began,
    }  # fmt: skip
    return xr.Dataset(variables, attrs=attrs)


def _parameters(state: State) -> int:
    return sum(int(leaf.size) for leaf in jax.tree.leaves(eqx.filter((state.network, state.head), eqx.is_array)))


def _keep(path: Path, epoch: int, state: State, history: Mapping[str, list[float]]) -> bool:
    """Whether it could be kept. A worker elsewhere may have no such directory, or may not write there: it trains on.

    Raises OSError if the disk of the command itself is full.
    """
    buffer = io.BytesIO()
    columns = {f"{_HISTORY}{name}": np.array(values, np.float64) for name, values in history.items()}
    named: dict[str, Any] = {"of": np.array(path.name), "epoch": epoch, **columns}
    np.savez(buffer, state=np.frombuffer(serialised(state), np.uint8), **named)
    if not path.parent.is_dir():  # is that of another machine, not to be made on this one
        return False
    try:
        write_atomically(path, sealed(buffer.getvalue()))
    except OSError as error:
        if error.errno in engine.FULL and not workers.is_worker():
            raise
        print(f"{path}: {error.strerror}; training goes on and is not kept", file=sys.stderr)
        return False
    return True


def _taken_up(path: Path | None, like: State) -> tuple[int, State, History]:
    """Epochs that have ended, the state after them, and what was recorded; the beginning if none was kept.

    Whatever a kept file raises, it is damaged: that is said, and training begins anew.
    """
    if path is None or not path.exists():
        return 0, like, {}
    try:
        content = unsealed(path.read_bytes())
        if content is None:
            raise ValueError("its checksum does not hold")
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            if str(stored["of"]) != path.name:
                raise ValueError("it was kept of another network")
            history = {
                name.removeprefix(_HISTORY): stored[name].tolist() for name in stored if name.startswith(_HISTORY)
            }
            return int(stored["epoch"]), restored(stored["state"].tobytes(), like), history
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        print(f"{path} is not used and training begins anew: {reason}", file=sys.stderr)
        return 0, like, {}


def class_sizes(imbalance: str, k: int, n_maj: int, R: float) -> Int[np.ndarray, " k"]:
    """n_maj samples of the largest class, n_maj / R (rounded, at least 1) of the smallest. Raises InvalidInput."""
    if not 1 <= R <= n_maj:
        raise ufm.InvalidInput("R", R, f"give a ratio from 1 to n_maj = {n_maj}")
    n_min = max(1, round(n_maj / R))
    profiles = {"step": ufm.step_imbalance, "long-tail": ufm.long_tail_imbalance}
    return profiles[imbalance](k, n_min, n_maj / n_min)
