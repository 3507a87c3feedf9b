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


FAR = 10.0 ** np.array([9.0, 3.0, -3.0, -9.0])
FAR_APART = {
    "class weights": ufm.losses.class_weighted(FAR),
    "margins of 40": ufm.losses.log_sum_exp(margins=40.0 * np.triu(np.ones((4, 4)), 1)),
    "margins of -40": ufm.losses.log_sum_exp(margins=-40.0 * np.triu(np.ones((4, 4)), 1)),
}


@pytest.mark.few(1)
@pytest.mark.parametrize("name", FAR_APART)
def test_forces_far_apart_are_solved_for(name):
    problem = ufm.Problem(np.arange(4), 4, 1.0, multiplicity=[5, 4, 3, 2], loss=FAR_APART[name])
    solution = solvers.solve(problem, inits=4)
    certifier = solvers.Certifier(problem, conic=False)
    for s in range(4):
        assert solution.status[s] is solvers.Status.CONVERGED
        assert certifier.certify(solution.shared_rows(s)).status is solvers.Proof.CERTIFIED


def test_a_weak_pair_that_is_not_at_rest_is_no_convergence():
    """Two weak classes share a row; all other pairs are at rest, and their forces are 10^18 times as large."""
    problem = ufm.Problem(np.arange(3), 3, 1.0, multiplicity=[2] * 3, loss=ufm.losses.class_weighted([1e9, 1e-9, 1e-9]))
    merged = np.eye(3)[[0, 1, 1]]
    for method in ("staircase", "quasi-newton"):
        solution = solvers.solve(problem, method=method, H0=merged)
        assert solution.status == (solvers.Status.HIDDEN,)
        assert solution.excess[0] > 0


def _far_apart(kind, spread, rng, k, d, sizes, tau):
    """UFM+ whose class weights, batch weights or margins are far apart."""
    classes = np.arange(k)
    if kind == "class weights":
        loss = ufm.losses.class_weighted(10.0 ** rng.uniform(-spread, spread, k))
        return ufm.Problem(classes, d, tau, multiplicity=sizes, loss=loss)
    if kind == "margins":
        loss = ufm.losses.log_sum_exp(margins=np.where(rng.random((k, k)) < 0.5, spread, 0.0))
        return ufm.Problem(classes, d, tau, multiplicity=sizes, loss=loss)
    batches = [[i, (i + 1) % k, (i + 2) % k] for i in range(k)]
    counts = [[int(sizes[i]) for i in batch] for batch in batches]
    weights = 10.0 ** rng.uniform(-spread, spread, k)
    return ufm.Problem(classes, d, tau, batches, multiplicity=sizes, counts=counts, weights=weights)


SPREADS = [("class weights", a) for a in (1, 3, 6, 9)] + [("margins", a) for a in (36.0, 40.0, 60.0, -40.0)]
SPREADS += [("batch weights", a) for a in (3, 6, 9)]


@pytest.mark.thorough
@pytest.mark.parametrize(("kind", "spread"), SPREADS)
def test_every_start_is_certified_however_far_apart_weights_are(kind, spread):
    """12 random problems, d at k and above it; small overlaps of 1e-17 are no obstacle either."""
    rng, certified, steps = np.random.default_rng(5), [], []
    for t in range(12):
        k, R, tau = 4, (1, 100)[t % 2], (1.0, 0.1)[t // 2 % 2]
        sizes = [5 * R, 5 * R, 5, 5]
        problem = _far_apart(kind, spread, rng, k, k + (0, 3)[t // 4 % 2], sizes, tau)
        solution, certifier = solvers.solve(problem, inits=4, seed=t), solvers.Certifier(problem, conic=False)
        certified += [certifier.certify(solution.shared_rows(s)).status is solvers.Proof.CERTIFIED for s in range(4)]
        steps += solution.iterations.tolist()
    assert sum(certified) == len(certified) == 48
    assert np.median(steps) <= 30
