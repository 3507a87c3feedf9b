"""Many starts on a fixed number of compiled slots: a start that ends leaves its slot, and a waiting one enters it."""

from __future__ import annotations

import math
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
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

# With more slots, all wait longer for the slowest among them than the smaller number of calls saves.
MOST_SLOTS = 8
# In the full batch the compiler sums in one order for a single slot and in another order for two or more, where the
# order does not depend on their number. So there are at least two slots, one of which may be idle: then the result of a
# start is the same to the last bit, whatever runs beside it.
FEWEST_SLOTS = 2


class Entry(NamedTuple):
    """What enters the slots: for each a point, a temperature, a step limit, and whether it enters now."""

    H: Float[Any, "l m d"]
    tau: Float[Any, " l"]
    most: Int[Any, " l"]
    enters: Bool[Any, " l"]


class Outcome(NamedTuple):
    """Where one descent ended.

    - key: which start. status: what stopped it. steps: how many it took.
    - H: the point. gap_contribution: `relative_gap_contribution` there. history: one `Record` of arrays.
    - seconds: used so far by all descents of the start.
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
    """Where a descent begins.

    - H: the point. tau: the temperature; None: that of the problem.
    - steps, seconds: used earlier, outside the slots; they count towards the limits of the start.
    """

    H: Float[np.ndarray, "m d"]
    tau: float | None = None
    steps: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Limits:
    """The limits of one start: steps, and seconds in a slot."""

    max_steps: int = 20_000
    max_seconds: float = math.inf

    def run_options(self, problem: Problem, starts: int, *, keep_H: bool = False) -> RunOptions:
        """Options with as many slots on each device as keep temporary arrays small.

        With a time limit the clock is read after every record. keep_H: record every step, with its point.
        """
        batch_size = problem.batches.shape[1]
        most = 2**22 // (batch_size * batch_size + problem.num_points * problem.d)
        slots = int(np.clip(most, 1, min(max(starts, FEWEST_SLOTS), MOST_SLOTS)))
        records = RunOptions.records if math.isinf(self.max_seconds) else 1
        every = 1 if keep_H else RunOptions.every
        return RunOptions(slots, records, every, self.max_steps, self.max_seconds, keep_H)


@dataclass(frozen=True)
class RunOptions:
    """How slots are run.

    - slots: the most on one device. records: how many in a chunk. every: steps from one record to the next.
    - max_steps, max_seconds: limits for all descents of one start together. While a start is in a slot, the wall time
      of all slots counts as its own; compiling does not count. It is stopped after the first chunk that ends later.
    - keep_H: records hold the point.
    """

    slots: int
    records: int = 4
    every: int = 4
    max_steps: int = 20_000
    max_seconds: float = math.inf
    keep_H: bool = False

    def used(self, starts: int) -> int:
        """How many slots there are in all for so many starts; each device has equally many."""
        return devices.count() * min(self.slots, max(FEWEST_SLOTS, -(-starts // devices.count())))

    @property
    def chunk(self) -> dict[str, int]:
        """The options on which the compiled function depends."""
        return {"records": self.records, "every": self.every, "keep_H": self.keep_H}


def prepare_slots(
    method: Method, problem: Problem, starts: int, run_options: RunOptions, *, width: int, shared: bool = True
) -> None:
    """Compile, on another thread, the function that `run_slots` will call for so many starts with rows of this width.

    shared: whether all starts have this one problem, or each has its own problem of this shape.
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
    """Run every start to its end, on a fixed number of slots of one compiled function.

    Until no start waits and every slot is free:

    1. each free slot gets the next waiting start (`_SlotTable.enter`);
    2. one compiled call advances all slots by a chunk of steps (`_SlotTable.advance`);
    3. each slot whose start has stopped, or has used up its seconds, is freed: `finished` gets the outcome, and the
       start that it may return joins the end of the queue under the same key (`_SlotTable.leave`).

    Up to rounding the result of a start does not depend on the other starts: slots share a compiled function, but no
    state.

    - problem: one problem for all starts, or a sequence with the problem of each key, all of one shape and temperature.
    - starts: pairs of a key and a start.
    """
    waiting = deque(starts)
    if not waiting:
        return
    table = _SlotTable.of(method, problem, run_options, waiting)
    slots = _idle_slots(table.entry, table.present, method, table.shared)
    while waiting or table.is_busy:
        table.enter(waiting)
        slots, records, seconds = table.advance(slots)
        now = jax.tree.map(np.asarray, slots._replace(inner=method.iterate(slots.inner)))
        waiting.extend(table.leave(now, records, seconds, finished))


@dataclass
class _Spent:
    """The part of its limits that a start has used."""

    steps: int = 0
    seconds: float = 0.0


