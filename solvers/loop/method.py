"""The protocol that every descent method follows, and the one loop that runs them all."""

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
    """The part of a method's state that the loop may read.

    - H: the feasible point that would be returned now.
    - excess: that of the point evaluated last.
    - residual: the largest `stationarity` over the points of the one evaluated last.
    - gap_contribution: its `relative_gap_contribution`.
    """

    H: Float[Array, "m d"]
    excess: Float[Array, ""]
    residual: Float[Array, ""]
    gap_contribution: Float[Array, " m"]


@runtime_checkable
class Method(Protocol):
    """A descent method for one start. Instances are frozen and hashable: compiled functions take them as static."""

    @property
    def tolerance(self) -> float:
        """The number with which `converged` compares the residual."""
        ...

    def init(self, H: Float[Array, "m d"], problem: Problem) -> Any:
        """The state at a feasible H."""
        ...

    def step(self, state: Any, problem: Problem) -> Any:
        """One iteration: one evaluation and one projection."""
        ...

    def iterate(self, state: Any) -> Iterate:
        """The part of the state that the loop records and returns; a mere selection, so it works for stacked states."""
        ...

    def converged(self, state: Any) -> Bool[Array, ""]:
        """Whether the state is stationary to `tolerance`; never a test of the step size alone."""
        ...


class Record(NamedTuple):
    """One line of a history, or all its lines as arrays (`Solution.history`). H: the point, if it is recorded."""

    iteration: Int[Column, " *lines"]
    excess: Float[Column, " *lines"]
    residual: Float[Column, " *lines"]
    delta_gm: Float[Column, " *lines"]
    beta_nc: Float[Column, " *lines"]
    mean_cosine: Float[Column, " *lines"]
    max_cosine: Float[Column, " *lines"]
    H: Float[Column, "*lines m d"] | None = None


# The columns that hold one number for each line.
COLUMNS = tuple(name for name in Record._fields if name != "H")


def joined(parts: Sequence[tuple[Record, int]]) -> Record:
    """One history from those of consecutive phases; each comes with the number of steps that the phase took."""
    before = np.cumsum([0] + [steps for _, steps in parts[:-1]])
    counted = [
        part._replace(iteration=part.iteration + offset) for (part, _), offset in zip(parts, before, strict=True)
    ]
    return jax.tree.map(lambda *columns: np.concatenate(columns), *counted)


class Slot(NamedTuple):
    """The state of one start in a slot.

    - inner: the state of the method. tau: the temperature of the descent, which replaces the problem's.
    - steps: how many have been taken. most: the step limit.
    - failed: the next step was not finite, and was not taken. done: `Method.converged`.
    """

    inner: Any
    tau: Float[Array, ""]
    steps: Int[Array, ""]
    most: Int[Array, ""]
    failed: Bool[Array, ""]
    done: Bool[Array, ""]

    @property
    def stopped(self) -> Bool[Column, "*slots"]:
        """Whether the start takes no more steps; for one slot or stacked ones, on the device or on the host."""
        return self.done | self.failed | (self.steps >= self.most)


def line(steps: Int[Array, ""], now: Iterate, problem: Problem, *, keep_H: bool = False) -> Record:
    """The line of a history at an iterate: excess, residual and geometry. keep_H: the point too."""
    geometry = geometry_metrics(
        now.H,
        problem.labels,
        k=problem.k,
        multiplicity=problem.multiplicity,
        collapsed=problem.num_points == problem.k,  # a solved problem has points of every class
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
    """Slots at step 0, of one shared problem, or each of its own, from `solvers.parallel.padding.stacked`."""

    def one(H: Array, tau: Array, most: Array, problem: Problem) -> Slot:
        no = jnp.asarray(False)
        return Slot(method.init(H, at_temperature(problem, tau)), tau, jnp.zeros((), jnp.int32), most, no, no)

    return jax.vmap(one, in_axes=(0, 0, 0, None if shared else axes(problem)))(H, tau, most, problem)


def fill_slots(slots: Slot, enters: Bool[Array, " l"], begun: Slot) -> Slot:
    """The slots; those that `enters` marks are replaced by the ones of `begun`."""

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
    """`records` times `every` steps of each slot, with a record after every `every` steps.

    A slot that has stopped stays as it is, so that the result of a start does not depend on the other slots. Once all
    have stopped, no more steps are taken. problem, shared: as in `begin_slots`.
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
