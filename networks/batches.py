"""The batches of an epoch, as what is fed and what counts in the loss."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from ufm import batching
from ufm.errors import InvalidInput, checked_seed, whole_number
from ufm.model.problem import PADDING

POOL = 10  # partitions that are recycled, if no number is given


class Epoch(NamedTuple):
    """Batches of one size: every slot is fed a real image, so that batch norm sees no padding.

    - index: the samples. counts: which slots are in the loss; the others fill a batch up or repeat a sample.
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
    """Epochs take turns among `pool` random partitions: 1 is `fixed`, as many as there are epochs `reshuffled`."""
    return reshuffled(labels, batch_size, epoch % pool, seed)


def bound(labels: Int[np.ndarray, " n"], batch_size: int, epoch: int, seed: int) -> batching.Family:
    """`reshuffled`, and the same sample of each class joins every batch (`ufm.batching.bind`)."""
    return batching.bind(reshuffled(labels, batch_size, epoch, seed), labels, seed=seed)


def bound_fixed(labels: Int[np.ndarray, " n"], batch_size: int, epoch: int, seed: int) -> batching.Family:
    """`fixed`, and the same sample of each class joins every batch."""
    return batching.bind(fixed(labels, batch_size, epoch, seed), labels, seed=seed)


def m_per_class(labels: Int[np.ndarray, " n"], batch_size: int, epoch: int, seed: int) -> batching.Family:
    """As many of every class in each batch: floor(batch_size / k), or all that a smaller class has.

    As many batches as a partition has; the samples of a class follow each other in random orders, one after the other.
    """
    k, random = int(labels.max()) + 1, np.random.default_rng(_seed(seed, epoch))
    m, batches = batch_size // k, -(-len(labels) // batch_size)
    if m < 1:
        raise InvalidInput("batch_size", batch_size, f"give at least one sample a class, {k}")
    rows = np.full((batches, k, m), PADDING)
    for c in range(k):
        of_class = np.flatnonzero(labels == c)
        own = min(m, len(of_class))
        orders = [random.permutation(of_class) for _ in range(-(-batches * own // len(of_class)))]
        dealt = np.concatenate(orders)[: batches * own].reshape(batches, own)
        repeated = (dealt[:, :, None] == dealt[:, None, :]) & np.tri(own, k=-1, dtype=bool)
        rows[:, c, :own] = np.where(repeated.any(axis=2), PADDING, dealt)  # a batch is a set
    return rows.reshape(batches, -1).astype(np.int32)


Law = Callable[[Int[np.ndarray, " n"], int, int, int], batching.Family]
# The laws of batches by name: from labels (n,), batch size, epoch and seed to index sets (batches, slots), -1 pads.
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
        raise InvalidInput("batching", name, f"a number is that of partitions to recycle, as in recycled:{POOL}")
    return partial(recycled, pool=int(pool))


def epoch_of(name: str, labels: Int[np.ndarray, " n"], batch_size: int, epoch: int, seed: int) -> Epoch:
    """The batches of an epoch by the name of their law: they depend on (seed, epoch) alone.

    Slots that the law leaves empty are fed random samples that do not count. Raises InvalidInput.
    """
    law = law_of(name)
    whole_number("batch_size", batch_size, 2, "give at least 2 samples a batch")
    rows = law(labels, min(batch_size, len(labels)), epoch, checked_seed(seed))
    counts = rows != PADDING
    filling = np.random.default_rng([seed, epoch, 1]).integers(len(labels), size=rows.shape)
    return Epoch(np.where(counts, rows, filling).astype(np.int32), counts)


def _seed(seed: int, epoch: int) -> int:
    """Of one epoch: distinct epochs draw independently."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> 1)
