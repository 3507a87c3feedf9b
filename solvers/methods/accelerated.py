"""The accelerated method: a step for every sample from its pair weights, restarted momentum, exact projection."""

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

# Share of the forces at which a pair weight says that rows are within about 1e-7 of each other.
MERGED = 1e-13
# After about twice as many steps momentum starts anew: at rounding nothing points uphill, and it would not settle.
LARGEST_MOMENTUM = 250.0
# The scale of steps: by how much it grows a step, and where it ends however curved the loss seems.
GROWTH, SMALLEST_SCALE, LARGEST_SCALE = 1.05, 1e-3, 1e3
# Squared length of a move, as a share of the pair weights, below which differences of gradients are rounding.
SHORTEST = 1e-24
# Forces cancel at a row where they exceed its pair weight by more than this; the two are equal else.
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
    """For each row, weight `across` its direction u and `along` it: across (I - u u^T) + along u u^T.

    A fixed point of v -> P(v - metric^-1 g) is stationary and conversely: at either, g is a multiple
    of the row on its positive entries, 0 if the row is inside the ball, and not negative elsewhere.
    """

    direction: Float[Array, "m d"]
    across: Float[Array, "m 1"]
    along: Float[Array, "m 1"]

    def apply(self, rows: Float[Array, "m d"]) -> Float[Array, "m d"]:
        """The metric times the rows."""
        return self.across * rows + (self.along - self.across) * self._radial(rows)

    def solve(self, rows: Float[Array, "m d"]) -> Float[Array, "m d"]:
        """The inverse of the metric times the rows; 0 for a point that no active anchor meets."""
        across, along = _inverse(self.across), _inverse(self.along)
        return across * rows + (along - across) * self._radial(rows)

    def _radial(self, rows: Float[Array, "m d"]) -> Float[Array, "m d"]:
        return self.direction * jnp.sum(self.direction * rows, axis=-1, keepdims=True)


def _metric(H: Float[Array, "m d"], at: Evaluation, problem: Problem) -> _Metric:
    """Pair weights; along a row that is pushed inwards also the curvature that batches of one class have there.

    Pulled outwards a row ends on the sphere, and the projection damps the step across by what it takes along.
    """
    norm = jnp.linalg.norm(H, axis=-1, keepdims=True)
    direction = H / jnp.where(norm > 0, norm, 1.0)
    inwards = jnp.sum(direction * at.gradient, axis=-1) > 0
    stiff = jnp.maximum(at.gradient_scale - at.preconditioner, 0.0) / jnp.minimum(problem.tau, 1.0)
    along = at.preconditioner + jnp.where(inwards, stiff, 0.0)
    return _Metric(direction, at.preconditioner[:, None], along[:, None])


def _seen(at: Evaluation) -> Float[Array, " m"]:
    """Which moves count, as 1 or 0: all but those of rows that forces which cancel have glued.

    There pair weights fall with the square of the distance between the rows, and once it is below the
    square root of rounding so are the moves.
    """
    return jnp.where(at.preconditioner <= MERGED * at.gradient_scale, 0.0, 1.0)


def _inverse(weight: Float[Array, " *shape"]) -> Float[Array, " *shape"]:
    return jnp.where(weight > 0, 1.0 / jnp.where(weight > 0, weight, 1.0), 0.0)


@former_arguments(settled="early_exit", floor="entry_bound")
@dataclass(frozen=True)
class Accelerated:
    """Projected gradient with the step of sample i equal to scale / w_i, w_i its pair weight.

    The feasible set is a product of per-sample sets, so the projection stays exact in this metric,
    and curvatures that differ by R between classes, or by e^{1/tau} between start and end, do not
    slow it (theory, 5.3). Batches of one class weigh more along a row than across it
    (`_Metric`): they may glue rows of norm 1 by growth of fourth order across, while their values stay
    stiff. Nesterov's momentum restarts when it points uphill (O'Donoghue and Candes, gradient
    scheme). The scale grows slowly and is cut to one over the curvature that the last move met, in
    this metric: gradients tell an unstable step long before the excess, whose changes drown in
    rounding.

    - tolerance: stop when residual and move are at most this.
    - longest: largest scale. 1 is safe for the linear part of the loss in G.
    - early_exit: stop also when the residual is at most this and a thousandth of the conflict: the
      point it leads to is spurious, and the way there can be slow. Stop as well after a full run of
      momentum with a residual of at most STATIONARY where forces cancel: rows that a batch of one class
      alone ties, and other forces hold, approach each other as slowly as the cube of their distance
      pulls. `solvers.staircase.escape` goes on from such a point. 0 switches both off.
    - entry_bound: of the entries, from -1 to 0, in the place of the problem's constraint (None): the feasible set of an
      activation that is not normalised, a part of UFM's (`ufm.activations`).

    Raises InvalidInput for what are no such numbers.
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
        """No evaluation yet: the first step does it."""
        H = H if self.entry_bound is None else project(H, problem.nonneg, self.entry_bound)
        infinite = jnp.asarray(jnp.inf, H.dtype)
        start = Iterate(H, jnp.asarray(1e300, H.dtype), infinite, jnp.full(H.shape[0], jnp.inf))
        scale = jnp.asarray(self.longest, H.dtype)
        return _State(start, H, jnp.ones((), H.dtype), scale, jnp.asarray(False), H, jnp.zeros_like(H))

    @in_fixed_settings
    def step(self, state: _State, problem: Problem) -> _State:
        """One evaluation at the extrapolated point and one projected step from there."""
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
        move = Y - state.last_extrapolated
        bent = jnp.sum(move * (gradient - state.last_gradient))
        length = jnp.sum(metric.apply(move) * move)
        known = (length > SHORTEST * jnp.sum(metric.across)) & (bent > 0)
        limit = jnp.where(known, length / jnp.where(known, bent, 1.0), jnp.inf)
        return jnp.clip(jnp.minimum(GROWTH * state.scale, limit), SMALLEST_SCALE, self.longest)

    def iterate(self, state: _State) -> Iterate:
        """The last projected point; excess, residual and conflict are of the point it was stepped from."""
        return state.now

    @in_fixed_settings
    def converged(self, state: _State) -> Bool[Array, ""]:
        """Stationary and standing still (momentum alone does not count), or settled in conflict, or creeping."""
        now = state.now
        contributing = (now.residual <= self.early_exit) & gap_dominates(now.residual, now.gap_contribution)
        return (now.residual <= self.tolerance) | contributing | (state.stalled & (self.early_exit > 0))
