r"""Drawing without replacement from classes, in compiled loops: what the samplers are made of (theory, 3.18).

**Distinct samples at once.** Floyd's algorithm draws q of N without replacement: for t = 0..q-1, x_t uniform in
0..J_t, J_t = N - q + t, and takes x_t, or J_t if x_t was taken before. All x_t are drawn together here, for any number
of strata, and one looks up who was taken: x_t was iff an earlier x_u equals it, or x_t = J_u for an earlier u that took
J_u. The second points from t to an earlier u, so that log2(q) doublings of the pointers resolve it: nothing of the size
of the population is touched, nothing is rejected, nothing loops until it succeeds.
"""

from __future__ import annotations

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from ufm.model.problem import checked_labels


class Population(eqx.Module):
    """Who can be drawn: the samples of labels (n,), class by class.

    - members: samples by class. first: where those of each class begin. sizes: how many they are. n: how many in all.
    """

    members: Int[Array, " samples"]
    first: Int[Array, " k"]
    sizes: Int[Array, " k"]
    n: Int[Array, ""]

    def __init__(self, labels: Sequence[int] | np.ndarray | Array) -> None:
        """Raises InvalidInput for labels that are none. `Sampler.population` asks the sampler too."""
        checked = checked_labels(labels)
        sizes = np.bincount(checked)
        self.members = jnp.asarray(np.argsort(checked, kind="stable"), dtype=jnp.int32)
        self.first = jnp.asarray(np.concatenate([[0], np.cumsum(sizes)[:-1]]), dtype=jnp.int32)
        self.sizes = jnp.asarray(sizes, dtype=jnp.int32)
        self.n = jnp.asarray(len(checked), dtype=jnp.int32)

    @property
    def k(self) -> int:
        """Classes."""
        return self.first.shape[0]

    @property
    def images(self) -> Population:
        """Of n images with two views, i and n + i: the first views, which come first in every class."""
        return eqx.tree_at(lambda p: (p.sizes, p.n), self, (self.sizes // 2, self.n // 2))


def of_classes(
    key: Array, population: Population, label: Int[Array, " s"], quota: Int[Array, "*#s"], rank: Int[Array, " s"]
) -> Int[Array, " s"]:
    """Samples of the class of each slot, `quota` of a class without replacement: slots and ranks as in `distinct`."""
    first = population.first[label]
    return population.members[first + distinct(key, population.sizes[label], quota, rank, offset=first)]


def distinct(
    key: Array,
    size: Int[Array, "*#s"],
    quota: Int[Array, "*#s"],
    rank: Int[Array, " s"],
    inside: Bool[Array, " s"] | None = None,
    offset: Int[Array, " s"] | None = None,
) -> Int[Array, " s"]:
    """Uniform draws without replacement, for several strata at once: a number in 0..size-1 for each slot.

    Slots of a stratum follow each other, with rank 0, 1, ..., quota - 1 in it; each stratum gets a uniformly random set
    of quota numbers below its size, independent of other strata (head of this module: Floyd's algorithm; theory, 3.18).
    inside: slots that count. offset: distinct numbers for distinct strata, at least size apart; 0 of one stratum.
    """
    slot = jnp.arange(len(rank), dtype=jnp.int32)
    last = jnp.maximum(size - quota + rank, 0)
    x = jax.random.randint(key, rank.shape, 0, last + 1, dtype=jnp.int32)
    known_as = x if offset is None else x + offset
    if inside is not None:
        known_as = jnp.where(inside, known_as, -1 - slot)
    earlier = slot[:, None] < slot[None, :]
    taken = _any_row(earlier & (known_as[:, None] == known_as[None, :]))
    # x_t = J_u: u is as many slots before t as their ranks differ.
    pointed = x - (size - quota)
    pointer = jnp.where((pointed >= 0) & (pointed < rank), slot - (rank - pointed), slot)
    for _ in range(max(1, len(rank) - 1).bit_length()):
        taken, pointer = taken | taken[pointer], pointer[pointer]
    return jnp.where(taken, last, x)


def among(x: Int[Array, " s"], others: Int[Array, " t"]) -> Bool[Array, " s"]:
    """Which of x are among the others."""
    return _any_row(others[:, None] == x[None, :])


def _any_row(table: Bool[Array, "t s"]) -> Bool[Array, " s"]:
    """`any` over rows, as a sum of whole rows: of it XLA makes vector instructions on a CPU."""
    return jnp.sum(table, axis=0, dtype=jnp.int32) > 0
