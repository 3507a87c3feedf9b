"""Batch families: seeded families of index sets (paper, Section 4; theory, 1.1).

Every constructor returns one (nb, s) int32 array of sample indices for `Problem(batches=...)`: one row for each batch,
short batches padded with -1 at the end. Families with the same n and batch size have the same shape for every seed, so
that they can be stacked for vmap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from jaxtyping import Array, Int

from ufm.display import count
from ufm.errors import InvalidInput, whole_number
from ufm.model.problem import PADDING, checked_batches, checked_labels

Family = Int[np.ndarray, "nb s"]
# A limit of memory: samples of all batches of a family together.
MOST_MEMBERS = 50_000_000


def partition(n: int, batch_size: int, seed: int, *, drop_last: bool = False) -> Family:
    """A uniformly random partition of {0..n-1} into batches of batch_size samples.

    The last batch holds the n mod batch_size samples left over, if any; with drop_last it is left out, and
    those samples are in no batch. Raises InvalidInput for n < 1, batch_size < 1, a seed that is not a
    whole number >= 0, or if drop_last leaves no batch.
    """
    n, batch_size = _checked(n, batch_size)
    order = _generator(seed).permutation(n)
    if drop_last:
        if batch_size > n:
            raise InvalidInput("batch_size", batch_size, f"no batch is full: there are {n} samples")
        order = order[: n - n % batch_size]
    return _rows(order, batch_size)


def stratified_partition(labels: Sequence[int] | np.ndarray | Array, batch_size: int, seed: int) -> Family:
    """A random partition of the samples into ceil(n / batch_size) batches that splits each class evenly.

    labels (n,): the class of each sample. Every class c contributes floor(n_c / nb) or ceil(n_c / nb) samples to every
    one of the nb batches, and batch sizes differ by at most one: the shuffled samples, class after class, go to the
    batches in turn. No batch is larger than batch_size. Raises InvalidInput for bad labels, batch_size < 1 or a bad
    seed.
    """
    labels = checked_labels(labels)
    n, batch_size = _checked(len(labels), batch_size)
    generator = _generator(seed)
    nb = -(-n // batch_size)
    shuffled = generator.permutation(n)
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    return _rows(np.concatenate([by_class, np.full(-n % nb, PADDING)]).reshape(-1, nb).T.ravel(), -(-n // nb))


def reshuffled(n: int, batch_size: int, epochs: int, seed: int) -> Family:
    """The union of `epochs` independent random partitions, as in training that reshuffles after every epoch.

    It has ceil(n / batch_size) batches for each epoch, epoch after epoch; every sample is in `epochs` batches. Raises
    InvalidInput as `partition`, and for epochs < 1, or so many that the batches hold more than 50,000,000 samples.
    """
    n, batch_size = _checked(n, batch_size)
    epochs = whole_number("epochs", epochs, 1, "give at least 1 epoch, as a whole number")
    if epochs * n > MOST_MEMBERS:
        raise InvalidInput(
            "epochs", epochs, f"with {n:,} samples the batches would hold more than {MOST_MEMBERS:,}; give fewer epochs"
        )
    generator = _generator(seed)
    return np.concatenate([_rows(generator.permutation(n), batch_size) for _ in range(epochs)])


# The families by the names that `experiments.sweep_batching` uses, as functions of labels, batch size, epochs and seed.
FAMILIES: dict[str, Callable[[np.ndarray, int, int, int], Family]] = {
    "partition": lambda labels, batch_size, epochs, seed: partition(len(labels), batch_size, seed),
    "stratified": lambda labels, batch_size, epochs, seed: stratified_partition(labels, batch_size, seed),
    "reshuffled": lambda labels, batch_size, epochs, seed: reshuffled(len(labels), batch_size, epochs, seed),
}


def bind(
    batches: Iterable[Sequence[int] | np.ndarray | Array] | np.ndarray | Array,
    labels: Sequence[int] | np.ndarray | Array,
    m: int = 1,
    seed: int = 0,
) -> Family:
    """Batch-binding (paper, Section 4.2): the same m binding samples of each class join every batch.

    batches (nb, s) and labels (n,) are those of a `Problem`. With S the union over classes of m samples drawn once
    without replacement, the result is the family {B union S}. A batch is a set: binding samples it already holds are
    not added again. For d >= k the orthogonal frame is then the only minimiser iff every class has at least two
    samples and every sample is in a batch. Then each sample is merged with a binding sample of its class, and every
    batch holds all classes. (The norm of a sample that is alone in its class, or in no batch, is not forced.) Rows are
    k m wider than those of `batches`, whatever these share with S. Raises InvalidInput for bad batches or labels,
    m < 1, m larger than the smallest class, or a bad seed.
    """
    labels = checked_labels(labels)
    m = whole_number("m", m, 1, "give at least 1 binding sample for each class, as a whole number")
    sizes = np.bincount(labels)
    if m > sizes.min():
        fix = f"class {int(sizes.argmin())} has only {count('sample', int(sizes.min()))}; give a smaller m"
        raise InvalidInput("m", m, fix)
    rows = checked_batches(batches, len(labels))
    shuffled = _generator(seed).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    binding = by_class[(first[:, None] + np.arange(m)).ravel()]
    bound = np.full((len(rows), rows.shape[1] + len(binding)), PADDING, dtype=np.int32)
    for b, row in enumerate(rows):
        members = np.concatenate([row[row != PADDING], np.setdiff1d(binding, row)])
        bound[b, : len(members)] = members
    return bound


def _checked(n: int, batch_size: int) -> tuple[int, int]:
    n = whole_number("n", n, 1, "give at least 1 sample, as a whole number")
    return n, whole_number("batch_size", batch_size, 1, "give at least 1 sample for each batch, as a whole number")


def _generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(whole_number("seed", seed, 0, "give a whole number >= 0"))


def _rows(samples: Int[np.ndarray, " n"], width: int) -> Family:
    """Consecutive runs of `width` samples as rows; the last is padded."""
    width = min(width, len(samples))
    padding = np.full(-len(samples) % width, PADDING)
    return np.concatenate([samples, padding]).reshape(-1, width).astype(np.int32)
