"""From an embedding to the feasible point at its orbit means, on which bounds are rigorous."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int

from solvers.certification.orbit_problem import Point

# Rows this close to the unit sphere are moved onto it; the move is reported.
UNIT = 1e-9
# Rows shorter than this are set to zero.
NOTHING = 1e-100
# Entries of UFM+ this small relative to the norm of their row are set to zero. A descent leaves entries of 1e-17 that
# converge to 0; where margins are large they exceed the resolution of the problem.
NEARLY_ZERO = 1e-15
BLOCK_ENTRIES = 2**17


def snap(
    H: Float[np.ndarray, "n d"], index: Int[np.ndarray, " n"], multiplicity: Float[np.ndarray, " n"], nonneg: bool
) -> tuple[Point, float]:
    """The feasible point at the orbit means of H, and the largest distance of a row of H from the row of its orbit.

    index: orbit of each row. Means are computed from differences to one row of the orbit, so that the mean of
    identical rows is exactly that row. For UFM+ negative entries, and entries below NEARLY_ZERO times the norm of
    their row, become 0. Rows outside the ball, or within UNIT of the sphere, are moved onto the sphere. The distance is
    measured in floating point.
    """
    n, d = H.shape
    m = int(index.max()) + 1
    rows = np.zeros((m, d))
    rows[index[::-1]] = H[::-1]
    total = np.bincount(index, weights=multiplicity, minlength=m)
    offset = np.zeros(m * d)
    for block in _blocks(n, max(d, 1)):
        weighted = (H[block] - rows[index[block]]) * multiplicity[block, None]
        bins = (index[block, None] * d + np.arange(d)).reshape(-1)
        offset += np.bincount(bins, weights=weighted.reshape(-1), minlength=m * d)
    rows += offset.reshape(m, d) / total[:, None]
    if nonneg:
        rows = np.where(rows > NEARLY_ZERO * np.linalg.norm(rows, axis=1, keepdims=True), rows, 0.0)
    point = on_ball(rows)

    placed = point.placed()
    moved = 0.0
    for block in _blocks(n, max(d, 1)):
        difference = H[block] - placed[index[block]]
        moved = max(moved, float(np.einsum("ij,ij->i", difference, difference).max()))
    return point, float(np.sqrt(moved))


def on_ball(rows: Float[np.ndarray, "m d"]) -> Point:
    """The point of the unit ball at rows: rows of norm above 1 - UNIT on the sphere, those below NOTHING at 0."""
    norms = np.linalg.norm(rows, axis=1)
    dead = norms < NOTHING
    norms = np.where(dead, 0.0, np.where(norms > 1 - UNIT, 1.0, norms))
    return Point(np.where(dead[:, None], 0.0, rows), norms)


def _blocks(n: int, d: int) -> Iterator[slice]:
    rows = max(1, BLOCK_ENTRIES // d)
    return (slice(start, start + rows) for start in range(0, n, rows))
