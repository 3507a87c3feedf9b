"""Problems and inputs at the edge of what is taken: a right answer, or one line; never a traceback, never a NaN."""

import numpy as np
import pytest

import solvers
import ufm
from ufm_check import check

PAIRS, TRIPLES = [0, 0, 1, 1], [0, 0, 0, 1, 1, 1]
ONE_CLASS = [[0, 1, 2], [3, 4, 5]]


def _cold(labels, batches=None, loss=None):
    return ufm.Problem(labels, 3, 0.1, batches, nonneg=False, loss=loss)


# No feasible point pays more than another: no anchor is active, or none has anything to choose.
CONSTANT = {
    "classes of one sample": lambda: _cold([0, 1, 2]),
    "batches of two samples of one class": lambda: _cold(PAIRS, [[0, 1], [2, 3]]),
    "batches of two lone samples": lambda: _cold(PAIRS, [[0, 2], [1, 3]]),
    "batches of one sample": lambda: _cold(PAIRS, [[0], [1]]),
    "decoupled, batches of one class": lambda: _cold(TRIPLES, ONE_CLASS, ufm.losses.decoupled()),
    "SupCon-in, batches of one class": lambda: _cold(TRIPLES, ONE_CLASS, ufm.losses.supcon_in()),
    "two random samples": lambda: ufm.Problem.expected([2, 2], ufm.samplers.uniform(2), 2, 0.1, False),
    "SupCon-in, two random samples": lambda: ufm.Problem.expected(
        [2, 2], ufm.samplers.uniform(2), 2, 0.1, False, loss=ufm.losses.supcon_in()
    ),
}


@pytest.mark.few(2)
@pytest.mark.parametrize("name", CONSTANT)
def test_a_loss_that_is_constant_is_solved_and_certified(name, tmp_path):
    problem = CONSTANT[name]()
    solution = solvers.solve(problem, inits=1)
    assert solution.status == (solvers.Status.CONVERGED,)
    assert solvers.verify(solution.H[0], problem).verdict is solvers.Verdict.GLOBAL_MINIMISER
    for H in (solution.H[0], np.zeros_like(solution.H[0])):
        proof = solvers.certify(H, problem)
        assert proof.status is solvers.Proof.CERTIFIED
    proof.save(tmp_path / "proof.json")
    assert check.main([str(tmp_path / "proof.json")]) == 0
