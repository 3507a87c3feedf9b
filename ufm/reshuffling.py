r"""How often must batches be reshuffled before they force the orthogonal frame? A first-moment prediction.

For d >= k + 1 the frame is the only minimiser iff each class is one glued component and every two classes
repel (`ufm.minimisers`, rules 1 and 3). In the union of E independent random partitions into m batches this fails
through *obstructions*, whose expected number is

    X(E) = sum_c sum_{j=1}^{n_c/2} C(n_c, j) A_{c,j}^E + sum_{a<b} Q_{ab}^E     (half of it for j = n_c/2),

- A_{c,j}: in one epoch no batch holds samples of both sides of a given split of class c into j and n_c - j. With
  samples dealt to batches independently, sum_o P(j samples occupy o batches) (1 - o/m)^{n_c-j}.
- Q_{ab}: in one epoch no batch holds both classes with a second sample of either: prod over batches of 1 - P(x >= 1,
  y >= 1, x + y >= 3), (x, y) hypergeometric.

Exact up to the independence of samples (A) and of batches (Q) within an epoch, and to batches of one class, which
glue nothing. As in random graphs, single samples are the last to be joined, obstructions are rare and nearly
independent near the threshold, and the share of families without one is about e^{-X}.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def expected_obstructions(class_sizes: Sequence[int], batch_size: int, epochs: float) -> float:
    """X of the head of this module; `epochs` may be any number of at least 1, for a threshold between two."""
    n = sum(class_sizes)
    full, rest = divmod(n, batch_size)
    batches = [batch_size] * full + [rest] * (rest > 0)
    splits = 0.0
    for size in class_sizes:
        occupied = np.zeros(len(batches) + 1)
        occupied[0] = 1.0
        for j in range(1, size // 2 + 1):
            o = np.arange(len(batches) + 1)
            occupied = occupied * o / len(batches) + np.roll(occupied * (1 - o / len(batches)), 1)
            apart = float(occupied @ (1 - o / len(batches)) ** (size - j))
            splits += math.comb(size, j) * apart**epochs / (2 if 2 * j == size else 1)
    strangers = sum(
        math.prod(1 - _repel(n, a, b, drawn) for drawn in batches) ** epochs
        for first, a in enumerate(class_sizes)
        for b in class_sizes[:first]
    )
    return splits + strangers


def epochs_until_unique(class_sizes: Sequence[int], batch_size: int, share: float = 0.5, most: float = 1e3) -> float:
    """The (real) number of epochs at which e^{-X} reaches `share`; inf beyond `most`."""
    wanted = -math.log(share)
    low, high = 1.0, most
    if expected_obstructions(class_sizes, batch_size, high) > wanted:
        return math.inf
    if expected_obstructions(class_sizes, batch_size, low) <= wanted:
        return low
    while high - low > 1e-3:
        middle = (low + high) / 2
        low, high = (
            (low, middle) if expected_obstructions(class_sizes, batch_size, middle) <= wanted else (middle, high)
        )
    return high


def _repel(n: int, a: int, b: int, drawn: int) -> float:
    """P(a batch of `drawn` of n samples holds both of two classes of a and b samples, and a second one of either)."""
    everything = math.comb(n, drawn)
    lacking = math.comb(n - a, drawn) + math.comb(n - b, drawn) - math.comb(n - a - b, drawn)
    one_each = a * b * math.comb(n - a - b, drawn - 2) if drawn >= 2 else 0
    return 1 - (lacking + one_each) / everything
