"""Stochastic projected gradient in a compiled loop: many starts, each with batches of its own, in step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, UInt32

from solvers.descent.method import Iterate, Record, line
from solvers.descent.projected_gradient import Transformation, made
from solvers.descent.stopping import relative_conflict, stationarity
from solvers.parallel import devices
from solvers.parallel.compiled import Compiled
from ufm.loss import batch_gradient, evaluate
from ufm.problem import PADDING, Problem
from ufm.projections import project
from ufm.samplers import Population, Sampler

Schedule = Callable[[Any], Any]


class Walks(NamedTuple):
    """Starts on their way; leading axis: start.

    - H: where each is. optimiser, sampler: the states of both.
    - steps: taken by each. failed: its next step was not finite, and was not taken; it takes no more.
    """

    H: Float[Array, "s m d"]
    optimiser: Any
    sampler: Any
    steps: Int[Array, " s"]
    failed: Bool[Array, " s"]


@dataclass(frozen=True)
class Rule:
    """One step, as it is compiled: see `solvers.stochastic.StochasticProjectedGradient`.

    - schedule: lengths of steps by their number, times `length`; None if all are `length`, which is an argument of what
      is compiled: another needs no compilation.
    """

    sampler: Sampler
    transformation: Transformation | None
    schedule: Schedule | None = None

    @property
    def optimiser(self) -> optax.GradientTransformation:
        """The transformation, which there is."""
        assert self.transformation is not None
        return made(self.transformation)

    def at(self, step: Int[Array, ""], length: Float[Array, ""]) -> Float[Array, ""]:
        """The length of a step, counted from 0."""
        return length if self.schedule is None else jnp.asarray(self.schedule(step), jnp.float64) * length


def begin_walks(H: Float[Array, "s m d"], keys: UInt32[Array, "s w"], population: Population, *, rule: Rule) -> Walks:
    """Walks at step 0, each with a key of its own for its sampler."""

    def one(H: Array, key: Array) -> Walks:
        optimiser = None if rule.transformation is None else rule.optimiser.init(H)
        sampler = rule.sampler.begin(key, population)
        return Walks(H, optimiser, sampler, jnp.zeros((), jnp.int32), jnp.zeros((), bool))

    return jax.vmap(one)(H, keys)


def advance_walks(
    walks: Walks,
    population: Population,
    problem: Problem,
    steps: Int[Array, ""],
    length: Float[Array, ""],
    *,
    rule: Rule,
) -> tuple[Walks, Record]:
    """So many steps of each, and the line of a history where that leads."""
    walks = move_walks(walks, population, problem, steps, length, rule=rule)
    return walks, jax.lax.map(lambda walk: _line(walk, population, problem, rule), walks)


def move_walks(
    walks: Walks,
    population: Population,
    problem: Problem,
    steps: Int[Array, ""],
    length: Float[Array, ""],
    *,
    rule: Rule,
) -> Walks:
    """So many steps of each.

    One after the other, so that a step touches the rows of its batch alone: loops over all starts together would
    choose between old and new embeddings, row by row.
    """

    def one(walk: Walks) -> Walks:
        return jax.lax.fori_loop(0, steps, lambda _, walk: _step(walk, population, problem, length, rule), walk)

    return jax.lax.map(one, walks)


def _step(walk: Walks, population: Population, problem: Problem, length: Float[Array, ""], rule: Rule) -> Walks:
    """One batch, its gradient, one update, the projection; nothing of it where that is not finite."""
    batch, sampler = rule.sampler.next(walk.sampler, population)
    gradient, eta = batch_gradient(walk.H, problem, batch), rule.at(walk.steps, length)
    inside, beyond = batch != PADDING, walk.H.shape[0]
    if rule.transformation is None:
        optimiser, rows = None, jnp.where(inside, batch, beyond)
        moved = project(walk.H[batch] - eta * gradient, problem.nonneg)
        moves = ~walk.failed & jnp.all(jnp.isfinite(moved) | ~inside[:, None])
        # Rows out of range are not written.
        H = walk.H.at[jnp.where(moves, rows, beyond)].set(moved, mode="drop")
    else:
        whole = jnp.zeros_like(walk.H).at[batch].add(gradient)  # padding adds 0
        update, optimiser = rule.optimiser.update(whole, walk.optimiser, walk.H)
        moved = project(walk.H + eta * update, problem.nonneg)  # type: ignore[operator]
        moves = ~walk.failed & jnp.all(jnp.isfinite(moved))
        H = jnp.where(moves, moved, walk.H)
        optimiser = jax.tree.map(partial(jnp.where, moves), optimiser, walk.optimiser)
    return Walks(H, optimiser, sampler, walk.steps + moves, walk.failed | ~moves)


def _line(walk: Walks, population: Population, problem: Problem, rule: Rule) -> Record:
    """The geometry of the point; excess and residual of the batch that comes next, which has not moved it yet.

    The largest double where these are not finite: the step to come fails.
    """
    batch, _ = rule.sampler.next(walk.sampler, population)
    rows, slots = walk.H[batch], jnp.arange(len(batch), dtype=problem.batches.dtype)
    alone = eqx.tree_at(
        lambda p: (p.labels, p.multiplicity, p.batches),
        problem,
        (problem.labels[batch], problem.multiplicity[batch], jnp.where(batch == PADDING, PADDING, slots)[None]),
    )
    at = evaluate(rows, alone)
    largest = jnp.finfo(walk.H.dtype).max
    excess, residual = (
        jnp.where(jnp.isfinite(number), number, largest)
        for number in (at.excess, jnp.max(stationarity(rows, at, alone)))
    )
    return line(walk.steps, Iterate(walk.H, excess, residual, relative_conflict(at)), problem)


def begin_on_devices(H: Array, keys: Array, population: Population, *, rule: Rule) -> Walks:
    """`begin_walks`, an equal share of the starts on each device."""
    return devices.shared_out(partial(begin_walks, rule=rule), (0, 0, None))(H, keys, population)


def advance_on_devices(
    walks: Walks, population: Population, problem: Problem, steps: Array, length: Array, *, rule: Rule
) -> tuple[Walks, Record]:
    """`advance_walks`, an equal share of the starts on each device."""
    of = (0, None, None, None, None)
    return devices.shared_out(partial(advance_walks, rule=rule), of)(walks, population, problem, steps, length)


begin = Compiled(begin_on_devices)
# Without a history, and so without what geometry takes to compile.
move = Compiled(move_walks, quick=False)
advance = Compiled(advance_on_devices, quick=False)
