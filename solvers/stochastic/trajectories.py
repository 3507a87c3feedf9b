"""Stochastic projected gradient in a compiled loop: many starts, each with its own batches."""

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

from solvers.compilation.compiled import Compiled
from solvers.loop.method import Iterate, Record, line
from solvers.loop.stopping import relative_gap_contribution, stationarity
from solvers.methods.projected_gradient import Transformation, made
from solvers.parallel import devices
from ufm.model.evaluation import batch_gradient, evaluate
from ufm.model.problem import PADDING, Problem
from ufm.model.projections import project
from ufm.samplers import Population, Sampler

Schedule = Callable[[Any], Any]


class Trajectories(NamedTuple):
    """The states of several starts; leading axis: start.

    - H: the points. optimiser, sampler: the states of both.
    - steps: how many each has taken. failed: the next step was not finite and was not taken; no more are taken.
    """

    H: Float[Array, "s m d"]
    optimiser: Any
    sampler: Any
    steps: Int[Array, " s"]
    failed: Bool[Array, " s"]


@dataclass(frozen=True)
class Rule:
    """The parts of a step that are compiled; see `solvers.stochastic.projected_gradient.StochasticProjectedGradient`.

    - schedule: from the number of a step to a factor of `length`; None: every step has the size `length`. `length` is
      an argument of the compiled function, so another value needs no compilation.
    """

    sampler: Sampler
    transformation: Transformation | None
    schedule: Schedule | None = None

    @property
    def optimiser(self) -> optax.GradientTransformation:
        """The transformation; only called if there is one."""
        assert self.transformation is not None
        return made(self.transformation)

    def at(self, step: Int[Array, ""], length: Float[Array, ""]) -> Float[Array, ""]:
        """The size of a step, counted from 0."""
        return length if self.schedule is None else jnp.asarray(self.schedule(step), jnp.float64) * length


def begin_trajectories(
    H: Float[Array, "s m d"], keys: UInt32[Array, "s w"], population: Population, *, rule: Rule
) -> Trajectories:
    """The starts at step 0, each with its own key for the sampler."""

    def one(H: Array, key: Array) -> Trajectories:
        optimiser = None if rule.transformation is None else rule.optimiser.init(H)
        sampler = rule.sampler.begin(key, population)
        return Trajectories(H, optimiser, sampler, jnp.zeros((), jnp.int32), jnp.zeros((), bool))

    return jax.vmap(one)(H, keys)


def advance_trajectories(
    trajectories: Trajectories,
    population: Population,
    problem: Problem,
    steps: Int[Array, ""],
    length: Float[Array, ""],
    *,
    rule: Rule,
) -> tuple[Trajectories, Record]:
    """Take so many steps of each start, and record a line after them."""
    trajectories = move_trajectories(trajectories, population, problem, steps, length, rule=rule)
    return trajectories, jax.lax.map(lambda trajectory: _line(trajectory, population, problem, rule), trajectories)


def move_trajectories(
    trajectories: Trajectories,
    population: Population,
    problem: Problem,
    steps: Int[Array, ""],
    length: Float[Array, ""],
    *,
    rule: Rule,
) -> Trajectories:
    """Take so many steps of each start.

    The starts run one after the other, so that a step touches only the rows of its batch: a loop over all starts
    together would select between old and new embeddings, row by row.
    """

    def one(trajectory: Trajectories) -> Trajectories:
        return jax.lax.fori_loop(
            0, steps, lambda _, trajectory: _step(trajectory, population, problem, length, rule), trajectory
        )

    return jax.lax.map(one, trajectories)


def _step(
    trajectory: Trajectories, population: Population, problem: Problem, length: Float[Array, ""], rule: Rule
) -> Trajectories:
    """Draw a batch, update by its gradient, project. If the result is not finite, the step is not taken."""
    batch, sampler = rule.sampler.next(trajectory.sampler, population)
    gradient, eta = batch_gradient(trajectory.H, problem, batch), rule.at(trajectory.steps, length)
    inside, beyond = batch != PADDING, trajectory.H.shape[0]
    if rule.transformation is None:
        optimiser, rows = None, jnp.where(inside, batch, beyond)
        moved = project(trajectory.H[batch] - eta * gradient, problem.nonneg)
        moves = ~trajectory.failed & jnp.all(jnp.isfinite(moved) | ~inside[:, None])
        # Rows out of range are not written.
        H = trajectory.H.at[jnp.where(moves, rows, beyond)].set(moved, mode="drop")
    else:
        whole = jnp.zeros_like(trajectory.H).at[batch].add(gradient)  # padding adds 0
        update, optimiser = rule.optimiser.update(whole, trajectory.optimiser, trajectory.H)
        moved = project(trajectory.H + eta * update, problem.nonneg)  # type: ignore[operator]
        moves = ~trajectory.failed & jnp.all(jnp.isfinite(moved))
        H = jnp.where(moves, moved, trajectory.H)
        optimiser = jax.tree.map(partial(jnp.where, moves), optimiser, trajectory.optimiser)
    return Trajectories(H, optimiser, sampler, trajectory.steps + moves, trajectory.failed | ~moves)


def _line(trajectory: Trajectories, population: Population, problem: Problem, rule: Rule) -> Record:
    """The geometry of the point, with excess and residual of the next batch, which has not moved it yet.

    Where these are not finite the line holds the largest double; the next step then fails.
    """
    batch, _ = rule.sampler.next(trajectory.sampler, population)
    rows, slots = trajectory.H[batch], jnp.arange(len(batch), dtype=problem.batches.dtype)
    alone = eqx.tree_at(
        lambda p: (p.labels, p.multiplicity, p.batches),
        problem,
        (problem.labels[batch], problem.multiplicity[batch], jnp.where(batch == PADDING, PADDING, slots)[None]),
    )
    at = evaluate(rows, alone)
    largest = jnp.finfo(trajectory.H.dtype).max
    excess, residual = (
        jnp.where(jnp.isfinite(number), number, largest)
        for number in (at.excess, jnp.max(stationarity(rows, at, alone)))
    )
    return line(trajectory.steps, Iterate(trajectory.H, excess, residual, relative_gap_contribution(at)), problem)


def begin_on_devices(H: Array, keys: Array, population: Population, *, rule: Rule) -> Trajectories:
    """`begin_trajectories`, with equally many starts on each device."""
    return devices.split_over_devices(partial(begin_trajectories, rule=rule), (0, 0, None))(H, keys, population)


def advance_on_devices(
    trajectories: Trajectories, population: Population, problem: Problem, steps: Array, length: Array, *, rule: Rule
) -> tuple[Trajectories, Record]:
    """`advance_trajectories`, with equally many starts on each device."""
    of = (0, None, None, None, None)
    return devices.split_over_devices(partial(advance_trajectories, rule=rule), of)(
        trajectories, population, problem, steps, length
    )


begin = Compiled(begin_on_devices)
# Without a history, so that no geometry is compiled.
move = Compiled(move_trajectories, quick=False)
advance = Compiled(advance_on_devices, quick=False)
