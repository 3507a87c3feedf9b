"""Samples furthest from an orthogonal frame: scans over all pairs, pruned by class means and radii."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from solvers.progress import ProgressCallback, followed

# Entries of one block of the Gram matrix, few enough to stay in cache.
BLOCK_ENTRIES = 2**20
# A margin for rounding, added to bounds; cosines below twice this are not compared.
SLACK = 1e-12


@dataclass(frozen=True)
class Pair:
    """Two samples by number and class, and a value measured between them. For one sample both are the same."""

    samples: tuple[int, int]
    classes: tuple[int, int]
    value: float

    def __str__(self) -> str:
        (i, j), (c, e) = self.samples, self.classes
        if i == j:
            return f"sample {i} (class {c}): {self.value:.3g}"
        return f"samples {i} and {j} (classes {c} and {e}): {self.value:.3g}"


def worst_across(
    rows: Float[np.ndarray, "m d"], labels: Int[np.ndarray, " m"], progress: ProgressCallback | None = None
) -> Pair:
    """The pair of samples of different classes with the largest |cosine|; a row of norm 0 has cosine 0 with all.

    For u of norm at most 1 and a class within radius r of its mean mu, |u . v| <= |u . mu| + r for all its v. If
    classes have collapsed, this excludes all but a few pairs in O(m k d). The others are computed in blocks, those
    with the largest bound first, until no bound exceeds the largest value so far; O(m^2 d) at worst. progress: see
    `followed`.
    """
    norms = np.linalg.norm(rows, axis=1)
    units = rows / np.where(norms > 0, norms, 1.0)[:, None]
    members = [np.flatnonzero(labels == c) for c in range(int(labels.max()) + 1)]
    best, worst = -1.0, (0, 0)
    pairs = float(sum(len(of_class) * int((labels > c).sum()) for c, of_class in enumerate(members)))

    def pieces() -> Iterator[tuple[tuple[np.ndarray, np.ndarray], float]]:
        for c, of_class in enumerate(members):
            theirs = units[of_class]
            mean = theirs.mean(axis=0)
            radius = float(np.sqrt(((theirs - mean) ** 2).sum(axis=1).max()))
            others = np.flatnonzero(labels > c)
            bound = np.minimum(np.abs(units[others] @ mean) + radius, 1.0) + SLACK
            order = np.argsort(-bound, kind="stable")
            size = max(1, BLOCK_ENTRIES // len(of_class))
            for start in range(0, len(others), size):
                block = order[start : start + size]
                if best >= 0 and bound[block[0]] <= max(best, 2 * SLACK):
                    yield (others[:0], of_class), float((len(others) - start) * len(of_class))
                    break
                yield (others[block], of_class), float(len(block) * len(of_class))

    def look(piece: tuple[np.ndarray, np.ndarray]) -> None:
        nonlocal best, worst
        block, of_class = piece
        if not len(block):
            return
        cosines = units[block] @ units[of_class].T
        if max(float(cosines.max()), -float(cosines.min())) > best:
            i, j = np.unravel_index(int(np.argmax(np.abs(cosines))), cosines.shape)
            best, worst = abs(float(cosines[i, j])), (int(of_class[j]), int(block[i]))

    followed(look, pieces(), f"cosines of {pairs:.0e} pairs", pairs, progress)
    return pair(labels, *worst, float(units[worst[0]] @ units[worst[1]]))


def worst_within(rows: Float[np.ndarray, "m d"], labels: Int[np.ndarray, " m"]) -> Pair:
    """In each class: the sample furthest from the class mean, and the sample furthest from that one; the pair at the
    largest distance.

    If every class is one row: sample 0 twice, at distance 0.
    """
    worst = pair(labels, 0, 0, 0.0)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        inside = rows[members]
        i = int(np.argmax(np.linalg.norm(inside - inside.mean(axis=0), axis=1)))
        distances = np.linalg.norm(inside - inside[i], axis=1)
        j = int(np.argmax(distances))
        if distances[j] > worst.value:
            worst = pair(labels, int(members[i]), int(members[j]), float(distances[j]))
    return worst


def worst_norm(rows: Float[np.ndarray, "m d"], labels: Int[np.ndarray, " m"]) -> Pair:
    """The sample whose norm is furthest from 1, as both samples of the pair."""
    norms = np.linalg.norm(rows, axis=1)
    i = int(np.argmax(np.abs(norms - 1)))
    return pair(labels, i, i, float(norms[i]))


def pair(labels: Int[np.ndarray, " m"], i: int, j: int, value: float) -> Pair:
    """The pair of samples i and j with their classes."""
    return Pair((i, j), (int(labels[i]), int(labels[j])), value)
