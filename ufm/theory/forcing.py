r"""What the batches of a sampler force: in expectation, and after so many of them (theory, 3.19 and 3.20).

**In expectation.** The expected loss is a sum over all batches that can be drawn, so its minimisers are those of that
family. It is far too long to write down; `forcing_family` gives a short one with the same components, cross edges and
open batches, hence the same minimisers among points of zero excess, and `ufm.uniqueness` decides on it.

**After T batches.** As for reshuffling (`ufm.theory.reshuffling`), the frame fails to be forced by *obstructions*: a
split of
a class that no batch has joined yet, a pair of classes that has not repelled yet; of a bound sampler, a sample that has
not been drawn yet. Their expected number falls geometrically,

    X(T) = sum_c sum_j C(n_c, j) A_{c,j}^T + sum_{a<b} Q_{ab}^T,

and the share of families without one is about e^{-X}: the Poisson heuristic of random graphs, as for reshuffling.
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
# Batches that are waited for.
MOST_BATCHES = 1e7


class _Forced(NamedTuple):
    """What can happen in a batch, by class.

    - merged: the class is one component. alone: batches of this class only tie, or glue, all of its samples. lone: a
      batch holds two of its samples and nothing else.
    - cross: an active anchor of either class meets the other. meets: two classes share a batch.
    """

    merged: Bool[np.ndarray, " k"]
    alone: Bool[np.ndarray, " k"]
    lone: Bool[np.ndarray, " k"]
    cross: Bool[np.ndarray, "k k"]
    meets: Bool[np.ndarray, "k k"]


def forcing_family(
    labels: Sequence[int] | np.ndarray | Array, sampler: Sampler, loss: Loss | None = None
) -> Int[np.ndarray, "nb s"]:
    """Batches that force together what the expected loss of the sampler forces (theory, 3.19), padded with -1.

    They need not be batches that it draws. Raises InvalidInput if the sampler cannot draw from such labels, or if the
    family would hold more than 50,000,000 samples.
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
    for c, own in enumerate(units):
        if forces.merged[c]:
            other = int(np.argmax(forces.cross[c]))
            rows.append(np.concatenate([samples(own), units[other][:1]]))
        if forces.alone[c]:
            rows.append(samples(own))
        elif forces.lone[c]:
            one_by_one = pairwise(own) if law.views == 1 else own
            rows += [samples(np.array(pair)) for pair in one_by_one]
    ends = [
        [samples(own[:2])] if forces.merged[c] else [samples(unit) for unit in own[:, None]]
        for c, own in enumerate(units)
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
        raise InvalidInput("sampler", sampler, f"what it forces takes more than {MOST_MEMBERS:,} samples to write down")
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
        if law.bound:  # every batch holds all classes; what is drawn joins the binding units
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
                found = (bool((sizes[c] + sizes[e]) * v >= 3), True)
            elif (key := kind(c) + kind(e)) in alike:
                found = alike[key]
            else:
                x = law.drawn(c, e)
                both = (x.first >= 1) & (x.second >= 1)
                found = alike[key] = (bool((both & (v * (x.first + x.second) >= 3)).any()), bool(both.any()))
            cross[c, e], meets[c, e] = cross[e, c], meets[e, c] = found
    return _Forced(merged, alone, lone, cross, meets)


class _Waiting(NamedTuple):
    """Obstructions of some kinds.

    - count, probability: logarithms of how many there are, and of the probability that a batch leaves one.
    - drawn: if above 0, the share of all units in a batch of an epoch, of which 1 - T drawn are left after T batches.
    """

    count: Float[np.ndarray, " j"]
    probability: Float[np.ndarray, " j"]
    drawn: float = 0.0


def expected_obstructions(sizes: Sequence[int] | Int[np.ndarray, " k"], sampler: Sampler, batches: float) -> float:
    """X(T) of the head of this module after T = `batches` batches, inf where it overflows or no number will do.

    `batches` may be any number of at least 1. Batches of one class with three samples or more are taken to glue.
    Raises InvalidInput if the sampler cannot draw from such classes, or for batches < 1.
    """
    if not batches >= 1:
        raise InvalidInput("batches", batches, "give a number of at least 1")
    return float(sum(_expected(waiting, batches) for waiting in _waiting(sampler.law(sizes))))


def batches_until_forced(sizes: Sequence[int] | Int[np.ndarray, " k"], sampler: Sampler, share: float = 0.5) -> float:
    """The (real) number of batches after which a `share` of families forces the frame, d >= k + 1: a prediction.

    Measured against drawn families in tests/test_forcing.py. inf beyond 1e7, and where the frame is never forced.
    Raises InvalidInput if the sampler cannot draw from such classes, or for a share outside (0, 1).
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
    """A sample of a bound sampler that is not drawn; else splits of the class, from one sample to half of it."""
    n, x = law.sizes[c], law.drawn(c)
    if law.bound:
        if n == law.bound:
            return _Waiting(np.array([-math.inf]), np.zeros(1))
        left = 1.0 - float(np.sum(x.probability * x.first)) / n
        share = law.urns[0].total / sum(law.sizes) if law.epoch else 0.0
        return _Waiting(np.array([math.log(n - law.bound)]), np.array([_log(left)]), share)
    if n == 1:
        mixed = (x.total > x.first) & (x.first >= 1)
        return _Waiting(np.zeros(1), np.array([_log(1.0 - float(np.sum(x.probability * mixed)))]))
    j = np.arange(1, n // 2 + 1)
    if law.epoch:
        sizes = [urn.drawn for urn in law.urns for _ in range(round(urn.weight * law.epoch))]
        # As likely to meet in batches of one size as in these.
        count, apart = splits(n, sum(law.sizes), sizes, sum(size**2 for size in sizes) / sum(sizes))
        return _Waiting(count, apart / law.epoch)
    glues = (x.total > x.first) | (law.views * x.first >= 3)
    joined = np.zeros(len(j))
    for own, p in zip(x.first[glues].tolist(), x.probability[glues].tolist(), strict=True):
        if own >= 1:
            joined += p * np.maximum(1.0 - avoids(n, j, own) - avoids(n, n - j, own), 0.0)
    return _Waiting(log_splits(n), np.log(np.maximum(1.0 - joined, 1e-300)))


def _log_never_cosampled(law: Law, c: int, e: int) -> float:
    """log P(a batch lacks an active anchor of two classes that meets the other); a batch's share of an epoch's."""
    v, logs = law.views, []
    for urn in law.urns:
        x = Law(law.sizes, (urn._replace(weight=1.0),)).drawn(c, e)
        met = (x.first >= 1) & (x.second >= 1) & (v * (x.first + x.second) >= 3)
        logs.append(urn.weight * _log(1.0 - float(np.sum(x.probability * met))))
    return sum(logs)


def _log(probability: float) -> float:
    return math.log(probability) if probability > 0 else -math.inf
