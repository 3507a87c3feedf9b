"""Starts of many problems, collapsed in groups: compiled once a shape, shared out over devices."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import numpy as np
from jaxtyping import Array, Int, UInt32

from solvers.descent.collapse import MOST_STEPS, NO_START, SINGLE, Collapsed, Stacks, arranged, collapse, lines
from solvers.parallel import devices
from solvers.parallel.compiled import Compiled
from solvers.parallel.padding import axes, stacked
from ufm.orbits import Orbits
from ufm.problem import Problem

# Starts collapsed at once on a device: as many as stay in cache.
GROUP_ENTRIES = 2**18
MOST_IN_A_GROUP = 8


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
) -> Collapsed:
    """`collapse` of several starts at once, of one shared problem or each of its own (`padding.stacked`).

    An equal share of the starts on each device; a device stops when its own starts have collapsed.
    """
    of = (0, 0, None, None if shared else axes(quotients), None if shared else 0)
    one = partial(collapse, depth=depth, threshold=threshold, rows_in=rows_in)

    def together(keys: Array, indices: Array, most: Array, quotients: Problem, stacks: Stacks) -> Collapsed:
        if shared and len(indices) == 1:  # a large start: a loop over several would keep what it replaces
            alone = one(keys[0], indices[0], most, quotients, stacks)
            return jax.tree.map(lambda leaf: leaf[None], alone)
        return jax.vmap(one, in_axes=of)(keys, indices, most, quotients, stacks)

    return devices.shared_out(together, of)(keys, indices, most, quotients, stacks)


def collapse_dealt(
    key: UInt32[Array, " *key"],
    index: Int[Array, ""],
    most: Int[Array, ""],
    quotient: Problem,
    stacks: Stacks,
    *,
    depth: int,
    threshold: float,
    rows_in: str,
) -> Collapsed:
    """`collapse` of one start whose rows are dealt out to the devices, in blocks of stacks.

    Every device makes and keeps the rows of its own blocks; what they exchange is sums over orbits.
    """
    own = partial(collapse, depth=depth, threshold=threshold, rows_in=rows_in, axis=devices.AXIS)
    of = (None, None, None, jax.tree.map(lambda leaf: None, quotient), jax.tree.map(lambda leaf: 0, stacks))
    return devices.shared_out(own, of, out_axes=None)(key, index, most, quotient, stacks)


_collapse = Compiled(collapse_group)
_collapse_dealt = Compiled(collapse_dealt)


def collapsed_starts(
    quotients: Sequence[Problem],
    symmetries: Sequence[Orbits],
    seeds: Sequence[int],
    count: int,
    threshold: float = 1e-2,
    most: int = MOST_STEPS,
    rows_in: str = SINGLE,
) -> list[Collapsed]:
    """Starts 0 to count - 1 of every problem, problem after problem, collapsed; one compiled function for all.

    quotients: those of the symmetries, padded to one shape; the points of each start have as many rows, and those
    beyond the orbits are zero. A start takes `most` steps at most. Groups always have the same number of starts, so
    that a start is the same whatever their count.

    Starts are shared out over the devices. If one is too large for a device (`devices.holds_whole`), they run
    one by one instead, the rows of each dealt out to all devices.
    """
    entries = max(len(orbits.index) for orbits in symmetries) * quotients[0].d
    whole = devices.holds_whole(entries)
    depth, stacks = arranged(symmetries, 1 if whole else devices.count())
    keys = [np.asarray(jax.random.key_data(jax.random.key(seed))) for seed in seeds]
    static = {"depth": depth, "threshold": threshold, "rows_in": rows_in}
    limit = np.int32(min(most, MOST_STEPS))
    jobs = [(p, s) for p in range(len(quotients)) for s in range(count)]
    if whole:
        ended = _in_groups(quotients, stacks, keys, limit, jobs, entries, static)
    else:
        ended = [
            jax.tree.map(np.asarray, _collapse_dealt(keys[p], np.int32(s), limit, quotients[p], stacks[p], **static))
            for p, s in jobs
        ]
    return [_filled(start) for start in ended]


def _filled(start: Collapsed) -> Collapsed:
    """With the lines of its history that were written."""
    written = lines(int(start.steps))
    return start._replace(history=jax.tree.map(lambda column: column[:written], start.history))


def _in_groups(
    quotients: Sequence[Problem],
    stacks: Sequence[Stacks],
    keys: Sequence[UInt32[np.ndarray, " key"]],
    most: np.int32,
    jobs: list[tuple[int, int]],
    entries: int,
    static: dict,
) -> list[Collapsed]:
    """The starts (problem, index), each on one device."""
    shared = len(quotients) == 1
    group = int(np.clip(GROUP_ENTRIES // entries, 1, MOST_IN_A_GROUP)) * devices.count()
    jobs = jobs + [(jobs[-1][0], NO_START)] * (-len(jobs) % group)
    ended: list[Collapsed] = []
    for first in range(0, len(jobs), group):
        of, indices = zip(*jobs[first : first + group], strict=True)
        if shared:
            own = (quotients[0], stacks[0])
        else:
            own = (
                stacked([quotients[p] for p in of]),
                jax.tree.map(lambda *each: np.stack(each), *(stacks[p] for p in of)),
            )
        indices = np.array(indices, dtype=np.int32)
        together = _collapse(np.stack([keys[p] for p in of]), indices, most, *own, shared=shared, **static)
        together = jax.tree.map(np.asarray, together)
        ended += [jax.tree.map(lambda leaf, g=g: leaf[g], together) for g in np.flatnonzero(indices != NO_START)]
    return ended
