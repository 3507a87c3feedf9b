"""The conic relaxation, its dual, and the polish of UFM points, against closed forms and finite differences."""

import numpy as np
import pytest
from flint import arb, ctx
from problems import family, reduced, step
from scipy.linalg import helmert

import ufm
from solvers.certification import certifier as certificates
from solvers.certification.balls import precision
from solvers.certification.candidates import SPREAD, OrbitLoss, factor, polish, split_orbits
from solvers.certification.certificate import Proof
from solvers.certification.dual_bounds import frame_loss, kkt_dual, matrix_bound, repaired, stationarity_bound
from solvers.certification.orbit_problem import Point, loss
from solvers.certification.relaxation import solve_relaxation
from solvers.certification.rounding import on_ball
from ufm.batching import bind, partition


@pytest.mark.parametrize("tau", [0.1, 1.0])
@pytest.mark.parametrize("R", [1, 1000])
def test_full_batch_value_and_gram_of_ufm_plus(R, tau):
    problem = reduced(step(4, R, tau))
    solution = solve_relaxation(problem)
    bound = float(frame_loss(problem))
    assert solution.status == "optimal"
    assert abs(solution.value - bound) < 1e-8 * bound
    if R == 1:
        assert np.abs(solution.gram - np.eye(4)).max() < 1e-3


@pytest.mark.parametrize("seed", range(4))
def test_value_of_batch_families_of_ufm_plus(seed):
    problem = reduced(family(seed))
    assert abs(solve_relaxation(problem).value / float(frame_loss(problem)) - 1) < 1e-6


@pytest.mark.few(1)
@pytest.mark.parametrize("nonneg", [True, False])
@pytest.mark.parametrize("seed", [0, 1])
def test_repaired_dual_is_just_below_the_solver_and_below_every_point(seed, nonneg):
    inputs = family(seed, nonneg=nonneg)
    problem = reduced(inputs)
    solution = solve_relaxation(problem)
    bounds = certificates.conic_bounds(problem, solution)
    assert max(bound.value for bound in bounds) > solution.value * (1 - 1e-5)
    frame = float(ufm.loss_bound(inputs))
    assert all(bound.value <= frame for bound in bounds)


@pytest.mark.parametrize("R", [1, 10, 100, 1000])
@pytest.mark.parametrize("tau", [0.1, 1.0])
@pytest.mark.parametrize("k", [4, 10, 20])
def test_repaired_conic_bound_is_tight_to_one_in_a_million(k, R, tau):
    problem = reduced(step(k, R, tau))
    best = max(bound.value for bound in certificates.conic_bounds(problem, solve_relaxation(problem)))
    with ctx.workprec(precision(tau)):
        gap = (frame_loss(problem) - arb(best)) / frame_loss(problem)
    assert gap >= 0
    assert gap < 1e-6


def test_scs_is_a_second_solver_and_its_word_optimal_is_no_proof():
    """R = 1000: SCS calls a point optimal whose minority classes are far from orthogonal (theory, 4.11)."""
    inputs = step(10, 1000, 1.0, d=10)
    problem = reduced(inputs)
    solution = solve_relaxation(problem, "SCS")
    assert solution.status == "optimal"
    norms = np.sqrt(np.diag(solution.gram))
    cosines = solution.gram / np.outer(norms, norms) - np.eye(10)
    assert cosines[5:, 5:].max() > 0.1
    assert abs(solution.value / float(frame_loss(problem)) - 1) < 1e-5

    rows = np.maximum(factor(problem, solution.gram, 10), 0.0)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1.0)
    certificate = certificates.certify(rows[np.asarray(inputs.labels)], inputs)
    assert certificate.status == Proof.NOT_CERTIFIED
    with ctx.workprec(precision(1.0)):
        assert all(arb(bound.value) <= frame_loss(problem) for bound in certificates.conic_bounds(problem, solution))


def test_unknown_solver_is_refused():
    with pytest.raises(ufm.InvalidInput, match="solver"):
        solve_relaxation(reduced(step(4, 1, 1.0)), "MOSEK")


@pytest.mark.parametrize("make", [lambda: step(4, 3, 0.7, nonneg=False), lambda: family(0, nonneg=False, n=16)])
def test_orbit_loss_agrees_with_balls_and_its_derivatives_with_differences(make):
    problem = reduced(make())
    rng = np.random.default_rng(0)
    m = len(problem)
    orbit_loss = OrbitLoss(problem)
    U = rng.standard_normal((m, 3)) / 2
    G = U @ U.T
    value, K = orbit_loss.value_and_gradient(G)
    with ctx.workprec(200):
        exact = float(loss(problem, [[arb(x) for x in row] for row in G.tolist()]))
    assert abs(value - exact) < 1e-12 * abs(exact)

    direction = rng.standard_normal((m, m))
    direction += direction.T
    h = 1e-5
    above, K_above = orbit_loss.value_and_gradient(G + h * direction)
    below, K_below = orbit_loss.value_and_gradient(G - h * direction)
    assert abs((above - below) / (2 * h) - (K * direction).sum()) < 1e-6 * np.abs(K).sum()
    dK = orbit_loss.curvature(G, direction[None])[0]
    assert np.abs((K_above - K_below) / (2 * h) - dK).max() < 1e-6 * np.abs(dK).max()


