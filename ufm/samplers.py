r"""Samplers: rules by which batches are drawn at random, one after the other, without end (theory, 3.18).

    sampler = samplers.class_balanced(128).bound(1)
    sampler.draw(labels, seed=0, batches=100)          # on the host, for `Problem(batches=...)`
    state = sampler.begin(key, population)             # in a compiled loop: population = sampler.population(labels)
    batch, state = sampler.next(state, population)

A sampler holds no labels. It is frozen and hashable, so that it may be a static argument. Both ways of drawing use one
implementation. `Sampler.law` is the distribution of its batches (`ufm.model.laws`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from ufm.batches.draws import Population, among, distinct, of_classes
from ufm.batches.sampling import Bound, Sampler, State, TwoViews, checked_sizes
from ufm.display import count
from ufm.errors import InvalidInput, whole_number
from ufm.model.laws import Law, Urn
from ufm.model.problem import PADDING
from ufm.settings import in_fixed_settings

__all__ = [
    "Bound",
    "Population",
    "Sampler",
    "State",
    "TwoViews",
    "class_balanced",
    "m_per_class",
    "reshuffled",
    "two_views",
    "uniform",
]


def uniform(batch_size: int) -> Sampler:
    """Every batch is a uniformly random set of batch_size samples, independent of all others.

    Raises InvalidInput for batch_size < 2: a batch of one sample has no positives.
    """
    return Uniform(_batch_size(batch_size))


def reshuffled(batch_size: int) -> Sampler:
    """Epochs: independent uniformly random partitions into batches of batch_size; the last batch holds the rest.

    Raises InvalidInput for batch_size < 2.
    """
    return Reshuffled(_batch_size(batch_size))


def class_balanced(batch_size: int) -> Sampler:
    """Every batch holds as many samples of each class as possible, batch_size in all, otherwise uniform.

    With t the largest number such that sum_c min(n_c, t) <= batch_size, each class c gives min(n_c, t) samples. The
    batch_size - sum_c min(n_c, t) other samples come from different classes, drawn uniformly from those with n_c > t.
    So each class gives batch_size / k samples, rounded down or up, if all classes have that many. The samples of a
    class are drawn uniformly, and batches are independent. Raises InvalidInput for batch_size < 2.
    """
    return ClassBalanced(_batch_size(batch_size))


def m_per_class(m: int, p: int) -> Sampler:
    """Every batch holds m samples of each of p classes. Classes and samples are uniform; batches are independent.

    Raises InvalidInput for m < 1, p < 1, or m = p = 1: a batch of one sample has no positives.
    """
    m = whole_number("m", m, 1, "give at least 1 sample for each class, as a whole number")
    p = whole_number("p", p, 1, "give at least 1 class for each batch, as a whole number")
    if m * p < 2:
        raise InvalidInput("m", m, "with p = 1 a batch holds one sample, which has no positives; give m = 2 or more")
    return MPerClass(m, p)


def two_views(sampler: Sampler) -> Sampler:
    """Images with two views: of 2 n samples, i and n + i are the views of image i, and a batch holds both or neither.

    `sampler` draws the images. Two views are samples of one class, so they are positives of each other. Binding binds
    images: two_views(s).bound(m) is two_views(s.bound(m)). Raises InvalidInput unless `sampler` is a sampler without
    views.
    """
    if not isinstance(sampler, Sampler):
        raise InvalidInput("sampler", sampler, "give a sampler of images, such as ufm.samplers.uniform(64)")
    if isinstance(sampler, TwoViews):
        raise InvalidInput("sampler", sampler, "this sampler draws two views already")
    return TwoViews(sampler)


def _batch_size(value: int) -> int:
    fix = "a batch of one sample has no positives: give at least 2, as a whole number"
    return whole_number("batch_size", value, 2, fix)


@dataclass(frozen=True)
class Uniform(Sampler):
    """`uniform`."""

    batch_size: int

    def slots(self, k: int) -> int:
        """Length of a batch."""
        return self.batch_size

    @in_fixed_settings
    def begin(self, key: Array, population: Population) -> Array:
        """The key."""
        return key

    @in_fixed_settings
    def next(self, state: Array, population: Population) -> tuple[Int[Array, " s"], Array]:
        """A set of numbers 0..n-1, which are the samples."""
        key, for_batch = jax.random.split(state)
        rank = jnp.arange(self.batch_size, dtype=jnp.int32)
        return distinct(for_batch, population.n, jnp.int32(self.batch_size), rank), key

    def check(self, sizes: Int[np.ndarray, " k"]) -> None:
        """A batch is no larger than all samples."""
        if self.batch_size > sizes.sum():
            raise InvalidInput("batch_size", self.batch_size, f"there are only {int(sizes.sum())} samples; give fewer")

    def law(self, sizes: Sequence[int] | Int[np.ndarray, " k"]) -> Law:
        """The balls of the urn are samples."""
        sizes = checked_sizes(self, sizes)
        return Law(sizes, (Urn(1.0, (0,) * len(sizes), 1, sizes, self.batch_size),))


class _Epoch(NamedTuple):
    """The state within an epoch. order: samples, the first `at` of which were in earlier batches of the epoch."""

    key: Array
    order: Int[Array, " n"]
    at: Int[Array, ""]


@dataclass(frozen=True)
class Reshuffled(Uniform):
    """`reshuffled`: every batch is uniform among the samples left in the epoch, so the epoch is a uniform partition."""

    @in_fixed_settings
    def begin(self, key: Array, population: Population) -> _Epoch:
        """Any order will do, since a uniform choice among the samples left does not depend on it."""
        return _Epoch(key, jnp.arange(len(population.members), dtype=jnp.int32), jnp.int32(0))

    @in_fixed_settings
    def next(self, state: _Epoch, population: Population) -> tuple[Int[Array, " s"], _Epoch]:
        """The chosen samples change places with the first of those left."""
        key, for_batch = jax.random.split(state.key)
        slot = jnp.arange(self.batch_size, dtype=jnp.int32)
        left = population.n - state.at
        quota = jnp.minimum(self.batch_size, left)
        inside = slot < quota
        beyond = len(state.order)  # the place of slots outside: it equals no other place, and is not written
        place = jnp.where(inside, state.at + distinct(for_batch, left, quota, slot, inside), beyond)
        front = jnp.where(inside, state.at + slot, beyond)
        taken = state.order[place]
        # The number of chosen samples beyond the front is that of unchosen ones in it: they change places in turn.
        moved = inside & (place >= state.at + quota)
        hole = inside & ~among(front, place)
        holes = jnp.full_like(front, beyond).at[_turn(hole)].set(front, mode="drop")
        order = state.order.at[jnp.where(moved, place, beyond)].set(
            state.order[holes[jnp.cumsum(moved) - 1]], mode="drop"
        )
        order = order.at[front].set(taken, mode="drop")
        at = jnp.where(state.at + quota == population.n, 0, state.at + quota)
        return jnp.where(inside, taken, PADDING), _Epoch(key, order, at)

    def law(self, sizes: Sequence[int] | Int[np.ndarray, " k"]) -> Law:
        """The law of a random batch of an epoch; one batch is smaller if the batch size does not divide n."""
        sizes = checked_sizes(self, sizes)
        full, rest = divmod(sum(sizes), self.batch_size)
        held = [(full, self.batch_size)] + [(1, rest)] * (rest > 0)
        none, epoch = (0,) * len(sizes), full + (rest > 0)
        return Law(sizes, tuple(Urn(times / epoch, none, 1, sizes, drawn) for times, drawn in held), epoch=epoch)


def _turn(chosen: Bool[Array, " s"]) -> Int[Array, " s"]:
    """0, 1, ... for the chosen in turn; out of range for the others."""
    return jnp.where(chosen, jnp.cumsum(chosen) - 1, len(chosen))


class _Balance(NamedTuple):
    """base: samples of each class in every batch. extra: how many classes give one more; they are drawn from the first
    `able` classes of `order`."""

    key: Array
    base: Int[Array, " k"]
    extra: Int[Array, ""]
    order: Int[Array, " k"]
    able: Int[Array, ""]


@in_fixed_settings
def water_level(sizes: Int[np.ndarray, " k"] | Int[Array, " k"], batch_size: int) -> Any:
    """The largest t <= batch_size with sum_c min(n_c, t) <= batch_size, an array of no axes."""
    filled = jnp.sum(jnp.minimum(jnp.asarray(sizes), jnp.arange(1, batch_size + 1)[:, None]), axis=1)
    return jnp.sum(filled <= batch_size, dtype=jnp.int32)


@dataclass(frozen=True)
class ClassBalanced(Uniform):
    """`class_balanced`."""

    @in_fixed_settings
    def begin(self, key: Array, population: Population) -> _Balance:
        """How many samples each class gives."""
        level = water_level(population.sizes, self.batch_size)
        base = jnp.minimum(population.sizes, level)
        able = population.sizes > level
        order = jnp.argsort(~able, stable=True).astype(jnp.int32)
        return _Balance(
            key, base, self.batch_size - jnp.sum(base, dtype=jnp.int32), order, jnp.sum(able, dtype=jnp.int32)
        )

    @in_fixed_settings
    def next(self, state: _Balance, population: Population) -> tuple[Int[Array, " s"], _Balance]:
        """First the classes that give one more, then the samples."""
        key, for_classes, for_samples = jax.random.split(state.key, 3)
        turn = jnp.arange(population.k, dtype=jnp.int32)
        more = turn < state.extra
        chosen = state.order[distinct(for_classes, state.able, state.extra, turn, more)]
        quota = state.base + jnp.zeros_like(state.base).at[chosen].add(more)
        end = jnp.cumsum(quota)
        slot = jnp.arange(self.batch_size, dtype=jnp.int32)
        label = jnp.sum(end[:, None] <= slot[None, :], axis=0, dtype=jnp.int32)
        rank = slot - (end - quota)[label]
        samples = of_classes(for_samples, population, label, quota[label], rank)
        return samples, state._replace(key=key)

    def law(self, sizes: Sequence[int] | Int[np.ndarray, " k"]) -> Law:
        """The balls of the urn are the classes that can give one more."""
        sizes = checked_sizes(self, sizes)
        level = int(water_level(np.array(sizes), self.batch_size))
        base = tuple(min(size, level) for size in sizes)
        able = tuple(int(size > level) for size in sizes)
        return Law(sizes, (Urn(1.0, base, 1, able, self.batch_size - sum(base)),))


@dataclass(frozen=True)
class MPerClass(Sampler):
    """`m_per_class`."""

    m: int
    p: int

    def slots(self, k: int) -> int:
        """Length of a batch."""
        return self.m * self.p

    @in_fixed_settings
    def begin(self, key: Array, population: Population) -> Array:
        """The key."""
        return key

    @in_fixed_settings
    def next(self, state: Array, population: Population) -> tuple[Int[Array, " s"], Array]:
        """First the classes, then their samples."""
        key, for_classes, for_samples = jax.random.split(state, 3)
        classes = distinct(for_classes, jnp.int32(population.k), jnp.int32(self.p), jnp.arange(self.p, dtype=jnp.int32))
        rank = jnp.tile(jnp.arange(self.m, dtype=jnp.int32), self.p)
        return of_classes(for_samples, population, jnp.repeat(classes, self.m), jnp.int32(self.m), rank), key

    def check(self, sizes: Int[np.ndarray, " k"]) -> None:
        """There are at least p classes, and every class has at least m samples."""
        if self.p > len(sizes):
            raise InvalidInput("p", self.p, f"there are only {len(sizes)} classes; give fewer")
        if self.m > sizes.min():
            fix = f"class {int(sizes.argmin())} has only {count('sample', int(sizes.min()))}; give a smaller m"
            raise InvalidInput("m", self.m, fix)

    def law(self, sizes: Sequence[int] | Int[np.ndarray, " k"]) -> Law:
        """The balls of the urn are classes."""
        sizes = checked_sizes(self, sizes)
        k = len(sizes)
        return Law(sizes, (Urn(1.0, (0,) * k, self.m, (1,) * k, self.p),))
