"""Newton's method at the cold end of UFM: what it reaches, what it says, and where orbits spread."""

import math

import numpy as np
import pytest

import solvers
import ufm
from solvers.loop.stopping import STATIONARY, Status
from solvers.methods.newton import newton
from solvers.staircase.staircase import COLD, ends_by_newton, temperatures

pytestmark = pytest.mark.thorough

LABELS = np.arange(24) % 3


def _problem(batches, tau=0.1, d=6):
    return ufm.Problem(LABELS, d, tau, batches, nonneg=False)


@pytest.mark.parametrize("tau", [0.1, 0.05])
def test_cold_partitions_are_certified(tau):
    problem = _problem(ufm.batching.partition(24, 8, 0), tau)
    solution = solvers.solve(problem, inits=3)
    certifier = solvers.Certifier(problem)
    assert [certifier.certify(solution.shared_rows(s)).status for s in range(3)] == [solvers.Proof.CERTIFIED] * 3
    assert solution.iterations.max() < 500


def test_overlapping_batches_end_stationary_and_orbits_want_to_spread():
    """theory, 4.15: the best point with one row an orbit, and one below it whose rows differ within an orbit."""
    batches = ufm.batching.bind(ufm.batching.partition(24, 8, 0), LABELS, 1, 0)
    problem = _problem(batches)
    symmetry = ufm.orbits(problem)
    solution = solvers.solve(problem, inits=3)
    assert set(solution.status) == {Status.CONVERGED}
    assert solution.residual.max() <= STATIONARY
    assert solution.iterations.max() < 500
    best = int(np.argmin(solution.excess))
    H = solution.embedding(best)
    free = np.linalg.svd(H)[2][-1]
    assert np.abs(H @ free).max() < 1e-6
    norms = np.linalg.norm(solution.points[best], axis=1)
    sizes = np.bincount(symmetry.index)
    loose = [a for a in np.argsort(norms) if norms[a] < 1 - 1e-7 and sizes[a] > 1]
    assert loose
    at = float(ufm.excess(H, problem))
    slack = math.sqrt(1 - norms[loose[0]] ** 2)
    members = np.flatnonzero(symmetry.index == loose[0])[:2]
    spread = H - np.outer(H @ free, free)
    spread[members] += 0.5 * slack * np.outer([1.0, -1.0], free)
    assert np.linalg.norm(spread, axis=1).max() <= 1 + 1e-12
    assert float(ufm.excess(spread, problem)) < at - 1e-14
    assert solvers.certify(H, problem).status is not solvers.Proof.CERTIFIED


def test_limits_and_what_it_is_for():
    problem = _problem(ufm.batching.reshuffled(24, 8, 2, 0))
    quotient = ufm.orbits(problem).quotient
    assert ends_by_newton(quotient)
    assert temperatures(problem, end_by_newton=True)[-1] == COLD
    assert not ends_by_newton(ufm.orbits(_problem(ufm.batching.reshuffled(24, 8, 2, 0), tau=1.0)).quotient)
    rng = np.random.default_rng(0)
    H = rng.standard_normal((quotient.num_points, 6))
    H /= 2 * np.linalg.norm(H, axis=1, keepdims=True)
    few = newton(H, quotient, rng, max_steps=3, max_seconds=math.inf)
    assert (few.status, few.steps) == (Status.OUT_OF_STEPS, 3)
    assert len(few.history.excess) == 4
    assert np.linalg.norm(few.H, axis=1).max() <= 1 + 1e-12
    stopped = newton(H, quotient, rng, max_steps=300, max_seconds=1e-9)
    assert (stopped.status, stopped.steps) == (Status.OUT_OF_TIME, 1)
