r"""Drawing without replacement from classes, in compiled loops: the basis of the samplers (theory, 3.18).

**Distinct samples at once.** Floyd's algorithm draws q of N numbers without replacement. For t = 0..q-1 it draws x_t
uniformly from 0..J_t, J_t = N - q + t, and takes x_t, or J_t if x_t was taken before. Here all x_t are drawn together,
for any number of draws. Then x_t was taken before iff an earlier x_u equals it, or x_t = J_u for an earlier u that took
J_u. The second case is a pointer from t to an earlier u, so that log2(q) doublings of the pointers resolve it. No array
has the size of the population, no draw is rejected, and no loop has a random length.
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
    """The samples that can be drawn, from labels (n,), ordered by class.

    - members: samples by class. first: where each class begins. sizes: samples of each class. n: samples in all.
    """

    members: Int[Array, " samples"]
    first: Int[Array, " k"]
    sizes: Int[Array, " k"]
    n: Int[Array, ""]

    def __init__(self, labels: Sequence[int] | np.ndarray | Array) -> None:
        """Raises InvalidInput for bad labels. `Sampler.population` also checks that the sampler can draw from them."""
        checked = checked_labels(labels)
        sizes = np.bincount(checked)
        self.members = jnp.asarray(np.argsort(checked, kind="stable"), dtype=jnp.int32)
        self.first = jnp.asarray(np.concatenate([[0], np.cumsum(sizes)[:-1]]), dtype=jnp.int32)
        self.sizes = jnp.asarray(sizes, dtype=jnp.int32)
        self.n = jnp.asarray(len(checked), dtype=jnp.int32)

    @property
    def k(self) -> int:
        """The number of classes."""
        return self.first.shape[0]

    @property
    def images(self) -> Population:
        """The first views, if samples i and n + i are two views of an image; they come first in every class."""
        return eqx.tree_at(lambda p: (p.sizes, p.n), self, (self.sizes // 2, self.n // 2))


def of_classes(
    key: Array, population: Population, label: Int[Array, " s"], quota: Int[Array, "*#s"], rank: Int[Array, " s"]
) -> Int[Array, " s"]:
    """A sample of the class of each slot; `quota` of a class, without replacement. Slots and ranks: see `distinct`."""
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
    """Uniform draws without replacement, several at once: a number in 0..size-1 for each slot.

    The slots of a draw follow each other, with rank 0, 1, ..., quota - 1. Each draw gets a uniformly random set of
    quota numbers below its size, independent of the others (Floyd's algorithm, see the head of this module; theory,
    3.18). inside: slots that count. offset: different for each draw, at least size apart; 0 if there is only one draw.
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
    """Whether each entry of x is among the others."""
    return _any_row(others[:, None] == x[None, :])


def _any_row(table: Bool[Array, "t s"]) -> Bool[Array, " s"]:
    """`any` over rows, as a sum of whole rows, for which XLA uses vector instructions on a CPU."""
    return jnp.sum(table, axis=0, dtype=jnp.int32) > 0
