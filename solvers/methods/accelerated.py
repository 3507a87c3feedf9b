"""The accelerated method: a diagonal preconditioner, momentum with restarts, and the exact projection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from solvers.loop.method import Iterate
from solvers.loop.stopping import STATIONARY, check_tolerances, gap_dominates, relative_gap_contribution, stationarity
from ufm.deprecated import former_arguments
from ufm.errors import real_number
from ufm.model.evaluation import Evaluation, evaluate
from ufm.model.problem import Problem
from ufm.model.projections import project
from ufm.settings import in_fixed_settings

# A preconditioner below this times the gradient scale means that rows are within about 1e-7 of each other.
MERGED = 1e-13
# Momentum restarts after about twice as many steps: at the level of rounding no step points uphill, so that the other
# restart rule never applies and the iterates would not converge.
LARGEST_MOMENTUM = 250.0
# The step scale: its growth per step, and its limits, whatever curvature is estimated.
GROWTH, SMALLEST_SCALE, LARGEST_SCALE = 1.05, 1e-3, 1e3
# Differences of gradients are rounding if the squared length of a move is below this times the preconditioner.
SHORTEST = 1e-24
# Gradients cancel at a row if its gradient scale exceeds its preconditioner by this factor; else the two are equal.
CANCELLING = 1 + 1e-6


class _State(NamedTuple):
    now: Iterate
    extrapolated: Float[Array, "m d"]
    momentum: Float[Array, ""]
    scale: Float[Array, ""]
    stalled: Bool[Array, ""]
    last_extrapolated: Float[Array, "m d"]
    last_gradient: Float[Array, "m d"]


class _Metric(NamedTuple):
    """For each row with direction u, the matrix across (I - u u^T) + along u u^T (5.3 (b)).

    A point is a fixed point of v -> P(v - metric^-1 g) iff it is stationary: in each row g is then a nonpositive
    multiple of the row on its positive entries (0 if the row is inside the ball), and not negative on the others.
    """

    direction: Float[Array, "m d"]
    across: Float[Array, "m 1"]
    along: Float[Array, "m 1"]

    def apply(self, rows: Float[Array, "m d"]) -> Float[Array, "m d"]:
        """The metric times the rows."""
        return self.across * rows + (self.along - self.across) * self._radial(rows)

    def solve(self, rows: Float[Array, "m d"]) -> Float[Array, "m d"]:
        """The inverse of the metric times the rows; 0 for points that are in no batch with an active anchor."""
        across, along = _inverse(self.across), _inverse(self.along)
        return across * rows + (along - across) * self._radial(rows)

    def _radial(self, rows: Float[Array, "m d"]) -> Float[Array, "m d"]:
        return self.direction * jnp.sum(self.direction * rows, axis=-1, keepdims=True)


def _metric(H: Float[Array, "m d"], at: Evaluation, problem: Problem) -> _Metric:
    """The preconditioner, plus the curvature of batches of one class along rows whose gradient points outwards.

    A row whose gradient points inwards ends on the sphere. There the projection damps the step across the row by the
    factor by which the step along the row leaves the ball.
    """
    norm = jnp.linalg.norm(H, axis=-1, keepdims=True)
    direction = H / jnp.where(norm > 0, norm, 1.0)
    inwards = jnp.sum(direction * at.gradient, axis=-1) > 0
    stiff = jnp.maximum(at.gradient_scale - at.preconditioner, 0.0) / jnp.minimum(problem.tau, 1.0)
    along = at.preconditioner + jnp.where(inwards, stiff, 0.0)
    return _Metric(direction, at.preconditioner[:, None], along[:, None])


def _seen(at: Evaluation) -> Float[Array, " m"]:
    """1 for rows whose moves count in the residual, 0 for rows that cancelling gradients have merged.

    At merged rows the preconditioner falls with the square of the distance between them. Once it is below the square
    root of rounding, the moves are rounding too.
    """
    return jnp.where(at.preconditioner <= MERGED * at.gradient_scale, 0.0, 1.0)


def _inverse(weight: Float[Array, " *shape"]) -> Float[Array, " *shape"]:
    return jnp.where(weight > 0, 1.0 / jnp.where(weight > 0, weight, 1.0), 0.0)


@former_arguments(settled="early_exit", floor="entry_bound")
@dataclass(frozen=True)
class Accelerated:
    """Projected gradient with the step scale / w_i for sample i, w_i its preconditioner (theory, 5.3).

    The feasible set is a product of sets, one for each sample, so the projection is exact in this metric. Curvatures
    that differ by R between classes, or by e^{1/tau} between start and end, do not slow the method. Batches of one
    class have more curvature along a row than across it (`_Metric`): across, the loss may grow only with the fourth
    power of the distance of rows of norm 1, while it is stiff along them. Nesterov's momentum restarts when it points
    uphill (gradient scheme of O'Donoghue and Candes, 2015). The step scale grows slowly, and is cut to the inverse of
    the curvature that the last move met, in this metric: gradients show an unstable step long before the excess does,
    whose changes are soon smaller than rounding.

    - tolerance: stop when residual and move are at most this.
    - longest: the largest step scale. 1 is safe for the linear part of the loss in G.
    - early_exit: stop also when the residual is at most this, and at most a thousandth of the largest gap contribution:
      the descent then leads to a spurious point, and may need many more steps to reach it. Stop as well where gradients
      cancel, after a full run of momentum, with a residual of at most STATIONARY: rows that only a batch of one class
      pulls together, while other gradients hold them, approach each other slowly, since the pull falls with the cube of
      their distance (5.9). `solvers.staircase.escape` goes on from such a point. 0 switches both off.
    - entry_bound: lower bound of the entries, from -1 to 0, which replaces the problem's constraint (None): the
      feasible set of an activation that is not normalised, a subset of UFM's (`ufm.activations`).

    Raises InvalidInput, naming the field, for a value of the wrong kind or range.
    """

    tolerance: float = 1e-13
    longest: float = 4.0
    early_exit: float = 0.0
    entry_bound: float | None = None

    def __post_init__(self) -> None:
        check_tolerances(self)
        real_number("longest", self.longest, SMALLEST_SCALE, LARGEST_SCALE)
        if self.entry_bound is not None:
            real_number("entry_bound", self.entry_bound, -1.0, 0.0)

    @in_fixed_settings
    def init(self, H: Float[Array, "m d"], problem: Problem) -> _State:
        """The state at H, not evaluated yet: the first step evaluates it."""
        H = H if self.entry_bound is None else project(H, problem.nonneg, self.entry_bound)
        infinite = jnp.asarray(jnp.inf, H.dtype)
        start = Iterate(H, jnp.asarray(1e300, H.dtype), infinite, jnp.full(H.shape[0], jnp.inf))
        scale = jnp.asarray(self.longest, H.dtype)
        return _State(start, H, jnp.ones((), H.dtype), scale, jnp.asarray(False), H, jnp.zeros_like(H))

    @in_fixed_settings
    def step(self, state: _State, problem: Problem) -> _State:
        """One evaluation at the extrapolated point Y, and one projected step from there.

        With the metric M at Y, its weights w across rows, and the step scale a: H+ = P(Y - a M^-1 grad(Y)),
        t+ = (1 + sqrt(1 + 4 t^2)) / 2 and Y+ = H+ + (t - 1) / t+ (H+ - H). Momentum restarts, with t+ = 1 and Y+ = H+,
        if sum_i w_i (Y_i - H+_i) . (H+_i - H_i) > 0.
        """
        H, Y = state.now.H, state.extrapolated
        at = evaluate(Y, problem)
        metric = _metric(Y, at, problem)
        direction = metric.solve(at.gradient)
        scale = self._scale(state, Y, at.gradient, metric)
        moved = project(Y - scale * direction, problem.nonneg, self.entry_bound)
        restart = jnp.sum(metric.across * (Y - moved) * (moved - H)) > 0
        exhausted = state.momentum > LARGEST_MOMENTUM
        restart |= exhausted
        momentum = jnp.where(restart, 1.0, 0.5 * (1 + jnp.sqrt(1 + 4 * state.momentum**2)))
        onward = jnp.where(restart, 0.0, (state.momentum - 1) / momentum)
        residual = jnp.maximum(
            jnp.max(stationarity(Y, at, problem, self.entry_bound)),
            jnp.max(jnp.linalg.norm(moved - Y, axis=-1) * _seen(at)),
        )
        now = Iterate(moved, at.excess, residual, relative_gap_contribution(at))
        cancelling = jnp.any(at.gradient_scale > CANCELLING * at.preconditioner)
        stalled = exhausted & cancelling & (residual <= STATIONARY)
        return _State(now, moved + onward * (moved - H), momentum, scale, stalled, Y, at.gradient)

    def _scale(
        self, state: _State, Y: Float[Array, "m d"], gradient: Float[Array, "m d"], metric: _Metric
    ) -> Float[Array, ""]:
        """The step scale: <s, M s> / <s, y> at most, for the last move s and the change y of the gradient along it."""
        move = Y - state.last_extrapolated
        bent = jnp.sum(move * (gradient - state.last_gradient))
        length = jnp.sum(metric.apply(move) * move)
        known = (length > SHORTEST * jnp.sum(metric.across)) & (bent > 0)
        limit = jnp.where(known, length / jnp.where(known, bent, 1.0), jnp.inf)
        return jnp.clip(jnp.minimum(GROWTH * state.scale, limit), SMALLEST_SCALE, self.longest)

    def iterate(self, state: _State) -> Iterate:
        """The last projected point; excess, residual and gap contributions are those of the point before the step."""
        return state.now

    @in_fixed_settings
    def converged(self, state: _State) -> Bool[Array, ""]:
        """Residual and move are at most the tolerance, or one of the two tests of `early_exit` holds."""
        now = state.now
        contributing = (now.residual <= self.early_exit) & gap_dominates(now.residual, now.gap_contribution)
        return (now.residual <= self.tolerance) | contributing | (state.stalled & (self.early_exit > 0))
