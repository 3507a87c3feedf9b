"""Class profiles: how many samples each class has."""

from __future__ import annotations

import math
import numbers

import numpy as np
from jaxtyping import Int

from ufm.errors import InvalidInput, whole_number

# Indices of samples are 32-bit.
LARGEST_CLASS = 2**31 - 1


def _checked(k: int, n_min: int, R: float) -> tuple[int, int, float]:
    k = whole_number("k", k, 2, "give at least 2 classes, as a whole number")
    n_min = whole_number("n_min", n_min, 1, "give at least 1 sample for each class, as a whole number")
    if n_min > LARGEST_CLASS:
        raise InvalidInput("n_min", n_min, "a class would have more than 2^31 - 1 samples; give a smaller number")
    if isinstance(R, bool) or not isinstance(R, numbers.Real) or not 1 <= R < math.inf:
        raise InvalidInput("R", R, "give a finite imbalance ratio (largest over smallest class) of at least 1")
    if R * n_min > LARGEST_CLASS:
        raise InvalidInput("R", R, "a class would have more than 2^31 - 1 samples; give a smaller ratio")
    return k, n_min, float(R)


def step_imbalance(k: int, n_min: int, R: float) -> Int[np.ndarray, " k"]:
    """STEP imbalance (paper, Section 5): the first ceil(k/2) classes are majorities with R n_min samples.

    The others have n_min. R n_min is rounded to the nearest whole number. Raises InvalidInput for
    k < 2, n_min < 1, or R not a finite number >= 1.
    """
    k, n_min, R = _checked(k, n_min, R)
    sizes = np.full(k, n_min, dtype=np.int64)
    sizes[: (k + 1) // 2] = round(R * n_min)
    return sizes


def long_tail_imbalance(k: int, n_min: int, R: float) -> Int[np.ndarray, " k"]:
    """Long-tail imbalance (paper, Section 5): n_c = round(n_min R^((k-1-c)/(k-1))), c = 0..k-1.

    Class 0 is the largest (R n_min), class k-1 the smallest (n_min). Raises InvalidInput as `step_imbalance`.
    """
    k, n_min, R = _checked(k, n_min, R)
    exponent = (k - 1 - np.arange(k)) / (k - 1)
    return np.rint(n_min * R**exponent).astype(np.int64)
