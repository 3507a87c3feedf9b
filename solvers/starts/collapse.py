r"""The collapse of a start onto the orbits of its problem: descent on the loss of the orbit means (theory, 5.4, 5.5).

With U(H) the mean row of each orbit and F the loss of the orbit-collapsed problem (`ufm.orbits`), minimise F(U(H))
over feasible H. By the chain rule all n_o points of an orbit o have the same gradient, dF/du_o / n_o. It takes the
exact sums of the orbit problem, and no sums over samples: a step adds one vector to each row and projects. It is a step
of projected gradient descent with the preconditioner of F, for any batches. Measurements show that points of an orbit
approach each other: they all move by the same vector, of the size of their mean, and the ball is round.

So a step is one pass over H: shift, projection, sums for the next means. The distances of the points from their means
are measured only every EVERY steps. The lines of the history are computed afterwards, from the means that were noted,
because compiling that computation would take longer than everything else.

Rows of samples are in single precision, which halves the memory that a step reads and writes; all computation with
means is in double precision. The rows only lead to the means, where the descent on orbits starts. Any feasible means
are a start, and no reported number about the end of that descent is computed from the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from solvers.parallel.padding import bucket
from solvers.parallel.shards import Axis, largest, summed
from solvers.starts.random_starts import random_directions
from ufm.model.evaluation import evaluate
from ufm.model.geometry import between
from ufm.model.orbits import Orbits
from ufm.model.problem import Problem
from ufm.model.projections import project
from ufm.model.sums import grouped_sum

# The step limit: in measurements orbits shrink by a constant factor per step, whatever tau and n.
MOST_STEPS = 100
# Steps from one measurement of the distances from the means to the next; each writes a line of the history.
EVERY = 2
# The step size of each row, as a multiple of the inverse of its preconditioner.
LENGTH = 4.0
# The smallest temperature: gradients at smaller ones may vanish like e^{-1/tau} before the orbits have collapsed.
COLLAPSE_TAU = 1.0
# The most rows in a stack and stacks in a block: with d = 20 a block stays in the processor's cache.
DEEPEST, WIDEST = 64, 64
# The fraction of empty rows that deeper stacks may add.
MOST_ADDED = 0.25
# There are at least so many places for samples, since they cost almost nothing.
FEW = 2**10
# The dtype of the rows of samples: single precision halves the memory that a step moves.
SINGLE = "float32"
# The most entries of orbit means that are noted for a history, and the fewest lines, which go before that limit.
MOST_NOTED = 2**20
FEWEST_LINES = 8


class Stacks(NamedTuple):
    """The layout of the points in memory: stacks of points of one orbit, at most `WIDEST` side by side in a block.

    An embedding is then (blocks, d, depth, stacks): sums over coordinates and over an orbit are sums of vectors.

    - orbit: the orbit of each stack. first: the number of its first point, counted orbit after orbit. filled: how many
      points it holds.
    """

    orbit: Int[Any, "blocks stacks"]
    first: Int[Any, "blocks stacks"]
    filled: Int[Any, "blocks stacks"]


def stacked_in(depth: int, orbits: Orbits) -> Stacks:
    """Stacks of one depth for the points of each orbit, in one block; the last stack of an orbit may not be full."""
    sizes = np.bincount(orbits.index, minlength=len(orbits))
    stacks = -(-sizes // depth)
    orbit = np.repeat(np.arange(len(sizes)), stacks)
    place = depth * (np.arange(len(orbit)) - np.repeat(np.cumsum(stacks) - stacks, stacks))
    first = np.repeat(np.cumsum(sizes) - sizes, stacks) + place
    filled = np.minimum(sizes[orbit] - place, depth)
    return Stacks(*(part.astype(np.int32)[None, :] for part in (orbit, first, filled)))


def arranged(symmetries: Sequence[Orbits], rows: int, blocks_of: int = 1) -> tuple[int, list[Stacks]]:
    """The depth, and the stacks of several problems, all of one shape.

    rows: the rows of their padded orbit problems. The layout of few samples depends on this number alone, whatever
    their orbits are, so that they share compiled code. blocks_of: the number of blocks is a multiple of this.
    """
    sizes = np.concatenate([np.bincount(orbits.index) for orbits in symmetries])
    depth = 1
    while depth < DEEPEST and 2 * depth * rows <= FEW:
        depth *= 2
    while depth < DEEPEST and (-sizes % (2 * depth)).sum() <= MOST_ADDED * sizes.sum():
        depth *= 2
    each = [stacked_in(depth, orbits) for orbits in symmetries]
    most = max(rows if depth * rows <= FEW else 1, *(stacks.orbit.size for stacks in each))
    width = min(WIDEST, bucket(-(-most // blocks_of)))
    blocks = bucket(-(-most // (width * blocks_of))) * blocks_of
    return depth, [_padded(stacks, blocks, width) for stacks in each]


def _padded(stacks: Stacks, blocks: int, width: int) -> Stacks:
    """The stacks, padded by empty ones of orbit 0 to the number of blocks."""
    return Stacks(*(np.pad(part[0], (0, blocks * width - part.size)).reshape(blocks, width) for part in stacks))


class Collapsed(NamedTuple):
    """A start after its orbits have collapsed.

    - points: the feasible mean row of each orbit. steps: how many the collapse took.
    - moved: the largest distance of a point from the row that replaces it, among points on which the loss depends.
    - noted: the numbers of steps after which a line was noted: every EVERY steps, and at the end.
    - means: the orbit means at each line. along: the second moments of the points about these means, along the axes of
      the scatter of the class means (`ufm.geometry_metrics`).
    """

    points: Float[np.ndarray, "o d"]
    steps: int
    moved: float
    noted: Int[np.ndarray, " lines"]
    means: Float[np.ndarray, "lines o d"]
    along: Float[np.ndarray, "lines r"]

    @classmethod
    def at_once(cls, points: Float[np.ndarray, "o d"], problem: Problem, moved: float = 0.0) -> Collapsed:
        """A start that needs no collapse."""
        axes = np.zeros((0, min(problem.k, problem.d)))
        return cls(points, 0, moved, np.zeros(0, np.int32), np.zeros((0, *points.shape)), axes)

    @classmethod
    def of(cls, end: Noted) -> Collapsed:
        """The result of a collapse, on the host."""
        noted = steps_of_lines(end)
        points, means, along = (np.asarray(part) for part in (end.points, end.means, end.along))
        return cls(points, int(end.steps), float(end.moved), noted, means[: len(noted)], along[: len(noted)])


class Noted(NamedTuple):
    """The result of a collapse on the device: as `Collapsed`, in arrays of fixed size that may hold more lines."""

    points: Float[Array, "o d"]
    steps: Int[Array, ""]
    moved: Float[Array, ""]
    means: Float[Array, "lines o d"]
    along: Float[Array, "lines r"]


class _State(NamedTuple):
    """H, U: the embedding and its orbit means after `steps` steps. moved: as measured last.

    - seen: the orbits on which the loss depends, by the last step. Others, such as orbits in no batch, never collapse.
    """

    H: Float[Array, "blocks d depth stacks"]
    U: Float[Array, "o d"]
    seen: Bool[Array, " o"]
    steps: Int[Array, ""]
    moved: Float[Array, ""]
    ended: Bool[Array, ""]
    means: Float[Array, "lines o d"]
    along: Float[Array, "lines r"]


@dataclass(frozen=True)
class _StackedRows:
    """The operations on all rows of an embedding, one block of stacks after another.

    - sizes: points of each orbit. per_point: samples that each point of an orbit stands for.
    - nonneg: project onto the nonnegative part of the ball.
    - axis: the axis over which the blocks are sharded, if they are (`solvers.parallel.shards`).
    """

    stacks: Stacks
    sizes: Float[Array, " o"]
    per_point: Float[Array, " o"]
    nonneg: bool
    depth: int
    dtype: str
    axis: Axis

    def drawn(self, key: Array, index: Array, d: int) -> tuple[Array, Array]:
        """Random start `index`, and its orbit means."""

        def of_block(_: None, block: tuple[Array, Array]) -> tuple[None, Array]:
            first, held = block
            row = first + jnp.arange(self.depth)[:, None]
            normal = random_directions(key, index, row, d, self.nonneg).astype(self.dtype)
            return None, _on_sphere(normal, _present(held, self.depth))

        H = jax.lax.scan(of_block, None, (self.stacks.first, self.stacks.filled))[1]
        return H, self._means(H)

    def spread(self, H: Array, U: Array, seen: Array, axes: Array) -> tuple[Array, Array]:
        """The largest distance from the means, over seen orbits; the second moments of all samples along the axes."""

        def of_block(so_far: tuple[Array, Array], block: tuple[Array, ...]) -> tuple[tuple, None]:
            h, centre, weight, held, counts = block
            present = _present(held, self.depth)
            offset = (h - centre[:, None, :]).reshape(len(h), -1)
            squares = jnp.sum(offset**2, axis=0).reshape(present.shape)
            squares = jnp.max(jnp.where(present & counts, squares, 0.0), axis=0)
            onto = (axes @ offset).reshape(-1, *present.shape)
            second = jnp.sum(jnp.where(present, onto**2, 0.0), axis=1) @ weight
            return (jnp.maximum(so_far[0], squares), so_far[1] + second), None

        axes = axes.astype(self.dtype)
        weight = self.per_point.astype(self.dtype)[self.stacks.orbit]
        nothing = jnp.zeros(weight.shape[1], self.dtype), jnp.zeros(len(axes), self.dtype)
        blocks = (H, self._in_stacks(U), weight, self.stacks.filled, seen[self.stacks.orbit])
        squares, along = jax.lax.scan(of_block, nothing, blocks)[0]
        farthest = jnp.sqrt(largest(squares.max(), self.axis).astype(jnp.float64))
        return farthest, summed(along.astype(jnp.float64), self.axis)

    def shifted(self, H: Array, shift: Float[Array, "o d"]) -> tuple[Array, Array]:
        """The embedding after the rows of each orbit are shifted and projected, and its orbit means."""
        by = self._in_stacks(shift)

        def of_block(b: Array, after: Array) -> Array:
            new = H[b] + by[b][:, None, :]
            new = jnp.maximum(new, 0.0) if self.nonneg else new
            return after.at[b].set(_in_ball(new, _present(self.stacks.filled[b], self.depth)))

        # A scan would first write zeros for its stacked results, which takes as long as writing the results.
        after = jax.lax.fori_loop(0, len(H), of_block, H)
        return after, self._means(after)

    def _in_stacks(self, of_orbits: Float[Array, "o d"]) -> Float[Array, "blocks d stacks"]:
        return jnp.swapaxes(of_orbits.astype(self.dtype)[self.stacks.orbit], 1, 2)

    def _means(self, H: Float[Array, "blocks d depth stacks"]) -> Float[Array, "o d"]:
        each = jnp.swapaxes(H.sum(axis=2), 1, 2).astype(jnp.float64).reshape(-1, H.shape[1])
        sums = grouped_sum(each, self.stacks.orbit.reshape(-1), len(self.sizes))
        return summed(sums, self.axis) / self.sizes[:, None]


def collapse(
    key: UInt32[Array, " *key"],
    index: Int[Array, ""],
    most: Int[Array, ""] | int,
    quotient: Problem,
    stacks: Stacks,
    *,
    depth: int,
    threshold: float,
    rows_in: str = SINGLE,
    axis: Axis = None,
) -> Noted:
    """Descend from random start `index` until every point lies within `threshold` of the mean of its orbit.

    A step is h_i <- P(h_i - LENGTH / w_o dF/du_o) for all points i of an orbit o, w the preconditioner of F (5.4 (c)).
    The temperature is max(tau, COLLAPSE_TAU); the descent on the orbit means that follows uses the problem's own tau.

    - most: the step limit; at most MOST_STEPS count. quotient: the orbit-collapsed problem, possibly padded.
    - rows_in: the dtype of the rows of samples.
    - axis: the axis over which the blocks of stacks are sharded, if they are; every device has the other arguments.
    """
    stacks = Stacks(*map(jnp.asarray, stacks))
    filled = stacks.filled.reshape(-1).astype(jnp.float64)
    sizes = summed(grouped_sum(filled, stacks.orbit.reshape(-1), quotient.num_points), axis)
    sizes = jnp.maximum(sizes, 1.0)
    of = _StackedRows(stacks, sizes, quotient.multiplicity / sizes, quotient.nonneg, depth, rows_in, axis)
    at_higher_tau = _at_collapse_temperature(quotient)
    limit = jnp.minimum(most, MOST_STEPS)

    def step(_: Array, embedding: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        H, U, _ = embedding
        at = evaluate(U, at_higher_tau)
        seen = at.preconditioner > 0
        return *of.shifted(H, -LENGTH * at.gradient / jnp.where(seen, at.preconditioner, 1.0)[:, None]), seen

    def note_and_steps(state: _State) -> _State:
        moved, along = of.spread(state.H, state.U, state.seen, between(class_means(state.U, quotient)).axes)
        place = jnp.minimum(lines(state.steps), capacity - 1)
        until = jnp.where(moved > threshold, jnp.minimum(state.steps + EVERY, limit), state.steps)
        noted = state.means.at[place].set(state.U), state.along.at[place].set(along)
        H, U, seen = jax.lax.fori_loop(state.steps, until, step, (state.H, state.U, state.seen))
        return _State(H, U, seen, until, moved, until == state.steps, *noted)

    capacity = line_capacity(quotient)
    means = jnp.zeros((capacity, quotient.num_points, quotient.d))
    along = jnp.zeros((capacity, min(quotient.k, quotient.d)))
    none, infinite, no = jnp.zeros((), jnp.int32), jnp.asarray(jnp.inf), jnp.asarray(False)
    all_seen = jnp.ones(quotient.num_points, bool)
    begun = _State(*of.drawn(key, index, quotient.d), all_seen, none, infinite, no, means, along)
    end = jax.lax.while_loop(lambda state: ~state.ended, note_and_steps, begun)
    return Noted(project(end.U, quotient.nonneg), end.steps, end.moved, end.means, end.along)


def _at_collapse_temperature(quotient: Problem) -> Problem:
    return eqx.tree_at(lambda p: p.tau, quotient, jnp.maximum(quotient.tau, COLLAPSE_TAU))


def lines(steps: Any) -> Any:
    """The number of lines that are written before so many steps have been taken."""
    return -(-steps // EVERY)


def line_capacity(quotient: Problem) -> int:
    """How many lines fit: all and the end. For very many orbits only the first ones, with the end in the last place."""
    affordable = MOST_NOTED // (quotient.num_points * quotient.d)
    return int(np.clip(affordable, FEWEST_LINES, lines(MOST_STEPS) + 1))


def steps_of_lines(noted: Noted) -> Int[np.ndarray, " lines"]:
    """The number of steps after which each line of the history was noted."""
    capacity, written = len(noted.means), lines(int(noted.steps))
    steps = EVERY * np.arange(min(capacity, written), dtype=np.int32)
    if written >= capacity:
        steps[-1] = noted.steps
    return steps


def class_means(U: Float[Array, "o d"], quotient: Problem) -> Float[Array, "k d"]:
    """The class means, from the orbit means."""
    sums = grouped_sum(U * quotient.multiplicity[:, None], quotient.labels, quotient.k)
    return sums / quotient.class_sizes[:, None]


def _present(filled: Int[Array, " stacks"], depth: int) -> Bool[Array, "depth stacks"]:
    return jnp.arange(depth)[:, None] < filled


def _on_sphere(rows: Float[Array, "d depth stacks"], present: Bool[Array, "depth stacks"]) -> Array:
    squared = jnp.sum(rows**2, axis=0)
    return rows * jnp.where(present, jax.lax.rsqrt(squared), 0.0)


def _in_ball(rows: Float[Array, "d depth stacks"], present: Bool[Array, "depth stacks"]) -> Array:
    """The rows projected onto the unit ball to single precision; empty places are zero."""
    squared = jnp.sum(rows**2, axis=0)
    scale = jnp.where(squared > 1.0, jax.lax.rsqrt(jnp.maximum(squared, 1.0)), 1.0)
    return rows * jnp.where(present, scale, 0.0)
