r"""The law of a sampler's batches: how many samples of each class, who meets whom (theory, 3.18).

All samplers of `ufm.samplers` draw counts of one form. Of *units* (samples, or images with two views) a batch draws

    x = base + scale y,     y ~ hypergeometric: `drawn` balls without replacement, pool_c of them of class c,

a mixture of such urns, and given x every set of x_c units of each class c is equally likely, independently. So a batch
of `uniform` draws from the samples themselves, one of `class_balanced` base_c from class c and one more from some of
the classes that have it (an urn of classes), one of `m_per_class` m from each class drawn. Binding adds the m
binding units of each class: of x_c drawn, r_c are new, hypergeometric, and the batch holds m + r_c.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import gammaln

from ufm.errors import InvalidInput, checked_seed, whole_number

# Count vectors that are listed one by one.
MOST_VECTORS = 100_000


class Urn(NamedTuple):
    """x = base + scale y, y the draw of `drawn` balls of `pool`; weight: how often this urn is drawn from."""

    weight: float
    base: tuple[int, ...]
    scale: int
    pool: tuple[int, ...]
    drawn: int

    @property
    def total(self) -> int:
        """Units drawn."""
        return sum(self.base) + self.scale * self.drawn


class Drawn(NamedTuple):
    """Possible counts of units drawn of one class, or of two, with the total of the batch and their probabilities."""

    first: Int[np.ndarray, " v"]
    second: Int[np.ndarray, " v"]
    total: Int[np.ndarray, " v"]
    probability: Float[np.ndarray, " v"]


class Counts(NamedTuple):
    """Count vectors, all different, and their probabilities.

    - drawn: units that are drawn and not bound. In samples: times `Law.views`, and the binding ones beside them.
    """

    drawn: Int[np.ndarray, "v k"]
    probability: Float[np.ndarray, " v"]


@dataclass(frozen=True)
class Law:
    """What is known of a batch.

    - sizes: units of each class. urns: see the head of this module. views: samples of a unit, 1 or 2.
    - bound: binding units of each class that join every batch.
    - epoch: batches of an epoch, every unit in one of them; 0 where batches are independent.
    """

    sizes: tuple[int, ...]
    urns: tuple[Urn, ...]
    bound: int = 0
    views: int = 1
    epoch: int = 0

    @property
    def k(self) -> int:
        """Classes."""
        return len(self.sizes)

    def drawn(self, c: int, e: int | None = None) -> Drawn:
        """The joint law of the units drawn of class c and of another class e (of 0 where e is None)."""
        parts = [_of_urn(urn, c, e) for urn in self.urns]
        return Drawn(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def at_least_two(self, c: int) -> float:
        """P(a batch holds two samples of class c or more): that its anchors are active."""
        if self.bound * self.views >= 2:
            return 1.0
        law = self.drawn(c)
        # With one binding sample: unless there is no other among those drawn.
        missing = avoids(self.sizes[c], self.sizes[c] - 1, law.first) if self.bound else self.views * law.first < 2
        return float(np.sum(law.probability * (1.0 - missing)))

    def includes(self, c: int) -> float:
        """P(a given sample of class c is in a batch), of samples that are not bound."""
        law = self.drawn(c)
        return float(np.sum(law.probability * law.first)) / self.sizes[c]

    def meets(self, c: int, e: int) -> float:
        """P(two given samples of classes c and e are in one batch); not bound, and not views of one image."""
        n, law = self.sizes, self.drawn(c, None if c == e else e)
        pairs = law.first * (law.first - 1 if c == e else law.second)
        return float(np.sum(law.probability * pairs)) / max(n[c] * (n[c] - 1 if c == e else n[e]), 1)

    @property
    def vectors(self) -> int:
        """At least the number of different count vectors: how many `counts` would list."""
        grown = 1 if not self.bound else int(np.prod([float(min(n - self.bound, 50) + 1) for n in self.sizes]))
        return sum(_number(urn.pool, urn.drawn) for urn in self.urns) * grown

    def counts(self) -> Counts:
        """All count vectors, with their probabilities. Raises InvalidInput for more than 100,000."""
        if self.vectors > MOST_VECTORS:
            fix = f"has more than {MOST_VECTORS:,} count vectors; draw some of them with `sampled`"
            raise InvalidInput("sampler", f"of {sum(self.sizes)} units", fix)
        found: dict[tuple[int, ...], float] = {}
        for urn in self.urns:
            for y in _vectors(urn.pool, urn.drawn):
                x = [b + urn.scale * one for b, one in zip(urn.base, y, strict=True)]
                weight = urn.weight * math.exp(_log_hypergeometric(urn.pool, y))
                for new, share in self._new(x):
                    found[new] = found.get(new, 0.0) + weight * share
        return Counts(np.array(list(found), dtype=np.int64), np.array(list(found.values())))

    def _new(self, x: list[int]) -> Iterator[tuple[tuple[int, ...], float]]:
        """The units that are not bound among x drawn of each class."""
        if not self.bound:
            yield tuple(x), 1.0
            return
        m = self.bound
        tables = [
            [
                (r, math.exp(_log_hypergeometric((n - m, m), (r, own - r))))
                for r in range(max(0, own - m), min(own, n - m) + 1)
            ]
            for n, own in zip(self.sizes, x, strict=True)
        ]
        for choice in product(*tables):
            yield tuple(r for r, _ in choice), float(np.prod([p for _, p in choice]))

    def sampled(self, number: int, seed: int) -> Counts:
        """Count vectors of so many independent batches, with their frequencies. Raises InvalidInput for bad numbers."""
        number = whole_number("vectors", number, 2, "give at least 2 count vectors, as a whole number")
        generator = np.random.default_rng(checked_seed(seed))
        which = generator.choice(len(self.urns), size=number, p=[urn.weight for urn in self.urns])
        rows = np.zeros((number, self.k), dtype=np.int64)
        for u, urn in enumerate(self.urns):
            own = which == u
            y = generator.multivariate_hypergeometric(list(urn.pool), urn.drawn, size=int(own.sum()))
            rows[own] = np.array(urn.base) + urn.scale * y
        if self.bound:
            free = np.array(self.sizes) - self.bound
            rows = generator.hypergeometric(free, self.bound, rows) if rows.any() else rows
        different, times = np.unique(rows, axis=0, return_counts=True)
        return Counts(different, times / number)


def avoids(
    size: int, others: int | Int[np.ndarray, "*#s"], drawn: int | Int[np.ndarray, "*#s"]
) -> Float[np.ndarray, "*s"]:
    """P(`drawn` of `size` units avoid `others` given ones) = C(size - others, drawn) / C(size, drawn)."""
    room = np.asarray(size - np.asarray(others) - np.asarray(drawn), dtype=np.float64)
    fits = room >= 0
    log = (
        gammaln(size - np.asarray(others) + 1.0)
        - gammaln(np.where(fits, room, 0.0) + 1.0)
        - gammaln(size + 1.0)
        + gammaln(size - np.asarray(drawn) + 1.0)
    )
    return np.where(fits, np.exp(np.where(fits, log, 0.0)), 0.0)


def _of_urn(urn: Urn, c: int, e: int | None) -> Drawn:
    a, b = urn.pool[c], 0 if e is None else urn.pool[e]
    rest = sum(urn.pool) - a - b
    i, j = (grid.ravel() for grid in np.mgrid[: min(a, urn.drawn) + 1, : min(b, urn.drawn) + 1])
    possible = (i + j <= urn.drawn) & (urn.drawn - i - j <= rest)
    i, j = i[possible], j[possible]
    probability = np.exp(
        _log_choose(a, i)
        + _log_choose(b, j)
        + _log_choose(rest, urn.drawn - i - j)
        - _log_choose(sum(urn.pool), np.array([urn.drawn]))
    )
    of_second = np.zeros_like(j) if e is None else urn.base[e] + urn.scale * j
    return Drawn(urn.base[c] + urn.scale * i, of_second, np.full(len(i), urn.total), urn.weight * probability)


def _log_choose(n: int, k: Int[np.ndarray, "*s"]) -> Float[np.ndarray, "*s"]:
    return gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0)


def _log_hypergeometric(pool: tuple[int, ...], y: tuple[int, ...]) -> float:
    ways = sum(math.log(math.comb(n, own)) for n, own in zip(pool, y, strict=True))
    return ways - math.log(math.comb(sum(pool), sum(y)))


def _number(pool: tuple[int, ...], drawn: int) -> int:
    """How many y <= pool have the sum `drawn`: the coefficient of a product of polynomials, up to MOST_VECTORS."""
    ways = np.zeros(drawn + 1)
    ways[0] = 1.0
    for n in pool:
        total = np.cumsum(ways)
        total[n + 1 :] -= np.cumsum(ways)[: max(drawn - n, 0)]
        ways = np.minimum(total, 1e15)
    return int(ways[drawn])


def _vectors(pool: tuple[int, ...], drawn: int) -> Iterator[tuple[int, ...]]:
    """All y <= pool with the sum `drawn`."""
    if len(pool) == 1:
        if drawn <= pool[0]:
            yield (drawn,)
        return
    rest = sum(pool[1:])
    for own in range(max(0, drawn - rest), min(pool[0], drawn) + 1):
        for others in _vectors(pool[1:], drawn - own):
            yield (own, *others)