@pytest.mark.parametrize("k", [4, 10])
def test_polish_finds_the_simplex_in_a_balanced_problem(k):
    problem = reduced(step(k, 1, 1.0, nonneg=False))
    rng = np.random.default_rng(1)
    U = polish(problem, rng.standard_normal((k, k)))
    assert np.abs(U @ U.T - (np.eye(k) * k - 1) / (k - 1)).max() < 1e-6


@pytest.mark.parametrize("R", [10, 100])
def test_polish_from_a_rough_start_meets_the_bound_read_off_it(R):
    problem = reduced(step(6, R, 0.5, nonneg=False))
    rough = factor(problem, solve_relaxation(problem).gram, 6) + 1e-2 * np.random.default_rng(2).standard_normal((6, 6))
    U = polish(problem, rough)
    with ctx.workprec(precision(0.5)):
        upper = loss(problem, Point(U, np.ones(6)).gram())
        lower = matrix_bound(problem, repaired(problem, kkt_dual(problem, U @ U.T)))
        assert lower <= upper
        assert upper - lower < 1e-11 * upper


def test_factor_keeps_the_gram_within_components_only():
    problem = reduced(ufm.Problem([0, 1, 0, 1], 2, 1.0, [[0, 1], [2, 3]], False))
    simplex = np.array([[1.0, -1.0], [-1.0, 1.0]])
    U = factor(problem, np.kron(np.eye(2), simplex)[np.ix_([0, 2, 1, 3], [0, 2, 1, 3])], 1)
    pairs = [sorted(batch) for batch in problem.batches]
    assert all(abs(U[a] @ U[b] + 1) < 1e-12 for a, b in pairs)


def expanded(rows, index, sizes):
    """The points of theory, 4.22 (a): samples of an orbit about its row, on a regular simplex of their own."""
    r = rows.shape[1] - 1
    H = np.pad(rows[index, :-1], ((0, 0), (0, int((sizes - 1).sum()))))
    first = r + np.cumsum(sizes - 1) - (sizes - 1)
    for orbit, size in enumerate(sizes):
        if size > 1:
            simplex = helmert(size).T * np.sqrt(size / (size - 1))
            H[index == orbit, first[orbit] : first[orbit] + size - 1] = rows[orbit, -1] * simplex
    return H


@pytest.mark.parametrize(("n", "size"), [(12, 6), (15, 9), pytest.param(18, 9, marks=pytest.mark.thorough)])
def test_where_orbits_spread_the_bound_is_that_of_a_point_and_certifies_it(n, size):
    """theory, 4.22: the best point with one row an orbit is above the bound; that whose samples differ attains it."""
    labels = np.arange(n) % 3
    batches = bind(partition(n, size, 0), labels, 1, 0)

    def problem_in(d, **counts):
        return ufm.Problem(labels, d=d, tau=0.1, batches=batches, nonneg=False, **counts)

    certifier = certificates.Certifier(problem_in(6), conic=False)
    assert certifier.lower_bound.source == SPREAD
    collapsed = certifier.certify(certifier.better.placed()[certifier.orbits.index])
    assert collapsed.status is Proof.INCONCLUSIVE
    assert "samples of an orbit differ" in collapsed.reason
    assert collapsed.gap > 10 * collapsed.margin

    rows = split_orbits(certifier.problem, polish(certifier.problem, certifier.better.placed()))
    H = expanded(rows, certifier.orbits.index, np.array(certifier.problem.sizes))
    wide = problem_in(H.shape[1])
    assert np.linalg.norm(H, axis=1).max() < 1 + 1e-14
    lower, upper = collapsed.lower, float(ufm.scl_loss(H, wide))
    assert abs(upper - lower) < 1e-13 * lower
    assert upper < collapsed.upper - 10 * collapsed.margin
    # Each sample a point of its own, as with counts of 1: nothing is averaged over orbits, and the dual is its own.
    apart = reduced(problem_in(H.shape[1], counts=np.ones(np.shape(wide.batches))))
    proved = stationarity_bound(apart, on_ball(H))
    assert -1e-12 < upper - proved.value < collapsed.margin / 10


@pytest.mark.parametrize(("tau", "batches"), [(0.1, None), (1.0, "bound")])
def test_no_orbit_parts_in_the_full_batch_or_where_it_is_warm(tau, batches):
    labels = np.arange(18) % 3
    inputs = None if batches is None else bind(partition(18, 9, 0), labels, 1, 0)
    certifier = certificates.Certifier(ufm.Problem(labels, d=6, tau=tau, batches=inputs, nonneg=False), conic=False)
    assert split_orbits(certifier.problem, polish(certifier.problem, certifier.better.placed())) is None
    assert certifier.certify(certifier.better.placed()[certifier.orbits.index]).status is Proof.CERTIFIED
