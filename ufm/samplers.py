r"""Samplers: laws that batches are drawn by, one after the other, without end (theory, 3.18).

    sampler = samplers.class_balanced(128).bound(1)
    sampler.draw(labels, seed=0, batches=100)          # on the host: what `Problem(batches=...)` holds
    state = sampler.begin(key, population)             # in a compiled loop: population = sampler.population(labels)
    batch, state = sampler.next(state, population)

A sampler is a specification without labels: frozen and hashable, so that it may be a static argument. Both ways of
drawing are one implementation. `Sampler.law` says what it draws: `ufm.laws`.

**Distinct samples at once.** Floyd's algorithm draws q of N without replacement: for t = 0..q-1, x_t uniform in
0..J_t, J_t = N - q + t, and takes x_t, or J_t if x_t was taken before. All x_t are drawn together here, for any number
of strata, and one looks up who was taken: x_t was iff an earlier x_u equals it, or x_t = J_u for an earlier u that took
J_u. The second points from t to an earlier u, so that log2(q) doublings of the pointers resolve it: nothing of the size
of the population is touched, nothing is rejected, nothing loops until it succeeds.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from ufm.errors import InvalidInput, checked_seed, whole_number
from ufm.problem import PADDING, checked_labels

# What fits a machine: samples of all batches of one draw together.
MOST_DRAWN = 50_000_000


class Population(eqx.Module):
    """Who can be drawn: the samples, class by class.

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


# Whatever a sampler carries from one batch to the next: a pytree.
State = Any


@dataclass(frozen=True)
class Sampler:
    """A law of batches. Batches are rows of distinct samples; -1 pads, in a compiled loop anywhere in the row."""

    @abstractmethod
    def slots(self, k: int) -> int:
        """Length of a batch, padding counted, for k classes."""

    @abstractmethod
    def begin(self, key: Array, population: Population) -> State:
        """The state before the first batch, of a random key. Pure; the population is taken to be checked."""

    @abstractmethod
    def next(self, state: State, population: Population) -> tuple[Int[Array, " s"], State]:
        """A batch, and the state before the next one. Pure: for `jax.lax.scan`, `jax.jit`, `jax.vmap`."""

    @abstractmethod
    def check(self, sizes: Int[np.ndarray, " k"]) -> None:
        """Raises InvalidInput if it cannot draw from classes of these sizes."""

    def bound(self, m: int = 1) -> Sampler:
        """Batch-binding (paper, Section 4.2): m samples of each class, drawn once, join every batch.

        A batch is a set: binding samples that it holds are not added again. Raises InvalidInput for m < 1.
        """
        return Bound(self, whole_number("m", m, 1, "give at least 1 binding sample a class, as a whole number"))

    def population(self, labels: Sequence[int] | np.ndarray | Array) -> Population:
        """The population of these labels, or InvalidInput if this sampler cannot draw from it."""
        population = Population(labels)
        self.check(np.asarray(population.sizes))
        return population

    def draw(self, labels: Sequence[int] | np.ndarray | Array, seed: int, batches: int) -> Int[np.ndarray, "batches s"]:
        """So many batches on the host, a row each, padded at the end with -1: what `Problem(batches=...)` holds.

        They are those of `begin(jax.random.key(seed), ...)`. Raises InvalidInput for labels, a seed or a number of
        batches that are none, and if the sampler cannot draw from such classes.
        """
        population = self.population(labels)
        batches = whole_number("batches", batches, 1, "give at least 1 batch, as a whole number")
        if batches * self.slots(population.k) > MOST_DRAWN:
            raise InvalidInput("batches", batches, f"more than {MOST_DRAWN:,} samples in all; give fewer")
        rows = np.asarray(_drawn(self, jax.random.key(checked_seed(seed)), population, batches))
        return np.take_along_axis(rows, np.argsort(rows == PADDING, axis=1, kind="stable"), axis=1)


@partial(jax.jit, static_argnums=(0, 3))
def _drawn(sampler: Sampler, key: Array, population: Population, batches: int) -> Int[Array, "batches s"]:
    def step(state: State, _: None) -> tuple[State, Int[Array, " s"]]:
        batch, state = sampler.next(state, population)
        return state, batch

    return jax.lax.scan(step, sampler.begin(key, population), length=batches)[1]


