r"""Newton's method in a trust region, for UFM at small temperatures.

There gradients between classes are of the size e^{-3/(2 tau)} and curvatures within classes of the size 1/tau^2. No
scaling of rows removes that ratio, but a Newton step does not depend on it.

A row of the unit ball is the projection of a unit vector with one more coordinate, h = (I 0) u / ||u||, so that

    minimise L(H(u))  over u (m, d + 1)

has no constraint, and its second-order stationary points are stationary over the ball (theory, 5.18). The trust region
and the step in it, along negative curvature too, are scipy's "trust-exact" (More and Sorensen, 1983).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from jaxtyping import Array, Float, Int

from solvers.compilation.compiled import Compiled, compile_seconds
from solvers.loop.method import Iterate, Record, line
from solvers.loop.slots import Outcome
from solvers.loop.stopping import STATIONARY, Status, relative_gap_contribution, stationarity
from ufm.model.evaluation import evaluate
from ufm.model.problem import Problem

# The largest number of unknowns: the whole Hessian is stored.
MOST_ENTRIES = 1500
# Size of the random perturbation of the first point: a minimiser at a larger temperature may be a saddle at this one.
PERTURBATION = 1e-3
# The tolerance of the gradient, relative to the largest gradient scale; rounding ends most descents earlier.
TOLERANCE = 1e-13
TRUST = {"gtol": TOLERANCE, "initial_trust_radius": 0.1, "max_trust_radius": 1.0}
COLUMNS_AT_ONCE = 32
MOST_REFINEMENTS = 5
# A curvature counts as 0 if it is below FLAT times the largest one, or below the gradient over LONGEST_MOVE: rotations
# do not change the loss, and near a stationary point their curvature is of the size of the gradient.
FLAT = 1e-13
LONGEST_MOVE = 0.1


def newton(
    H: Float[np.ndarray, "m d"],
    problem: Problem,
    rng: np.random.Generator,
    *,
    key: int = 0,
    max_steps: int,
    max_seconds: float,
) -> Outcome:
    """Descend from H at the problem's temperature, with one Hessian per step. UFM only, m (d + 1) <= MOST_ENTRIES.

    It ends where the loss falls no further in double precision: CONVERGED if the residual is then at most
    `solvers.loop.stopping.STATIONARY`, else STALLED.
    """
    shape = (len(H), H.shape[1] + 1)
    inside = np.sqrt(np.maximum(1.0 - np.sum(H**2, axis=1, keepdims=True), 0.0))
    u = np.concatenate([H, inside], axis=1) + PERTURBATION * rng.standard_normal(shape)
    scaled = _Scaled.at(u, problem)
    lines: list[Record] = []
    began, compiling = time.perf_counter(), compile_seconds()

    def spent() -> float:
        return time.perf_counter() - began - (compile_seconds() - compiling)

    def measured(flat: np.ndarray) -> tuple[Iterate, Record]:
        return jax.tree.map(np.asarray, _measured_at(np.int32(len(lines)), scaled.rows(flat), problem))

    def recorded(flat: np.ndarray) -> None:
        lines.append(measured(flat)[1])
        if spent() >= max_seconds:
            raise StopIteration

    minimum = scipy.optimize.minimize(
        scaled.value,
        u.ravel() * scaled.root,
        jac=True,
        hess=scaled.curvature,
        method="trust-exact",
        callback=recorded,
        options=TRUST | {"maxiter": max_steps},
    )
    end, last = measured(_newton_refined(minimum.x, lambda flat: scaled.value(flat)[1], scaled.curvature))
    status = Status.OUT_OF_STEPS if len(lines) >= max_steps else Status.STALLED
    status = Status.OUT_OF_TIME if spent() >= max_seconds else status
    status = Status.CONVERGED if end.residual <= STATIONARY else status
    history = jax.tree.map(lambda *column: np.stack(column), *lines, last)
    H, gap_contribution = np.asarray(end.H), np.asarray(end.gap_contribution)
    return Outcome(
        key, status, len(lines), H, float(end.excess), float(end.residual), gap_contribution, history, spent()
    )


class _Scaled(NamedTuple):
    """The loss over its largest gradient scale, as a function of the flat vector root * u.

    root: for each row the root of its gradient scale over the largest one, so that minorities count as much.
    """

    problem: Problem
    shape: tuple[int, int]
    scale: float
    root: Float[np.ndarray, " n"]

    @classmethod
    def at(cls, u: Float[np.ndarray, "m w"], problem: Problem) -> _Scaled:
        """With the gradient scales at u."""
        gradient_scale = np.asarray(_evaluated(u, problem)[2])
        scale = float(gradient_scale.max()) or 1.0  # 0 where the loss is constant, such as without active anchors
        root = np.sqrt(np.where(gradient_scale > 0, gradient_scale / scale, 1.0))
        return cls(problem, u.shape, scale, np.broadcast_to(root[:, None], u.shape).ravel())

    def rows(self, flat: Float[np.ndarray, " n"]) -> Float[np.ndarray, "m w"]:
        """The u of a flat vector."""
        return (flat / self.root).reshape(self.shape)

    def value(self, flat: Float[np.ndarray, " n"]) -> tuple[float, Float[np.ndarray, " n"]]:
        """The scaled excess and its gradient."""
        at, slope, _ = _evaluated(self.rows(flat), self.problem)
        return float(at) / self.scale, np.asarray(slope).ravel() / (self.scale * self.root)

    def curvature(self, flat: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n n"]:
        """The Hessian of the scaled excess."""
        return np.asarray(_hessian(self.rows(flat), self.problem)) / (self.scale * self.root) / self.root[:, None]


def _newton_refined(
    flat: Float[np.ndarray, " n"],
    gradient: Callable[[np.ndarray], np.ndarray],
    curvature: Callable[[np.ndarray], np.ndarray],
) -> Float[np.ndarray, " n"]:
    """Newton steps while the gradient at least halves: it can be reduced further than differences of losses show."""
    slope = gradient(flat)
    for _ in range(MOST_REFINEMENTS):
        try:
            bends, axes = np.linalg.eigh(curvature(flat))
        except np.linalg.LinAlgError:  # keep the present point
            break
        bent = np.abs(bends) > max(FLAT * np.abs(bends).max(), np.abs(slope).max() / LONGEST_MOVE)
        onward = flat - axes[:, bent] @ (axes[:, bent].T @ slope / bends[bent])
        next_slope = gradient(onward)
        if not np.abs(next_slope).max() < 0.5 * np.abs(slope).max():
            break
        flat, slope = onward, next_slope
    return flat


def _unit_rows(u: Float[Array, "m w"]) -> tuple[Float[Array, "m w"], Float[Array, "m 1"]]:
    """u / ||u||, row by row, and the norms."""
    norm = jnp.linalg.norm(u, axis=1, keepdims=True)
    return u / norm, norm


def _slope(u: Float[Array, "m w"], problem: Problem) -> tuple[Array, Array, Array]:
    """The excess, its gradient in u, and the gradient scales of the points."""
    unit, norm = _unit_rows(u)
    at = evaluate(unit[:, :-1], problem)
    gradient = jnp.pad(at.gradient, ((0, 0), (0, 1)))
    radial = jnp.sum(gradient * unit, axis=1, keepdims=True)
    return at.excess, (gradient - radial * unit) / norm, at.gradient_scale


def _second(u: Float[Array, "m w"], problem: Problem) -> Float[Array, "n n"]:
    def column(direction: Array) -> Array:
        return jax.jvp(lambda u: _slope(u, problem)[1], (u,), (direction.reshape(u.shape),))[1].ravel()

    columns = jax.lax.map(column, jnp.eye(u.size), batch_size=COLUMNS_AT_ONCE)
    return 0.5 * (columns + columns.T)


def _measured(steps: Int[Array, ""], u: Float[Array, "m w"], problem: Problem) -> tuple[Iterate, Record]:
    H = _unit_rows(u)[0][:, :-1]
    at = evaluate(H, problem)
    residual = jnp.max(stationarity(H, at, problem))
    now = Iterate(H, at.excess, residual, relative_gap_contribution(at))
    return now, line(steps, now, problem)


_evaluated, _hessian, _measured_at = Compiled(_slope), Compiled(_second), Compiled(_measured)
