r"""What the batches of a sampler force: in expectation, and after a number of batches (theory, 3.19 and 3.20).

**In expectation.** The expected loss is a sum over all batches that can be drawn, so its minimisers are those of that
family. The family is far too long to list. `forcing_family` gives a short one with the same components, cross edges and
open batches, hence with the same points of zero excess, and `ufm.uniqueness` is applied to it.

**After T batches.** As for reshuffling (`ufm.theory.reshuffling`), the frame is not forced as long as there
is an *obstruction*: a split of a class that no batch has joined yet, or a pair of classes that has not repelled yet;
for a bound sampler, a sample that has not been drawn yet. Their expected number falls geometrically,

    X(T) = sum_c sum_j C(n_c, j) A_{c,j}^T + sum_{a<b} Q_{ab}^T,

and the fraction of families without an obstruction is about e^{-X}, by the Poisson heuristic of random graphs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise, product
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ufm.errors import InvalidInput
from ufm.losses import Loss
from ufm.model.laws import Law, avoids
from ufm.model.problem import PADDING, checked_labels
from ufm.samplers import Sampler
from ufm.theory.reshuffling import log_splits, splits

# Samples of all batches of a forcing family together.
MOST_MEMBERS = 50_000_000
# The most batches that `batches_until_forced` considers.
MOST_BATCHES = 1e7


class _Forced(NamedTuple):
    """What can happen in a batch, by class.

    - merged: the class is one component. alone: batches of this class only can tie or merge its samples. lone: a batch
      can hold two of its samples and nothing else.
    - cross: a batch can hold an active anchor of one class and a sample of the other. meets: two classes can share a
      batch.
    """

    merged: Bool[np.ndarray, " k"]
    alone: Bool[np.ndarray, " k"]
    lone: Bool[np.ndarray, " k"]
    cross: Bool[np.ndarray, "k k"]
    meets: Bool[np.ndarray, "k k"]


def forcing_family(
    labels: Sequence[int] | np.ndarray | Array, sampler: Sampler, loss: Loss | None = None
) -> Int[np.ndarray, "nb s"]:
    """Batches, padded with -1, that together force what the sampler's expected loss forces (theory, 3.19).

    They need not be batches that the sampler draws. Raises InvalidInput if the sampler cannot draw from such labels, or
    if the family would hold more than 50,000,000 samples.
    """
    labels = checked_labels(labels)
    sampler.population(labels)
    law = sampler.law(np.bincount(labels))
    forces = _forces(law, Loss() if loss is None else loss)
    half = len(labels) // law.views
    units = [np.flatnonzero(labels[:half] == c) for c in range(law.k)]

    def samples(chosen: Int[np.ndarray, "*u"]) -> Int[np.ndarray, " s"]:
        return np.concatenate([np.atleast_1d(chosen) + view * half for view in range(law.views)])

    rows: list[Int[np.ndarray, " s"]] = []
    for c, members in enumerate(units):
        if forces.merged[c]:
            other = int(np.argmax(forces.cross[c]))
            rows.append(np.concatenate([samples(members), units[other][:1]]))
        if forces.alone[c]:
            rows.append(samples(members))
        elif forces.lone[c]:
            one_by_one = pairwise(members) if law.views == 1 else members
            rows += [samples(np.array(pair)) for pair in one_by_one]
    ends = [
        [samples(members[:2])] if forces.merged[c] else [samples(unit) for unit in members[:, None]]
        for c, members in enumerate(units)
    ]
    for a in range(law.k):
        for b in range(a):
            if forces.cross[a, b]:
                rows += [np.concatenate(pair) for pair in product(ends[a], ends[b])]
            elif forces.meets[a, b]:
                rows.append(np.array([units[a][0], units[b][0]]))
    rows = rows or [units[0][:1]]
    width = max(map(len, rows))
    if len(rows) * width > MOST_MEMBERS:
        raise InvalidInput(
            "sampler", sampler, f"a family that forces the same would hold more than {MOST_MEMBERS:,} samples"
        )
    padded = np.full((len(rows), width), PADDING, dtype=np.int32)
    for b, row in enumerate(rows):
        padded[b, : len(row)] = row
    return padded


def _forces(law: Law, loss: Loss) -> _Forced:
    k, v, sizes = law.k, law.views, np.array(law.sizes)
    merged, alone, lone = (np.zeros(k, dtype=bool) for _ in range(3))
    cross, meets = np.zeros((k, k), dtype=bool), np.zeros((k, k), dtype=bool)
    alike: dict[tuple[int, ...], tuple[bool, ...]] = {}  # classes of one size have one law

    def kind(c: int) -> tuple[int, ...]:
        return (law.sizes[c], *(part for urn in law.urns for part in (urn.base[c], urn.pool[c])))

    for c in range(k):
        if law.bound:  # every batch holds all classes; drawn units merge with the binding units
            merged[c] = sizes[c] * v >= 2
            continue
        x = law.drawn(c)
        mixed = x.total > x.first
        merged[c] = (mixed & (x.first >= min(2, sizes[c])) & (v * x.first >= 2)).any()
        together = ~mixed & (x.first >= 2)
        enough = 2 if loss.merges_alone else 3 if loss.ties_alone else math.inf
        alone[c] = (together & (v * x.first >= enough)).any()
        lone[c] = (~mixed & (v * x.first == 2)).any()
    for c in range(k):
        for e in range(c):
            if law.bound:
                pair = (bool((sizes[c] + sizes[e]) * v >= 3), True)
            elif (key := kind(c) + kind(e)) in alike:
                pair = alike[key]
            else:
                x = law.drawn(c, e)
                both = (x.first >= 1) & (x.second >= 1)
                pair = alike[key] = (bool((both & (v * (x.first + x.second) >= 3)).any()), bool(both.any()))
            cross[c, e], meets[c, e] = cross[e, c], meets[e, c] = pair
    return _Forced(merged, alone, lone, cross, meets)


class _Waiting(NamedTuple):
    """Obstructions of some kinds.

    - count, probability: logarithms of their number, and of the probability that a batch leaves one in place.
    - drawn: if above 0, the fraction of all units in a batch of an epoch; 1 - T drawn is left after T batches.
    """

    count: Float[np.ndarray, " j"]
    probability: Float[np.ndarray, " j"]
    drawn: float = 0.0


def expected_obstructions(sizes: Sequence[int] | Int[np.ndarray, " k"], sampler: Sampler, batches: float) -> float:
    """X(T) (head of this module) after T = `batches` batches; inf if it overflows, or if the frame is never forced.

    `batches` may be any real number of at least 1. Batches of one class with at least three samples count as merging.
    Raises InvalidInput if the sampler cannot draw from such classes, or for batches < 1.
    """
    if not batches >= 1:
        raise InvalidInput("batches", batches, "give a number of at least 1")
    return float(sum(_expected(waiting, batches) for waiting in _waiting(sampler.law(sizes))))


def batches_until_forced(sizes: Sequence[int] | Int[np.ndarray, " k"], sampler: Sampler, share: float = 0.5) -> float:
    """A prediction, for d >= k + 1: the (real) number of batches after which this fraction of families forces the
    frame.

    share: the fraction. tests/test_forcing.py compares the prediction with drawn families. inf beyond 1e7, and if the
    frame is never forced. Raises InvalidInput if the sampler cannot draw from such classes, or for a share outside
    (0, 1).
    """
    if not 0 < share < 1:
        raise InvalidInput("share", share, "give a number between 0 and 1")
    kinds = _waiting(sampler.law(sizes))

    def forced(batches: float) -> bool:
        return sum(_expected(waiting, batches) for waiting in kinds) <= -math.log(share)

    low, high = 1.0, MOST_BATCHES
    if not forced(high):
        return math.inf
    if forced(low):
        return low
    while high / low > 1 + 1e-4:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if forced(middle) else (middle, high)
    return high


def _expected(waiting: _Waiting, batches: float) -> float:
    if waiting.drawn > 0:
        return math.exp(waiting.count[0]) * max(1.0 - batches * waiting.drawn, 0.0)
    with np.errstate(invalid="ignore"):
        exponent = waiting.count + batches * waiting.probability
    return math.inf if exponent.max() > 700 else float(np.exp(exponent).sum())


def _waiting(law: Law) -> list[_Waiting]:
    if min(law.sizes) * law.views == 1:
        return [_Waiting(np.array([math.inf]), np.zeros(1))]
    classes = {n: _of_class(law, c) for c, n in enumerate(law.sizes)}
    waited = [classes[n] for n in law.sizes]
    if not law.bound:
        pairs: dict[tuple[int, int], float] = {}
        for c in range(law.k):
            for e in range(c):
                if (key := (law.sizes[c], law.sizes[e])) not in pairs:
                    pairs[key] = _log_never_cosampled(law, c, e)
                waited.append(_Waiting(np.zeros(1), np.array([pairs[key]])))
    return waited


def _of_class(law: Law, c: int) -> _Waiting:
    """For a bound sampler, samples that are not drawn; else splits of the class, from one sample to half of it."""
    n, x = law.sizes[c], law.drawn(c)
    if law.bound:
        if n == law.bound:
            return _Waiting(np.array([-math.inf]), np.zeros(1))
        left = 1.0 - float(np.sum(x.probability * x.first)) / n
        drawn = law.urns[0].total / sum(law.sizes) if law.epoch else 0.0
        return _Waiting(np.array([math.log(n - law.bound)]), np.array([_log(left)]), drawn)
    if n == 1:
        mixed = (x.total > x.first) & (x.first >= 1)
        return _Waiting(np.zeros(1), np.array([_log(1.0 - float(np.sum(x.probability * mixed)))]))
    j = np.arange(1, n // 2 + 1)
    if law.epoch:
        sizes = [urn.drawn for urn in law.urns for _ in range(round(urn.weight * law.epoch))]
        # The mean size for which two samples meet as often as in these batches.
        count, apart = splits(n, sum(law.sizes), sizes, sum(size**2 for size in sizes) / sum(sizes))
        return _Waiting(count, apart / law.epoch)
    merges = (x.total > x.first) | (law.views * x.first >= 3)
    joined = np.zeros(len(j))
    for count, p in zip(x.first[merges].tolist(), x.probability[merges].tolist(), strict=True):
        if count >= 1:
            joined += p * np.maximum(1.0 - avoids(n, j, count) - avoids(n, n - j, count), 0.0)
    return _Waiting(log_splits(n), np.log(np.maximum(1.0 - joined, 1e-300)))


def _log_never_cosampled(law: Law, c: int, e: int) -> float:
    """log P(a batch holds no active anchor of one class with a sample of the other); in an epoch, the mean log."""
    v, logs = law.views, []
    for urn in law.urns:
        x = Law(law.sizes, (urn._replace(weight=1.0),)).drawn(c, e)
        met = (x.first >= 1) & (x.second >= 1) & (v * (x.first + x.second) >= 3)
        logs.append(urn.weight * _log(1.0 - float(np.sum(x.probability * met))))
    return sum(logs)


def _log(probability: float) -> float:
    return math.log(probability) if probability > 0 else -math.inf
