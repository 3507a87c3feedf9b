r"""Stationary points of UFM over orbits to full double accuracy, by Newton's method.

    minimise L(U U^T)  over U (m, r), one row an orbit, ||u_a|| <= 1

and, where a split of an orbit lowers the loss, over U and spreads s (m,) (theory, 4.22): every sample of orbit a lies
at distance s_a from u_a, in directions that are orthogonal to U and sum to 0, so that
G_aa = ||u_a||^2 - s_a^2 / (n_a - 1) and ||u_a||^2 + s_a^2 <= 1. Then the last column of the rows holds the spreads.

A dual read off a point is as good as the point is stationary. A point that is to prove the optimum to 1e-12 therefore
needs more than a first-order method gives. Second-order stationary points of rank below r are global minimisers among
collapsed points (theory, 4.10). Nothing here relies on that: `solvers.certification.dual_bounds` proves each bound.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from scipy.linalg import helmert
from scipy.sparse.csgraph import connected_components
from scipy.special import expit

from solvers.certification.dual_bounds import (
    MOST_ORBITS_IN_A_MATRIX,
    LowerBound,
    evaluated,
    kkt_dual,
    repaired,
    stationarity_bound,
)
from solvers.certification.orbit_problem import OrbitProblem, Point
from solvers.certification.relaxation import ConicSolution
from solvers.certification.rounding import on_ball

MOST_POLISHED_ENTRIES = 800
# Rows this close to norm 1 whose gradient step leaves the ball move on the sphere.
ON_SPHERE = 1e-9
# A principal axis whose extent is below this fraction of the largest may be converging to zero.
NO_EXTENT = 1e-3
# The source of a bound at whose point samples of an orbit differ.
SPREAD = "stationarity conditions at a point where samples of an orbit differ"
# Initial spread of orbits that may split: at 0 the gradient in the spread vanishes.
PERTURBATION = 1e-2
# The result of `_within` where the last column of the rows holds spreads; None where it is an ordinary column.
Within = Float[np.ndarray, " m"] | None


@dataclass(frozen=True)
class _Anchors:
    """The active anchors of one batch, in floating point.

    - members: orbits of the batch. active: positions in members of the orbits that are anchors.
    - others: samples of each member without the anchor. pull: weight of each positive in the mean.
    - shift: logarithm of the factor of each exponential, -inf for factor 0; for the sigmoid its bias.
    - weight: number of samples the anchor stands for, times omega. slope: s.
    """

    members: np.ndarray
    active: np.ndarray
    others: Float[np.ndarray, "a s"]
    pull: Float[np.ndarray, "a s"]
    shift: Float[np.ndarray, "a s"]
    weight: Float[np.ndarray, "a 1"]
    slope: Float[np.ndarray, "a 1"]


class OrbitLoss:
    """L as a function of an orbit-constant Gram matrix, its gradient and second derivative, in numpy.

    The gradient K is over orbits: dL = sum_ab K_ab dG_ab, not symmetrised; K_ab = n_a n_b C_ab off the
    diagonal and n_a (n_a - 1) C_aa on it, up to symmetrisation. SupCon-in is not convex, so Newton's method is not
    suited to it. It is replaced by SCL here, whose minimisers serve as candidates.
    """

    def __init__(self, problem: OrbitProblem) -> None:
        self.m, self.is_sigmoid = len(problem), problem.loss.kind == "sigmoid"
        classes = np.array(problem.classes, dtype=int)
        self.batches: list[_Anchors] = []
        for batch, count, composition in zip(problem.batches, problem.counts, problem.compositions, strict=True):
            members, anchor_by_class = np.array(batch), problem.anchor_by_class(count)
            held = np.array([composition.samples[a] for a in batch], dtype=float)
            active = np.array(
                [position for position, a in enumerate(batch) if classes[a] in anchor_by_class], dtype=int
            )
            anchors = np.take(members, active)
            anchor_losses = [anchor_by_class[c] for c in classes[anchors].tolist()]
            others = held[None, :] - (members[None, :] == anchors[:, None])
            positives = np.array([anchor.positives for anchor in anchor_losses], dtype=float)
            same = np.equal.outer(classes[anchors], classes[members])
            pull = others * same / positives[:, None]
            shift = np.array([anchor.shifts(classes[members].tolist()) for anchor in anchor_losses]).reshape(
                others.shape
            )
            numbers = (
                np.array([[float(x)] for x in of])
                for of in zip(*((anchor.omega, anchor.s) for anchor in anchor_losses), strict=True)
            )
            omega, slope = numbers if anchor_losses else (np.ones((0, 1)), np.ones((0, 1)))
            weight = composition.weight * held[active][:, None] * omega
            self.batches.append(_Anchors(members, active, others, pull, shift, weight, slope))

    def value_and_gradient(self, G: Float[np.ndarray, "m m"]) -> tuple[float, Float[np.ndarray, "m m"]]:
        """L and K at G."""
        total, K = 0.0, np.zeros((self.m, self.m))
        for batch in self.batches:
            at = np.ix_(batch.members[batch.active], batch.members)
            if self.is_sigmoid:
                x = self._odds(batch, G[at])
                total += float((batch.weight * batch.others * np.logaddexp(0.0, x)).sum())
                K[at] += batch.weight * batch.slope * self._sign(batch) * batch.others * expit(x)
                continue
            p, partition = self._softmax(batch, G[at])
            value = partition[:, 0] - batch.slope[:, 0] * (batch.pull * G[at]).sum(axis=1)
            total += float(batch.weight[:, 0] @ value)
            K[at] += batch.weight * batch.slope * (p - batch.pull)
        return total, K

    def curvature(self, G: Float[np.ndarray, "m m"], dG: Float[np.ndarray, "q m m"]) -> Float[np.ndarray, "q m m"]:
        """The derivative of K along each of q directions dG."""
        dK = np.zeros_like(dG)
        for batch in self.batches:
            anchors = batch.members[batch.active]
            at = np.ix_(anchors, batch.members)
            along = dG[:, anchors[:, None], batch.members[None, :]]
            if self.is_sigmoid:
                probability = expit(self._odds(batch, G[at]))
                change = batch.others * probability * (1 - probability) * along
            else:
                p, _ = self._softmax(batch, G[at])
                change = p * (along - (p * along).sum(axis=2, keepdims=True))
            dK[:, anchors[:, None], batch.members[None, :]] += batch.weight * batch.slope**2 * change
        return dK

    @staticmethod
    def _softmax(batch: _Anchors, G: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Softmax weights of each anchor, and the logarithm of their denominator."""
        x = batch.slope * G + batch.shift
        top = x.max(axis=1, keepdims=True, initial=-np.inf)
        e = batch.others * np.exp(x - top)
        partition = e.sum(axis=1, keepdims=True)
        return e / partition, np.log(partition) + top

    @staticmethod
    def _sign(batch: _Anchors) -> np.ndarray:
        return np.where(batch.pull > 0, -1.0, 1.0)

    def _odds(self, batch: _Anchors, G: np.ndarray) -> np.ndarray:
        return self._sign(batch) * (batch.slope * G + batch.shift)


