"""Many starts through a fixed number of compiled lanes: finished starts leave, waiting ones enter."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from solvers import devices
from solvers.compiled import Compiled
from solvers.descent import Lane, Method, Record, advance_lanes, begin_lanes
from solvers.padding import axes, stacked
from solvers.status import Status
from ufm.problem import Problem


class Outcome(NamedTuple):
    """Where one descent ended.

    - key: which start. status: what stopped it. steps: how many it took.
    - H: the point. conflict: relative conflict of its points. history: one `Record` of arrays.
    """

    key: int
    status: Status
    steps: int
    H: Float[np.ndarray, "m d"]
    excess: float
    residual: float
    conflict: Float[np.ndarray, " m"]
    history: Record


@dataclass(frozen=True)
class Schedule:
    """How lanes are run: most lanes on a device, records a chunk, steps a record, steps a start at most."""

    lanes: int
    records: int = 8
    every: int = 5
    max_steps: int = 20_000


def run_lanes(
    method: Method,
    problem: Problem | Sequence[Problem],
    starts: Iterable[tuple[int, Float[np.ndarray, "m d"]]],
    schedule: Schedule,
    finished: Callable[[Outcome], Float[np.ndarray, "m d"] | None],
) -> None:
    """Run every start to its end. `finished` gets each outcome and may return a point to go on from.

    The result of a start does not depend on the others: lanes share a compiled function, not state.
    problem: of all starts, or a sequence with the problem of each key, all of one shape and temperature.
    """
    waiting = deque(starts)
    if not waiting:
        return
    count = devices.count() * min(schedule.lanes, -(-len(waiting) // devices.count()))
    shared = isinstance(problem, Problem)
    present = problem if isinstance(problem, Problem) else stacked([problem[0]] * count)
    H = np.stack([waiting[i % len(waiting)][1] for i in range(count)])
    keys: list[int | None] = [None] * count
    histories: list[list[Record]] = [[] for _ in range(count)]
    lanes = None
    while waiting or any(key is not None for key in keys):
        fresh = np.zeros(count, bool)
        for lane in range(count):
            if keys[lane] is None and waiting:
                keys[lane], H[lane] = waiting.popleft()
                histories[lane] = []
                fresh[lane] = True
        if fresh.any():
            if not isinstance(problem, Problem):
                present = stacked([problem[key or 0] for key in keys])
            # A lane without a start stands still, and a device with such lanes alone has nothing to do.
            begun = _begin(H, present, method=method, shared=shared)._replace(done=~fresh)
            lanes = begun if lanes is None else jax.tree.map(partial(_replaced, fresh), begun, lanes)
        steps_and_records = {"records": schedule.records, "every": schedule.every}
        lanes, records = _advance(lanes, present, method=method, shared=shared, **steps_and_records)
        records = jax.tree.map(np.asarray, records)
        done, failed, steps = (np.asarray(leaf) for leaf in (lanes.done, lanes.failed, lanes.steps))
        now = None
        for lane, key in enumerate(keys):
            if key is None:
                continue
            histories[lane].append(Record(*(leaf[lane] for leaf in records)))
            if not (done[lane] or failed[lane] or steps[lane] >= schedule.max_steps):
                continue
            if now is None:
                now = jax.tree.map(np.asarray, method.iterate(lanes.inner))
            status = Status.CONVERGED if done[lane] else Status.NOT_FINITE if failed[lane] else Status.OUT_OF_STEPS
            outcome = Outcome(
                key,
                status,
                int(steps[lane]),
                now.H[lane],
                float(now.excess[lane]),
                float(now.residual[lane]),
                now.conflict[lane],
                _trimmed(histories[lane]),
            )
            keys[lane] = None
            onward = finished(outcome)
            if onward is not None:
                waiting.append((key, onward))


def begin_on_devices(H: Float[Array, "l m d"], problem: Problem, *, method: Method, shared: bool) -> Lane:
    """`begin_lanes`, an equal share of the lanes on each device."""
    of = (0, None if shared else axes(problem))
    return devices.spread(partial(begin_lanes, method=method, shared=shared), of)(H, problem)


def advance_on_devices(
    lanes: Lane, problem: Problem, *, method: Method, records: int, every: int, shared: bool
) -> tuple[Lane, Record]:
    """`advance_lanes`, an equal share of the lanes on each device; a device stops when its own lanes have."""
    of = (0, None if shared else axes(problem))
    advance = partial(advance_lanes, method=method, records=records, every=every, shared=shared)
    return devices.spread(advance, of)(lanes, problem)


_begin = Compiled(begin_on_devices)
_advance = Compiled(advance_on_devices)


def _replaced(fresh: Bool[np.ndarray, " l"], new: ArrayLike, old: ArrayLike) -> np.ndarray:
    """The new leaf for the lanes marked fresh, the old one for the others; on the host, nothing to compile."""
    new, old = np.asarray(new), np.asarray(old)
    return np.where(fresh.reshape((-1,) + (1,) * (new.ndim - 1)), new, old)


def _trimmed(chunks: list[Record]) -> Record:
    """One history, without the repeated lines after a lane stopped."""
    joined = Record(*(np.concatenate(column) for column in zip(*chunks, strict=True)))
    last = int(np.searchsorted(joined.iteration, joined.iteration[-1]))
    return Record(*(column[: last + 1] for column in joined))
