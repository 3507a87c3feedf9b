r"""The convex relaxation of UFM+ and UFM over orbits, for a conic solver (theory, 4.2 and 4.3).

    minimise L(G)  over symmetric G, PSD, diag <= 1, and G >= 0 for UFM+

By symmetry G may be taken constant on orbits: t_a on the diagonal, w_a between different samples of
orbit a (n_a of them), G_ab across. With X_ab = G_ab and X_aa = (t_a + (n_a - 1) w_a) / n_a the
constraint G PSD reads X PSD and X_aa <= t_a (equal if n_a = 1), so the size is the number of orbits,
whatever n is. A conic solver's value is not a bound (theory, 4.11). The dual it returns yields a bound only through
`solvers.certification.dual_bounds`.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from solvers.certification.dual_bounds import LowerBound, MatrixDual, evaluated, kkt_dual, repaired
from solvers.certification.orbit_problem import OrbitProblem
from solvers.imports import import_whole
from ufm import InvalidInput

OPTIONS: dict[str, dict[str, float]] = {
    "CLARABEL": {"tol_gap_abs": 1e-11, "tol_gap_rel": 1e-11, "tol_feas": 1e-11},
    "SCS": {},
}


@dataclass(frozen=True)
class ConicSolution:
    """What a conic solver returns for the relaxation.

    - solver, status: its name and the status it reports. value: the loss it reports; not a bound.
    - gram: G over orbits, w_a on the diagonal (t_a for an orbit of one sample). Not exactly feasible.
    - dual: multipliers as an approximate dual point at `gram`.
    - seconds: wall time, modelling included.
    """

    solver: str
    status: str
    value: float
    gram: Float[np.ndarray, "m m"]
    dual: MatrixDual
    seconds: float


def solve_relaxation(problem: OrbitProblem, solver: str = "CLARABEL") -> ConicSolution | None:
    """Solve the relaxation with "CLARABEL" or "SCS"; None if the solver returned no point at all.

    The objective is divided by the number of anchors, so that tolerances do not depend on n. Raises
    InvalidInput for another solver.
    """
    if solver not in OPTIONS:
        raise InvalidInput("solver", solver, f"give one of {', '.join(OPTIONS)}")
    import_whole("cvxpy")  # takes most of a second, so it is imported only here
    import cvxpy as cp

    start = perf_counter()
    m = len(problem)
    sizes = np.array(problem.sizes, dtype=float)
    several = sizes > 1
    X = cp.Variable((m, m), symmetric=True)
    norms = cp.Variable(m)
    within = (cp.multiply(sizes, cp.diag(X)) - norms) / np.maximum(sizes - 1, 1.0)
    across = np.tril_indices(m, -1)
    # One vector of all pair values: first w_a, then G_ab below the diagonal.
    values = cp.hstack([within, X[across]]) if m > 1 else within

    semidefinite = X >> 0
    unit = norms <= 1
    constraints = [semidefinite, unit]
    if several.any():
        constraints.append(cp.diag(X)[several] <= norms[several])
    if not several.all():
        constraints.append(cp.diag(X)[~several] == norms[~several])
    nonnegative = None
    meaningful = np.concatenate([several, np.ones(len(across[0]), dtype=bool)])
    if problem.nonneg and meaningful.any():
        nonnegative = values[meaningful] >= 0
        constraints.append(nonnegative)

    scale = 1.0 / (problem.anchors or 1.0)
    model = cp.Problem(cp.Minimize(scale * _loss(problem, values)), constraints)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "solution may be inaccurate": the status says so
        try:
            model.solve(solver=solver, **OPTIONS[solver])
        except cp.SolverError:
            return None
    if X.value is None or not np.isfinite(X.value).all():
        return None
    gram = np.array((X.value + X.value.T) / 2)
    diagonal = np.asarray(norms.value)
    np.fill_diagonal(gram, np.where(several, (sizes * np.diag(gram) - diagonal) / np.maximum(sizes - 1, 1.0), diagonal))
    v = np.asarray(unit.dual_value) / (scale * sizes)
    N = np.zeros((m, m))
    if nonnegative is not None:
        multipliers = np.zeros(len(meaningful))
        multipliers[meaningful] = np.asarray(nonnegative.dual_value) / scale
        np.fill_diagonal(N, multipliers[:m] / np.maximum(sizes * (sizes - 1), 1.0))
        N[across] = multipliers[m:] / (2 * sizes[across[0]] * sizes[across[1]])
        N += np.tril(N, -1).T
    dual = MatrixDual(f"dual of the conic relaxation by {solver}", gram, v, N)
    return ConicSolution(
        solver, model.status, float(np.asarray(model.value, dtype=float)) / scale, gram, dual, perf_counter() - start
    )


def _loss(problem: OrbitProblem, values: Any) -> Any:
    """The loss as a cvxpy expression in the vector of pair values: log-sum-exp terms, grouped by their length."""
    import cvxpy as cp

    m, classes = len(problem), np.array(problem.classes)
    rows: dict[int, list[tuple[Int[np.ndarray, " s"], Float[np.ndarray, " s"], float, float]]] = {}
    linear, logistic = np.zeros(values.shape[0]), 0.0
    for batch, count, composition in zip(problem.batches, problem.counts, problem.compositions, strict=True):
        members, active = np.array(batch), problem.anchor_by_class(count)
        held = np.array([composition.samples[a] for a in batch], dtype=float)
        for a in (a for a in batch if classes[a] in active):
            anchor = active[classes[a]]
            s, shift = float(anchor.s), np.array(anchor.shifts(classes[members].tolist()))
            others = held - (members == a)
            anchors = composition.weight * composition.samples[a]
            index, same = _pair_index(m, a, members), classes[members] == classes[a]
            if problem.loss.kind == "sigmoid":
                sign = np.where(same, -1.0, 1.0)
                paid = cp.logistic(cp.multiply(sign * s, values[index]) + sign * shift)
                logistic = logistic + (anchors * others) @ paid
                continue
            weight = anchors * float(anchor.omega)
            pulling, present = same & (others > 0), (others > 0) & np.isfinite(shift)
            np.add.at(linear, index[pulling], weight * s * others[pulling] / anchor.positives)
            rows.setdefault(int(present.sum()), []).append(
                (index[present], shift[present] + np.log(others[present]), weight, s)
            )
    loss = logistic - linear @ values
    for terms, group in rows.items():
        index = np.concatenate([entry[0] for entry in group])
        offset = np.concatenate([entry[1] for entry in group]).reshape(len(group), terms)
        weight, slope = (np.array([entry[part] for entry in group]) for part in (2, 3))
        met = cp.reshape(values[index], (len(group), terms), order="C")
        loss = loss + weight @ cp.log_sum_exp(cp.multiply(slope[:, None] * np.ones(terms), met) + offset, axis=1)
    return loss


def _pair_index(m: int, a: int, b: Int[np.ndarray, " s"]) -> Int[np.ndarray, " s"]:
    """The position of the pair (a, b) in the vector of pair values."""
    high, low = np.maximum(a, b), np.minimum(a, b)
    return np.where(high == low, high, m + high * (high - 1) // 2 + low)


def conic_bounds(problem: OrbitProblem, solution: ConicSolution) -> list[LowerBound]:
    """The bounds that a conic solution yields: from its dual, and read off its primal point."""
    duals = [solution.dual]
    for touching in (1e-7, 1e-5):
        read = kkt_dual(problem, solution.gram, touching=touching)
        duals.append(replace(read, source=f"stationarity conditions at the point of {solution.solver}"))
    bounds = [evaluated(problem, repaired(problem, dual)) for dual in duals]
    return [bound for bound in bounds if bound is not None]
