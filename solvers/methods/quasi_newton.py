"""The projected quasi-Newton method: L-BFGS with an active set for H >= 0, and one evaluation per step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Bool, Float

from solvers.loop.method import Iterate
from solvers.loop.stopping import check_tolerances, gap_dominates, relative_gap_contribution, stationarity
from ufm.deprecated import former_arguments
from ufm.errors import whole_number
from ufm.model.evaluation import Evaluation, evaluate
from ufm.model.problem import Problem
from ufm.model.projections import project
from ufm.settings import in_fixed_settings

# A step is accepted if the loss falls by at least SUFFICIENT times the decrease that the gradient predicts (Armijo).
# The next step may be longer if the slope is still steeper than STEEP times the first one (Wolfe).
SUFFICIENT, STEEP = 1e-4, 0.9
# A row this close to the unit sphere stays on it if its gradient points inwards.
ON_SPHERE = 1e-9
# Only entries below this may become active because of the gradient alone.
NEARLY_ZERO = 1e-2
# The curvature theta, as a multiple of the preconditioner, without past moves; with them it is at most this.
FIRST_CURVATURE = 0.5
# A pair of a move and the change of the gradient is used only if their cosine is above this: otherwise the change is
# rounding, or the curvature is negative.
SMALLEST_CURVATURE = 1e-12
# Limits of the step length.
SHORTEST, LONGEST = 1e-10, 1e6
# The largest memory: a step solves systems of twice as many unknowns.
LONGEST_MEMORY = 100
# Changes of the excess below this times its value and the sum of its terms are rounding.
ROUNDING = 4e-15


class _State(NamedTuple):
    """One start: the point, the trial that is evaluated next, and the memory.

    - gradient: at the point, tangential for rows on the sphere. weight: the preconditioner there. sphere: which rows
      are on the sphere (5.15).
    - direction, length: the trial is the retraction of point + length * direction. reach: the first length of the next
      direction.
    - plain: the direction is the scaled projected gradient step D of 5.15 (b). stalled: no step lowers the loss, not
      even along D.
    - past: moves (the rows of S), and the changes of the gradient along them (the rows of Y), oldest first.
    """

    now: Iterate
    gradient: Float[Array, "m d"]
    weight: Float[Array, " m"]
    sphere: Bool[Array, " m"]
    trial: Float[Array, "m d"]
    direction: Float[Array, "m d"]
    length: Float[Array, ""]
    reach: Float[Array, ""]
    plain: Bool[Array, ""]
    stalled: Bool[Array, ""]
    past: Float[Array, "2 p m d"]


@former_arguments(settled="early_exit")
@dataclass(frozen=True)
class QuasiNewton:
    """L-BFGS on a product of balls and spheres, with an active set for H >= 0 (theory, 5.15).

    Rows of norm 1 whose gradient points inwards move on the sphere, by f(h / ||h||), whose gradient is tangential and
    whose curvature includes that of the sphere. The other rows move in the ball. Rows are scaled by the root of their
    preconditioner, so that the first curvatures of classes whose sizes differ by R are of one size. The curvature that
    remains is learned from the last moves, in the compact form of Byrd, Nocedal and Schnabel (1994). Small entries that
    the gradient drives to zero become active, and the other entries minimise the quadratic model. Entries that would
    become negative join the active set, once (as in L-BFGS-B, without its Cauchy point).

    Each step evaluates one trial point. The trial is accepted if the excess falls by enough; otherwise the step is
    shortened to at most half by interpolation. Where changes of the excess are below rounding, the slope decides
    (approximate Wolfe conditions of Hager and Zhang, 2005). Where the slope does not flatten, along directions of zero
    or negative curvature, step lengths double.

    - tolerance: stop when the residual is at most this. memory: the number of past moves that are used.
    - early_exit: stop also when the residual is at most this, and at most a thousandth of the largest gap contribution:
      the descent then leads to a spurious point, and may need many more steps to reach it. The staircase goes on from
      there (`solvers.staircase.escape`). 0: never.

    Raises InvalidInput, naming the field, for a value of the wrong kind or range.
    """

    tolerance: float = 1e-13
    memory: int = 5
    early_exit: float = 0.0

    def __post_init__(self) -> None:
        check_tolerances(self)
        whole_number("memory", self.memory, 1, f"give a whole number from 1 to {LONGEST_MEMORY}", LONGEST_MEMORY)

    @in_fixed_settings
    def init(self, H: Float[Array, "m d"], problem: Problem) -> _State:
        """The state at H, not evaluated yet: the first step evaluates H and accepts it."""
        del problem
        m, no, one = H.shape[0], jnp.asarray(False), jnp.ones((), H.dtype)
        start = Iterate(H, jnp.asarray(1e300, H.dtype), jnp.asarray(jnp.inf, H.dtype), jnp.full(m, jnp.inf))
        nothing, past = jnp.zeros_like(H), jnp.zeros((2, self.memory, *H.shape), H.dtype)
        zeros = jnp.zeros(m, H.dtype)
        return _State(start, nothing, zeros, zeros > 0, H, nothing, one, one, no, no, past)

    @in_fixed_settings
    def step(self, state: _State, problem: Problem) -> _State:
        """Evaluate the trial; accept it and compute a new direction, or shorten the step.

        1. Test the trial (`_is_accepted`).
        2. If accepted: store the move and the change of the gradient if their curvature is positive, and make the trial
           the new point.
        3. If rejected: shorten the step (`_shortening`). If it becomes too short, forget the past and restart along the
           plain direction; if the direction is plain already, the start has stalled.
        4. Set the next trial, along a new direction (`_direction`) or the same one with the shorter step.
        """
        # A row of the sphere all of whose entries became 0 is not of norm 1.
        unit = state.sphere & (jnp.linalg.norm(state.trial, axis=-1) > 1 - ON_SPHERE)
        at = evaluate(state.trial, problem, unit=unit)
        first = jnp.isinf(state.now.residual)
        sphere = _on_sphere(state.trial, at)
        gradient = _tangential(state.trial, at.gradient, sphere)
        move, change = state.trial - state.now.H, gradient - state.gradient
        promised, slope = jnp.sum(state.gradient * move), jnp.sum(gradient * move)
        taken = first | _is_accepted(state.now.excess, at, promised, slope)
        shorter = state.length * _shortening(at.excess - state.now.excess, promised)
        too_short = ~taken & (shorter < SHORTEST)
        restart = too_short & ~state.plain

        bends = jnp.sum(move * change) > SMALLEST_CURVATURE * jnp.linalg.norm(move) * jnp.linalg.norm(change)
        learned = taken & ~first & bends
        later = jnp.concatenate([state.past[:, 1:], jnp.stack([move, change])[:, None]], axis=1)
        past = jnp.where(restart, 0.0, jnp.where(learned, later, state.past))
        residual = jnp.max(stationarity(state.trial, at, problem))
        arrived = (
            Iterate(state.trial, at.excess, residual, relative_gap_contribution(at)),
            gradient,
            at.preconditioner,
            sphere,
        )
        standing = (state.now, state.gradient, state.weight, state.sphere)
        now, gradient, weight, sphere = jax.tree.map(lambda new, old: jnp.where(taken, new, old), arrived, standing)

        direction, plain = _direction(now.H, gradient, weight, past, problem.nonneg)
        steep = taken & ~first & (slope < STEEP * promised) & (state.length >= state.reach)
        reach = jnp.where(steep, jnp.minimum(2.0 * state.reach, LONGEST), jnp.where(taken, 1.0, state.reach))
        anew = taken | restart
        direction, plain = jnp.where(anew, direction, state.direction), jnp.where(anew, plain, state.plain)
        length = jnp.where(anew, reach, shorter)
        trial = _retracted(now.H + length * direction, sphere, problem.nonneg)
        stalled = too_short & state.plain
        return _State(now, gradient, weight, sphere, trial, direction, length, reach, plain, stalled, past)

    def iterate(self, state: _State) -> Iterate:
        """The last accepted point."""
        return state.now

    @in_fixed_settings
    def converged(self, state: _State) -> Bool[Array, ""]:
        """The residual is at most the tolerance, or `early_exit` applies, or no step lowers the loss any more."""
        now = state.now
        contributing = (now.residual <= self.early_exit) & gap_dominates(now.residual, now.gap_contribution)
        return (now.residual <= self.tolerance) | contributing | state.stalled


def _is_accepted(
    excess: Float[Array, ""], at: Evaluation, promised: Float[Array, ""], slope: Float[Array, ""]
) -> Bool[Array, ""]:
    """Whether a trial lowers the loss enough.

    The Armijo condition f(trial) <= f + SUFFICIENT <g, s> for the move s; or, where the difference is rounding, no rise
    beyond rounding and a flatter slope, |<g(trial), s>| <= STEEP |<g, s>| (Hager and Zhang).
    """
    noise = ROUNDING * (jnp.sum(at.gap_contribution) + jnp.abs(excess))
    enough = at.excess <= excess + SUFFICIENT * promised
    unseen = (at.excess <= excess + noise) & (jnp.abs(slope) <= STEEP * jnp.abs(promised))
    return (promised < 0) & (enough | unseen)


def _shortening(rise: Float[Array, ""], promised: Float[Array, ""]) -> Float[Array, ""]:
    """The factor for the step length: the minimiser of the parabola through both values and the first slope.

    It is at least 0.1 and at most 0.5, and 0.1 if the trial's excess is not finite.
    """
    bent = rise - promised
    lowest = jnp.where(bent > 0, -promised / (2.0 * jnp.where(bent > 0, bent, 1.0)), 0.5)
    return jnp.where(jnp.isfinite(rise), jnp.clip(lowest, 0.1, 0.5), 0.1)


def _on_sphere(H: Float[Array, "m d"], at: Evaluation) -> Bool[Array, " m"]:
    """Which rows are on the sphere (5.15): of norm 1, with <g, h> <= 0."""
    return (jnp.linalg.norm(H, axis=-1) > 1 - ON_SPHERE) & (jnp.sum(at.gradient * H, axis=-1) <= 0)


def _tangential(
    H: Float[Array, "m d"], gradient: Float[Array, "m d"], sphere: Bool[Array, " m"]
) -> Float[Array, "m d"]:
    """The gradient t of 5.15: for rows on the sphere, without its part along the row."""
    squares = jnp.sum(H * H, axis=-1, keepdims=True)
    radial = jnp.sum(gradient * H, axis=-1, keepdims=True) / jnp.where(squares > 0, squares, 1.0)
    return gradient - jnp.where(sphere[:, None], radial * H, 0.0)


def _retracted(rows: Float[Array, "m d"], sphere: Bool[Array, " m"], nonneg: bool) -> Float[Array, "m d"]:
    """The feasible point h(lambda) of 5.15 (b): rows on the sphere are normalised, the others projected on the ball."""
    rows = jnp.maximum(rows, 0.0) if nonneg else rows
    norm = jnp.linalg.norm(rows, axis=-1, keepdims=True)
    scaled = sphere[:, None] & (norm > 0)
    # A little outside the ball, so that the projection moves all these rows inside by the same factor.
    return project(jnp.where(scaled, rows / jnp.where(scaled, norm, 1.0) * (1.0 + 2.0**-50), rows), nonneg)


class _Model(NamedTuple):
    """A quadratic model in scaled entries, with the Hessian theta I - W^T M^-1 W (5.15 (c); [BNS], Theorem 2.3).

    - theta: its multiple of the identity. M: the matrix of the middle. W = scale * rows.
    - rows: S over Y, the moves and the changes of the gradient; pairs that are not used are zero rows.
    - is_empty: no pair is used.
    """

    theta: Float[Array, ""]
    M: Float[Array, "q q"]
    rows: Float[Array, "q N"]
    scale: Float[Array, " q"]
    is_empty: Bool[Array, ""]

    @classmethod
    def of(cls, rows: Float[Array, "q N"]) -> _Model:
        """The model from S over Y, in scaled entries.

        M = [[theta S S^T, L], [L^T, -D]], where D is the diagonal and L the strictly lower triangle of S Y^T. theta is
        <y, y> / <s, y> of the latest pair that is used, and at most FIRST_CURVATURE. A pair that is not used has a unit
        row in M, so that it changes nothing.
        """
        p = rows.shape[0] // 2
        products = rows @ rows.T
        curvature, squares = jnp.diagonal(products[:p, p:]), jnp.diagonal(products)
        usable = curvature > SMALLEST_CURVATURE * jnp.sqrt(squares[:p] * squares[p:])
        last = jnp.max(jnp.where(usable, jnp.arange(p), -1))
        seen = squares[p:][last] / jnp.where(curvature[last] > 0, curvature[last], 1.0)
        theta = jnp.where(last >= 0, jnp.minimum(seen, FIRST_CURVATURE), FIRST_CURVATURE)
        both = jnp.concatenate([usable, usable])
        rows = jnp.where(both[:, None], rows, 0.0)
        products = jnp.where(both[:, None] & both, products, 0.0)
        D, L = jnp.diag(jnp.diagonal(products[:p, p:])), jnp.tril(products[:p, p:], -1)
        idle = jnp.diag(jnp.where(both, 0.0, 1.0))
        M = jnp.block([[theta * products[:p, :p], L], [L.T, -D]]) + idle
        return cls(theta, M, rows, jnp.concatenate([jnp.full(p, theta), jnp.ones(p)]), last < 0)

    def minimiser(self, x: Float[Array, " N"], g: Float[Array, " N"], active: Bool[Array, " N"]) -> Float[Array, " N"]:
        """The step that takes active entries to 0 and minimises the model over the free ones (theory, 5.15 (c)).

        With z = -x on the active entries, else 0, and F the free columns of W, the step is z + v, where
        theta v = F^T u - g on the free entries and (M - F F^T / theta) u = W z - F g / theta.
        """
        rows, scale, theta = self.rows, self.scale, self.theta
        to_zero, slope, free = jnp.where(active, -x, 0.0), jnp.where(active, 0.0, g), jnp.where(active, 0.0, rows)
        onto = scale[:, None] * (rows @ jnp.concatenate([free, to_zero[None], slope[None]]).T)
        q = len(rows)
        Q, R = jnp.linalg.qr(self.M - onto[:, :q] * scale / theta)
        u = solve_triangular(R, Q.T @ (onto[:, q] - onto[:, q + 1] / theta))
        return to_zero + ((scale * u) @ free - slope) / theta


def _with_active_set(
    model: _Model, x: Float[Array, " N"], g: Float[Array, " N"], active: Bool[Array, " N"]
) -> Float[Array, " N"]:
    """The minimiser of the model with x + step >= 0: entries that would become negative join the active set, once."""

    def unfinished(tried: tuple[Array, Array, Array, Array]) -> Bool[Array, ""]:
        rounds, joins, _, _ = tried
        return joins & (rounds < 2)

    def round_of(tried: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        rounds, _, active, _ = tried
        step = model.minimiser(x, g, active)
        turned = x + step < 0
        return rounds + 1, jnp.any(turned), active | turned, step

    begun = jnp.zeros((), jnp.int32), jnp.asarray(True), active, x
    return jnp.maximum(jax.lax.while_loop(unfinished, round_of, begun)[3], -x)


def _direction(
    H: Float[Array, "m d"],
    gradient: Float[Array, "m d"],
    weight: Float[Array, " m"],
    past: Float[Array, "2 p m d"],
    nonneg: bool,
) -> tuple[Float[Array, "m d"], Bool[Array, ""]]:
    """The direction from H, and whether it is the plain one: the scaled projected gradient step D of 5.15 (b).

    1. Scale rows by the root of their preconditioner: entries x, their gradient g, past moves S and changes Y.
    2. Build the quadratic model from S and Y (`_Model.of`).
    3. UFM+: the active set is the entries of at most NEARLY_ZERO that the step -g / theta takes to 0 or below.
    4. Minimise the model over the free entries (`_with_active_set`). Take the plain step instead if the memory is
       empty, or if the result is not a direction of descent.
    """
    root = jnp.sqrt(jnp.where(weight > 0, weight, 1.0))[:, None]
    g = jnp.where(weight[:, None] > 0, gradient / root, 0.0).reshape(-1)
    x = (H * root).reshape(-1)
    model = _Model.of((past * jnp.stack([root, 1.0 / root])[:, None]).reshape(2 * past.shape[1], -1))
    if nonneg:
        active = (H.reshape(-1) <= NEARLY_ZERO) & (g > 0) & (x <= g / model.theta)
        step = _with_active_set(model, x, g, active)
        steepest = jnp.maximum(x - g / FIRST_CURVATURE, 0.0) - x
    else:
        step, steepest = model.minimiser(x, g, jnp.zeros_like(x, bool)), -g / FIRST_CURVATURE
    plain = model.is_empty | ~(step @ g < 0)  # also where step @ g is NaN
    return jnp.where(plain, steepest, step).reshape(H.shape) / root, plain
