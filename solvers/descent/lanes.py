"""Many starts through a fixed number of compiled lanes: finished starts leave, waiting ones enter."""

from __future__ import annotations

import math
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from solvers.descent.method import Lane, Method, Record, advance_lanes, begin_lanes, enter_lanes
from solvers.descent.stopping import Status, status_of
from solvers.parallel import devices
from solvers.parallel.compiled import Compiled, compile_seconds
from solvers.parallel.padding import axes, stacked
from ufm.problem import Problem

# More lanes wait longer for the slowest among them than they save in calls.
MOST_LANES = 8
# In the full batch the compiler sums in another order for one lane than for several, for which the order is the same
# however many there are. So there are two at least, of which one may stand still: a start then ends the same, to the
# last bit, whatever runs beside it.
FEWEST_LANES = 2


class Entry(NamedTuple):
    """What begins on lanes: a point, its temperature and its most steps for each, and the lanes that `enters` marks."""

    H: Float[Any, "l m d"]
    tau: Float[Any, " l"]
    most: Int[Any, " l"]
    enters: Bool[Any, " l"]


class Outcome(NamedTuple):
    """Where one descent ended.

    - key: which start. status: what stopped it. steps: how many it took.
    - H: the point. conflict: relative conflict of its points. history: one `Record` of arrays.
    - seconds: of the start so far, all its descents.
    """

    key: int
    status: Status
    steps: int
    H: Float[np.ndarray, "m d"]
    excess: float
    residual: float
    conflict: Float[np.ndarray, " m"]
    history: Record
    seconds: float = 0.0


class Start(NamedTuple):
    """Where a descent begins: the point, the temperature if it is not the problem's, what led there.

    - steps, seconds: taken before by others than these lanes; they count towards the limits of the start.
    """

    H: Float[np.ndarray, "m d"]
    tau: float | None = None
    steps: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Limits:
    """Of one start: steps, and seconds on a lane."""

    max_steps: int = 20_000
    max_seconds: float = math.inf

    def schedule(self, problem: Problem, starts: int, *, keep_H: bool = False) -> Schedule:
        """As many lanes a device as keep their temporaries small; the clock is read more often where it limits.

        keep_H: every step is recorded, and its point with it.
        """
        slots = problem.batches.shape[1]
        room = 2**22 // (slots * slots + problem.num_points * problem.d)
        lanes = int(np.clip(room, 1, min(max(starts, FEWEST_LANES), MOST_LANES)))
        records = Schedule.records if math.isinf(self.max_seconds) else 1
        every = 1 if keep_H else Schedule.every
        return Schedule(lanes, records, every, self.max_steps, self.max_seconds, keep_H)


