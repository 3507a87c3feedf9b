r"""How often must batches be reshuffled before they force the orthogonal frame? A prediction (theory, 3.16).

For d >= k + 1 the frame is the only minimiser iff each class is one merged component of two samples or more and every
two classes repel (`ufm.uniqueness`, rules 1 to 4). If a class has one sample, this is never the case. In the union of E
independent random partitions into m batches this fails through *obstructions*, whose expected number is

    X(E) = sum_c sum_{j=1}^{n_c/2} C(n_c, j) A_{c,j}^E + sum_{a<b} Q_{ab}^E     (half of it for j = n_c/2),

- A_{c,j}: in one epoch no batch holds samples of both sides of a given split of class c into j and n_c - j:
  sum_o P(j samples occupy o batches) P(the n_c - j others avoid these), slots drawn without replacement.
- Q_{ab}: in one epoch no batch holds both classes with a second sample of either: prod over batches of 1 - P(x >= 1,
  y >= 1, x + y >= 3), (x, y) hypergeometric.

A is exact if all batches have one size (a smaller last batch enters by the mean size), and Q is exact up to the
independence of batches. A batch of one class with at least three samples counts as merging, since it merges as soon as
two of its samples are merged elsewhere. As in random graphs, single samples are joined last, obstructions are rare and
nearly independent near the threshold, and the fraction of families without an obstruction is about e^{-X}.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.special import gammaln

from ufm.errors import InvalidInput, whole_number


def expected_obstructions(class_sizes: Sequence[int], batch_size: int, epochs: float) -> float:
    """X (head of this module); inf if it overflows, or if a class has one sample.

    `epochs` may be any real number of at least 1. The sum is computed from logarithms, so that classes of thousands of
    samples do not overflow, in O(max n_c m) for m batches. Raises InvalidInput for a size below 1 or epochs below 1.
    """
    terms = _logarithms(class_sizes, batch_size)
    if not epochs >= 1:
        raise InvalidInput("epochs", epochs, "give a number of at least 1")
    return _total(terms, epochs)


def epochs_until_unique(class_sizes: Sequence[int], batch_size: int, share: float = 0.5, most: float = 1e3) -> float:
    """The (real) number of epochs at which e^{-X} reaches the fraction `share`; inf beyond `most`, and if a class has
    one sample.

    Raises InvalidInput for a size below 1 or a share outside (0, 1).
    """
    if not 0 < share < 1:
        raise InvalidInput("share", share, "give a number between 0 and 1")
    terms, wanted = _logarithms(class_sizes, batch_size), -math.log(share)
    low, high = 1.0, most
    if _total(terms, high) > wanted:
        return math.inf
    if _total(terms, low) <= wanted:
        return low
    while high - low > 1e-3:
        middle = (low + high) / 2
        low, high = (low, middle) if _total(terms, middle) <= wanted else (middle, high)
    return high


def _total(terms: tuple[np.ndarray, np.ndarray], epochs: float) -> float:
    """The sum of count times probability^epochs, from the logarithms of both."""
    count, probability = terms
    exponent = count + epochs * probability
    return math.inf if exponent.max() > 700 else float(np.exp(exponent).sum())


def _logarithms(class_sizes: Sequence[int], batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """The log of the number of obstructions of every kind, and of the probability that one epoch leaves them."""
    sizes = [whole_number("class_sizes", size, 1, "give at least 1 sample for each class") for size in class_sizes]
    batch_size = whole_number("batch_size", batch_size, 1, "give at least 1 sample for each batch, as a whole number")
    if min(sizes, default=1) < 2:
        return np.array([math.inf]), np.zeros(1)
    n = sum(sizes)
    full, rest = divmod(n, batch_size)
    batches = [batch_size] * full + [rest] * (rest > 0)
    of_class = {size: splits(size, n, batches) for size in set(sizes)}
    repelled = {}
    for first, a in enumerate(sizes):
        for b in sizes[:first]:
            pair = (max(a, b), min(a, b))
            repelled[pair] = repelled.get(pair, 0) + 1
    never_cosampled_pairs = {
        (a, b): full * _log_never(n, a, b, batch_size) + (rest > 0) * _log_never(n, a, b, rest) for a, b in repelled
    }
    count = [*(of_class[size][0] for size in sizes), np.log(list(repelled.values()))]
    probability = [*(of_class[size][1] for size in sizes), np.array(list(never_cosampled_pairs.values()))]
    return np.concatenate(count), np.concatenate(probability)


def splits(size: int, n: int, batches: Sequence[int], mean: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The log of C(n_c, j), and of A_{c,j}, for j = 1 .. n_c / 2. mean: batch size to use; by default the plain
    mean."""
    mean, m = n / len(batches) if mean is None else mean, len(batches)
    o = np.arange(m + 1)
    occupied = np.full(m + 1, -math.inf)
    occupied[0] = 0.0
    apart = []
    with np.errstate(divide="ignore"):
        for j in range(1, size // 2 + 1):
            again = np.log(np.maximum(o * mean - (j - 1), 0.0) / (n - j + 1))
            anew = np.log(np.maximum(n - o * mean, 0.0) / (n - j + 1))  # all full: 0, to rounding
            occupied = np.logaddexp(occupied + again, np.roll(np.where(o < m, occupied + anew, -math.inf), 1))
            apart.append(np.logaddexp.reduce(occupied + _log_avoid(np.maximum(n - o * mean, 0.0), n - j, size - j)))
    return log_splits(size), np.array(apart)


def log_splits(size: int) -> Float[np.ndarray, " j"]:
    """The log of the number of splits of `size` samples into parts of j and size - j, for j = 1 .. size / 2."""
    j = np.arange(1, size // 2 + 1)
    return gammaln(size + 1) - gammaln(j + 1) - gammaln(size - j + 1) - np.where(2 * j == size, math.log(2), 0.0)


def _log_avoid(free: np.ndarray, slots: int, others: int) -> np.ndarray:
    """log C(free, others) / C(slots, others), -inf where free < others: `others` samples avoid all but `free` slots."""
    remaining = free - others
    ways = (
        gammaln(free + 1) - gammaln(np.maximum(remaining, 0.0) + 1) - (gammaln(slots + 1) - gammaln(slots - others + 1))
    )
    return np.where(remaining >= 0, ways, -math.inf)


def _log_never(n: int, a: int, b: int, drawn: int) -> float:
    """log P(a batch of `drawn` of n samples lacks one of two classes of a and b samples, or a second of either)."""
    everything = math.comb(n, drawn)
    lacking = math.comb(n - a, drawn) + math.comb(n - b, drawn) - math.comb(n - a - b, drawn)
    one_each = a * b * math.comb(n - a - b, drawn - 2) if drawn >= 2 else 0
    never = lacking + one_each
    return math.log(never) - math.log(everything) if never else -math.inf
