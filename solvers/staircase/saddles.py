r"""Off the saddles of UFM: along the smallest eigenvectors of the dual matrix, in coordinates that no row uses.

Let K be the symmetric matrix of the derivatives of the loss in the inner products of the points, so that the gradient
is K H, and S = K + Diag(nu), where nu_a = -<gradient_a, h_a> for the rows of norm 1 that are pulled outwards and 0 for
the others. At a stationary point S H = 0. Let V be supported on coordinates that no row uses. Then

    h_a -> sqrt(1 - t^2 ||v_a||^2) h_a + t v_a   (rows of norm 1; the others are not scaled)

changes the loss by t^2 / 2 <S, V V^T> + O(t^4) (theory, 5.23). Where the loss is convex in the Gram matrix and S is
positive semidefinite, a point is a global minimiser among points with equal rows within orbits (4.10). So a stationary
point that leaves a coordinate unused is left downhill, or is such a minimiser; but for eigenvalues that rounding hides.
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

# Rows at least this long are of norm 1 but for rounding.
ON_SPHERE = 1e-9
# Singular values below this share of the largest belong to coordinates that are not used.
UNUSED = 1e-6
# Eigenvalues of the dual matrix, relative to the forces on the points, from which on a point is a saddle.
SADDLE = -1e-7
# Points of a problem whose saddles are looked for: eigenvectors of more take longer than the descents.
MOST_POINTS = 512
# Share of the promised decrease that a lift must bring; the longest lift, and how often it may be halved.
SUFFICIENT, LONGEST, HALVINGS = 0.25, 0.5, 12
# Share of the excess below which a decrease of it is rounding.
ROUNDING = 1e-14


class Dual(NamedTuple):
    """Of a point H (m, d): the excess, the forces on the points (`ufm.model.evaluation.Evaluation`), and the matrix
    S."""

    excess: Float[Array, ""]
    gradient_scale: Float[Array, " m"]
    matrix: Float[Array, "m m"]


def dual_at(H: Float[Array, "m d"], tau: Float[Array, ""], problem: Problem) -> Dual:
    """The excess, the forces and S of this module's head, at the temperature tau instead of the problem's."""
    at = evaluate(H, at_temperature(problem, tau), along=jnp.eye(len(H)))
    radial = -jnp.sum((at.gradient @ H) * H, axis=1)
    outwards = (jnp.linalg.norm(H, axis=1) > 1 - ON_SPHERE) & (radial > 0)
    return Dual(at.excess, at.gradient_scale, at.gradient + jnp.diag(jnp.where(outwards, radial, 0.0)))


# Not quick: LLVM aborts the process over what XLA's quick emitters make of some expected losses.
_dual_at = Compiled(dual_at, quick=False)


def prepare_off_saddle(problem: Problem) -> None:
    """Begin to compile, on another thread, what `off_saddle` calls first."""
    m, d = problem.num_points, problem.d
    if m <= MOST_POINTS:
        _dual_at.prepare(*(jax.ShapeDtypeStruct(shape, np.float64) for shape in ((m, d), ())), problem)


def off_saddle(H: Float[np.ndarray, "m d"], problem: Problem, tau: float) -> Float[np.ndarray, "m d"] | None:
    """A feasible point of UFM with a lower loss than the stationary point H; None if none is found.

    None is found where all coordinates are in use, where no eigenvalue is below SADDLE, where HALVINGS of the lift do
    not bring enough of the promised decrease, and where there are more than MOST_POINTS points.

    As many negative eigenvectors are followed at once as there are unused coordinates: to second order their effects
    add up. Eigenvalues are taken relative to the forces on the points, so that those of minorities count as much.
    Takes O(m^3) operations.
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
        promised = SUFFICIENT * 0.5 * length**2 * curvature
        if -promised <= ROUNDING * abs(float(at.excess)):
            return None
        lifted = _lifted(H, length * V)
        if float(slope_of(lifted, problem, tau).excess) <= float(at.excess) + promised:
            return lifted
        length /= 2
    return None


def _descents(at: Dual, most: int) -> tuple[Float[np.ndarray, "m q"], float]:
    """Directions of negative curvature, the longest row of norm 1, and the curvature along all of them together."""
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
    """H + V with the rows of norm 1 scaled so that they stay of norm 1, and no row longer."""
    shorter = np.sqrt(np.maximum(1.0 - np.sum(V * V, axis=1, keepdims=True), 0.0))
    unit = np.linalg.norm(H, axis=1, keepdims=True) > 1 - ON_SPHERE
    lifted = np.where(unit, shorter, 1.0) * H + V
    return lifted / np.maximum(np.linalg.norm(lifted, axis=1, keepdims=True), 1.0)
