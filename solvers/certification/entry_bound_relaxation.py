"""The least rise of the loss under an entry lower bound in d dimensions, by a relaxation that depends on d (4.20 d)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from solvers.imports import import_whole
from ufm.errors import InvalidInput, real_number
from ufm.model.problem import Problem


def entry_bound_relaxation(problem: Problem, entry_bound: float, dimensions: Sequence[int]) -> Float[np.ndarray, " d"]:
    """Values of a convex relaxation of min excess over {h : ||h|| <= 1, h >= f}, one for each dimension.

    minimise over G (k, k), s (k,):  sum_c n_c ( log[ (n_c - 1) + sum_b n_b e^{(G_cb - G_cc)/tau} ] - log Z_c )
    subject to  [[d, s^T], [s, G]] PSD,  G_cc <= 1,  G_cb - f (s_c + s_b) + f^2 d >= 0  for c != b

    with f = entry_bound, and s the sums of the entries of each vector. The problem is plain SCL in the full batch, with
    two samples or more in every class. The values come from a conic solver and prove nothing; NaN where it fails.
    Raises InvalidInput for another problem.
    """
    import_whole("cvxpy")
    import cvxpy as cp

    sizes = np.asarray(problem.class_sizes)
    if not problem.loss.is_plain or not problem.is_full_batch or sizes.min() < 2:
        raise InvalidInput(
            "problem", problem.loss.name, "give plain SCL, the full batch, at least 2 samples of every class"
        )
    c, k, inverse = -real_number("entry_bound", entry_bound, -1.0, 0.0), problem.k, 1 / float(problem.tau)
    bordered, d = cp.Variable((k + 1, k + 1), PSD=True), cp.Parameter(nonneg=True)
    G, s = bordered[1:, 1:], bordered[0, 1:]
    diagonal, total = cp.diag(G), sizes.sum()
    log_terms = []
    for a in range(k):
        others = [b for b in range(k) if b != a]
        Z = sizes[a] - 1 + (total - sizes[a]) * np.exp(-inverse)
        exponents = [inverse * (G[a, b] - diagonal[a]) + np.log(sizes[b] / Z) for b in others]
        exponents.append(cp.Constant(np.log((sizes[a] - 1) / Z)))
        log_terms.append(sizes[a] / total * cp.log_sum_exp(cp.hstack(exponents)))
    above = [G[a, b] + c * (s[a] + s[b]) + c * c * d >= 0 for a in range(k) for b in range(a)]
    model = cp.Problem(cp.Minimize(cp.sum(log_terms)), [bordered[0, 0] == d, diagonal <= 1, *above])
    values = []
    for dimension in dimensions:
        d.value = float(dimension)
        try:
            model.solve(solver=cp.CLARABEL)
            values.append(float(np.asarray(model.value)) * total)
        except cp.SolverError:
            values.append(np.nan)
    return np.array(values)
