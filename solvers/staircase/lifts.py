r"""Lifts of UFM+: points with gap contributions are given mass in coordinates that no row uses (theory, 5.7).

Let no row use the coordinate e, and let I be an attraction component: points of one class that chains of shared batches
connect. Replacing h_i by sqrt(1 - s^2) h_i + s e for all i in I changes the loss by q_I s^2 + O(s^4), and the sum of
all q_I is at most minus the excess of the point over the bound (5.7 (a), (b)). So at every point above the bound some
q_I is negative. If several components are lifted at once, each into its own coordinate, their changes add up to that
order. The size of a lift is found by backtracking: s^2 is halved, at most HALVINGS times, until the loss falls by at
least half of what the q_I predict.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from solvers.compilation.compiled import Compiled
from solvers.loop.method import at_temperature
from solvers.staircase.batch_graph import BatchGraph, light_cover
from ufm.model.evaluation import evaluate
from ufm.model.problem import PADDING, Problem

# Rows of two classes overlap if their inner product is above this.
OVERLAP = 1e-6
# The first s^2, how often it is halved, and the fraction of the predicted decrease that is enough.
LONGEST, HALVINGS, SUFFICIENT = 0.5, 12, 0.5


class Slope(NamedTuple):
    """The excess of a point, and the contribution of each row to the q_I (`ufm.model.evaluation.Evaluation.lift`)."""

    excess: Float[Array, ""]
    contribution: Float[Array, " m"]


def slope_at(H: Float[Array, "m w"], tau: Float[Array, ""], problem: Problem) -> Slope:
    """Excess and contributions at the temperature tau, which replaces the problem's."""
    at = evaluate(H, at_temperature(problem, tau))
    return Slope(at.excess, at.lift)


_slope_at = Compiled(slope_at)


def prepare_lifts(problem: Problem, width: int) -> None:
    """Begin to compile, on another thread, the functions that `lifted` calls for rows of this width."""
    rows = jax.ShapeDtypeStruct((problem.num_points, width), np.float64)
    _slope_at.prepare(rows, jax.ShapeDtypeStruct((), np.float64), problem)


def lifted(
    H: Float[np.ndarray, "m w"],
    contributing: Bool[np.ndarray, " m"],
    components: Sequence[Int[np.ndarray, " _"]],
    graph: BatchGraph,
    problem: Problem,
    tau: float,
) -> Float[np.ndarray, "m w"] | None:
    """The point after a lift of components with gap contributions; None if no lift lowers the loss enough.

    1. In each batch component merge parallel columns (5.8); if all columns are then in use, empty the smallest ones.
    2. Compute q_I of every attraction component I. Candidates have q_I < 0 and points with gap contributions.
    3. Where candidates overlap, lift the lighter ones (`lighter_side`); in each batch component as many, smallest q_I
       first, as there are free columns, one column each.
    4. Backtrack in s^2 from LONGEST until the excess falls by at least SUFFICIENT s^2 sum q_I.

    The loss of the result is below that of H after step 1.

    contributing: the points with gap contributions. components: the batch components in question, each with its own
    coordinates.
    """
    H, free = H.copy(), {}
    for c, members in enumerate(components):
        H[members], free[c] = _with_free_columns(merge_parallel_columns(H[members]), problem)
    at = slope_of(H, problem, tau)
    size = int(graph.attracted.max()) + 1
    q = np.bincount(graph.attracted, at.contribution, size)
    goes_down = contributing & (q < 0)[graph.attracted]
    chosen = lighter_side(H, goes_down, graph, problem)
    into = np.full(size, -1)  # the column of each component that is lifted
    for c, members in enumerate(components):
        candidates = np.unique(graph.attracted[members][chosen[members]])
        steepest = candidates[np.argsort(q[candidates], kind="stable")][: len(free[c])]
        into[steepest] = free[c][: len(steepest)]
    predicted = float(q[into >= 0].sum())
    square = LONGEST
    for _ in range(HALVINGS if predicted < 0 else 0):
        trial = _lifted(H, into[graph.attracted], square)
        if float(slope_of(trial, problem, tau).excess) <= float(at.excess) + SUFFICIENT * square * predicted:
            return trial
        square /= 2
    return None


