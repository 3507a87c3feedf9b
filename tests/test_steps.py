"""Steps of the staircase on orbits grow neither with R nor with 1/tau, and every start is certified."""

import numpy as np
import pytest

import solvers
import ufm


def _cases():
    for R in (1, 100, 1e5):
        yield pytest.param(10, 20, R, 1.0, 150, id=f"k = 10, R = {R:g}")
    for k, d, R, most in ((50, 50, 100, 300), (100, 100, 100, 300), (50, 100, 1e5, 300)):
        yield pytest.param(k, d, R, 1.0, most, id=f"k = {k}, d = {d}, R = {R:g}", marks=pytest.mark.slow)
    for tau in (0.05, 0.1, 5.0, 10.0):
        for d in (10, 20):
            yield pytest.param(10, d, 1e5, tau, 150, id=f"d = {d}, tau = {tau}, R = 1e5", marks=pytest.mark.slow)


@pytest.mark.parametrize(("k", "d", "R", "tau", "most"), list(_cases()))
def test_median_steps_and_certificates(k, d, R, tau, most):
    problem = ufm.Problem(np.arange(k), d, tau, multiplicity=ufm.step_imbalance(k, 5, R))
    solution = solvers.solve(problem, inits=8)
    certifier = solvers.Certifier(problem, conic=False)
    proofs = [certifier.certify(solution.shared_rows(s)).status for s in range(8)]
    assert proofs == [solvers.Proof.CERTIFIED] * 8
    assert np.median(solution.iterations) <= most
