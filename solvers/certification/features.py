"""Features of networks: they are float32, and have norm 1 only within float32 rounding."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

# Float32 rows whose norm is this close to 1 were normalised in float32: 16 units in the last place.
UNIT_IN_FLOAT32 = 2.0**-20


def unit_rows(H: Float[np.ndarray, "n d"], norms: Float[np.ndarray, " n"], tolerance: float) -> Bool[np.ndarray, " n"]:
    """Which rows stand for unit vectors: within the tolerance, or UNIT_IN_FLOAT32 if every entry is a float32 number.

    norms: those of the rows.
    """
    with np.errstate(over="ignore"):
        is_float32 = np.array_equal(H, H.astype(np.float32))
    return np.abs(norms - 1.0) <= max(tolerance, UNIT_IN_FLOAT32 if is_float32 else 0.0)


def renormalised(H: Float[np.ndarray, "n d"]) -> tuple[Float[np.ndarray, "n d"], float]:
    """H with rows of norm 1 within float32 rounding scaled to norm 1, and the largest change of a norm (or 0)."""
    norms = np.linalg.norm(H, axis=1)
    unit = unit_rows(H, norms, 0.0)
    changed = float(np.abs(norms[unit] - 1.0).max(initial=0.0))
    return (np.where(unit[:, None], H / np.where(unit, norms, 1.0)[:, None], H), changed) if changed > 0 else (H, 0.0)