def factor(problem: OrbitProblem, gram: Float[np.ndarray, "m m"], r: int) -> Float[np.ndarray, "m r"]:
    """Rows (m, r) with the norms of `gram`, whose Gram matrix is near it on pairs that meet in some batch.

    Orbits that no chain of batches connects do not affect each other. So each component is factored alone, by its r
    leading eigenvectors.
    """
    meets = np.eye(len(problem), dtype=bool)
    for batch in problem.batches:
        meets[np.ix_(batch, batch)] = True
    components, component = connected_components(meets, directed=False)
    U = np.zeros((len(problem), r))
    for c in range(components):
        members = np.flatnonzero(component == c)
        eigenvalues, vectors = np.linalg.eigh(gram[np.ix_(members, members)])
        leading = (vectors * np.sqrt(np.maximum(eigenvalues, 0.0)))[:, ::-1][:, :r]
        U[members, : leading.shape[1]] = leading
    norms = np.linalg.norm(U, axis=1)
    wanted = np.sqrt(np.clip(np.diag(gram), 0.0, 1.0))
    return U * (wanted / np.maximum(norms, 1e-12))[:, None]


def of_numerical_rank(U: Float[np.ndarray, "m r"]) -> Float[np.ndarray, "m s"]:
    """The rows in coordinates of their principal axes, without axes of negligible extent (the first always stays).

    A column that converges to zero does so slowly, because the loss has no curvature in it at zero.
    """
    left, extent, _ = np.linalg.svd(U, full_matrices=False)
    retained = extent > NO_EXTENT * extent.max()
    retained[0] = True  # for rows that are all 0
    return (left * extent)[:, retained]


