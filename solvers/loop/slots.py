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

from solvers.compilation.compiled import Compiled, compile_seconds
from solvers.loop.method import Method, Record, Slot, advance_slots, begin_slots, fill_slots
from solvers.loop.stopping import Status, status_of
from solvers.parallel import devices
from solvers.parallel.padding import axes, stacked
from ufm.model.problem import Problem

# More lanes wait longer for the slowest among them than they save in calls.
MOST_SLOTS = 8
# In the full batch the compiler sums in another order for one lane than for several, for which the order is the same
# however many there are. So there are two at least, of which one may stand still: a start then ends the same, to the
# last bit, whatever runs beside it.
FEWEST_SLOTS = 2


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
    gap_contribution: Float[np.ndarray, " m"]
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

    def run_options(self, problem: Problem, starts: int, *, keep_H: bool = False) -> RunOptions:
        """As many lanes a device as keep their temporaries small; the clock is read more often where it limits.

        keep_H: every step is recorded, and its point with it.
        """
        batch_size = problem.batches.shape[1]
        most = 2**22 // (batch_size * batch_size + problem.num_points * problem.d)
        slots = int(np.clip(most, 1, min(max(starts, FEWEST_SLOTS), MOST_SLOTS)))
        records = RunOptions.records if math.isinf(self.max_seconds) else 1
        every = 1 if keep_H else RunOptions.every
        return RunOptions(slots, records, every, self.max_steps, self.max_seconds, keep_H)


