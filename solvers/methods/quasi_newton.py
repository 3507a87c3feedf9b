"""The projected quasi-Newton method: curvature from past moves, zeros from an active set, one evaluation a step."""

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

# Share of the decrease that the gradient promises which a step must bring (Armijo), and of the slope that a step
# may leave before the next one reaches further (Wolfe).
SUFFICIENT, STEEP = 1e-4, 0.9
# Rows this close to the unit sphere that are pulled outwards stay on it.
ON_SPHERE = 1e-9
# Only entries below this may be sent to zero at once by the gradient alone.
NEARLY_ZERO = 1e-2
# Curvature without any past move, as a share of the pair weights; at most that is assumed with them.
SHARE_OF_WEIGHT = 0.5
# Cosine between a move and the change of the gradient below which the change is rounding or points the wrong way.
SMALLEST_CURVATURE = 1e-12
SHORTEST, LONGEST = 1e-10, 1e6
# Moves that may be remembered: a step solves systems of twice as many unknowns.
LONGEST_MEMORY = 100
# Share of the excess, and of the terms that it is the sum of, below which it cannot tell.
ROUNDING = 4e-15


class _State(NamedTuple):
    """One start: the point it stands at, the trial it evaluates next, and what it remembers.

    - gradient: at the point, tangential for rows on the sphere. weight: pair weights there. sphere: which rows are.
    - direction, length: trial = retraction of the point + length direction. reach: length a new direction starts with.
    - plain: the direction is the scaled projected gradient. stalled: not even that one goes down.
    - past: moves, and the changes of the gradient along them, oldest first.
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
    """L-BFGS on the rows that are free to move, on the product of spheres, with H >= 0 by an active set.

    The loss is minimised over the directions of the rows that are pulled outwards (f(h / ||h||) has tangential
    gradients, and the curvature of the sphere is in them), and over the ball for the others. Rows are scaled by the
    root of their pair weights, so that classes whose sizes differ by R start with curvatures of one size; what
    forces really remain on a row is then learned from the last moves, in the compact form of Byrd, Nocedal and
    Schnabel. Entries that the gradient presses to zero go there at once, the others minimise the quadratic model given
    that, and those that would turn negative join the first, once (as in L-BFGS-B, without its Cauchy point).

    Every step is one evaluation: of a trial that is taken if the excess falls by enough, else halved or more by
    interpolation. Where the excess drowns in rounding the slope decides (Hager and Zhang's approximate Wolfe
    conditions). Where the slope does not flatten, along directions of no or negative curvature, steps double.

    - tolerance: stop when the residual is at most this. memory: how many moves are remembered.
    - early_exit: stop also when the residual is at most this and a thousandth of the conflict: the
      point it leads to is spurious, and the way there can be slow; `solvers.staircase.escape` goes on from it. 0:
      never.

    Raises InvalidInput for what are no such numbers.
    """

    tolerance: float = 1e-13
    memory: int = 5
    early_exit: float = 0.0

    def __post_init__(self) -> None:
        check_tolerances(self)
        whole_number("memory", self.memory, 1, f"give a whole number from 1 to {LONGEST_MEMORY}", LONGEST_MEMORY)

    @in_fixed_settings
    def init(self, H: Float[Array, "m d"], problem: Problem) -> _State:
        """No evaluation yet: the first step does it, and takes the point as it is."""
        del problem
        m, no, one = H.shape[0], jnp.asarray(False), jnp.ones((), H.dtype)
        start = Iterate(H, jnp.asarray(1e300, H.dtype), jnp.asarray(jnp.inf, H.dtype), jnp.full(m, jnp.inf))
        nothing, past = jnp.zeros_like(H), jnp.zeros((2, self.memory, *H.shape), H.dtype)
        nowhere = jnp.zeros(m, H.dtype)
        return _State(start, nothing, nowhere, nowhere > 0, H, nothing, one, one, no, no, past)

    @in_fixed_settings
    def step(self, state: _State, problem: Problem) -> _State:
        """Evaluate the trial; take it and aim anew, or shorten the step."""
        # A row of the sphere that lost all its entries is at 0, and far from norm 1.
        unit = state.sphere & (jnp.linalg.norm(state.trial, axis=-1) > 1 - ON_SPHERE)
        at = evaluate(state.trial, problem, unit=unit)
        first = jnp.isinf(state.now.residual)
        sphere = _on_sphere(state.trial, at)
        gradient = _tangential(state.trial, at.gradient, sphere)
        move, change = state.trial - state.now.H, gradient - state.gradient
        promised, slope = jnp.sum(state.gradient * move), jnp.sum(gradient * move)
        taken = first | _goes_down(state.now.excess, at, promised, slope)
        shorter = state.length * _shortening(at.excess - state.now.excess, promised)
        exhausted = ~taken & (shorter < SHORTEST)
        restart = exhausted & ~state.plain

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
        stalled = exhausted & state.plain
        return _State(now, gradient, weight, sphere, trial, direction, length, reach, plain, stalled, past)

    def iterate(self, state: _State) -> Iterate:
        """The last point taken."""
        return state.now

    @in_fixed_settings
    def converged(self, state: _State) -> Bool[Array, ""]:
        """Stationary, or settled in conflict, or no step goes down any more."""
        now = state.now
        contributing = (now.residual <= self.early_exit) & gap_dominates(now.residual, now.gap_contribution)
        return (now.residual <= self.tolerance) | contributing | state.stalled


def _goes_down(
    excess: Float[Array, ""], at: Evaluation, promised: Float[Array, ""], slope: Float[Array, ""]
) -> Bool[Array, ""]:
    """Enough of the decrease that was promised; within rounding, a slope that flattened without a rise."""
    noise = ROUNDING * (jnp.sum(at.gap_contribution) + jnp.abs(excess))
    enough = at.excess <= excess + SUFFICIENT * promised
    unseen = (at.excess <= excess + noise) & (jnp.abs(slope) <= STEEP * jnp.abs(promised))
    return (promised < 0) & (enough | unseen)


def _shortening(rise: Float[Array, ""], promised: Float[Array, ""]) -> Float[Array, ""]:
    """By the parabola through both values and the slope, between a tenth and a half; a tenth if not finite."""
    bent = rise - promised
    lowest = jnp.where(bent > 0, -promised / (2.0 * jnp.where(bent > 0, bent, 1.0)), 0.5)
    return jnp.where(jnp.isfinite(rise), jnp.clip(lowest, 0.1, 0.5), 0.1)


def _on_sphere(H: Float[Array, "m d"], at: Evaluation) -> Bool[Array, " m"]:
    """Which rows are of norm 1 and pulled outwards: they move on the sphere."""
    return (jnp.linalg.norm(H, axis=-1) > 1 - ON_SPHERE) & (jnp.sum(at.gradient * H, axis=-1) <= 0)


def _tangential(
    H: Float[Array, "m d"], gradient: Float[Array, "m d"], sphere: Bool[Array, " m"]
) -> Float[Array, "m d"]:
    """The gradient, without its part along the rows that are on the sphere."""
    squares = jnp.sum(H * H, axis=-1, keepdims=True)
    radial = jnp.sum(gradient * H, axis=-1, keepdims=True) / jnp.where(squares > 0, squares, 1.0)
    return gradient - jnp.where(sphere[:, None], radial * H, 0.0)


def _retracted(rows: Float[Array, "m d"], sphere: Bool[Array, " m"], nonneg: bool) -> Float[Array, "m d"]:
    """The feasible point: rows of the sphere by their direction, the others projected."""
    rows = jnp.maximum(rows, 0.0) if nonneg else rows
    norm = jnp.linalg.norm(rows, axis=-1, keepdims=True)
    scaled = sphere[:, None] & (norm > 0)
    # A little outside, so that the projection puts every such row equally far inside.
    return project(jnp.where(scaled, rows / jnp.where(scaled, norm, 1.0) * (1.0 + 2.0**-50), rows), nonneg)


def _direction(
    H: Float[Array, "m d"],
    gradient: Float[Array, "m d"],
    weight: Float[Array, " m"],
    past: Float[Array, "2 p m d"],
    nonneg: bool,
) -> tuple[Float[Array, "m d"], Bool[Array, ""]]:
    """The minimiser of the quadratic model over the entries that are free; whether it is the gradient step instead.

    With the moves S and the changes of the gradient Y as rows, the model's Hessian is the compact form
    theta I - W^T M^{-1} W, W = [theta S; Y], M = [[theta S S^T, L], [L^T, -D]], D and L the diagonal and the strictly
    lower triangle of S Y^T; a move that is not usable takes part as a zero row.
    """
    p = past.shape[1]
    root = jnp.sqrt(jnp.where(weight > 0, weight, 1.0))[:, None]
    g = jnp.where(weight[:, None] > 0, gradient / root, 0.0).reshape(-1)
    x = (H * root).reshape(-1)
    rows = (past * jnp.stack([root, 1.0 / root])[:, None]).reshape(2 * p, -1)  # S over Y
    products = rows @ rows.T
    curvature, squares = jnp.diagonal(products[:p, p:]), jnp.diagonal(products)
    usable = curvature > SMALLEST_CURVATURE * jnp.sqrt(squares[:p] * squares[p:])
    last = jnp.max(jnp.where(usable, jnp.arange(p), -1))
    seen = squares[p:][last] / jnp.where(curvature[last] > 0, curvature[last], 1.0)
    theta = jnp.where(last >= 0, jnp.minimum(seen, SHARE_OF_WEIGHT), SHARE_OF_WEIGHT)
    both = jnp.concatenate([usable, usable])
    rows = jnp.where(both[:, None], rows, 0.0)
    products = jnp.where(both[:, None] & both, products, 0.0)
    D, L = jnp.diag(jnp.diagonal(products[:p, p:])), jnp.tril(products[:p, p:], -1)
    idle = jnp.diag(jnp.where(both, 0.0, 1.0))
    M = jnp.block([[theta * products[:p, :p], L], [L.T, -D]]) + idle
    scale = jnp.concatenate([jnp.full(p, theta), jnp.ones(p)])  # W = scale rows

    def minimiser(active: Bool[Array, " N"]) -> Float[Array, " N"]:
        """Pressed entries go to zero, by z; the others follow: theta x = -g + W^T u there, with M u = W (x + z)."""
        to_zero, slope, free = jnp.where(active, -x, 0.0), jnp.where(active, 0.0, g), jnp.where(active, 0.0, rows)
        onto = scale[:, None] * (rows @ jnp.concatenate([free, to_zero[None], slope[None]]).T)
        Q, R = jnp.linalg.qr(M - onto[:, : 2 * p] * scale / theta)
        u = solve_triangular(R, Q.T @ (onto[:, 2 * p] - onto[:, 2 * p + 1] / theta))
        return to_zero + ((scale * u) @ free - slope) / theta

    def unsettled(tried: tuple[Array, Array, Array, Array]) -> Bool[Array, ""]:
        rounds, joins, _, _ = tried
        return joins & (rounds < 2)

    def round_of(tried: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        rounds, _, active, _ = tried
        step = minimiser(active)
        turned = x + step < 0
        return rounds + 1, jnp.any(turned), active | turned, step

    if nonneg:
        active = (H.reshape(-1) <= NEARLY_ZERO) & (g > 0) & (x <= g / theta)
        begun = jnp.zeros((), jnp.int32), jnp.asarray(True), active, x
        step = jnp.maximum(jax.lax.while_loop(unsettled, round_of, begun)[3], -x)
        steepest = jnp.maximum(x - g / SHARE_OF_WEIGHT, 0.0) - x
    else:
        step, steepest = minimiser(jnp.zeros_like(x, bool)), -g / SHARE_OF_WEIGHT
    plain = (last < 0) | ~(step @ g < 0)  # a NaN is no descent
    return jnp.where(plain, steepest, step).reshape(H.shape) / root, plain
