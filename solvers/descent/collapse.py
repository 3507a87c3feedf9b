"""Random starts, keyed by their index, and their collapse onto the orbits of the problem."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt32

from solvers.descent.method import Record
from solvers.parallel import devices
from solvers.parallel.compiled import Compiled
from solvers.parallel.padding import axes, bucket, dealt, padded, shape_of, stacked
from ufm.geometry import geometry_metrics
from ufm.loss import loss_bound
from ufm.orbits import Orbits
from ufm.problem import Problem
from ufm.projections import project
from ufm.shards import Axis, largest, total
from ufm.summation import MomentLoss, moment_loss

# Classes collapse by a constant factor a step whatever tau and n; this many are never needed.
MOST_STEPS = 100
# Starts collapsed at once on a device: as many as stay in cache.
GROUP_ENTRIES = 2**18
MOST_IN_A_GROUP = 8
# Step of each sample over its pair weight.
LENGTH = 4.0
# The temperature at which the error bound of first-order summation is small for any feasible H.
COLLAPSE_TAU = 1.0
# The index of a start that is none: it stands still.
NO_START = -1


def random_start(
    key: UInt32[Array, " *key"] | Array, index: Int[Array, ""] | int, rows: int, d: int, nonneg: bool
) -> Float[Array, "rows d"]:
    """Start `index`: rows uniform on the unit sphere (its nonnegative part for UFM+).

    The same whatever other starts run beside it; the first n rows are the same for any rows >= n.
    """
    normal = jax.random.normal(jax.random.fold_in(key, index), (rows, d))
    direction = jnp.abs(normal) if nonneg else normal
    return direction / jnp.linalg.norm(direction, axis=-1, keepdims=True)


class Collapsed(NamedTuple):
    """A start once its orbits have collapsed.

    - points: mean row of each orbit. steps: how many it took.
    - moved: largest distance of a sample from the row it is replaced by.
    - remainder: error bound of the fast summation at the end, a sample.
    - history: a `Record` of arrays of MOST_STEPS, of which the first `steps` are filled. Its excess
      is by first-order moments at the asked tau: an underestimate until the classes have collapsed.
    """

    points: Float[Array, "o d"]
    steps: Int[Array, ""]
    moved: Float[Array, ""]
    remainder: Float[Array, ""]
    history: Record


def collapse(
    key: Array,
    index: Int[Array, ""],
    most: Int[Array, ""],
    problem: Problem,
    orbit: Int[Array, " m"],
    sizes: Float[Array, " o"],
    *,
    threshold: float,
) -> Collapsed:
    """`descend` from random start `index`; NO_START stays where it is."""
    H = random_start(key, index, problem.num_points, problem.d, problem.nonneg)
    return descend(H, jnp.where(index == NO_START, 0, most), problem, orbit, sizes, threshold=threshold)


def descend(
    H: Float[Array, "m d"],
    most: Int[Array, ""],
    problem: Problem,
    orbit: Int[Array, " m"],
    sizes: Float[Array, " o"],
    *,
    threshold: float,
    axis: Axis = None,
) -> Collapsed:
    """Descend on all n samples until every orbit lies within `threshold` of its mean, `most` steps at most.

    axis: over which the samples are dealt out, if they are (`ufm.shards`); all but `sizes` is then of this device's.

    Per-sample steps 1/w_i on the loss by first-order moments (see `ufm.summation`), at temperature
    max(tau, COLLAPSE_TAU): the moments are accurate there from the first step on, and become exact
    as the classes collapse. The loss at the asked tau takes over from the orbit means.
    """
    warm = eqx.tree_at(lambda p: p.tau, problem, jnp.maximum(problem.tau, COLLAPSE_TAU))
    is_warm = problem.tau >= COLLAPSE_TAU
    samples = total(problem.multiplicity.sum(), axis)

    def means(H: Array) -> Array:
        weighted = H * problem.multiplicity[:, None]
        return total(jax.ops.segment_sum(weighted, orbit, sizes.shape[0]), axis) / sizes[:, None]

    def spread(H: Array, U: Array) -> Array:
        distance = jnp.linalg.norm(H - U[orbit], axis=-1)
        return largest(jnp.max(jnp.where(problem.multiplicity > 0, distance, 0.0)), axis)

    def loss(H: Array) -> tuple[Array, MomentLoss]:
        by_moments = moment_loss(H, warm, order=1, axis=axis)
        return by_moments.loss, by_moments

    bound = loss_bound(problem, axis)

    def recorded(history: Record, steps: Array, H: Array, value: Array, gradient: Array, weight: Array) -> Record:
        metrics = geometry_metrics(H, problem.labels, k=problem.k, multiplicity=problem.multiplicity, axis=axis)
        asked = jax.lax.cond(is_warm, lambda: value, lambda: moment_loss(H, problem, order=1, axis=axis).loss)
        residual = jnp.max(jnp.linalg.norm(H - project(H - gradient / weight, problem.nonneg), axis=-1))
        now = Record(steps, total(asked, axis) - bound, largest(residual, axis), *metrics[:4])
        return jax.tree.map(lambda column, value: column.at[steps].set(value), history, now)

    def step(carry: tuple) -> tuple:
        H, _, steps, _, _, history = carry
        (value, at), gradient = jax.value_and_grad(loss, has_aux=True)(H)
        weight = jnp.where(at.pair_weight > 0, at.pair_weight, 1.0)[:, None]
        history = recorded(history, steps, H, value, gradient, weight)
        H = project(H - LENGTH * gradient / weight, problem.nonneg)
        U = means(H)
        return H, U, steps + 1, spread(H, U), total(at.remainder, axis) / samples, history

    def unfinished(carry: tuple) -> Array:
        return (carry[3] > threshold) & (carry[2] < jnp.minimum(most, MOST_STEPS))

    U = means(H)
    nothing = jnp.zeros(MOST_STEPS, H.dtype)
    empty = Record(jnp.zeros(MOST_STEPS, jnp.int32), *[nothing] * (len(Record._fields) - 1))
    begun = (H, U, jnp.zeros((), jnp.int32), spread(H, U), nothing[0], empty)
    _, U, steps, moved, remainder, history = jax.lax.while_loop(unfinished, step, begun)
    return Collapsed(U, steps, moved, remainder, history)


def collapse_group(
    keys: UInt32[Array, "g ..."],
    indices: Int[Array, " g"],
    most: Int[Array, ""],
    problems: Problem,
    orbit: Int[Array, "*own m"],
    sizes: Float[Array, "*own o"],
    *,
    threshold: float,
    shared: bool,
) -> Collapsed:
    """`collapse` of several starts at once, of one shared problem or each of its own (`padding.stacked`).

    An equal share of the starts on each device; a device stops when its own starts have collapsed.
    """
    own = None if shared else 0
    of = (0, 0, None, None if shared else axes(problems), own, own)
    together = jax.vmap(partial(collapse, threshold=threshold), in_axes=of)
    return devices.spread(together, of)(keys, indices, most, problems, orbit, sizes)


def collapse_dealt(
    key: UInt32[Array, " *key"],
    index: Int[Array, ""],
    most: Int[Array, ""],
    problem: Problem,
    orbit: Int[Array, " m"],
    sizes: Float[Array, " o"],
    *,
    threshold: float,
) -> Collapsed:
    """`collapse` of one start whose samples are dealt out to the devices (`solvers.parallel.padding.dealt`).

    Every device makes and keeps the rows of its own samples; what they exchange is sums over classes and orbits.
    """
    H = devices.in_blocks(random_start(key, index, problem.num_points, problem.d, problem.nonneg))
    own = partial(descend, threshold=threshold, axis=devices.AXIS)
    of = (0, None, axes(problem), 0, None)
    return devices.spread(own, of, out_axes=None)(H, jnp.where(index == NO_START, 0, most), problem, orbit, sizes)


_collapse = Compiled(collapse_group)
_collapse_dealt = Compiled(collapse_dealt)


def collapsed_starts(
    problem: Problem, orbits: Orbits, seed: int, count: int, threshold: float = 1e-2
) -> list[Collapsed]:
    """Starts 0 to count - 1, collapsed. Compiled once a size class of problems: sizes are rounded up and padded."""
    return collapsed_starts_of_each([problem], [orbits], [seed], count, len(orbits), threshold)


def collapsed_starts_of_each(
    problems: Sequence[Problem],
    symmetries: Sequence[Orbits],
    seeds: Sequence[int],
    count: int,
    rows: int,
    threshold: float = 1e-2,
    most: int = MOST_STEPS,
) -> list[Collapsed]:
    """Starts 0 to count - 1 of every problem, problem after problem, collapsed; one compiled function for all.

    A start takes `most` steps at most. The points of each have `rows` rows, at least as many as there are orbits;
    those beyond the orbits are zero.
    Groups always have the same number of starts, so that a start is the same whatever their count.

    Starts are shared out over the devices. If one is too large for a device (`devices.holds_whole`), they run one by
    one instead, the samples of each dealt out to all devices.
    """
    points, batches, slots = (max(sizes) for sizes in zip(*map(shape_of, problems), strict=True))
    wide = [padded(problem, (bucket(points), bucket(batches), bucket(slots))) for problem in problems]
    orbit = [np.pad(s.index, (0, wide[0].num_points - len(s.index))).astype(np.int32) for s in symmetries]
    sizes = [np.pad(np.asarray(s.quotient.multiplicity), (0, rows - len(s)), constant_values=1.0) for s in symmetries]
    keys = [np.asarray(jax.random.key_data(jax.random.key(seed))) for seed in seeds]
    whole = devices.holds_whole(wide[0].num_points * wide[0].d)
    ended = (_in_groups if whole else _one_by_one)(
        wide, orbit, sizes, keys, count, threshold, np.int32(min(most, MOST_STEPS))
    )
    return [
        start._replace(history=Record(*(column[: int(start.steps)] for column in start.history))) for start in ended
    ]


def _in_groups(
    problems: Sequence[Problem],
    orbit: Sequence[Int[np.ndarray, " m"]],
    sizes: Sequence[Float[np.ndarray, " o"]],
    keys: Sequence[UInt32[np.ndarray, " key"]],
    count: int,
    threshold: float,
    most: np.int32,
) -> list[Collapsed]:
    """Starts 0 to count - 1 of every problem, each on one device."""
    shared = len(problems) == 1
    group = int(np.clip(GROUP_ENTRIES // (problems[0].num_points * problems[0].d), 1, MOST_IN_A_GROUP))
    group *= devices.count()
    jobs = [(p, s) for p in range(len(problems)) for s in range(count)]
    jobs += [(jobs[-1][0], NO_START)] * (-len(jobs) % group)
    ended: list[Collapsed] = []
    for first in range(0, len(jobs), group):
        of, indices = zip(*jobs[first : first + group], strict=True)
        if shared:
            own = (problems[0], orbit[0], sizes[0])
        else:
            own = (stacked([problems[p] for p in of]), *(np.stack([each[p] for p in of]) for each in (orbit, sizes)))
        indices = np.array(indices, dtype=np.int32)
        together = _collapse(np.stack([keys[p] for p in of]), indices, most, *own, threshold=threshold, shared=shared)
        together = jax.tree.map(np.asarray, together)
        ended += [jax.tree.map(lambda leaf, g=g: leaf[g], together) for g in np.flatnonzero(indices != NO_START)]
    return ended


def _one_by_one(
    problems: Sequence[Problem],
    orbit: Sequence[Int[np.ndarray, " m"]],
    sizes: Sequence[Float[np.ndarray, " o"]],
    keys: Sequence[UInt32[np.ndarray, " key"]],
    count: int,
    threshold: float,
    most: np.int32,
) -> list[Collapsed]:
    """Starts 0 to count - 1 of every problem, the samples of each on all devices."""
    ended: list[Collapsed] = []
    for problem, index, size, key in zip(problems, orbit, sizes, keys, strict=True):
        own = dealt(problem, devices.count())
        index = np.pad(index, (0, own.num_points - len(index)))
        starts = (_collapse_dealt(key, np.int32(s), most, own, index, size, threshold=threshold) for s in range(count))
        ended += [jax.tree.map(np.asarray, start) for start in starts]
    return ended