def uniform(batch_size: int) -> Sampler:
    """Every batch is a uniformly random set of batch_size samples, independent of all others.

    Raises InvalidInput for batch_size < 2: a batch of one sample has no positives.
    """
    return Uniform(_batch_size(batch_size))


def reshuffled(batch_size: int) -> Sampler:
    """Epochs: independent uniformly random partitions into batches of batch_size; the last one holds what is left.

    Raises InvalidInput for batch_size < 2.
    """
    return Reshuffled(_batch_size(batch_size))


def class_balanced(batch_size: int) -> Sampler:
    """Every batch holds as many samples of each class as possible, batch_size in all, otherwise uniform.

    With t the largest number such that sum_c min(n_c, t) <= batch_size, each class c gives min(n_c, t) samples, and the
    batch_size - sum_c min(n_c, t) samples left over come from as many different classes, drawn uniformly from those
    with n_c > t. So batch_size / k of each, rounded down or up, if all classes have so many. Which samples of a class:
    uniform; batches are independent. Raises InvalidInput for batch_size < 2.
    """
    return ClassBalanced(_batch_size(batch_size))


def m_per_class(m: int, p: int) -> Sampler:
    """Every batch holds m samples of each of p classes, both uniform; batches are independent.

    Raises InvalidInput for m < 1, p < 1, or m = p = 1: a batch of one sample has no positives.
    """
    m = whole_number("m", m, 1, "give at least 1 sample a class, as a whole number")
    p = whole_number("p", p, 1, "give at least 1 class a batch, as a whole number")
    if m * p < 2:
        raise InvalidInput("m", m, "of p = 1 class that is a batch of one sample, which has no positives: give 2")
    return MPerClass(m, p)


def two_views(sampler: Sampler) -> Sampler:
    """Images with two views: of 2 n samples, i and n + i are the views of image i, and both are in a batch or none.

    `sampler` draws the images. Views are samples of their class, so of each other's positives. Bound, it binds images:
    two_views(s).bound(m) is two_views(s.bound(m)). Raises InvalidInput for what is no sampler, or has views already.
    """
    if not isinstance(sampler, Sampler):
        raise InvalidInput("sampler", sampler, "give a sampler of images, such as ufm.samplers.uniform(64)")
    if isinstance(sampler, TwoViews):
        raise InvalidInput("sampler", sampler, "it draws two views already")
    return TwoViews(sampler)


def _batch_size(value: int) -> int:
    mend = "a batch of one sample has no positives: give at least 2, as a whole number"
    return whole_number("batch_size", value, 2, mend)


@dataclass(frozen=True)
class Uniform(Sampler):
    """`uniform`."""

    batch_size: int

    def slots(self, k: int) -> int:
        """Length of a batch."""
        return self.batch_size

    def begin(self, key: Array, population: Population) -> Array:
        """The key."""
        return key

    def next(self, state: Array, population: Population) -> tuple[Int[Array, " s"], Array]:
        """Samples are numbered 0..n-1: no table is needed."""
        key, own = jax.random.split(state)
        rank = jnp.arange(self.batch_size, dtype=jnp.int32)
        return distinct(own, population.n, jnp.int32(self.batch_size), rank), key

    def check(self, sizes: Int[np.ndarray, " k"]) -> None:
        """A batch is no larger than all samples."""
        if self.batch_size > sizes.sum():
            raise InvalidInput("batch_size", self.batch_size, f"larger than all {int(sizes.sum())} samples; give less")


class _Epoch(NamedTuple):
    """Within an epoch. order: samples, of which the first `at` were in its batches."""

    key: Array
    order: Int[Array, " n"]
    at: Int[Array, ""]