@dataclass(frozen=True)
class RunOptions:
    """How lanes are run: most lanes on a device, records a chunk, steps a record; limits of each start.

    - keep_H: records hold the point.
    - max_steps, max_seconds: of all descents of a start together. A start shares the seconds in which it is on a
      lane with those beside it; compiling does not count. It is stopped at the first chunk that ends later.
    """

    slots: int
    records: int = 4
    every: int = 4
    max_steps: int = 20_000
    max_seconds: float = math.inf
    keep_H: bool = False

    def used(self, starts: int) -> int:
        """Lanes in all for so many starts, equally many on each device."""
        return devices.count() * min(self.slots, max(FEWEST_SLOTS, -(-starts // devices.count())))

    @property
    def chunk(self) -> dict[str, int]:
        """What of it is compiled."""
        return {"records": self.records, "every": self.every, "keep_H": self.keep_H}


def prepare_slots(
    method: Method, problem: Problem, starts: int, run_options: RunOptions, *, width: int, shared: bool = True
) -> None:
    """Compile on another thread what `run_slots` will call for so many starts with rows of this width.

    shared: of this one problem, or each of its own, of this shape.
    """
    if devices.count() > 1:
        return
    count = run_options.used(starts)
    H = jax.ShapeDtypeStruct((count, problem.num_points, width), np.float64)
    entry = Entry(H, *(jax.ShapeDtypeStruct((count,), dtype) for dtype in (np.float64, np.int32, bool)))
    present = problem if shared else stacked([problem] * count)
    slots = _begun.returned(*entry[:3], present, method=method, shared=shared)
    _advance.prepare(slots, entry, present, method=method, shared=shared, **run_options.chunk)


def run_slots(
    method: Method,
    problem: Problem | Sequence[Problem],
    starts: Iterable[tuple[int, Start]],
    run_options: RunOptions,
    finished: Callable[[Outcome], Start | None],
) -> None:
    """Run every start to its end. `finished` gets each outcome and may return where to go on from.

    The result of a start does not depend on the others, but for rounding: lanes share a compiled function, not state.
    problem: of all starts, or a sequence with the problem of each key, all of one shape and temperature.
    """
    waiting = deque(starts)
    if not waiting:
        return
    count = run_options.used(len(waiting))
    shared = isinstance(problem, Problem)
    present = problem if isinstance(problem, Problem) else stacked([problem[0]] * count)
    H = np.stack([waiting[i % len(waiting)][1].H for i in range(count)])
    entry = Entry(H, np.full(count, float(present.tau)), np.zeros(count, np.int32), np.zeros(count, bool))
    keys: list[int | None] = [None] * count
    histories: list[list[Record]] = [[] for _ in range(count)]
    spent: dict[int, _Spent] = defaultdict(_Spent)
    slots = _still(entry, present, method, shared)
    while waiting or any(key is not None for key in keys):
        entry.enters[:] = False
        for slot in range(count):
            if keys[slot] is None and waiting:
                key, start = waiting.popleft()
                keys[slot], histories[slot] = key, []
                spent[key].steps += start.steps
                spent[key].seconds += start.seconds
                entry.H[slot], entry.enters[slot] = start.H, True
                entry.tau[slot] = float(present.tau) if start.tau is None else start.tau
                late = spent[key].seconds >= run_options.max_seconds  # what came before it took all: no step is taken
                entry.most[slot] = 0 if late else run_options.max_steps - spent[key].steps
        if entry.enters.any() and not isinstance(problem, Problem):
            present = stacked([problem[key or 0] for key in keys])
        began, compiling = time.perf_counter(), compile_seconds()
        slots, records = _advance(slots, entry, present, method=method, shared=shared, **run_options.chunk)
        records = jax.tree.map(np.asarray, records)
        seconds = time.perf_counter() - began - (compile_seconds() - compiling)
        now = jax.tree.map(np.asarray, slots._replace(inner=method.iterate(slots.inner)))
        stopped = now.stopped
        for slot, key in [(slot, key) for slot, key in enumerate(keys) if key is not None]:
            histories[slot].append(records)
            spent[key].seconds += seconds
            if not stopped[slot] and spent[key].seconds < run_options.max_seconds:
                continue
            outcome = _outcome(key, slot, now, method, histories[slot])._replace(seconds=spent[key].seconds)
            spent[key].steps += outcome.steps
            keys[slot] = None
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


def _outcome(key: int, slot: int, now: Slot, method: Method, histories: list[Record]) -> Outcome:
    """The outcome of a lane that has stopped, or that its time limit stops. now: all lanes, with their iterates."""
    of_start = now._replace(inner=None, **{name: getattr(now, name)[slot] for name in Slot._fields[1:]})
    H, excess, residual, gap_contribution = (part[slot] for part in now.inner)
    status = status_of(float(residual), gap_contribution, method.tolerance, of_start)
    history = _history(histories, slot)
    return Outcome(key, status, int(of_start.steps), H, float(excess), float(residual), gap_contribution, history)


def _history(chunks: list[Record], slot: int) -> Record:
    """The history of a lane, without the repeated lines after it stopped."""
    whole = jax.tree.map(lambda *parts: np.concatenate([part[slot] for part in parts]), *chunks)
    lines = int(np.searchsorted(whole.iteration, whole.iteration[-1])) + 1
    return jax.tree.map(lambda column: column[:lines], whole)


def advance_on_devices(
    slots: Slot, entry: Entry, problem: Problem, *, method: Method, records: int, every: int, keep_H: bool, shared: bool
) -> tuple[Slot, Record]:
    """`advance_slots` once those that enter have begun, an equal share of the lanes on each device; a device stops when
    its own lanes have.
    """

    def advance(slots: Slot, entry: Entry, problem: Problem) -> tuple[Slot, Record]:
        def entered() -> Slot:
            begun = begin_slots(*entry[:3], problem, method=method, shared=shared)
            return fill_slots(slots, entry.enters, begun)

        slots = jax.lax.cond(jnp.any(entry.enters), entered, lambda: slots)
        return advance_slots(slots, problem, method=method, records=records, every=every, keep_H=keep_H, shared=shared)

    return devices.shared_out(advance, (0, 0, None if shared else axes(problem)))(slots, entry, problem)


# Traced alone: what lanes are made of.
_begun = Compiled(begin_slots)
_advance = Compiled(advance_on_devices)


def _still(entry: Entry, problem: Problem, method: Method, shared: bool) -> Slot:
    """Lanes without a start: they stand still, and a device with such lanes alone has nothing to do."""
    of = _begun.returned(*entry[:3], problem, method=method, shared=shared)
    slots = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), of)
    return devices.sharded(slots._replace(done=np.ones(len(entry.enters), bool)))
