"""The protocol every descent method follows, and the one loop that runs them all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from solvers.loop.stopping import Column
from solvers.parallel.padding import axes
from ufm.model.geometry import geometry_metrics
from ufm.model.problem import Problem


class Iterate(NamedTuple):
    """What the loop may read of a method's state.

    - H: the feasible point that would be returned now.
    - excess: of the point last evaluated.
    - residual: largest `stationarity` over points, there.
    - gap_contribution: `relative_gap_contribution` there.
    """

    H: Float[Array, "m d"]
    excess: Float[Array, ""]
    residual: Float[Array, ""]
    gap_contribution: Float[Array, " m"]


@runtime_checkable
class Method(Protocol):
    """A descent method in four steps, for one start. Instances are frozen and hashable: they are static."""

    @property
    def tolerance(self) -> float:
        """What `converged` tests against."""
        ...

    def init(self, H: Float[Array, "m d"], problem: Problem) -> Any:
        """State at a feasible H."""
        ...

    def step(self, state: Any, problem: Problem) -> Any:
        """One iteration: one evaluation, one projection."""
        ...

    def iterate(self, state: Any) -> Iterate:
        """The part of the state that the loop records and returns: a selection, the same for stacked states."""
        ...

    def converged(self, state: Any) -> Bool[Array, ""]:
        """Stationary to `tolerance`; never a test of the step size alone."""
        ...


class Record(NamedTuple):
    """One line of a history, or a column of arrays of lines (see `Solution.history`). H: the point, if it is kept."""

    iteration: Int[Column, " *lines"]
    excess: Float[Column, " *lines"]
    residual: Float[Column, " *lines"]
    delta_gm: Float[Column, " *lines"]
    beta_nc: Float[Column, " *lines"]
    mean_cosine: Float[Column, " *lines"]
    max_cosine: Float[Column, " *lines"]
    H: Float[Column, "*lines m d"] | None = None


# The numbers of a line.
COLUMNS = tuple(name for name in Record._fields if name != "H")


def joined(parts: Sequence[tuple[Record, int]]) -> Record:
    """One history from the histories of consecutive phases, each with the steps the phase took."""
    before = np.cumsum([0] + [steps for _, steps in parts[:-1]])
    counted = [
        part._replace(iteration=part.iteration + offset) for (part, _), offset in zip(parts, before, strict=True)
    ]
    return jax.tree.map(lambda *columns: np.concatenate(columns), *counted)


class Slot(NamedTuple):
    """One start on its way.

    - inner: the state of the method. tau: the temperature it descends at, in the place of the problem's.
    - steps: taken so far. most: no more than this are taken.
    - failed: the step it was to take was not finite and was not taken. done: as the method says.
    """

    inner: Any
    tau: Float[Array, ""]
    steps: Int[Array, ""]
    most: Int[Array, ""]
    failed: Bool[Array, ""]
    done: Bool[Array, ""]

    @property
    def stopped(self) -> Bool[Column, "*lanes"]:
        """Whether it takes no more steps; of one lane or of stacked ones, on the device or on the host."""
        return self.done | self.failed | (self.steps >= self.most)


def line(steps: Int[Array, ""], now: Iterate, problem: Problem, *, keep_H: bool = False) -> Record:
    """The line of a history at an iterate: excess, residual and geometry; the point too, if that is to be kept."""
    geometry = geometry_metrics(
        now.H,
        problem.labels,
        k=problem.k,
        multiplicity=problem.multiplicity,
        collapsed=problem.num_points == problem.k,  # every class of a problem that is solved is present
    )
    return Record(
        steps,
        now.excess,
        now.residual,
        geometry.delta_gm,
        geometry.beta_nc,
        geometry.mean_cosine,
        geometry.max_cosine,
        now.H if keep_H else None,
    )


def begin_slots(
    H: Float[Array, "l m d"],
    tau: Float[Array, " l"],
    most: Int[Array, " l"],
    problem: Problem,
    *,
    method: Method,
    shared: bool = True,
) -> Slot:
    """Lanes at step 0, of one shared problem or each of its own (`solvers.parallel.padding.stacked`)."""

    def one(H: Array, tau: Array, most: Array, problem: Problem) -> Slot:
        no = jnp.asarray(False)
        return Slot(method.init(H, at_temperature(problem, tau)), tau, jnp.zeros((), jnp.int32), most, no, no)

    return jax.vmap(one, in_axes=(0, 0, 0, None if shared else axes(problem)))(H, tau, most, problem)


def fill_slots(slots: Slot, enters: Bool[Array, " l"], begun: Slot) -> Slot:
    """The lanes, those marked replaced by what begins on them."""

    def entered(new: Array, old: Array) -> Array:
        return jnp.where(enters.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    return jax.tree.map(entered, begun, slots)


def advance_slots(
    slots: Slot,
    problem: Problem,
    *,
    method: Method,
    records: int,
    every: int,
    keep_H: bool = False,
    shared: bool = True,
) -> tuple[Slot, Record]:
    """`records` times `every` steps of each lane, with a record after each `every`.

    Lanes that have converged, failed or taken all their steps stay as they are, so that the result of a start does
    not depend on who shares its chunk; when all have, no more steps are taken. Problems as in `begin_slots`.
    """
    in_axes = (0, None if shared else axes(problem))

    def advance(slot: Slot, problem: Problem) -> Slot:
        inner = method.step(slot.inner, at_temperature(problem, slot.tau))
        finite = jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in method.iterate(inner)]))
        moves = ~slot.stopped & finite
        inner = jax.tree.map(lambda new, old: jnp.where(moves, new, old), inner, slot.inner)
        return slot._replace(
            inner=inner,
            steps=slot.steps + moves,
            failed=slot.failed | (~slot.stopped & ~finite),
            done=slot.done | (moves & method.converged(inner)),
        )

    def unfinished(carry: tuple[Array, Slot]) -> Array:
        taken, slots = carry
        return (taken < every) & ~jnp.all(slots.stopped)

    def step(carry: tuple[Array, Slot]) -> tuple[Array, Slot]:
        taken, slots = carry
        return taken + 1, jax.vmap(advance, in_axes)(slots, problem)

    def recorded(slots: Slot, _: Any) -> tuple[Slot, Record]:
        slots = jax.lax.while_loop(unfinished, step, (jnp.zeros((), jnp.int32), slots))[1]
        seen = jax.vmap(
            lambda slot, problem: line(slot.steps, method.iterate(slot.inner), problem, keep_H=keep_H), in_axes
        )
        return slots, seen(slots, problem)

    slots, records_by_time = jax.lax.scan(recorded, slots, length=records)
    return slots, jax.tree.map(lambda column: jnp.swapaxes(column, 0, 1), records_by_time)


def at_temperature(problem: Problem, tau: Float[Array, ""]) -> Problem:
    """The problem with another temperature."""
    return eqx.tree_at(lambda p: p.tau, problem, tau)