@dataclass(frozen=True)
class Schedule:
    """How lanes are run: most lanes on a device, records a chunk, steps a record; limits of each start.

    - keep_H: records hold the point.
    - max_steps, max_seconds: of all descents of a start together. A start shares the seconds in which it is on a
      lane with those beside it; compiling does not count. It is stopped at the first chunk that ends later.
    """

    lanes: int
    records: int = 4
    every: int = 4
    max_steps: int = 20_000
    max_seconds: float = math.inf
    keep_H: bool = False

    def used(self, starts: int) -> int:
        """Lanes in all for so many starts, equally many on each device."""
        return devices.count() * min(self.lanes, max(FEWEST_LANES, -(-starts // devices.count())))

    @property
    def chunk(self) -> dict[str, int]:
        """What of it is compiled."""
        return {"records": self.records, "every": self.every, "keep_H": self.keep_H}


def prepare_lanes(
    method: Method, problem: Problem, starts: int, schedule: Schedule, *, width: int, shared: bool = True
) -> None:
    """Compile on another thread what `run_lanes` will call for so many starts with rows of this width.

    shared: of this one problem, or each of its own, of this shape.
    """
    if devices.count() > 1:
        return
    count = schedule.used(starts)
    H = jax.ShapeDtypeStruct((count, problem.num_points, width), np.float64)
    entry = Entry(H, *(jax.ShapeDtypeStruct((count,), dtype) for dtype in (np.float64, np.int32, bool)))
    present = problem if shared else stacked([problem] * count)
    lanes = _begun.returned(*entry[:3], present, method=method, shared=shared)
    _advance.prepare(lanes, entry, present, method=method, shared=shared, **schedule.chunk)


def run_lanes(
    method: Method,
    problem: Problem | Sequence[Problem],
    starts: Iterable[tuple[int, Start]],
    schedule: Schedule,
    finished: Callable[[Outcome], Start | None],
) -> None:
    """Run every start to its end. `finished` gets each outcome and may return where to go on from.

    The result of a start does not depend on the others, but for rounding: lanes share a compiled function, not state.
    problem: of all starts, or a sequence with the problem of each key, all of one shape and temperature.
    """
    waiting = deque(starts)
    if not waiting:
        return
    count = schedule.used(len(waiting))
    shared = isinstance(problem, Problem)
    present = problem if isinstance(problem, Problem) else stacked([problem[0]] * count)
    H = np.stack([waiting[i % len(waiting)][1].H for i in range(count)])
    entry = Entry(H, np.full(count, float(present.tau)), np.zeros(count, np.int32), np.zeros(count, bool))
    keys: list[int | None] = [None] * count
    histories: list[list[Record]] = [[] for _ in range(count)]
    spent: dict[int, _Spent] = defaultdict(_Spent)
    lanes = _still(entry, present, method, shared)
    while waiting or any(key is not None for key in keys):
        entry.enters[:] = False
        for lane in range(count):
            if keys[lane] is None and waiting:
                key, start = waiting.popleft()
                keys[lane], histories[lane] = key, []
                spent[key].steps += start.steps
                spent[key].seconds += start.seconds
                entry.H[lane], entry.enters[lane] = start.H, True
                entry.tau[lane] = float(present.tau) if start.tau is None else start.tau
                late = spent[key].seconds >= schedule.max_seconds  # what came before it took all: no step is taken
                entry.most[lane] = 0 if late else schedule.max_steps - spent[key].steps
        if entry.enters.any() and not isinstance(problem, Problem):
            present = stacked([problem[key or 0] for key in keys])
        began, compiling = time.perf_counter(), compile_seconds()
        lanes, records = _advance(lanes, entry, present, method=method, shared=shared, **schedule.chunk)
        records = jax.tree.map(np.asarray, records)
        seconds = time.perf_counter() - began - (compile_seconds() - compiling)
        now = jax.tree.map(np.asarray, lanes._replace(inner=method.iterate(lanes.inner)))
        stopped = now.stopped
        for lane, key in [(lane, key) for lane, key in enumerate(keys) if key is not None]:
            histories[lane].append(records)
            spent[key].seconds += seconds
            if not stopped[lane] and spent[key].seconds < schedule.max_seconds:
                continue
            outcome = _outcome(key, lane, now, method, histories[lane])._replace(seconds=spent[key].seconds)
            spent[key].steps += outcome.steps
            keys[lane] = None
            began, compiling = time.perf_counter(), compile_seconds()
            onward = finished(outcome)
            spent[key].seconds += time.perf_counter() - began - (compile_seconds() - compiling)
            if onward is not None:
                waiting.append((key, onward))


@dataclass
class _Spent:
    """What a start has used of its limits."""

    steps: int = 0
    seconds: float = 0.0


def _outcome(key: int, lane: int, now: Lane, method: Method, histories: list[Record]) -> Outcome:
    """The outcome of a lane that has stopped, or that its time limit stops. now: all lanes, with their iterates."""
    of_start = now._replace(inner=None, **{name: getattr(now, name)[lane] for name in Lane._fields[1:]})
    H, excess, residual, conflict = (part[lane] for part in now.inner)
    status = status_of(float(residual), conflict, method.tolerance, of_start)
    history = _history(histories, lane)
    return Outcome(key, status, int(of_start.steps), H, float(excess), float(residual), conflict, history)


def _history(chunks: list[Record], lane: int) -> Record:
    """The history of a lane, without the repeated lines after it stopped."""
    whole = jax.tree.map(lambda *parts: np.concatenate([part[lane] for part in parts]), *chunks)
    lines = int(np.searchsorted(whole.iteration, whole.iteration[-1])) + 1
    return jax.tree.map(lambda column: column[:lines], whole)


def advance_on_devices(
    lanes: Lane, entry: Entry, problem: Problem, *, method: Method, records: int, every: int, keep_H: bool, shared: bool
) -> tuple[Lane, Record]:
    """`advance_lanes` once those that enter have begun, an equal share of the lanes on each device; a device stops when
    its own lanes have.
    """

    def advance(lanes: Lane, entry: Entry, problem: Problem) -> tuple[Lane, Record]:
        def entered() -> Lane:
            begun = begin_lanes(*entry[:3], problem, method=method, shared=shared)
            return enter_lanes(lanes, entry.enters, begun)

        lanes = jax.lax.cond(jnp.any(entry.enters), entered, lambda: lanes)
        return advance_lanes(lanes, problem, method=method, records=records, every=every, keep_H=keep_H, shared=shared)

    return devices.shared_out(advance, (0, 0, None if shared else axes(problem)))(lanes, entry, problem)


# Traced alone: what lanes are made of.
_begun = Compiled(begin_lanes)
_advance = Compiled(advance_on_devices)


def _still(entry: Entry, problem: Problem, method: Method, shared: bool) -> Lane:
    """Lanes without a start: they stand still, and a device with such lanes alone has nothing to do."""
    of = _begun.returned(*entry[:3], problem, method=method, shared=shared)
    lanes = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), of)
    return devices.dealt_out(lanes._replace(done=np.ones(len(entry.enters), bool)))