@dataclass(frozen=True)
class Reshuffled(Uniform):
    """`reshuffled`: every batch is uniform in what is left of the epoch, so that the epoch is a uniform partition."""

    def begin(self, key: Array, population: Population) -> _Epoch:
        """Any order will do: a uniform choice from what is left does not know it."""
        return _Epoch(key, jnp.arange(len(population.members), dtype=jnp.int32), jnp.int32(0))

    def next(self, state: _Epoch, population: Population) -> tuple[Int[Array, " s"], _Epoch]:
        """The chosen change places with the first of what is left."""
        key, own = jax.random.split(state.key)
        slot = jnp.arange(self.batch_size, dtype=jnp.int32)
        left = population.n - state.at
        quota = jnp.minimum(self.batch_size, left)
        inside = slot < quota
        beyond = len(state.order)  # what is not inside: neither taken for one of the others, nor written
        place = jnp.where(inside, state.at + distinct(own, left, quota, slot, inside), beyond)
        front = jnp.where(inside, state.at + slot, beyond)
        taken = state.order[place]
        # As many of the chosen lie beyond the front as there are unchosen in it: they change places in turn.
        moved = inside & (place >= state.at + quota)
        hole = inside & ~jnp.any(front[:, None] == place[None, :], axis=1)
        holes = jnp.full_like(front, beyond).at[_turn(hole)].set(front, mode="drop")
        order = state.order.at[jnp.where(moved, place, beyond)].set(
            state.order[holes[jnp.cumsum(moved) - 1]], mode="drop"
        )
        order = order.at[front].set(taken, mode="drop")
        at = jnp.where(state.at + quota == population.n, 0, state.at + quota)
        return jnp.where(inside, taken, PADDING), _Epoch(key, order, at)


def _turn(chosen: Bool[Array, " s"]) -> Int[Array, " s"]:
    """0, 1, ... for the chosen in turn; out of range for the others."""
    return jnp.where(chosen, jnp.cumsum(chosen) - 1, len(chosen))


class _Balance(NamedTuple):
    """base: what each class gives to every batch. extra: how many give one more, of the first `able` of `order`."""

    key: Array
    base: Int[Array, " k"]
    extra: Int[Array, ""]
    order: Int[Array, " k"]
    able: Int[Array, ""]


def water_level(sizes: Int[np.ndarray, " k"] | Int[Array, " k"], batch_size: int) -> Any:
    """The largest t <= batch_size with sum_c min(n_c, t) <= batch_size, an array of no axes."""
    filled = jnp.sum(jnp.minimum(jnp.asarray(sizes), jnp.arange(1, batch_size + 1)[:, None]), axis=1)
    return jnp.sum(filled <= batch_size, dtype=jnp.int32)


@dataclass(frozen=True)
class ClassBalanced(Uniform):
    """`class_balanced`."""

    def begin(self, key: Array, population: Population) -> _Balance:
        """Who gives how much."""
        level = water_level(population.sizes, self.batch_size)
        base = jnp.minimum(population.sizes, level)
        able = population.sizes > level
        order = jnp.argsort(~able, stable=True).astype(jnp.int32)
        return _Balance(
            key, base, self.batch_size - jnp.sum(base, dtype=jnp.int32), order, jnp.sum(able, dtype=jnp.int32)
        )

    def next(self, state: _Balance, population: Population) -> tuple[Int[Array, " s"], _Balance]:
        """First the classes that give one more, then the samples."""
        key, of_classes, of_samples = jax.random.split(state.key, 3)
        turn = jnp.arange(population.k, dtype=jnp.int32)
        more = turn < state.extra
        chosen = state.order[distinct(of_classes, state.able, state.extra, turn, more)]
        quota = state.base + jnp.zeros_like(state.base).at[chosen].add(more)
        end = jnp.cumsum(quota)
        slot = jnp.arange(self.batch_size, dtype=jnp.int32)
        label = jnp.sum(end[None, :] <= slot[:, None], axis=1)
        rank = slot - (end - quota)[label]
        own = _of_classes(of_samples, population, label, quota[label], rank)
        return own, state._replace(key=key)


@dataclass(frozen=True)
class MPerClass(Sampler):
    """`m_per_class`."""

    m: int
    p: int

    def slots(self, k: int) -> int:
        """Length of a batch."""
        return self.m * self.p

    def begin(self, key: Array, population: Population) -> Array:
        """The key."""
        return key

    def next(self, state: Array, population: Population) -> tuple[Int[Array, " s"], Array]:
        """First the classes, then their samples."""
        key, of_classes, of_samples = jax.random.split(state, 3)
        classes = distinct(of_classes, jnp.int32(population.k), jnp.int32(self.p), jnp.arange(self.p, dtype=jnp.int32))
        rank = jnp.tile(jnp.arange(self.m, dtype=jnp.int32), self.p)
        return _of_classes(of_samples, population, jnp.repeat(classes, self.m), jnp.int32(self.m), rank), key

    def check(self, sizes: Int[np.ndarray, " k"]) -> None:
        """There are p classes, and every class has m samples."""
        if self.p > len(sizes):
            raise InvalidInput("p", self.p, f"there are only {len(sizes)} classes; give fewer")
        if self.m > sizes.min():
            raise InvalidInput("m", self.m, f"class {int(sizes.argmin())} has only {int(sizes.min())}; give fewer")


