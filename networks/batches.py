"""The batches of an epoch: the images that are fed, and those that count in the loss."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from ufm import batching
from ufm.errors import InvalidInput, checked_seed, whole_number
from ufm.model.problem import PADDING

POOL = 10  # default number of partitions that are recycled


class Epoch(NamedTuple):
    """Batches of one size. Every slot is fed a real image, so that batch norm sees no padding.

    - index: the samples. counts: which slots are in the loss; the others fill up a batch.
    """

    index: Int[np.ndarray, "nb s"]
    counts: Bool[np.ndarray, "nb s"]


def reshuffled(labels: Int[np.ndarray, " n"], batch_size: int, epoch: int, seed: int) -> batching.Family:
    """A new random partition every epoch."""
    return batching.partition(len(labels), batch_size, _seed(seed, epoch))


def fixed(labels: Int[np.ndarray, " n"], batch_size: int, epoch: int, seed: int) -> batching.Family:
    """One random partition for all epochs."""
    return batching.partition(len(labels), batch_size, _seed(seed, 0))


def recycled(
    labels: Int[np.ndarray, " n"], batch_size: int, epoch: int, seed: int, pool: int = POOL
) -> batching.Family:
    """Epochs take turns among `pool` random partitions. With 1 this is `fixed`; with one for each epoch,
    `reshuffled`."""
    return reshuffled(labels, batch_size, epoch % pool, seed)


def bound(labels: Int[np.ndarray, " n"], batch_size: int, epoch: int, seed: int) -> batching.Family:
    """As `reshuffled`, and the same sample of each class joins every batch (`ufm.batching.bind`)."""
    return batching.bind(reshuffled(labels, batch_size, epoch, seed), labels, seed=seed)


def bound_fixed(labels: Int[np.ndarray, " n"], batch_size: int, epoch: int, seed: int) -> batching.Family:
    """As `fixed`, and the same sample of each class joins every batch."""
    return batching.bind(fixed(labels, batch_size, epoch, seed), labels, seed=seed)


def m_per_class(labels: Int[np.ndarray, " n"], batch_size: int, epoch: int, seed: int) -> batching.Family:
    """Every batch holds floor(batch_size / k) samples of each class, or all samples of a smaller class.

    There are as many batches as in a partition. The samples of a class come in a random order, then in another one.
    """
    k, random = int(labels.max()) + 1, np.random.default_rng(_seed(seed, epoch))
    m, batches = batch_size // k, -(-len(labels) // batch_size)
    if m < 1:
        raise InvalidInput("batch_size", batch_size, f"give at least {k}, one sample for each class")
    rows = np.full((batches, k, m), PADDING)
    for c in range(k):
        of_class = np.flatnonzero(labels == c)
        count = min(m, len(of_class))
        orders = [random.permutation(of_class) for _ in range(-(-batches * count // len(of_class)))]
        drawn = np.concatenate(orders)[: batches * count].reshape(batches, count)
        repeated = (drawn[:, :, None] == drawn[:, None, :]) & np.tri(count, k=-1, dtype=bool)
        rows[:, c, :count] = np.where(repeated.any(axis=2), PADDING, drawn)  # a batch is a set
    return rows.reshape(batches, -1).astype(np.int32)


Law = Callable[[Int[np.ndarray, " n"], int, int, int], batching.Family]
# The laws of batches by name: functions of labels (n,), batch size, epoch and seed, with results (batches, slots) of
# indices, padded with -1.
BATCHINGS: dict[str, Law] = {
    "reshuffled": reshuffled,
    "fixed": fixed,
    "recycled": recycled,
    "bound": bound,
    "bound-fixed": bound_fixed,
    "m-per-class": m_per_class,
}


def law_of(name: str) -> Law:
    """The law of this name: one of BATCHINGS, or "recycled:E" for a pool of E partitions. Raises InvalidInput."""
    known, colon, pool = name.partition(":")
    if known not in BATCHINGS:
        raise InvalidInput("batching", name, f"choose one of {', '.join(BATCHINGS)}")
    if not colon:
        return BATCHINGS[known]
    if known != "recycled" or not (pool.isascii() and pool.isdigit() and len(pool) < 10 and int(pool) > 0):
        raise InvalidInput("batching", name, f"only recycled takes a number, that of partitions, as in recycled:{POOL}")
    return partial(recycled, pool=int(pool))


def epoch_of(name: str, labels: Int[np.ndarray, " n"], batch_size: int, epoch: int, seed: int) -> Epoch:
    """The batches of an epoch by the name of their law. They are a function of the arguments.

    Slots that the law leaves empty are fed random samples, which do not count in the loss. Raises InvalidInput.
    """
    law = law_of(name)
    whole_number("batch_size", batch_size, 2, "give at least 2 samples for each batch")
    rows = law(labels, min(batch_size, len(labels)), epoch, checked_seed(seed))
    counts = rows != PADDING
    filling = np.random.default_rng([seed, epoch, 1]).integers(len(labels), size=rows.shape)
    return Epoch(np.where(counts, rows, filling).astype(np.int32), counts)


def _seed(seed: int, epoch: int) -> int:
    """The seed of one epoch: different epochs draw independently."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> 1)