@dataclass
class _SlotTable:
    """Which start is in which slot, on the host.

    - problem: as of `run_slots`. present: what the compiled function gets: the shared problem, or one for each slot,
      stacked. shared: whether all starts have one problem.
    - entry: the arguments of the starts that enter next. keys: the start in each slot, None where the slot is free.
    - histories: the records of each slot since its start entered. spent: by key.
    """

    method: Method
    problem: Problem | Sequence[Problem]
    run_options: RunOptions
    present: Problem
    entry: Entry
    keys: list[int | None]
    histories: list[list[Record]]
    spent: dict[int, _Spent]

    @classmethod
    def of(
        cls,
        method: Method,
        problem: Problem | Sequence[Problem],
        run_options: RunOptions,
        waiting: Sequence[tuple[int, Start]],
    ) -> _SlotTable:
        """A table with all slots free, of a size for the starts that wait."""
        count = run_options.used(len(waiting))
        present = problem if isinstance(problem, Problem) else stacked([problem[0]] * count)
        H = np.stack([waiting[i % len(waiting)][1].H for i in range(count)])
        entry = Entry(H, np.full(count, float(present.tau)), np.zeros(count, np.int32), np.zeros(count, bool))
        histories: list[list[Record]] = [[] for _ in range(count)]
        return cls(method, problem, run_options, present, entry, [None] * count, histories, defaultdict(_Spent))

    @property
    def shared(self) -> bool:
        """Whether all starts have one problem."""
        return isinstance(self.problem, Problem)

    @property
    def is_busy(self) -> bool:
        """Whether any slot holds a start."""
        return any(key is not None for key in self.keys)

    def enter(self, waiting: deque[tuple[int, Start]]) -> None:
        """Move starts from the head of the queue to the free slots."""
        entry, present, options = self.entry, self.present, self.run_options
        entry.enters[:] = False
        for slot in range(len(self.keys)):
            if self.keys[slot] is None and waiting:
                key, start = waiting.popleft()
                self.keys[slot], self.histories[slot] = key, []
                spent = self.spent[key]
                spent.steps += start.steps
                spent.seconds += start.seconds
                entry.H[slot], entry.enters[slot] = start.H, True
                entry.tau[slot] = float(present.tau) if start.tau is None else start.tau
                late = spent.seconds >= options.max_seconds  # its seconds are used up: it takes no step
                entry.most[slot] = 0 if late else options.max_steps - spent.steps
        if entry.enters.any() and not isinstance(self.problem, Problem):
            self.present = stacked([self.problem[key or 0] for key in self.keys])

    def advance(self, slots: Slot) -> tuple[Slot, Record, float]:
        """One chunk of steps of all slots; the records of the chunk on the host; its seconds, compilation excluded."""
        began, compiling = time.perf_counter(), compile_seconds()
        chunk = self.run_options.chunk
        slots, records = _advance(slots, self.entry, self.present, method=self.method, shared=self.shared, **chunk)
        records = jax.tree.map(np.asarray, records)
        return slots, records, time.perf_counter() - began - (compile_seconds() - compiling)

    def leave(
        self, now: Slot, records: Record, seconds: float, finished: Callable[[Outcome], Start | None]
    ) -> Iterator[tuple[int, Start]]:
        """Free the slots whose starts are at their end; what `finished` returns for them, with the keys.

        now: all slots, on the host, with their iterates in place of the states of the method.
        """
        stopped = now.stopped
        for slot, key in [(slot, key) for slot, key in enumerate(self.keys) if key is not None]:
            spent = self.spent[key]
            self.histories[slot].append(records)
            spent.seconds += seconds
            if not stopped[slot] and spent.seconds < self.run_options.max_seconds:
                continue
            outcome = _outcome(key, slot, now, self.method, self.histories[slot])._replace(seconds=spent.seconds)
            spent.steps += outcome.steps
            self.keys[slot] = None
            began, compiling = time.perf_counter(), compile_seconds()
            onward = finished(outcome)
            spent.seconds += time.perf_counter() - began - (compile_seconds() - compiling)
            if onward is not None:
                yield key, onward


def _outcome(key: int, slot: int, now: Slot, method: Method, histories: list[Record]) -> Outcome:
    """The outcome of a slot that has stopped, or that the time limit stops. now: all slots, with their iterates."""
    of_start = now._replace(inner=None, **{name: getattr(now, name)[slot] for name in Slot._fields[1:]})
    H, excess, residual, gap_contribution = (part[slot] for part in now.inner)
    status = status_of(float(residual), gap_contribution, method.tolerance, of_start)
    history = _history(histories, slot)
    return Outcome(key, status, int(of_start.steps), H, float(excess), float(residual), gap_contribution, history)


def _history(chunks: list[Record], slot: int) -> Record:
    """The history of a slot, without the repeated lines after it stopped."""
    whole = jax.tree.map(lambda *parts: np.concatenate([part[slot] for part in parts]), *chunks)
    lines = int(np.searchsorted(whole.iteration, whole.iteration[-1])) + 1
    return jax.tree.map(lambda column: column[:lines], whole)


def advance_on_devices(
    slots: Slot, entry: Entry, problem: Problem, *, method: Method, records: int, every: int, keep_H: bool, shared: bool
) -> tuple[Slot, Record]:
    """Begin the starts that enter, then `advance_slots`, with equally many slots on each device.

    A device stops when all slots on it have stopped.
    """

    def advance(slots: Slot, entry: Entry, problem: Problem) -> tuple[Slot, Record]:
        def entered() -> Slot:
            begun = begin_slots(*entry[:3], problem, method=method, shared=shared)
            return fill_slots(slots, entry.enters, begun)

        slots = jax.lax.cond(jnp.any(entry.enters), entered, lambda: slots)
        return advance_slots(slots, problem, method=method, records=records, every=every, keep_H=keep_H, shared=shared)

    return devices.split_over_devices(advance, (0, 0, None if shared else axes(problem)))(slots, entry, problem)


# Only traced, for the structure of the slots.
_begun = Compiled(begin_slots)
_advance = Compiled(advance_on_devices)


def _idle_slots(entry: Entry, problem: Problem, method: Method, shared: bool) -> Slot:
    """Slots without a start: they take no steps, and a device that has only such slots does nothing."""
    of = _begun.returned(*entry[:3], problem, method=method, shared=shared)
    slots = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), of)
    return devices.sharded(slots._replace(done=np.ones(len(entry.enters), bool)))