def lighter_side(
    H: Float[np.ndarray, "m w"], contributing: Bool[np.ndarray, " m"], graph: BatchGraph, problem: Problem
) -> Bool[np.ndarray, " m"]:
    """The points to lift where attraction components overlap: the lighter components, so many that no overlap remains.

    Lifting a whole class because of a few stray samples would undo its progress.
    """
    labels, attracted = np.asarray(problem.labels), graph.attracted
    overlaps: set[tuple[int, int]] = set()
    for batch in np.asarray(problem.batches):
        members = batch[batch != PADDING]
        members = members[contributing[members]]
        overlap = (H[members] @ H[members].T > OVERLAP) & (labels[members, None] != labels[None, members])
        pairs = np.sort(attracted[members][np.stack(np.nonzero(overlap))], axis=0)
        overlaps.update(zip(*pairs.tolist(), strict=True))
    apart = set(attracted[contributing].tolist()) - {component for pair in overlaps for component in pair}
    weight = np.bincount(attracted, np.asarray(problem.multiplicity))
    of_component = np.zeros(len(weight), bool)
    of_component[[*apart, *light_cover(overlaps, weight)]] = True
    return of_component[attracted]


def slope_of(H: Float[np.ndarray, "m w"], problem: Problem, tau: float) -> Slope:
    """`slope_at`, compiled once per shape, with the result on the host."""
    return jax.tree.map(np.asarray, _slope_at(H, np.float64(tau), problem))


def _with_free_columns(
    merged: Float[np.ndarray, "i w"], problem: Problem
) -> tuple[Float[np.ndarray, "i w"], Int[np.ndarray, " _"]]:
    """The rows of a component, and the columns that no row uses; without any, the smallest columns are emptied."""
    width = merged.shape[1]
    used = int(np.count_nonzero(merged.any(axis=0)))
    if used == width:
        used = width - max(1, (width - problem.d) // 2)
        merged = normalised(merged * (np.arange(width) < used))
    return merged, np.arange(used, width)


def _lifted(H: Float[np.ndarray, "m w"], into: Int[np.ndarray, " m"], square: float) -> Float[np.ndarray, "m w"]:
    """The rows that have a column lifted into it, with s = sqrt(square); `into` is -1 for the others."""
    moves = np.flatnonzero(into >= 0)
    trial = H.copy()
    trial[moves] *= np.sqrt(1.0 - square)
    trial[moves, into[moves]] = np.sqrt(square)
    return trial


def merge_parallel_columns(H: Float[np.ndarray, "m w"], tolerance: float = 1e-6) -> Float[np.ndarray, "m w"]:
    """Merge columns with the same direction: [a u, b u] and sqrt(a^2 + b^2) u have the same Gram matrix (5.8).

    The result has columns in order of decreasing norm, zeros last. Directions that differ by less than
    `tolerance` count as the same; the descent that follows removes that error.
    """
    norms = np.linalg.norm(H, axis=0)
    order = np.argsort(-norms, kind="stable")
    order = order[norms[order] > tolerance**2]
    directions = H[:, order] / norms[order]
    # Only directions with so large a cosine are compared entry by entry.
    alike = np.triu(directions.T @ directions > 1 - len(H) * max(tolerance**2, 1e-15), 1)
    head = np.arange(len(order))
    for leader, other in np.argwhere(alike).tolist():
        apart = np.abs(directions[:, leader] - directions[:, other]).max()
        if head[leader] == leader and head[other] == other and apart <= tolerance:
            head[other] = leader
    squares = np.bincount(head, norms[order] ** 2)
    first = np.flatnonzero(squares)
    merged = np.zeros_like(H)
    merged[:, : len(first)] = np.sqrt(squares[first]) * directions[:, first]
    return merged


def normalised(H: Float[np.ndarray, "m w"]) -> Float[np.ndarray, "m w"]:
    """The rows scaled to norm 1; rows of zeros stay zero."""
    norms = np.linalg.norm(H, axis=1, keepdims=True)
    return H / np.where(norms > 0, norms, 1.0)