def polish(
    problem: OrbitProblem, U: Float[np.ndarray, "m r"], *, steps: int = 200, spread: bool = False
) -> Float[np.ndarray, "m r"]:
    """A stationary point near U of L over ||u_a|| <= 1, by Newton steps that never go uphill.

    Each step solves the Newton system in the tangent space of the binding spheres, with the absolute values of negative
    curvatures and without the rotations (curvature 0); this takes O((m r)^3). It stops when neither the loss nor the
    residual improves. spread: the last column holds spreads; else all samples of an orbit share a row.
    """
    orbit_loss = OrbitLoss(problem)
    within = _within(problem) if spread else None
    U = _into_ball(U)
    state = _residual(orbit_loss, problem, U, within)
    for _ in range(steps):
        step = _newton_step(orbit_loss, problem, U, state, within)
        noise = 1e-13 * abs(state.value)
        # Below the noise of the loss only the residual shows progress, and only after a full step.
        seen = state.size**2 > noise
        for exponent in range(30 if seen else 1):
            trial = _into_ball(U + 0.5**exponent * step)
            at_trial = _residual(orbit_loss, problem, trial, within)
            if at_trial.value < state.value - noise or (
                at_trial.value <= state.value + noise and at_trial.size < 0.9 * state.size
            ):
                U, state = trial, at_trial
                break
        else:
            return U
    return U


def _within(problem: OrbitProblem) -> Float[np.ndarray, " m"]:
    """1 / (n_a - 1), by which a squared spread lowers the inner product of two samples; 0 for a single sample."""
    sizes = np.array(problem.sizes, dtype=float)
    return np.where(sizes > 1, 1.0 / np.maximum(sizes - 1.0, 1.0), 0.0)


def _products(V: Float[np.ndarray, "*q m r"], U: Float[np.ndarray, "m r"], within: Within) -> np.ndarray:
    """Inner products of samples of V with those of U; on the diagonal, of two different samples of an orbit."""
    if within is None:
        return V @ U.T
    products = V[..., :-1] @ U[:, :-1].T
    each = np.arange(len(U))
    products[..., each, each] -= within * V[..., -1] * U[:, -1]
    return products


def _pulled(K: Float[np.ndarray, "*q m m"], U: Float[np.ndarray, "*p m r"], within: Within) -> np.ndarray:
    """Half the gradient, in U, of <K, products of U and U>."""
    gradient_scale = K @ U
    if within is not None:
        gradient_scale[..., -1] = -np.diagonal(K, axis1=-2, axis2=-1) * within * U[..., -1]
    return gradient_scale


@dataclass(frozen=True)
class _State:
    """Loss, symmetrised gradient K, multipliers, and the scaled residual with its size."""

    value: float
    K: np.ndarray
    multipliers: np.ndarray
    residual: np.ndarray
    size: float


