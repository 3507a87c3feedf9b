"""Starts of many problems, collapsed in groups: compiled once per shape, sharded over devices."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt32

from solvers.compilation.compiled import Compiled
from solvers.parallel import devices
from solvers.parallel.padding import axes, stacked
from solvers.starts.collapse import MOST_STEPS, SINGLE, Collapsed, Noted, Stacks, arranged, collapse
from solvers.starts.random_starts import random_starts
from ufm.model.orbits import Orbits
from ufm.model.problem import Problem

# The most entries of starts that one call collapses on a device.
GROUP_ENTRIES = 2**18
MOST_IN_A_GROUP = 8
# The index that stands for an empty place in a group.
NO_START = -1


def collapse_group(
    keys: UInt32[Array, "g ..."],
    indices: Int[Array, " g"],
    most: Int[Array, ""],
    quotients: Problem,
    stacks: Stacks,
    *,
    depth: int,
    threshold: float,
    rows_in: str,
    shared: bool,
) -> Noted:
    """`collapse` of several starts one after the other; of one shared problem, or of stacked ones (`padding.stacked`).

    Run side by side they would select between old and new embeddings in every step. Each device has equally many
    starts. Nothing is done for the index NO_START.
    """
    of = (0, 0, None, None if shared else axes(quotients), None if shared else 0)
    one = partial(collapse, depth=depth, threshold=threshold, rows_in=rows_in)

    def together(keys: Array, indices: Array, most: Array, quotients: Problem, stacks: Stacks) -> Noted:
        def start(g: Array) -> Noted:
            quotient, its_stacks = quotients, stacks
            if not shared:  # tau is not stacked
                quotient, its_stacks = jax.tree.map(lambda leaf: leaf[g] if leaf.ndim else leaf, (quotients, stacks))
            arguments = (keys[g], indices[g], most, quotient, its_stacks)
            none = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(one, *arguments))
            return jax.lax.cond(indices[g] == NO_START, lambda: none, lambda: one(*arguments))

        if shared and len(indices) == 1:  # a large start: a loop over several would hold two embeddings
            return jax.tree.map(lambda leaf: leaf[None], one(keys[0], indices[0], most, quotients, stacks))
        return jax.lax.map(start, jnp.arange(len(indices)))

    return devices.split_over_devices(together, of)(keys, indices, most, quotients, stacks)


def collapse_sharded(
    key: UInt32[Array, " *key"],
    index: Int[Array, ""],
    most: Int[Array, ""],
    quotient: Problem,
    stacks: Stacks,
    *,
    depth: int,
    threshold: float,
    rows_in: str,
) -> Noted:
    """`collapse` of one start that is sharded over the devices, in blocks of stacks.

    Every device draws and holds the rows of its own blocks. The devices exchange only sums over orbits.
    """
    on_device = partial(collapse, depth=depth, threshold=threshold, rows_in=rows_in, axis=devices.AXIS)
    of = (None, None, None, jax.tree.map(lambda leaf: None, quotient), jax.tree.map(lambda leaf: 0, stacks))
    return devices.split_over_devices(on_device, of, out_axes=None)(key, index, most, quotient, stacks)


_collapse = Compiled(collapse_group)
_collapse_sharded = Compiled(collapse_sharded)


def collapsed_starts(
    quotients: Sequence[Problem],
    symmetries: Sequence[Orbits],
    seeds: Sequence[int],
    count: int,
    threshold: float = 1e-2,
    most: int = MOST_STEPS,
    rows_in: str = SINGLE,
) -> list[Collapsed]:
    """Starts 0 to count - 1 of every problem, problem after problem, collapsed by one compiled function.

    quotients: the orbit problems of the symmetries, padded to one shape. The points of each start have as many rows;
    rows beyond the orbits are zero. most: the step limit of a start. Groups always have the same number of starts, so
    that the result of a start does not depend on their count.

    Starts are sharded over the devices. If one is too large for a device (`devices.holds_whole`), the starts run one
    by one instead, each sharded by samples.
    """
    plan = _Plan.of(quotients, symmetries, {"threshold": threshold, "rows_in": rows_in})
    keys = [np.asarray(jax.random.key_data(jax.random.key(seed))) for seed in seeds]
    limit = np.int32(min(most, MOST_STEPS))
    jobs = [(p, s) for p in range(len(quotients)) for s in range(count)]
    return list(map(Collapsed.of, (_in_groups if plan.group else _sharded)(plan, keys, limit, jobs)))


def starts_on_orbits(
    quotients: Sequence[Problem], symmetries: Sequence[Orbits], seeds: Sequence[int], count: int
) -> list[Collapsed]:
    """Starts 0 to count - 1 of every problem, with one random row for each orbit: they need no collapse."""
    starts = []
    for quotient, symmetry, seed in zip(quotients, symmetries, seeds, strict=True):
        present = np.arange(quotient.num_points)[:, None] < len(symmetry)
        starts += [Collapsed.at_once(H * present, quotient) for H in random_starts(quotient, count, seed)]
    return starts


def begins_on_orbits(problem: Problem, symmetry: Orbits) -> bool:
    """Whether starts are drawn on the orbits (`starts_on_orbits`).

    So it is where every orbit is one point, and where a collapse would merge classes that do not separate again (5.16).
    """
    return len(symmetry) == problem.num_points or problem.fewer_dimensions_than_classes


def prepare_starts(quotient: Problem, symmetry: Orbits) -> None:
    """Begin to compile, on other threads, the functions that `collapsed_starts` will call for such a problem."""
    plan = _Plan.of([quotient], [symmetry], {"threshold": 1e-2, "rows_in": SINGLE})
    if not plan.group or devices.count() > 1:
        return
    keys, indices = np.zeros((plan.group, 2), np.uint32), np.zeros(plan.group, np.int32)
    _collapse.prepare(keys, indices, np.int32(0), *plan.arguments([0] * plan.group), shared=True, **plan.static)


class _Plan(NamedTuple):
    """How the starts of some problems are collapsed. group: starts per call; 0 if each start is sharded."""

    quotients: Sequence[Problem]
    stacks: Sequence[Stacks]
    group: int
    static: dict[str, Any]

    @classmethod
    def of(cls, quotients: Sequence[Problem], symmetries: Sequence[Orbits], static: dict[str, Any]) -> _Plan:
        entries = max(len(orbits.index) for orbits in symmetries) * quotients[0].d
        whole = devices.holds_whole(entries)
        depth, stacks = arranged(symmetries, quotients[0].num_points, 1 if whole else devices.count())
        group = int(np.clip(GROUP_ENTRIES // entries, 1, MOST_IN_A_GROUP)) * devices.count() if whole else 0
        return cls(quotients, stacks, group, {**static, "depth": depth})

    def arguments(self, of: Sequence[int]) -> tuple[Problem, Stacks]:
        """The one problem and its stacks, or those of each start of a group, stacked."""
        if len(self.quotients) == 1:
            return self.quotients[0], self.stacks[0]
        together = jax.tree.map(lambda *each: np.stack(each), *(self.stacks[p] for p in of))
        return stacked([self.quotients[p] for p in of]), together


def _sharded(
    plan: _Plan, keys: list[UInt32[np.ndarray, " key"]], most: np.int32, jobs: list[tuple[int, int]]
) -> list[Noted]:
    """The starts (problem, index), each sharded over all devices."""
    return [
        jax.tree.map(
            np.asarray,
            _collapse_sharded(keys[p], np.int32(s), most, plan.quotients[p], plan.stacks[p], **plan.static),
        )
        for p, s in jobs
    ]


def _in_groups(
    plan: _Plan, keys: list[UInt32[np.ndarray, " key"]], most: np.int32, jobs: list[tuple[int, int]]
) -> list[Noted]:
    """The starts (problem, index) in groups, each start on one device."""
    shared = len(plan.quotients) == 1
    jobs = jobs + [(jobs[-1][0], NO_START)] * (-len(jobs) % plan.group)
    ended: list[Noted] = []
    for first in range(0, len(jobs), plan.group):
        of, indices = zip(*jobs[first : first + plan.group], strict=True)
        numbers = np.array(indices, dtype=np.int32)
        keys_of_group = np.stack([keys[p] for p in of])
        together = _collapse(keys_of_group, numbers, most, *plan.arguments(of), shared=shared, **plan.static)
        together = jax.tree.map(np.asarray, together)
        ended += [jax.tree.map(lambda leaf, g=g: leaf[g], together) for g in np.flatnonzero(numbers != NO_START)]
    return ended