@dataclass(frozen=True)
class Bound(Sampler):
    """`Sampler.bound`."""

    inner: Sampler
    m: int

    def slots(self, k: int) -> int:
        """Length of a batch."""
        return self.inner.slots(k) + self.m * k

    def begin(self, key: Array, population: Population) -> tuple[State, Int[Array, " binding"]]:
        """The binding samples are drawn."""
        own, inner = jax.random.split(key)
        label = jnp.repeat(jnp.arange(population.k, dtype=jnp.int32), self.m)
        rank = jnp.tile(jnp.arange(self.m, dtype=jnp.int32), population.k)
        binding = _of_classes(own, population, label, jnp.int32(self.m), rank)
        return self.inner.begin(inner, population), binding

    def next(self, state: tuple[State, Int[Array, " binding"]], population: Population) -> tuple[Int[Array, " s"], Any]:
        """What is drawn, and then the binding samples that are not among it."""
        drawn, inner = self.inner.next(state[0], population)
        binding = state[1]
        held = jnp.any(binding[:, None] == drawn[None, :], axis=1)
        return jnp.concatenate([drawn, jnp.where(held, PADDING, binding)]), (inner, binding)

    def check(self, sizes: Int[np.ndarray, " k"]) -> None:
        """Every class has m samples."""
        self.inner.check(sizes)
        if self.m > sizes.min():
            mend = f"class {int(sizes.argmin())} has only {int(sizes.min())} samples to bind with"
            raise InvalidInput("m", self.m, mend)

    def bound(self, m: int = 1) -> Sampler:
        """Refused: give all at once."""
        raise InvalidInput("m", m, f"{self.m} samples a class are bound already; give their number once")


@dataclass(frozen=True)
class TwoViews(Sampler):
    """`two_views`."""

    inner: Sampler

    def slots(self, k: int) -> int:
        """Length of a batch."""
        return 2 * self.inner.slots(k)

    def begin(self, key: Array, population: Population) -> State:
        """Of the images."""
        return self.inner.begin(key, population.images)

    def next(self, state: State, population: Population) -> tuple[Int[Array, " s"], State]:
        """First views, then second views."""
        images, state = self.inner.next(state, population.images)
        seconds = jnp.where(images == PADDING, PADDING, images + population.n // 2)
        return jnp.concatenate([images, seconds]), state

    def check(self, sizes: Int[np.ndarray, " k"]) -> None:
        """Every class has an even number of samples."""
        if (sizes % 2).any():
            odd = int(np.flatnonzero(sizes % 2)[0])
            raise InvalidInput(
                "labels", int(sizes[odd]), f"class {odd} has an odd number of samples: images have 2 views"
            )
        self.inner.check(sizes // 2)

    def population(self, labels: Sequence[int] | np.ndarray | Array) -> Population:
        """As of any sampler; samples i and n + i are of one class."""
        checked = checked_labels(labels)
        half = len(checked) // 2
        if len(checked) % 2 or (checked[:half] != checked[half:]).any():
            raise InvalidInput("labels", checked.tolist(), "of n images give 2 n: samples i and n + i are views of one")
        return super().population(checked)

    def bound(self, m: int = 1) -> Sampler:
        """Binds m images of each class, 2 m samples."""
        return TwoViews(self.inner.bound(m))


def _of_classes(
    key: Array, population: Population, label: Int[Array, " s"], quota: Int[Array, "*#s"], rank: Int[Array, " s"]
) -> Int[Array, " s"]:
    """Samples of the class of each slot, `quota` of a class without replacement."""
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
    earlier = slot[:, None] > slot[None, :]
    taken = jnp.any(earlier & (known_as[:, None] == known_as[None, :]), axis=1)
    # x_t = J_u: u is as many slots before t as their ranks differ.
    pointed = x - (size - quota)
    pointer = jnp.where((pointed >= 0) & (pointed < rank), slot - (rank - pointed), slot)
    for _ in range(max(1, len(rank) - 1).bit_length()):
        taken, pointer = taken | taken[pointer], pointer[pointer]
    return jnp.where(taken, last, x)
