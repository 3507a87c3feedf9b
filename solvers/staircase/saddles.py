r"""Steps away from saddles of UFM, along eigenvectors of the dual matrix, in unused coordinates (theory, 5.23).

Let K be the symmetric matrix of the derivatives of the loss in the inner products of the points, so that the gradient
is K H, and S = K + Diag(nu), where nu_a = -<gradient_a, h_a> for the rows of norm 1 whose gradient points inwards, and
0 for the others. At a stationary point S H = 0. Let V be supported on coordinates that no row uses. Then

    h_a -> sqrt(1 - t^2 ||v_a||^2) h_a + t v_a   (rows of norm 1; the others are not scaled)

changes the loss by t^2 / 2 <S, V V^T> + O(t^4) (5.23). Where the loss is convex in the Gram matrix and S is positive
semidefinite, a point is a global minimiser among points with equal rows within orbits (4.10). So for such
a loss a stationary point with an unused coordinate either is such a minimiser, or can be left downhill. Rounding may
hide small negative eigenvalues.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Float

from solvers.compilation.compiled import Compiled
from solvers.loop.method import at_temperature
from solvers.staircase.lifts import slope_of
from ufm.model.evaluation import evaluate
from ufm.model.problem import Problem

# Rows whose norm is above 1 - ON_SPHERE count as of norm 1.
ON_SPHERE = 1e-9
# Coordinates count as unused if their singular value is below this times the largest.
UNUSED = 1e-6
# A point is a saddle if the dual matrix has an eigenvalue below this, relative to the gradient scales.
SADDLE = -1e-7
# The most points for which saddles are looked for: with more, the eigenvectors take longer than the descents.
MOST_POINTS = 512
# The fraction of the predicted decrease that is enough; the longest step, and how often it is halved.
SUFFICIENT, LONGEST, HALVINGS = 0.25, 0.5, 12
# Decreases below this times the excess are rounding.
ROUNDING = 1e-14


class Dual(NamedTuple):
    """The excess of a point H (m, d), its gradient scales (`ufm.model.evaluation.Evaluation`), and the matrix S."""

    excess: Float[Array, ""]
    gradient_scale: Float[Array, " m"]
    matrix: Float[Array, "m m"]


def dual_at(H: Float[Array, "m d"], tau: Float[Array, ""], problem: Problem) -> Dual:
    """Excess, gradient scales, and S of this module's docstring, at tau, which replaces the problem's temperature."""
    at = evaluate(H, at_temperature(problem, tau), along=jnp.eye(len(H)))
    radial = -jnp.sum((at.gradient @ H) * H, axis=1)
    outwards = (jnp.linalg.norm(H, axis=1) > 1 - ON_SPHERE) & (radial > 0)
    return Dual(at.excess, at.gradient_scale, at.gradient + jnp.diag(jnp.where(outwards, radial, 0.0)))


# Not quick: for some expected losses LLVM aborts the process on the code of XLA's quick emitters.
_dual_at = Compiled(dual_at, quick=False)


def prepare_off_saddle(problem: Problem) -> None:
    """Begin to compile, on another thread, the function that `off_saddle` calls first."""
    m, d = problem.num_points, problem.d
    if m <= MOST_POINTS:
        _dual_at.prepare(*(jax.ShapeDtypeStruct(shape, np.float64) for shape in ((m, d), ())), problem)


def off_saddle(H: Float[np.ndarray, "m d"], problem: Problem, tau: float) -> Float[np.ndarray, "m d"] | None:
    """A feasible point of UFM with a smaller loss than the stationary point H; None if none is found.

    1. Rotate H so that its unused coordinates come last; if there are none, return None.
    2. Compute S (`dual_at`) and its eigenvectors with eigenvalues below SADDLE, relative to the gradient scales so that
       those of minorities count as much: at most as many as there are unused coordinates. Their effects on the loss
       add up to second order (5.23). If there are none, return None.
    3. Step along all of them, halving the length at most HALVINGS times, until the excess falls by at least SUFFICIENT
       times the predicted t^2 / 2 <S, V V^T>.

    Returns None as well if there are more than MOST_POINTS points, and if the decrease would be rounding. Takes O(m^3)
    operations.
    """
    if len(H) > MOST_POINTS:
        return None
    squares, axes = np.linalg.eigh(H.T @ H)
    used = int(np.count_nonzero(squares > UNUSED**2 * max(float(squares[-1]), 1e-300)))
    free = H.shape[1] - used
    if not free:
        return None
    H = np.where(np.arange(H.shape[1]) < used, H @ axes[:, ::-1], 0.0)
    at = jax.tree.map(np.asarray, _dual_at(H, np.float64(tau), problem))
    directions, curvature = _descents(at, free)
    if curvature >= 0:
        return None
    V = np.zeros_like(H)
    V[:, used : used + directions.shape[1]] = directions
    length = LONGEST
    for _ in range(HALVINGS):
        predicted = SUFFICIENT * 0.5 * length**2 * curvature
        if -predicted <= ROUNDING * abs(float(at.excess)):
            return None
        lifted = _lifted(H, length * V)
        if float(slope_of(lifted, problem, tau).excess) <= float(at.excess) + predicted:
            return lifted
        length /= 2
    return None


def _descents(at: Dual, most: int) -> tuple[Float[np.ndarray, "m q"], float]:
    """The directions V of negative curvature, scaled so that its longest row has norm 1, and <S, V V^T>."""
    root = np.sqrt(np.where(at.gradient_scale > 0, at.gradient_scale, np.inf))[:, None]
    scaled = at.matrix / root / root.T
    if not np.isfinite(scaled).all():
        return np.zeros((len(scaled), 0)), 0.0
    highest = min(most, len(scaled)) - 1
    eigenvalues, vectors = scipy.linalg.eigh((scaled + scaled.T) / 2, subset_by_index=[0, highest])
    V = (vectors / root)[:, eigenvalues < SADDLE]
    V /= max(float(np.linalg.norm(V, axis=1).max(initial=0.0)), 1e-300)
    return V, float(np.sum((at.matrix @ V) * V))


def _lifted(H: Float[np.ndarray, "m d"], V: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "m d"]:
    """H + V, where rows of norm 1 are scaled so that they keep norm 1, and no row becomes longer than 1."""
    shorter = np.sqrt(np.maximum(1.0 - np.sum(V * V, axis=1, keepdims=True), 0.0))
    unit = np.linalg.norm(H, axis=1, keepdims=True) > 1 - ON_SPHERE
    lifted = np.where(unit, shorter, 1.0) * H + V
    return lifted / np.maximum(np.linalg.norm(lifted, axis=1, keepdims=True), 1.0)