def _into_ball(U: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(U, axis=1, keepdims=True)
    return np.where(norms > 1 - ON_SPHERE, U / np.maximum(norms, 1e-300), U)


def _residual(orbit_loss: OrbitLoss, problem: OrbitProblem, U: np.ndarray, within: Within) -> _State:
    value, K = orbit_loss.value_and_gradient(_products(U, U, within))
    K = (K + K.T) / 2
    gradient_scale = _pulled(K, U, within)
    radial = -(gradient_scale * U).sum(axis=1)
    binding = (np.linalg.norm(U, axis=1) > 1 - 2 * ON_SPHERE) & (radial > 0)
    multipliers = np.where(binding, radial, 0.0)
    residual = 2 * (gradient_scale + multipliers[:, None] * U) / np.sqrt(np.array(problem.sizes, dtype=float))[:, None]
    return _State(value, K, multipliers, residual, float(np.linalg.norm(residual)))


def _newton_step(
    orbit_loss: OrbitLoss, problem: OrbitProblem, U: np.ndarray, state: _State, within: Within
) -> np.ndarray:
    m, r = U.shape
    scale = 1 / np.sqrt(np.array(problem.sizes, dtype=float))
    basis = np.zeros((m * r, m, r))
    basis[np.arange(m * r), np.repeat(np.arange(m), r), np.tile(np.arange(r), m)] = 1.0
    bound = state.multipliers > 0
    radial = (basis * U).sum(axis=2) * bound
    basis = (basis - radial[:, :, None] * U) * scale[None, :, None]
    across = _products(basis, U, within)
    dK = orbit_loss.curvature(_products(U, U, within), across + across.transpose(0, 2, 1))
    dK = (dK + dK.transpose(0, 2, 1)) / 2
    pulls = _pulled(state.K, basis, within) + _pulled(dK, U, within)
    change = 2 * (pulls + state.multipliers[None, :, None] * basis)
    hessian = basis.reshape(m * r, -1) @ change.reshape(m * r, -1).T
    eigenvalues, vectors = np.linalg.eigh((hessian + hessian.T) / 2)
    magnitude = np.abs(eigenvalues)
    retained = magnitude > 1e-12 * magnitude.max(initial=1e-300)
    along = vectors.T @ state.residual.reshape(-1)
    direction = -vectors[:, retained] @ (along[retained] / magnitude[retained])
    return np.tensordot(direction, basis, axes=1)


def polished_points(problem: OrbitProblem, solution: ConicSolution | None) -> tuple[list[Point], list[LowerBound]]:
    """Feasible points of UFM, polished from a simplex and from the conic solution, and the bounds read off them.

    The relaxation does not depend on d: it is solved with at least k coordinates, and its dual bounds the loss for
    every d. With d < k its projection to d coordinates is polished again to get a feasible point. Where every mixed
    batch holds all classes equally often, the simplex solves the relaxation and `elementary_bound` is its value.
    """
    balanced = problem.loss.is_plain and all(
        len(count) in (1, problem.k) and len(set(count.values())) == 1 for count in problem.counts
    )
    m, r = len(problem), min(len(problem), problem.d if balanced else max(problem.d, problem.k))
    simplex = np.zeros((problem.k, max(problem.d, problem.k)))
    simplex[:, : problem.k - 1] = helmert(problem.k).T
    regular = on_ball(simplex[np.array(problem.classes), : problem.d] * 2) if problem.d >= problem.k - 1 else None
    points = [] if regular is None else [regular]
    if m * r > MOST_POLISHED_ENTRIES or m > MOST_ORBITS_IN_A_MATRIX:
        return points, []
    centred = np.pad(np.eye(problem.k) - 1 / problem.k, ((0, 0), (0, max(0, r - problem.k))))
    noise = np.random.default_rng(0).standard_normal((m, r)) * 0.05
    starts = [noise + centred[np.array(problem.classes), :r]]
    if solution is not None:
        starts.append(factor(problem, solution.gram, r))
    bounds, stationary = [], []
    for start in starts:
        wide = polish(problem, start)
        for rows in (wide, polish(problem, of_numerical_rank(wide))):
            bounds.append(stationarity_bound(problem, on_ball(rows)))
            stationary.append(rows)
            if rows.shape[1] > problem.d:
                rows = polish(problem, factor(problem, rows @ rows.T, problem.d))
            points.append(on_ball(np.pad(rows, ((0, 0), (0, problem.d - rows.shape[1])))))
    of_gram = OrbitLoss(problem).value_and_gradient
    lowest = min(stationary, key=lambda rows: of_gram(rows @ rows.T)[0])
    if of_numerical_rank(lowest).shape[1] < r:  # else more columns are tried before spreads
        bounds.append(spread_bound(problem, lowest))
    return points, [bound for bound in bounds if bound is not None]


def split_orbits(problem: OrbitProblem, U: Float[np.ndarray, "m r"]) -> Float[np.ndarray, "m r+1"] | None:
    """The rows and spreads that `polish` reaches from a stationary point U; None if no split lowers the loss (4.15)."""
    K = OrbitLoss(problem).value_and_gradient(U @ U.T)[1]
    splits = (_within(problem) > 0) & (np.diagonal(K) > 0)
    return polish(problem, np.column_stack([U, PERTURBATION * splits]), spread=True) if splits.any() else None


def spread_bound(problem: OrbitProblem, U: Float[np.ndarray, "m r"]) -> LowerBound | None:
    """The lower bound read off the result of `split_orbits` (theory, 4.22); None if nothing is proved."""
    rows = split_orbits(problem, U)
    if rows is None:
        return None
    means = rows[:, :-1] @ rows[:, :-1].T
    dual = kkt_dual(problem, _products(rows, rows, _within(problem)), means=means)
    return evaluated(problem, repaired(problem, replace(dual, source=SPREAD)))
