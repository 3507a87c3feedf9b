"""When a start stops, and the status that says why. A status is the solver's own report, never a proof.

A method stops where its `converged` is true: the residual is at most the tolerance, or the gap contributions show that
the descent leads to a spurious point, or no step lowers the loss any more. A slot also stops at its step or time limit,
and before a step that is not finite (`Slot.stopped`). The staircase goes on until all gap contributions vanish
(`solvers.staircase.escape`).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from solvers.loop.spread import is_far_apart
from ufm.errors import real_number
from ufm.model.evaluation import Evaluation
from ufm.model.problem import Problem
from ufm.model.projections import project

# An array on the device, or on the host.
Column = Array | np.ndarray
# A point counts as stationary if its residual, relative to the gradient scales, is at most this (5.2).
STATIONARY = 1e-8
# If the largest gap contribution is this many times the residual, the limit of the descent counts as spurious too: the
# remaining steps, which can be many, move rows by about the residual.
GAP_OVER_RESIDUAL = 1e3
# Residuals are relative to the gradient scale of a sample: a descent with a larger one has not converged.
LARGEST_TOLERANCE = 1e-2


class Status(enum.StrEnum):
    """What stopped a start. `solvers.verify` and `solvers.certify` judge the point at which it stopped."""

    CONVERGED = "converged"
    SPURIOUS = "spurious"
    STALLED = "stalled"
    HIDDEN = "small gradients hidden"
    OUT_OF_STEPS = "out of steps"
    OUT_OF_TIME = "out of time"
    ALL_STEPS = "all steps taken"
    NOT_FINITE = "not finite"

    @classmethod
    def _missing_(cls, value: object) -> Status | None:
        """The status with a former name, as older files have it."""
        return {"in conflict": cls.SPURIOUS, "weak forces hidden": cls.HIDDEN}.get(str(value))

    @property
    def sentence(self) -> str:
        """The status in a sentence."""
        return _SENTENCES[self]


_SENTENCES = {
    Status.CONVERGED: "The residual is at most the tolerance of the method.",
    Status.SPURIOUS: "The point is stationary, but the staircase would lift it again, and no more lifts are allowed.",
    Status.STALLED: "No step lowers the loss by more than rounding, and the residual is still above the tolerance.",
    Status.HIDDEN: "The residual cannot show the pairs of some sample that are not optimal: their gradients are below "
    "1e-8 of its gradient scale.",
    Status.OUT_OF_TIME: "The time limit came before the residual reached the tolerance; allow more seconds.",
    Status.OUT_OF_STEPS: "The step limit came before the residual reached the tolerance; allow more steps.",
    Status.ALL_STEPS: "All requested steps have been taken; with random batches no test stops a start earlier.",
    Status.NOT_FINITE: "A step overflowed, and this is the last finite point; use a smaller step size.",
}


def status_of(residual: float, gap_contribution: Float[np.ndarray, " m"], tolerance: float, slot: Any) -> Status:
    """What stopped a `solvers.loop.method.Slot`; OUT_OF_TIME if nothing else did, or if its step limit is 0."""
    if slot.failed:
        return Status.NOT_FINITE
    if slot.done:
        early_exit = residual <= max(tolerance, STATIONARY) or bool(gap_dominates(residual, gap_contribution))
        return Status.CONVERGED if early_exit else Status.STALLED
    return Status.OUT_OF_STEPS if slot.steps >= slot.most > 0 else Status.OUT_OF_TIME


def stationarity(
    H: Float[Array, "m d"], at: Evaluation, problem: Problem, entry_bound: float | None = None
) -> Float[Array, " m"]:
    """The residual || h_i - P(h_i - g_i / f_i) || of every point i: g is the gradient, f the gradient scale (5.2).

    ||g_i|| <= f_i for rows in the unit ball, so the residual is the projected gradient relative to the gradient scale
    of the sample, between 0 and 1. Neither small classes nor multiplicities can hide in it. It is 0 for all i iff H is
    stationary.

    entry_bound: lower bound of the entries, which replaces the problem's constraint.
    """
    moved = project(H - _ratio(at.gradient, at.gradient_scale[:, None]), problem.nonneg, entry_bound)
    return jnp.linalg.norm(H - moved, axis=-1)


def relative_gap_contribution(at: Evaluation) -> Float[Array, " m"]:
    """The gap contribution (4.9) of every point over its gradient scale (see `ufm.model.evaluation.Evaluation`)."""
    return _ratio(at.gap_contribution, at.gradient_scale)


def hides(at: Evaluation) -> Bool[Array, " m"]:
    """Whether the residual of a point cannot show its pairs that are not optimal (`ufm.model.evaluation.AT_REST`).

    So it is if the gradient of those pairs is below STATIONARY times the gradient scale of the point.
    """
    return (at.restless > 0) & (at.restless < STATIONARY * at.gradient_scale)


def judged(statuses: Iterable[Status], hidden: Bool[np.ndarray, "s m"], problem: Problem) -> tuple[Status, ...]:
    """The statuses of starts, with CONVERGED replaced by HIDDEN where `hides` is true of some point.

    Only for UFM+ with d >= k, where all pairs are optimal at a minimiser, and only where weights or margins are far
    apart: elsewhere a pair that a batch of one class ties may rest at another value than 1.
    """
    if not problem.bound_is_attained or not is_far_apart(problem):
        return tuple(statuses)
    return tuple(
        Status.HIDDEN if status is Status.CONVERGED and of_points.any() else status
        for status, of_points in zip(statuses, list(hidden), strict=True)
    )


def gap_dominates(
    residual: Float[Column, ""] | float, gap_contribution: Float[Column, " m"]
) -> Bool[Column, ""] | np.bool_:
    """Whether the gap contributions exceed the residual so far that the descent must be leading to a spurious point."""
    return GAP_OVER_RESIDUAL * residual <= gap_contribution.max()


def _ratio(part: Float[Array, " *shape"], whole: Float[Array, "m ..."]) -> Float[Array, " *shape"]:
    """part / whole, where 0 / 0 is 0, and NaN, never a small number, if the whole is not finite."""
    return jnp.where(jnp.isfinite(whole), part / jnp.where(whole == 0, 1.0, whole), jnp.nan)


def check_tolerances(method: Any) -> None:
    """Raise InvalidInput, naming the field, unless `tolerance` and, if there is one, `early_exit` are small numbers."""
    for name in ("tolerance", "early_exit"):
        real_number(name, getattr(method, name, 0.0), 0.0, LARGEST_TOLERANCE)
