"""Ball arithmetic: its precision, conversion from doubles and safe rounding to them, and positive definiteness."""

from __future__ import annotations

import math

import numpy as np
from flint import arb
from jaxtyping import Float

Table = list[list[arb]]
ZERO = arb(0)


def precision(tau: float, margins: float = 0.0) -> int:
    """Working precision in bits: e^{-1/tau}, also times e^{-2 margins}, must stay far above the last bit."""
    return 256 + math.ceil(6 / tau + 6 * margins)


def upwards(x: arb) -> float:
    """A double that is provably not below x (inf for a ball without bounds)."""
    value = float(x.upper())
    if math.isnan(value):
        return math.inf
    while not arb(value) >= x and value < math.inf:
        value = math.nextafter(value, math.inf)
    return value


def downwards(x: arb) -> float:
    """A double that is provably not above x (-inf for a ball without bounds)."""
    return -upwards(-x)


def balls(matrix: Float[np.ndarray, "m m"]) -> Table:
    """Doubles as exact balls."""
    return [[arb(entry) for entry in row] for row in matrix.tolist()]


def is_positive_definite(T: Table) -> bool:
    """Whether interval LDL^T elimination proves a symmetric matrix positive definite (lower triangle read)."""
    T = [row[: a + 1] for a, row in enumerate(T)]
    for p in range(len(T)):
        pivot = T[p][p]
        if not pivot > 0:
            return False
        for a in range(p + 1, len(T)):
            if T[a][p].is_zero():
                continue
            factor = T[a][p] / pivot
            for b in range(p + 1, a + 1):
                T[a][b] -= factor * T[b][p]
    return True
