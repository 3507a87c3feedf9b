"""Problems padded to one shape: they share one compiled function, and can be stacked."""

from __future__ import annotations

from collections.abc import Sequence

import equinox as eqx
import jax
import numpy as np

from ufm.model.problem import PADDING, Problem

Shape = tuple[int, int, int]
# Smaller sizes are all rounded up to this: a compilation costs more than the work on padding.
SMALLEST = 16


def bucket(count: int, smallest: int = 1) -> int:
    """The next number of the form 4..7 times a power of two, at most 25% above the larger of count and `smallest`."""
    count = max(count, smallest)
    unit = 1 << max(0, count.bit_length() - 3)
    return -(-count // unit) * unit


def shape_of(problem: Problem) -> Shape:
    """The numbers of points, of batches, and of slots in a batch."""
    batches, slots = problem.batches.shape
    return problem.num_points, batches, slots


def common_shape(problems: Sequence[Problem]) -> Shape:
    """The least shape that holds all the problems, with each size rounded up by `bucket`.

    Problems of full batches are not rounded: their orbits are the classes, whatever n is.
    """
    if all(problem.is_full_batch for problem in problems):
        return max(shape_of(problem) for problem in problems)
    points, batches, slots = (max(sizes) for sizes in zip(*map(shape_of, problems), strict=True))
    return bucket(points, SMALLEST), bucket(batches, SMALLEST // 2), bucket(slots, SMALLEST // 2)


def padded(problem: Problem, shape: Shape) -> Problem:
    """The problem, padded to `shape` by points of class 0 with multiplicity 0, and by empty batches.

    Such points contribute nothing to any sum, and their gradient is zero: the loss is that of the problem.
    """
    if shape_of(problem) == shape:
        return problem
    points, batches, slots = shape
    extra = points - problem.num_points
    rows = np.full((batches, slots), PADDING, dtype=np.int32)
    present = np.asarray(problem.batches)
    rows[: present.shape[0], : present.shape[1]] = present
    wider = eqx.tree_at(
        lambda p: (p.labels, p.multiplicity, p.batches),
        problem,
        (np.pad(np.asarray(problem.labels), (0, extra)), np.pad(np.asarray(problem.multiplicity), (0, extra)), rows),
    )
    if not problem.is_expected:
        return wider
    nb, s = present.shape
    held = np.pad(np.asarray(problem.counts), ((0, batches - nb), (0, slots - s)))
    return eqx.tree_at(
        lambda p: (p.counts, p.weights), wider, (held, np.pad(np.asarray(problem.weights), (0, batches - nb)))
    )


def stacked(problems: Sequence[Problem]) -> Problem:
    """Problems of one shape and temperature as one pytree, for `jax.vmap` with `axes`; tau is not stacked."""
    together = jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *problems)
    return eqx.tree_at(lambda p: p.tau, together, problems[0].tau)


def axes(problem: Problem) -> Problem:
    """The in_axes of `jax.vmap` for a problem from `stacked`."""
    return eqx.tree_at(lambda p: p.tau, jax.tree.map(lambda leaf: 0, problem), None)
