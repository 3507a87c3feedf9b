r"""Lifts of UFM+: points in conflict are given mass in coordinates that no row uses, as much as lowers the loss.

Let no row use the coordinate e, and let I be an attraction component: points of one class that chains of shared batches
connect. Replacing h_i by sqrt(1 - s^2) h_i + s e for all i in I changes the loss by q_I s^2 + O(s^4), and the sum of
all q_I is at most minus the excess of the point over the bound (theory, 5.7). So above the bound some component goes
downhill. Several that are lifted at once, each into a coordinate of its own, add up to that order. How far is
decided by the loss: s^2 is halved, HALVINGS times at most, until the loss falls by half of what the q_I promise.
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

# Inner product above which rows of two classes overlap.
OVERLAP = 1e-6
# The first s^2, how often it may be halved, and the share of the promised decrease that a lift must bring.
LONGEST, HALVINGS, SUFFICIENT = 0.5, 12, 0.5


class Slope(NamedTuple):
    """Of a point: its excess, and the shares of its points in the q_I (`ufm.model.evaluation.Evaluation.lift`)."""

    excess: Float[Array, ""]
    share: Float[Array, " m"]


def slope_at(H: Float[Array, "m w"], tau: Float[Array, ""], problem: Problem) -> Slope:
    """At the temperature tau in the place of the problem's."""
    at = evaluate(H, at_temperature(problem, tau))
    return Slope(at.excess, at.lift)


_slope_at = Compiled(slope_at)


def prepare_lifts(problem: Problem, width: int) -> None:
    """Begin to compile, on another thread, what `lifted` calls for rows of this width."""
    rows = jax.ShapeDtypeStruct((problem.num_points, width), np.float64)
    _slope_at.prepare(rows, jax.ShapeDtypeStruct((), np.float64), problem)


def lifted(
    H: Float[np.ndarray, "m w"],
    pushed: Bool[np.ndarray, " m"],
    components: Sequence[Int[np.ndarray, " _"]],
    graph: BatchGraph,
    problem: Problem,
    tau: float,
) -> Float[np.ndarray, "m w"] | None:
    """The point with components in conflict lifted; None if no lift of them lowers the loss enough.

    Its loss is below that of H once parallel columns are merged and, where all are in use, some are emptied.

    pushed: which points are in conflict. components: the components of the batch graph that are looked at; each has
    coordinates of its own, and those that carry least are emptied first where all are in use.
    """
    H, free = H.copy(), {}
    for c, members in enumerate(components):
        H[members], free[c] = _with_free_columns(merge_parallel_columns(H[members]), problem)
    at = slope_of(H, problem, tau)
    size = int(graph.attracted.max()) + 1
    q = np.bincount(graph.attracted, at.share, size)
    goes_down = pushed & (q < 0)[graph.attracted]
    chosen = lighter_side(H, goes_down, graph, problem)
    into = np.full(size, -1)  # the column of each component that is lifted
    for c, members in enumerate(components):
        own = np.unique(graph.attracted[members][chosen[members]])
        steepest = own[np.argsort(q[own], kind="stable")][: len(free[c])]
        into[steepest] = free[c][: len(steepest)]
    promised = float(q[into >= 0].sum())
    square = LONGEST
    for _ in range(HALVINGS if promised < 0 else 0):
        trial = _lifted(H, into[graph.attracted], square)
        if float(slope_of(trial, problem, tau).excess) <= float(at.excess) + SUFFICIENT * square * promised:
            return trial
        square /= 2
    return None


def lighter_side(
    H: Float[np.ndarray, "m w"], pushed: Bool[np.ndarray, " m"], graph: BatchGraph, problem: Problem
) -> Bool[np.ndarray, " m"]:
    """Who is lifted where attraction components in conflict overlap: the lighter ones, so many that no overlap stays.

    To lift a class for a few stray samples would undo what it has found.
    """
    labels, attracted = np.asarray(problem.labels), graph.attracted
    overlaps: set[tuple[int, int]] = set()
    for row in np.asarray(problem.batches):
        members = row[row != PADDING]
        members = members[pushed[members]]
        overlap = (H[members] @ H[members].T > OVERLAP) & (labels[members, None] != labels[None, members])
        pairs = np.sort(attracted[members][np.stack(np.nonzero(overlap))], axis=0)
        overlaps.update(zip(*pairs.tolist(), strict=True))
    apart = set(attracted[pushed].tolist()) - {component for pair in overlaps for component in pair}
    weight = np.bincount(attracted, np.asarray(problem.multiplicity))
    of_component = np.zeros(len(weight), bool)
    of_component[[*apart, *light_cover(overlaps, weight)]] = True
    return of_component[attracted]


def slope_of(H: Float[np.ndarray, "m w"], problem: Problem, tau: float) -> Slope:
    """`slope_at`, compiled once a shape; on the host."""
    return jax.tree.map(np.asarray, _slope_at(H, np.float64(tau), problem))


def _with_free_columns(
    merged: Float[np.ndarray, "i w"], problem: Problem
) -> tuple[Float[np.ndarray, "i w"], Int[np.ndarray, " _"]]:
    """The rows of a component, and the columns that none of them uses; some at least."""
    width = merged.shape[1]
    used = int(np.count_nonzero(merged.any(axis=0)))
    if used == width:
        used = width - max(1, (width - problem.d) // 2)
        merged = normalised(merged * (np.arange(width) < used))
    return merged, np.arange(used, width)


def _lifted(H: Float[np.ndarray, "m w"], into: Int[np.ndarray, " m"], square: float) -> Float[np.ndarray, "m w"]:
    """Each point that has a column with mass s = sqrt(square) there."""
    moves = np.flatnonzero(into >= 0)
    trial = H.copy()
    trial[moves] *= np.sqrt(1.0 - square)
    trial[moves, into[moves]] = np.sqrt(square)
    return trial


def merge_parallel_columns(H: Float[np.ndarray, "m w"], tolerance: float = 1e-6) -> Float[np.ndarray, "m w"]:
    """Merge columns with the same direction: [a u, b u] and sqrt(a^2 + b^2) u have the same Gram matrix.

    Columns come out in order of decreasing norm, zeros last. Directions that differ by less than
    `tolerance` count as the same; the descent that follows removes that error.
    """
    norms = np.linalg.norm(H, axis=0)
    order = np.argsort(-norms, kind="stable")
    order = order[norms[order] > tolerance**2]
    directions = H[:, order] / norms[order]
    # Only directions this close are compared entry by entry.
    alike = np.triu(directions.T @ directions > 1 - len(H) * max(tolerance**2, 1e-15), 1)
    head = np.arange(len(order))
    for kept, other in np.argwhere(alike).tolist():
        apart = np.abs(directions[:, kept] - directions[:, other]).max()
        if head[kept] == kept and head[other] == other and apart <= tolerance:
            head[other] = kept
    squares = np.bincount(head, norms[order] ** 2)
    first = np.flatnonzero(squares)
    merged = np.zeros_like(H)
    merged[:, : len(first)] = np.sqrt(squares[first]) * directions[:, first]
    return merged


def normalised(H: Float[np.ndarray, "m w"]) -> Float[np.ndarray, "m w"]:
    """Rows of norm 1; rows of zeros stay."""
    norms = np.linalg.norm(H, axis=1, keepdims=True)
    return H / np.where(norms > 0, norms, 1.0)
