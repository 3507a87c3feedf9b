r"""Newton's method in a trust region: the cold end of UFM, where forces are e^{-3/(2 tau)} and curvatures 1/tau^2.

A row of the unit ball is the front of a unit vector with one coordinate more, h = (I 0) u / ||u||, so that

    minimise L(H(u))  over u (m, d + 1)

has no constraint; second-order stationary points are those of the ball (theory, 5.18). Forces across classes and the
curvature within a class differ by a factor that no first-order scaling of rows takes away, but that a Newton step does
not see. The radius and the step in it, negative curvature too, are scipy's ("trust-exact": More and Sorensen).
"""

from __future__ import annotations

import time
from collections.abc import Callable

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

# The Hessian is held whole.
MOST_ENTRIES = 1500
# What a start is moved by at random first: a stationary point that has become a saddle in the cold is left.
PERTURBATION = 1e-3
# Stationary, as a share of the largest force; rounding within classes ends most descents before.
TOLERANCE = 1e-13
TRUST = {"gtol": TOLERANCE, "initial_trust_radius": 0.1, "max_trust_radius": 1.0}
COLUMNS_AT_ONCE = 32
MOST_SHARPENING = 5
# Curvature that is none, as a share of the largest, and of the gradient over a move: rotations leave the loss as it is,
# and beside a stationary point their curvature is of the size of the gradient.
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
    """Descend from H at the problem's temperature; a step is a Hessian. UFM only, m (d + 1) <= MOST_ENTRIES.

    The end is where the loss falls no further in double precision: CONVERGED if the residual is then that of a
    stationary point (`solvers.loop.stopping.STATIONARY`), else STALLED.
    """
    shape = (len(H), H.shape[1] + 1)
    inside = np.sqrt(np.maximum(1.0 - np.sum(H**2, axis=1, keepdims=True), 0.0))
    u = np.concatenate([H, inside], axis=1) + PERTURBATION * rng.standard_normal(shape)
    # Rows are scaled by the root of the force on them, so that a minority counts as much as a majority.
    gradient_scale = np.asarray(_evaluated(u, problem)[2])
    scale = float(gradient_scale.max()) or 1.0  # no force where no anchor is active, or none has anything to choose
    root = np.broadcast_to(np.sqrt(np.where(gradient_scale > 0, gradient_scale / scale, 1.0))[:, None], shape).ravel()
    lines: list[Record] = []
    began, compiling = time.perf_counter(), compile_seconds()

    def spent() -> float:
        return time.perf_counter() - began - (compile_seconds() - compiling)

    def rows(flat: np.ndarray) -> np.ndarray:
        return (flat / root).reshape(shape)

    def measured(flat: np.ndarray) -> tuple[Iterate, Record]:
        return jax.tree.map(np.asarray, _measured_at(np.int32(len(lines)), rows(flat), problem))

    def value(flat: np.ndarray) -> tuple[float, np.ndarray]:
        at, slope, _ = _evaluated(rows(flat), problem)
        return float(at) / scale, np.asarray(slope).ravel() / (scale * root)

    def curvature(flat: np.ndarray) -> np.ndarray:
        return np.asarray(_hessian(rows(flat), problem)) / (scale * root) / root[:, None]

    def recorded(flat: np.ndarray) -> None:
        lines.append(measured(flat)[1])
        if spent() >= max_seconds:
            raise StopIteration

    found = scipy.optimize.minimize(
        value,
        u.ravel() * root,
        jac=True,
        hess=curvature,
        method="trust-exact",
        callback=recorded,
        options=TRUST | {"maxiter": max_steps},
    )
    end, last = measured(_newton_refined(found.x, lambda flat: value(flat)[1], curvature))
    status = Status.OUT_OF_STEPS if len(lines) >= max_steps else Status.STALLED
    status = Status.OUT_OF_TIME if spent() >= max_seconds else status
    status = Status.CONVERGED if end.residual <= STATIONARY else status
    history = jax.tree.map(lambda *column: np.stack(column), *lines, last)
    H, gap_contribution = np.asarray(end.H), np.asarray(end.gap_contribution)
    return Outcome(
        key, status, len(lines), H, float(end.excess), float(end.residual), gap_contribution, history, spent()
    )


def _newton_refined(
    flat: Float[np.ndarray, " n"],
    gradient: Callable[[np.ndarray], np.ndarray],
    curvature: Callable[[np.ndarray], np.ndarray],
) -> Float[np.ndarray, " n"]:
    """Newton steps while the gradient halves: to where rounding ends it, not the difference of two losses."""
    slope = gradient(flat)
    for _ in range(MOST_SHARPENING):
        try:
            bends, axes = np.linalg.eigh(curvature(flat))
        except np.linalg.LinAlgError:  # the point it stands at will do
            break
        bent = np.abs(bends) > max(FLAT * np.abs(bends).max(), np.abs(slope).max() / LONGEST_MOVE)
        onward = flat - axes[:, bent] @ (axes[:, bent].T @ slope / bends[bent])
        next_slope = gradient(onward)
        if not np.abs(next_slope).max() < 0.5 * np.abs(slope).max():
            break
        flat, slope = onward, next_slope
    return flat


def _front(u: Float[Array, "m w"]) -> tuple[Float[Array, "m w"], Float[Array, "m 1"]]:
    """u / ||u||, row by row, and the norms."""
    norm = jnp.linalg.norm(u, axis=1, keepdims=True)
    return u / norm, norm


def _slope(u: Float[Array, "m w"], problem: Problem) -> tuple[Array, Array, Array]:
    """Excess, its gradient in u, and the forces on the points."""
    unit, norm = _front(u)
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
    H = _front(u)[0][:, :-1]
    at = evaluate(H, problem)
    residual = jnp.max(stationarity(H, at, problem))
    now = Iterate(H, at.excess, residual, relative_gap_contribution(at))
    return now, line(steps, now, problem)


_evaluated, _hessian, _measured_at = Compiled(_slope), Compiled(_second), Compiled(_measured)
