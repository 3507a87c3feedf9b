r"""The law of a sampler's batches: how many samples of each class, and which samples share a batch (theory, 3.18).

All samplers of `ufm.samplers` draw counts of one form. A batch draws x_c *units* (samples, or images with two views) of
each class c, where

    x = base + scale y,     y ~ hypergeometric: `drawn` balls without replacement, pool_c of them of class c,

and the urn is drawn at random if there are several. Given x, every set of x_c units of each class c is equally likely,
independently for each class. So `uniform` draws from the samples themselves. `class_balanced` draws base_c from class
c, and one more from some of the classes that have more (an urn of classes). `m_per_class` draws m from each class
drawn. Binding adds the m binding units of each class: of x_c drawn units r_c are new (hypergeometric), and the batch
holds m + r_c.
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

# The most count vectors that are listed.
MOST_VECTORS = 100_000


class Urn(NamedTuple):
    """x = base + scale y, where y is a draw of `drawn` balls of `pool`. weight: the probability of this urn."""

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
    """Possible numbers of units drawn from one class, or from two, with the batch's total and their probabilities."""

    first: Int[np.ndarray, " v"]
    second: Int[np.ndarray, " v"]
    total: Int[np.ndarray, " v"]
    probability: Float[np.ndarray, " v"]


class Counts(NamedTuple):
    """Count vectors, all different, and their probabilities.

    - drawn: units that are drawn and not bound. The batch holds `Law.views` times as many samples, and the binding
      ones.
    """

    drawn: Int[np.ndarray, "v k"]
    probability: Float[np.ndarray, " v"]


@dataclass(frozen=True)
class Law:
    """The law of a batch.

    - sizes: units of each class. urns: see the head of this module. views: samples of a unit, 1 or 2.
    - bound: binding units of each class that join every batch.
    - epoch: the number of batches in an epoch, which hold every unit once; 0 if batches are independent.
    """

    sizes: tuple[int, ...]
    urns: tuple[Urn, ...]
    bound: int = 0
    views: int = 1
    epoch: int = 0

    @property
    def k(self) -> int:
        """The number of classes."""
        return len(self.sizes)

    def drawn(self, c: int, e: int | None = None) -> Drawn:
        """The joint law of the numbers of units drawn from class c and from another class e (0 if e is None)."""
        parts = [_of_urn(urn, c, e) for urn in self.urns]
        return Drawn(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def at_least_two(self, c: int) -> float:
        """P(a batch holds at least two samples of class c), so that its anchors are active."""
        if self.bound * self.views >= 2:
            return 1.0
        law = self.drawn(c)
        # With one binding sample: unless no other sample is drawn.
        missing = avoids(self.sizes[c], self.sizes[c] - 1, law.first) if self.bound else self.views * law.first < 2
        return float(np.sum(law.probability * (1.0 - missing)))

    def includes(self, c: int) -> float:
        """P(a fixed sample of class c, not bound, is in a batch)."""
        law = self.drawn(c)
        return float(np.sum(law.probability * law.first)) / self.sizes[c]

    def meets(self, c: int, e: int) -> float:
        """P(two fixed samples of classes c and e, not bound and not views of one image, are both in a batch)."""
        n, law = self.sizes, self.drawn(c, None if c == e else e)
        pairs = law.first * (law.first - 1 if c == e else law.second)
        return float(np.sum(law.probability * pairs)) / max(n[c] * (n[c] - 1 if c == e else n[e]), 1)

    @property
    def vectors(self) -> int:
        """An upper bound of the number of different count vectors, which `counts` would list."""
        grown = 1 if not self.bound else int(np.prod([float(min(n - self.bound, 50) + 1) for n in self.sizes]))
        return sum(_number(urn.pool, urn.drawn) for urn in self.urns) * grown

    def counts(self) -> Counts:
        """All count vectors, with their probabilities. Raises InvalidInput for more than 100,000."""
        if self.vectors > MOST_VECTORS:
            fix = f"it has more than {MOST_VECTORS:,} count vectors; draw some of them by `sampled`"
            raise InvalidInput("sampler", f"a law over {sum(self.sizes)} units", fix)
        probability_of: dict[tuple[int, ...], float] = {}
        for urn in self.urns:
            for y in _vectors(urn.pool, urn.drawn):
                x = [b + urn.scale * one for b, one in zip(urn.base, y, strict=True)]
                weight = urn.weight * math.exp(_log_hypergeometric(urn.pool, y))
                for new, probability in self._new(x):
                    probability_of[new] = probability_of.get(new, 0.0) + weight * probability
        return Counts(np.array(list(probability_of), dtype=np.int64), np.array(list(probability_of.values())))

    def _new(self, x: list[int]) -> Iterator[tuple[tuple[int, ...], float]]:
        """Numbers of units that are not bound among x drawn from each class, and their probabilities."""
        if not self.bound:
            yield tuple(x), 1.0
            return
        m = self.bound
        tables = [
            [
                (r, math.exp(_log_hypergeometric((n - m, m), (r, drawn - r))))
                for r in range(max(0, drawn - m), min(drawn, n - m) + 1)
            ]
            for n, drawn in zip(self.sizes, x, strict=True)
        ]
        for choice in product(*tables):
            yield tuple(r for r, _ in choice), float(np.prod([p for _, p in choice]))

    def sampled(self, number: int, seed: int) -> Counts:
        """Count vectors of this number of independent batches, with frequencies. Raises InvalidInput for bad
        numbers."""
        number = whole_number("vectors", number, 2, "give at least 2 count vectors, as a whole number")
        generator = np.random.default_rng(checked_seed(seed))
        which = generator.choice(len(self.urns), size=number, p=[urn.weight for urn in self.urns])
        rows = np.zeros((number, self.k), dtype=np.int64)
        for u, urn in enumerate(self.urns):
            chosen = which == u
            y = generator.multivariate_hypergeometric(list(urn.pool), urn.drawn, size=int(chosen.sum()))
            rows[chosen] = np.array(urn.base) + urn.scale * y
        if self.bound:
            free = np.array(self.sizes) - self.bound
            rows = generator.hypergeometric(free, self.bound, rows) if rows.any() else rows
        different, times = np.unique(rows, axis=0, return_counts=True)
        return Counts(different, times / number)


def avoids(
    size: int, others: int | Int[np.ndarray, "*#s"], drawn: int | Int[np.ndarray, "*#s"]
) -> Float[np.ndarray, "*s"]:
    """P(`drawn` of `size` units avoid `others` fixed ones) = C(size - others, drawn) / C(size, drawn)."""
    remaining = np.asarray(size - np.asarray(others) - np.asarray(drawn), dtype=np.float64)
    fits = remaining >= 0
    log = (
        gammaln(size - np.asarray(others) + 1.0)
        - gammaln(np.where(fits, remaining, 0.0) + 1.0)
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
    ways = sum(math.log(math.comb(n, one)) for n, one in zip(pool, y, strict=True))
    return ways - math.log(math.comb(sum(pool), sum(y)))


def _number(pool: tuple[int, ...], drawn: int) -> int:
    """How many y <= pool have the sum `drawn`: a coefficient of a product of polynomials, cut off at 1e15."""
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
    for first in range(max(0, drawn - rest), min(pool[0], drawn) + 1):
        for others in _vectors(pool[1:], drawn - first):
            yield (first, *others)
