"""When a start stops, and in which words that is said. A status is what the solver says of itself, never a proof.

A method stops where its `converged` says so: the residual is at most its tolerance, or settles in conflict, or no step
goes down any more. A lane stops there, at the limit of its steps or seconds, and before a step that is not finite
(`Slot.stopped`); the staircase goes on until no point is in conflict (`solvers.staircase.escape`).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ufm.errors import real_number
from ufm.model.evaluation import Evaluation
from ufm.model.problem import Problem
from ufm.model.projections import project

# Traced on the device, joined and judged on the host.
Column = Array | np.ndarray
# What counts as stationary for a verdict: the residual, a share of the forces.
STATIONARY = 1e-8
# Conflict over residual above which the point that a descent leads to is in conflict too: the rest of the way, which
# can be slow, moves rows by about the residual.
GAP_OVER_RESIDUAL = 1e3
# A residual is a share of the forces on a sample: above this nothing has converged.
LARGEST_TOLERANCE = 1e-2


class Status(enum.StrEnum):
    """What stopped a start. `solvers.verify` and `solvers.certify` judge the point it left."""

    CONVERGED = "converged"
    SPURIOUS = "spurious"
    STALLED = "stalled"
    HIDDEN = "weak forces hidden"
    OUT_OF_STEPS = "out of steps"
    OUT_OF_TIME = "out of time"
    ALL_STEPS = "all steps taken"
    NOT_FINITE = "not finite"

    @classmethod
    def _missing_(cls, value: object) -> Status | None:
        """The status of that former name, as older files hold it."""
        return cls.SPURIOUS if value == "in conflict" else None

    @property
    def sentence(self) -> str:
        """The status in a sentence."""
        return _SENTENCES[self]


_SENTENCES = {
    Status.CONVERGED: "The projected gradient is as small as the method asks (its tolerance).",
    Status.SPURIOUS: "The projected gradient vanishes where classes still push each other, and no lift freed them.",
    Status.STALLED: "No step lowers the loss as far as rounding lets it be seen, and the projected gradient is not 0.",
    Status.HIDDEN: "Pairs not at rest push a sample by less than 1e-8 of all forces on it: no residual shows them.",
    Status.OUT_OF_TIME: "The time limit came before the projected gradient was found to vanish; allow more seconds.",
    Status.OUT_OF_STEPS: "The step limit came before the projected gradient was found to vanish; allow more steps.",
    Status.ALL_STEPS: "All steps asked for were taken: random batches go on for ever, and no test stops them.",
    Status.NOT_FINITE: "A step overflowed; this is the last finite point. Take shorter steps.",
}


def status_of(residual: float, gap_contribution: Float[np.ndarray, " m"], tolerance: float, slot: Any) -> Status:
    """What stopped a lane (`solvers.loop.method.Slot`), or that its limit of seconds does (always if of 0 steps)."""
    if slot.failed:
        return Status.NOT_FINITE
    if slot.done:
        early_exit = residual <= max(tolerance, STATIONARY) or bool(gap_dominates(residual, gap_contribution))
        return Status.CONVERGED if early_exit else Status.STALLED
    return Status.OUT_OF_STEPS if slot.steps >= slot.most > 0 else Status.OUT_OF_TIME


def stationarity(
    H: Float[Array, "m d"], at: Evaluation, problem: Problem, entry_bound: float | None = None
) -> Float[Array, " m"]:
    """|| h_i - P(h_i - g_i / f_i) ||, g the gradient and f the forces on the point (`ufm.model.evaluation.Evaluation`).

    ||g_i|| <= f_i for rows in the unit ball, so this is the projected gradient as a share of all
    the forces on the sample: blind neither to minorities nor to multiplicities. 0 iff stationary.
    entry_bound: of the entries, in the place of the problem's constraint.
    """
    moved = project(H - _share(at.gradient, at.gradient_scale[:, None]), problem.nonneg, entry_bound)
    return jnp.linalg.norm(H - moved, axis=-1)


def relative_gap_contribution(at: Evaluation) -> Float[Array, " m"]:
    """Each point's share of the duality gap over the forces on it (see `ufm.model.evaluation.Evaluation`)."""
    return _share(at.gap_contribution, at.gradient_scale)


def hides(at: Evaluation) -> Bool[Array, " m"]:
    """Whether a residual says nothing of the pairs of a point that are not at rest (`ufm.model.evaluation.AT_REST`):
    their forces
    are below STATIONARY of all forces on it."""
    return (at.restless > 0) & (at.restless < STATIONARY * at.gradient_scale)


def judged(statuses: Iterable[Status], hidden: Bool[np.ndarray, "s m"], problem: Problem) -> tuple[Status, ...]:
    """The statuses of starts, but HIDDEN where one converged and `hides` forces; UFM+ with d >= k, where no pair is
    restless at a minimiser."""
    if not problem.bound_is_attained:
        return tuple(statuses)
    return tuple(
        Status.HIDDEN if status is Status.CONVERGED and of_points.any() else status
        for status, of_points in zip(statuses, list(hidden), strict=True)
    )


def gap_dominates(
    residual: Float[Column, ""] | float, gap_contribution: Float[Column, " m"]
) -> Bool[Column, ""] | np.bool_:
    """Whether the point that a descent leads to is in conflict for certain, however slow the rest of the way."""
    return GAP_OVER_RESIDUAL * residual <= gap_contribution.max()


def _share(part: Float[Array, " *shape"], whole: Float[Array, "m ..."]) -> Float[Array, " *shape"]:
    """part / whole, at most 1 in size; 0 of 0 is 0. A share of what is not finite is NaN, never a small number."""
    return jnp.where(jnp.isfinite(whole), part / jnp.where(whole == 0, 1.0, whole), jnp.nan)


def check_tolerances(method: Any) -> None:
    """Raise InvalidInput, naming the field, unless `tolerance`, and `early_exit` if there is one, are small numbers."""
    for name in ("tolerance", "early_exit"):
        real_number(name, getattr(method, name, 0.0), 0.0, LARGEST_TOLERANCE)
