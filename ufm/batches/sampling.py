"""The protocol of samplers, and two constructions from any of them: binding, and two views (theory, 3.18)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from ufm.batches.draws import Population, among, of_classes
from ufm.display import count
from ufm.errors import InvalidInput, checked_seed, unmasked, whole_number
from ufm.model.laws import Law
from ufm.model.problem import PADDING, checked_labels
from ufm.settings import in_fixed_settings

# A limit of memory: samples of all batches of one draw together.
MOST_DRAWN = 50_000_000
# What a sampler passes from one batch to the next: a pytree.
State = Any


@dataclass(frozen=True)
class Sampler:
    """A rule by which batches are drawn at random. A batch is an array of distinct samples, padded with -1.

    In a compiled loop the padding may be anywhere in the array.
    """

    @abstractmethod
    def slots(self, k: int) -> int:
        """Length of a batch for k classes, padding included."""

    @abstractmethod
    @in_fixed_settings
    def begin(self, key: Array, population: Population) -> State:
        """The state before the first batch, from a random key (a scalar). Pure; the population is not checked again.

        The result is a tree of arrays of at most (n,) each, whose content only this sampler uses.
        """

    @abstractmethod
    @in_fixed_settings
    def next(self, state: State, population: Population) -> tuple[Int[Array, " s"], State]:
        """A batch (s,), and the state before the next one. Pure: for `jax.lax.scan`, `jax.jit`, `jax.vmap`.

        state: a result of `begin` or `next`, arrays of at most (n,) each.
        """

    @abstractmethod
    def check(self, sizes: Int[np.ndarray, " k"]) -> None:
        """Raises InvalidInput if it cannot draw from classes of these sizes."""

    @abstractmethod
    def law(self, sizes: Sequence[int] | Int[np.ndarray, " k"]) -> Law:
        """The law of its batches for classes of these sizes. Raises InvalidInput if it cannot draw from them."""

    def bound(self, m: int = 1) -> Sampler:
        """Batch-binding (paper, Section 4.2): m samples of each class, drawn once, join every batch.

        A batch is a set: binding samples that it holds are not added again. Raises InvalidInput for m < 1.
        """
        return Bound(self, whole_number("m", m, 1, "give at least 1 binding sample for each class, as a whole number"))

    def population(self, labels: Sequence[int] | np.ndarray | Array) -> Population:
        """The population of labels (n,). Raises InvalidInput if this sampler cannot draw from it."""
        population = Population(labels)
        self.check(np.asarray(population.sizes))
        return population

    @in_fixed_settings
    def draw(self, labels: Sequence[int] | np.ndarray | Array, seed: int, batches: int) -> Int[np.ndarray, "batches s"]:
        """This number of batches from labels (n,), on the host: one row for each, padded with -1 at the end.

        They fit `Problem(batches=...)`, and are the batches that follow `begin(jax.random.key(seed), ...)`. Raises
        InvalidInput for bad labels, a bad seed or number of batches, or if the sampler cannot draw from these classes.
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


def checked_sizes(sampler: Sampler, sizes: Sequence[int] | Int[np.ndarray, " k"]) -> tuple[int, ...]:
    """Class sizes that the sampler can draw from."""
    fix = "give a whole number of at least 1 sample for each class, and at least 2 classes"
    listed = np.asarray(unmasked("sizes", sizes)).tolist()
    if not isinstance(listed, list) or len(listed) < 2:
        raise InvalidInput("sizes", listed, fix)
    whole = tuple(whole_number("sizes", size, 1, fix) for size in listed)
    sampler.check(np.array(whole))
    return whole


@dataclass(frozen=True)
class Bound(Sampler):
    """`Sampler.bound`."""

    inner: Sampler
    m: int

    def slots(self, k: int) -> int:
        """Length of a batch."""
        return self.inner.slots(k) + self.m * k

    @in_fixed_settings
    def begin(self, key: Array, population: Population) -> tuple[State, Int[Array, " binding"]]:
        """The binding samples are drawn."""
        for_binding, inner = jax.random.split(key)
        label = jnp.repeat(jnp.arange(population.k, dtype=jnp.int32), self.m)
        rank = jnp.tile(jnp.arange(self.m, dtype=jnp.int32), population.k)
        binding = of_classes(for_binding, population, label, jnp.int32(self.m), rank)
        return self.inner.begin(inner, population), binding

    @in_fixed_settings
    def next(self, state: tuple[State, Int[Array, " binding"]], population: Population) -> tuple[Int[Array, " s"], Any]:
        """The drawn samples, and then the binding samples that are not among them."""
        drawn, inner = self.inner.next(state[0], population)
        binding = state[1]
        held = among(binding, drawn)
        return jnp.concatenate([drawn, jnp.where(held, PADDING, binding)]), (inner, binding)

    def check(self, sizes: Int[np.ndarray, " k"]) -> None:
        """Every class has m samples."""
        self.inner.check(sizes)
        if self.m > sizes.min():
            fix = f"class {int(sizes.argmin())} has only {count('sample', int(sizes.min()))}; give a smaller m"
            raise InvalidInput("m", self.m, fix)

    def law(self, sizes: Sequence[int] | Int[np.ndarray, " k"]) -> Law:
        """The law of the inner sampler, with binding samples."""
        return replace(self.inner.law(checked_sizes(self, sizes)), bound=self.m)

    def bound(self, m: int = 1) -> Sampler:
        """Refused: bind all samples at once."""
        raise InvalidInput("m", m, f"{self.m} samples of each class are bound already; bind all of them at once")


@dataclass(frozen=True)
class TwoViews(Sampler):
    """`two_views`."""

    inner: Sampler

    def slots(self, k: int) -> int:
        """Length of a batch."""
        return 2 * self.inner.slots(k)

    @in_fixed_settings
    def begin(self, key: Array, population: Population) -> State:
        """The inner sampler's state, for images."""
        return self.inner.begin(key, population.images)

    @in_fixed_settings
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
                "labels", int(sizes[odd]), f"class {odd} has an odd number of samples, but every image has 2 views"
            )
        self.inner.check(sizes // 2)

    def law(self, sizes: Sequence[int] | Int[np.ndarray, " k"]) -> Law:
        """The inner sampler's law, for images; `sizes` counts samples."""
        images = np.array(checked_sizes(self, sizes)) // 2
        return replace(self.inner.law(images), views=2)

    def population(self, labels: Sequence[int] | np.ndarray | Array) -> Population:
        """As for any sampler; samples i and n + i must be of one class."""
        checked = checked_labels(labels)
        half = len(checked) // 2
        if len(checked) % 2 or (checked[:half] != checked[half:]).any():
            raise InvalidInput(
                "labels",
                checked.tolist(),
                "give 2 n labels for n images: samples i and n + i are the views of one image",
            )
        return super().population(checked)

    def bound(self, m: int = 1) -> Sampler:
        """Binds m images of each class, 2 m samples."""
        return TwoViews(self.inner.bound(m))
