"""Certificates: bounds against slow oracles, tables of known optima, and points that must not be certified."""

import json
import math
from time import perf_counter

import hypothesis.strategies as st
import mpmath
import numpy as np
import oracles
import pytest
from flint import arb, ctx
from hypothesis import given, settings
from problems import PROBLEMS, family, frame, reduced, step
from scipy.optimize import minimize

import ufm
from solvers.certification.balls import balls, downwards, is_positive_definite, precision, upwards
from solvers.certification.candidates import OrbitLoss
from solvers.certification.certificate import Certificate, Proof
from solvers.certification.certifier import Certifier, certify
from solvers.certification.consequences import implied
from solvers.certification.constraints import smallest_pair_weight
from solvers.certification.dual_bounds import (
    MatrixDual,
    elementary_bound,
    frame_loss,
    kkt_dual,
    matrix_bound,
    repaired,
    stationarity_bound,
    sums_over_orbits,
)
from solvers.certification.orbit_problem import OrbitProblem, Point, loss, loss_and_gradient, orthogonal_frame
from solvers.certification.verification import verify

SEEDS = st.integers(0, 2**32 - 1)


def random_problem(seed, *, nonneg=True):
    """Up to 12 samples, full batch or up to 4 batches of any kind, any temperature, d from k to k + 2."""
    rng = np.random.default_rng(seed)
    k = int(rng.integers(2, 5))
    labels = np.concatenate([np.arange(k), rng.integers(0, k, rng.integers(0, 9))])
    n = len(labels)
    batches = None
    if rng.random() < 0.7:
        batches = [rng.permutation(n)[: rng.integers(1, n + 1)] for _ in range(rng.integers(1, 5))]
    tau = float(rng.choice([0.05, 0.1, 0.5, 1.0, 5.0]))
    return ufm.Problem(labels, k + int(rng.integers(0, 3)), tau, batches, nonneg)


def exact_loss(H, problem):
    """The loss of double rows, normalised if longer than 1, in 60 digits."""
    with mpmath.workdps(60):
        rows = [[mpmath.mpf(float(x)) for x in row] for row in H]
        norms = [mpmath.sqrt(mpmath.fsum(x * x for x in row)) for row in rows]
        G = [[mpmath.fsum(x * y for x, y in zip(a, b, strict=True)) for b in rows] for a in rows]
        tau, labels = mpmath.mpf(float(problem.tau)), np.asarray(problem.labels).tolist()
        total = mpmath.mpf(0)
        for batch in oracles.batch_lists(problem):
            for i in batch:
                others = [j for j in batch if j != i]
                positives = [j for j in others if labels[j] == labels[i]]
                if positives:
                    s = {j: G[i][j] / max(norms[i], 1) / max(norms[j], 1) / tau for j in others}
                    total += mpmath.log(mpmath.fsum(mpmath.exp(x) for x in s.values()))
                    total -= mpmath.fsum(s[j] for j in positives) / len(positives)
        return total


# Known optima of UFM+.


@pytest.mark.few(6)
@pytest.mark.parametrize("tau", [0.1, 1.0])
@pytest.mark.parametrize("R", [1, 10, 100, 1000])
@pytest.mark.parametrize("k", [4, 10, 20])
def test_frames_and_points_near_them_are_certified(k, R, tau):
    problem = step(k, R, tau, d=2 * k)
    start = perf_counter()
    certifier = Certifier(problem)
    exact = certifier.certify(frame(problem))
    seconds = perf_counter() - start
    assert exact.status == Proof.CERTIFIED
    assert exact.lower <= exact.theoretical <= exact.upper
    assert exact.relative_gap < 1e-12
    assert exact.unique is True
    assert exact.moved == 0
    assert exact.second_opinion.repaired <= exact.upper
    assert exact.second_opinion.repaired > exact.lower * (1 - 1e-6)
    assert seconds < 10

    rng = np.random.default_rng(k)
    share = rng.uniform(0, 1, k)
    rows = np.zeros((k, 2 * k))
    rows[np.arange(k), np.arange(k)] = np.sqrt(share)
    rows[np.arange(k), k + np.arange(k)] = np.sqrt(1 - share)
    H = rows[np.asarray(problem.labels)] * (1 - 1e-15 * rng.random((problem.num_points, 1)))
    near = certifier.certify(H)
    assert near.status == Proof.CERTIFIED
    assert near.relative_gap < 1e-12
    assert near.moved < 1e-12
    assert np.max(np.array(near.implied.cosine) - np.eye(k)) < 1e-6
    assert max(near.implied.spread) < 1e-6
    assert min(near.implied.norm) > 1 - 1e-6


@pytest.mark.parametrize(("R", "tau"), [(1e5, 0.1), (1e5, 1.0), (1000, 0.02), (10, 0.01), (10, 100.0)])
def test_extreme_imbalance_and_temperature(R, tau):
    labels = np.arange(6)
    problem = ufm.Problem(labels, 6, tau, multiplicity=ufm.step_imbalance(6, 5, R))
    certificate = certify(np.eye(6), problem)
    assert certificate.status == Proof.CERTIFIED
    merged = np.eye(6)
    merged[5] = merged[4]
    assert certify(merged, problem).status == Proof.NOT_CERTIFIED


@pytest.mark.parametrize("seed", range(16))
def test_batch_families_of_ufm_plus(seed):
    problem = family(seed)
    certificate = certify(frame(problem), problem, conic=False)
    assert certificate.status == Proof.CERTIFIED
    assert certificate.relative_gap < 1e-10
    with mpmath.workdps(60):
        bound = oracles.bound(np.asarray(problem.labels), problem.tau, oracles.batch_lists(problem))
        assert mpmath.mpf(certificate.lower) <= bound <= mpmath.mpf(certificate.upper)


@settings(max_examples=60)
@given(SEEDS)
def test_true_optima_of_random_problems_are_certified(seed):
    problem = random_problem(seed)
    axes = np.random.default_rng(seed).permutation(problem.d)[: problem.k]
    H = np.eye(problem.d)[axes[np.asarray(problem.labels)]]
    assert certify(H, problem, conic=False).status == Proof.CERTIFIED


@pytest.mark.slow
def test_a_thousand_true_optima_are_certified():
    for seed in range(1000):
        problem = random_problem(seed)
        assert certify(frame(problem), problem, conic=False).status == Proof.CERTIFIED


# Points that are not optimal.


@pytest.mark.parametrize("R", [1, 10, 1000])
def test_merged_minorities_are_refused_with_a_better_point(R):
    problem = step(10, R, 1.0)
    H = frame(problem)
    H[np.asarray(problem.labels) == 9] = H[np.asarray(problem.labels) == 8][0]
    certificate = certify(H, problem)
    assert certificate.status == Proof.NOT_CERTIFIED
    assert certificate.implied.cosine[8][9] == 1
    if R == 1000:
        assert certificate.relative_gap < 1e-7
    assert np.array_equal(certificate.witness.rows, np.eye(10))


@pytest.mark.parametrize("nonneg", [True, False])
@pytest.mark.parametrize("scale", [0.0, 0.5, 0.999])
def test_short_and_dead_rows(scale, nonneg):
    problem = step(4, 10, 1.0, nonneg=nonneg)
    certifier = Certifier(problem)
    H = certifier.better.rows / np.linalg.norm(certifier.better.rows, axis=1, keepdims=True)
    H[3] *= scale
    assert certifier.certify(H[np.asarray(problem.labels)]).status == Proof.NOT_CERTIFIED


@pytest.mark.parametrize("nonneg", [True, False])
def test_uncollapsed_points_are_inconclusive_though_their_means_are_optimal(nonneg):
    problem = step(4, 1, 1.0, d=8, nonneg=nonneg)
    certifier = Certifier(problem)
    best = certifier.better.rows[np.asarray(problem.labels)]
    H = best + 1e-3 * np.tile([1.0, -1.0, 2.0, -1.0, -1.0], 4)[:, None] * np.eye(8)[7]
    certificate = certifier.certify(H)
    assert certificate.status == Proof.INCONCLUSIVE
    assert certificate.moved > 1e-3


@pytest.mark.parametrize("nonneg", [True, False])
def test_fewer_dimensions_than_classes(nonneg):
    """d < k: both bounds are reported, nothing is certified, no unique minimiser is claimed."""
    problem = step(6, 1, 1.0, d=2, nonneg=nonneg)
    angles = np.linspace(0, np.pi / 2, 6) if nonneg else np.arange(6) * np.pi / 3
    H = np.column_stack([np.cos(angles), np.sin(angles)])[np.asarray(problem.labels)]
    certificate = certify(H, problem)
    assert certificate.status != Proof.CERTIFIED
    assert certificate.unique is None
    assert 0 < certificate.lower < certificate.upper
    if nonneg:
        assert certificate.status == Proof.INCONCLUSIVE
        assert "d < k" in certificate.reason


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e200])
def test_not_a_finite_embedding(bad):
    problem = step(4, 1, 1.0)
    H = frame(problem)
    H[3, 1] = bad
    with pytest.raises(ufm.InvalidInput, match="H = "):
        certify(H, problem)


def test_bad_arguments(untyped):
    problem = step(4, 1, 1.0)
    with pytest.raises(ufm.InvalidInput, match="shape"):
        certify(frame(problem)[:-1], problem)
    for unreal in ("a frame", frame(problem) + 0.5j):
        with pytest.raises(ufm.InvalidInput, match="real array"):
            certify(unreal, problem)
        with pytest.raises(ufm.InvalidInput, match="real array"):
            verify(unreal, problem)
    index = ufm.orbits(problem).index
    with pytest.raises(ufm.InvalidInput, match="index"):
        ufm.SharedRows(np.eye(3), index)
    more = ufm.SharedRows(np.eye(5, 4), index)  # a row that no sample has
    assert certify(more, problem).status == Proof.CERTIFIED
    with pytest.raises(ufm.InvalidInput, match="real array"):
        certify(ufm.SharedRows(np.eye(4) + 0j, index), problem)
    for tolerance in (0.0, -1.0, math.nan, 0.1):
        with pytest.raises(ufm.InvalidInput, match="tolerance"):
            Certifier(problem, tolerance=tolerance)


def corrupted(H, labels, kind, size, rng):
    """An embedding spoilt in one of the ways a solver or a user spoils it."""
    H, n = H.copy(), len(labels)
    i, c = rng.integers(n), rng.integers(labels.max() + 1)
    if kind == "sample moved":
        H[i] += size * np.abs(rng.standard_normal(H.shape[1]))
    elif kind == "class moved":
        H[labels == c] += size * np.abs(rng.standard_normal(H.shape[1]))
    elif kind == "everything moved":
        H += size * np.abs(rng.standard_normal(H.shape))
    elif kind == "class shortened":
        H[labels == c] *= 1 - size
    elif kind == "everything scaled":
        H *= 1 + size
    elif kind == "flipped sign":
        H[labels == c] *= -1
    elif kind == "merged":
        H[labels == c] = H[labels == (c + 1) % (labels.max() + 1)][0]
    elif kind == "swapped rows":
        j = np.flatnonzero(labels != labels[i])[0]
        H[[i, j]] = H[[j, i]]
    elif kind == "dead class":
        H[labels == c] = 0
    elif kind == "simplex":
        H -= H.mean(axis=0)
    elif kind == "rotated":
        Q, _ = np.linalg.qr(np.eye(H.shape[1]) + size * rng.standard_normal((H.shape[1], H.shape[1])))
        H = H @ Q
    return H


KINDS = (
    "sample moved",
    "class moved",
    "everything moved",
    "class shortened",
    "everything scaled",
    "flipped sign",
    "merged",
    "swapped rows",
    "dead class",
    "simplex",
    "rotated",
    "wrong temperature",
)


def one_negative_trial(kind, exponent, nonneg, seed):
    """Spoil an optimum; if it is certified all the same, the claim must be true by 60-digit arithmetic."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 5, size=3)
    tau = float(rng.choice([0.1, 0.5, 1.0]))
    problem = ufm.Problem.from_class_sizes(sizes, d=int(rng.integers(3, 5)), tau=tau, nonneg=nonneg)
    labels = np.asarray(problem.labels)
    solved = Certifier(problem, conic=False)
    requested = solved
    if kind == "wrong temperature":
        requested = Certifier(
            ufm.Problem.from_class_sizes(sizes, d=problem.d, tau=tau * 1.5, nonneg=nonneg), conic=False
        )
    rows = solved.better.rows / np.linalg.norm(solved.better.rows, axis=1, keepdims=True)
    H = corrupted(rows[labels], labels, kind, 10.0**exponent, rng)
    certificate = requested.certify(H)
    if certificate.status == Proof.CERTIFIED:
        problem = requested.samples_problem
        point = certificate.point.rows * np.where(
            certificate.point.norms == 1,
            1 + 1e-8,  # exact_loss normalises what is longer than 1
            1.0,
        ).reshape(-1, 1)
        H_certified = point[ufm.orbits(problem).index]
        scale = np.linalg.norm(H_certified, axis=1)
        assert np.linalg.norm(H - H_certified / np.maximum(scale, 1)[:, None], axis=1).max() < 1e-6 + 1e-12
        best = exact_loss(requested.better.rows[ufm.orbits(problem).index] * (1 + 1e-8), problem)
        with ctx.workprec(precision(tau)):
            margin = certificate.tolerance * float(smallest_pair_weight(requested.problem))
        assert exact_loss(H_certified, problem) - best <= margin * (1 + 1e-9)
        assert certificate.moved <= 1e-6
    return certificate.status


@pytest.mark.thorough
@settings(max_examples=120)
@given(st.sampled_from(KINDS), st.floats(-9, -2), st.booleans(), SEEDS)
def test_spoilt_optima_are_not_certified_falsely(kind, exponent, nonneg, seed):
    one_negative_trial(kind, exponent, nonneg, seed)


@pytest.mark.slow
@settings(max_examples=5000)
@given(st.sampled_from(KINDS), st.floats(-9, -2), st.booleans(), SEEDS)
def test_five_thousand_spoilt_optima(kind, exponent, nonneg, seed):
    one_negative_trial(kind, exponent, nonneg, seed)


@pytest.mark.parametrize("kind", ["merged", "dead class", "swapped rows"])
@pytest.mark.parametrize("nonneg", [True, False])
def test_gross_errors_are_never_certified(kind, nonneg):
    assert all(one_negative_trial(kind, -2, nonneg, seed) != Proof.CERTIFIED for seed in range(5))


# UFM without the ReLU.


@pytest.mark.few(3)
@pytest.mark.parametrize("R", [1, 10, 100, 1000])
@pytest.mark.parametrize("tau", [0.1, 1.0])
def test_optimum_of_ufm_is_certified(R, tau):
    problem = step(10, R, tau, nonneg=False)
    certifier = Certifier(problem)
    rows = certifier.better.rows / np.linalg.norm(certifier.better.rows, axis=1, keepdims=True)
    certificate = certifier.certify(rows[np.asarray(problem.labels)])
    assert certificate.status == Proof.CERTIFIED
    assert certificate.relative_gap < 1e-10
    assert certificate.lower < float(ufm.loss_bound(problem))
    assert certificate.theoretical is None
    assert np.all(np.array(certificate.implied.least_cosine) <= certificate.implied.cosine)
    assert certificate.unique is True
    assert certificate.second_opinion.repaired <= certificate.upper
    if R == 1:
        G = rows @ rows.T
        assert np.abs(G[~np.eye(10, dtype=bool)] + 1 / 9).max() < 1e-6
        simplex = 50 * np.log(4 + 45 * np.exp(-(1 + 1 / 9) / tau))
        assert certificate.lower <= simplex * (1 + 1e-12)
        assert certificate.upper >= simplex * (1 - 1e-12)


@pytest.mark.parametrize("R", [1, 10])
def test_ufm_agrees_with_an_independent_local_method(R):
    """L-BFGS on free rows scaled into the ball knows nothing of duals; what it finds is certified."""
    problem = step(6, R, 1.0, nonneg=False)
    certifier = Certifier(problem, conic=False)
    orbit_loss = OrbitLoss(certifier.problem)

    def objective(flat):
        U = flat.reshape(6, 6)
        norms = np.linalg.norm(U, axis=1, keepdims=True)
        unit = U / norms
        value, K = orbit_loss.value_and_gradient(unit @ unit.T)
        slope = (K + K.T) @ unit
        return value, ((slope - (slope * unit).sum(axis=1, keepdims=True) * unit) / norms).reshape(-1)

    start = np.random.default_rng(0).standard_normal(36)
    result = minimize(objective, start, jac=True, method="L-BFGS-B", options={"ftol": 1e-16, "gtol": 1e-12})
    U = result.x.reshape(6, 6)
    U /= np.linalg.norm(U, axis=1, keepdims=True)
    certificate = certifier.certify(U[np.asarray(problem.labels)])
    assert certificate.status == Proof.CERTIFIED
    assert certificate.relative_gap < 1e-10


@pytest.mark.few(2)
@pytest.mark.parametrize("seed", range(4))
def test_batch_families_of_ufm(seed):
    problem = family(seed, nonneg=False, n=24)
    certifier = Certifier(problem)
    certificate = certifier.certify(
        (certifier.better.rows / np.linalg.norm(certifier.better.rows, axis=1, keepdims=True))[certifier.orbits.index]
    )
    assert certificate.status == Proof.CERTIFIED
    assert certificate.relative_gap < 1e-10


@pytest.mark.thorough
def test_ufm_with_too_many_orbits_for_matrices_still_has_a_bound():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 400)
    batches = [rng.choice(400, 20, replace=False) for _ in range(60)]
    problem = ufm.Problem(labels, 3, 1.0, batches, False)
    certifier = Certifier(problem)
    assert len(certifier.problem) > 256
    certificate = certifier.certify(frame(problem))
    assert certificate.lower_bound.kind == "elementary"
    assert certificate.status == Proof.NOT_CERTIFIED  # the simplex is better
    assert 0 < certificate.lower < certificate.upper


# The pieces.


@settings(max_examples=25)
@given(SEEDS)
def test_loss_of_a_point_against_sixty_digits(seed):
    problem = random_problem(seed, nonneg=False)
    orbits = ufm.orbits(problem)
    rows = np.random.default_rng(seed).standard_normal((len(orbits), problem.d)) * 2
    norms = np.where(np.linalg.norm(rows, axis=1) > 1, 1.0, np.linalg.norm(rows, axis=1))
    rows = np.where(norms[:, None] == 1, rows, np.round(rows))  # norms below 1 must be exact to compare
    norms = np.where(norms == 1, 1.0, np.minimum(np.linalg.norm(rows, axis=1), 1.0))
    small = OrbitProblem.of(orbits.quotient)
    with ctx.workprec(precision(small.tau)):
        value = loss(small, Point(rows, norms).gram())
        with mpmath.workdps(60):
            exact = arb(mpmath.nstr(exact_loss(rows[orbits.index], problem), 55))
        assert abs(value - exact) < 1e-45 * (1 + abs(exact))
        assert upwards(value) >= exact - 1e-45
        assert downwards(elementary_bound(small)) <= value + 1e-45


def test_rounding_is_outward():
    third = arb(1) / 3
    assert arb(downwards(third)) <= third <= arb(upwards(third))
    assert upwards(third) - downwards(third) <= 4 * math.ulp(1 / 3)
    assert upwards(arb(0.1)) == downwards(arb(0.1)) == 0.1
    assert upwards(arb("nan")) == math.inf
    assert downwards(arb("nan")) == -math.inf
    assert upwards(arb("[0 +/- 1e-400]")) > 0


@settings(max_examples=15)
@given(SEEDS)
def test_gradient_in_the_gram_matrix_against_differences(seed):
    problem = random_problem(seed, nonneg=False)
    small = reduced(problem)
    rng = np.random.default_rng(seed)
    m = len(small)
    G, E = rng.standard_normal((2, m, m))
    G, E = balls(G + G.T), balls(E + E.T)
    with ctx.workprec(600):
        _, C = loss_and_gradient(small, G)
        h = arb(2) ** -150
        above = loss(small, [[G[a][b] + h * E[a][b] for b in range(m)] for a in range(m)])
        below = loss(small, [[G[a][b] - h * E[a][b] for b in range(m)] for a in range(m)])
        slope = sum(
            (small.sizes[a] * (small.sizes[b] - (a == b)) * C[a][b] * E[a][b] for a in range(m) for b in range(m)),
            arb(0),
        )
        assert abs((above - below) / (2 * h) - slope) < 1e-40 * (1 + abs(slope))


@settings(max_examples=40)
@given(SEEDS)
def test_positive_semidefiniteness_over_orbits_is_that_over_samples(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 5, size=3)
    small = OrbitProblem((0, 1, 2), tuple(sizes.tolist()), ((0, 1, 2),), 1.0, 3, False)
    S = rng.standard_normal((3, 3))
    S, v = S + S.T, rng.uniform(0, 8, 3)
    index = np.repeat(np.arange(3), sizes)
    full = S[np.ix_(index, index)]
    np.fill_diagonal(full, v[index])
    smallest = np.linalg.eigvalsh(full)[0]
    within = all(n == 1 or v[a] >= S[a, a] for a, n in enumerate(sizes))
    across = is_positive_definite(sums_over_orbits(small, balls(S), [arb(float(x)) for x in v]))
    assert abs(smallest) < 1e-9 or (within and across) == (smallest > 0)


def test_elimination_does_not_guess():
    assert is_positive_definite(balls(np.array([[2.0, 1.0], [1.0, 1.0]])))
    assert not is_positive_definite(balls(np.array([[1.0, 1.0], [1.0, 1.0]])))
    assert not is_positive_definite([[arb("[1 +/- 2]")]])
    assert not is_positive_definite([[arb("nan")]])


@settings(max_examples=40)
@given(SEEDS)
def test_any_repaired_dual_is_a_lower_bound_of_random_points(seed):
    problem = random_problem(seed, nonneg=True)
    small = reduced(problem)
    rng = np.random.default_rng(seed)
    m = len(small)
    gram, N = rng.uniform(-1, 1, (m, m)), rng.standard_normal((m, m))
    dual = repaired(small, MatrixDual("random", gram + gram.T, rng.standard_normal(m), N + N.T))
    assert dual is not None
    with ctx.workprec(precision(small.tau)):
        bound = matrix_bound(small, dual)
        for _ in range(5):
            U = np.abs(rng.standard_normal((m, small.d)))
            assert loss(small, Point(U, rng.uniform(0, 1, m)).gram()) >= bound
        assert frame_loss(small) >= bound


@pytest.mark.parametrize("change", ["v negative", "N negative", "v lowered", "N in UFM"])
def test_infeasible_duals_prove_nothing(change):
    small = reduced(step(4, 10, 1.0, nonneg=change != "N in UFM"))
    frame_dual = kkt_dual(reduced(step(4, 10, 1.0)), np.eye(4))
    dual = repaired(reduced(step(4, 10, 1.0)), frame_dual)
    v, N = dual.v.copy(), dual.N.copy()
    if change == "v negative":
        v[0] = -1e-300
    if change == "N negative":
        N[0, 1] = N[1, 0] = -1e-300
    if change == "v lowered":
        v *= 1 - 1e-9
    with ctx.workprec(256):
        assert matrix_bound(small, MatrixDual("changed", dual.gram, v, N)) is None
        assert matrix_bound(reduced(step(4, 10, 1.0)), dual) is not None


@pytest.mark.parametrize("R", [1, 1000])
@pytest.mark.parametrize("tau", [0.1, 1.0])
def test_stationarity_conditions_alone_prove_a_frame_optimal(R, tau):
    """No theorem and no conic solver: the dual is read off the point."""
    small = reduced(step(10, R, tau))
    bound = stationarity_bound(small, orthogonal_frame(small))
    with ctx.workprec(precision(tau)):
        gap = frame_loss(small) - arb(bound.value)
        assert gap >= 0
        assert gap < 1e-12 * frame_loss(small)


@pytest.mark.parametrize(
    "problem", [step(4, 10, 0.5), family(0, n=12), family(1, n=12)], ids=["full", "mixed", "split"]
)
def test_laplacian_dual_by_dense_linear_algebra(problem):
    """C = Diag(-v) + S + N over samples at the frame, S PSD with row sums 0 (theory, 4.4)."""
    labels, n = np.asarray(problem.labels), problem.num_points
    C = oracles.gram_gradient(frame(problem), labels, float(problem.tau), oracles.batch_lists(problem))
    C = (C + C.T) / 2
    same = labels[:, None] == labels[None, :]
    A, N = np.where(same, -C, 0.0), np.where(same, 0.0, C)
    assert A.min() > -1e-15
    assert N.min() >= 0
    S = np.diag(A.sum(axis=1)) - A
    assert np.linalg.eigvalsh(S)[0] > -1e-13
    G = frame(problem) @ frame(problem).T
    value = (
        float(oracles.scl(frame(problem), labels, problem.tau, oracles.batch_lists(problem), math))
        - (C * G).sum()
        - A.sum()
    )
    assert abs(value - float(frame_loss(reduced(problem)))) < 1e-12 * value
    assert n == len(C)


# What the gap implies.


@settings(max_examples=40)
@given(st.floats(-8, -1), SEEDS)
def test_implied_bounds_hold_for_points_with_no_larger_loss(exponent, seed):
    problem = random_problem(seed)
    rng = np.random.default_rng(seed)
    labels = np.asarray(problem.labels)
    spoilt = frame(problem) + 10.0**exponent * np.abs(rng.standard_normal((problem.num_points, problem.d)))
    spoilt /= np.maximum(np.linalg.norm(spoilt, axis=1, keepdims=True), 1)
    with mpmath.workdps(60):
        excess = exact_loss(spoilt, problem) - oracles.bound(labels, problem.tau, oracles.batch_lists(problem))
    says = implied(reduced(problem), arb(float(excess) * (1 + 1e-9) + 1e-40))
    means = np.array([spoilt[labels == c].mean(axis=0) for c in range(problem.k)])
    norms = np.linalg.norm(means, axis=1)
    cosines = means @ means.T / np.outer(norms, norms)
    assert (cosines <= np.array(says.cosine) + 1e-9).all()
    assert (norms >= np.array(says.norm) - 1e-9).all()
    for c in range(problem.k):
        members = spoilt[labels == c]
        widest = max(np.linalg.norm(a - b) for a in members for b in members)
        assert widest <= says.spread[c] + 1e-9


@pytest.mark.parametrize(
    ("problem", "unique"),
    [
        (step(4, 10, 1.0), True),
        (step(4, 10, 1.0, d=3), None),
        (ufm.Problem([0, 0, 1, 1, 2], 3), False),
        (ufm.Problem([0, 0, 1, 1], 2, 1.0, [[0, 1], [2, 3]]), False),
        (ufm.Problem([0, 0, 1, 1], 2, 1.0, [[0, 2], [1, 3]]), False),
        (ufm.Problem([0, 0, 0, 1, 1], 2, 1.0, [[0, 1, 3], [1, 2, 4], [3, 4, 0]]), True),
        (PROBLEMS["a class in two pieces, one beside a lone anchor"](), True),
    ],
)
def test_uniqueness_is_claimed_only_where_it_is_proved(problem, unique):
    """True where the gap pins every pair; False where another minimiser is at hand."""
    H = frame(problem) if problem.d >= problem.k else np.eye(3)[np.minimum(problem.labels, 2)]
    certificate = certify(H, problem)
    assert certificate.unique is unique
    assert (certificate.other_minimiser is not None) == (unique is False)


# Files, sharing and cost.


@pytest.mark.parametrize("make", [lambda: step(4, 10, 0.1), lambda: step(4, 10, 1.0, nonneg=False), lambda: family(0)])
def test_files_round_trip_exactly(make, tmp_path):
    problem = make()
    certifier = Certifier(problem)
    merged = frame(problem)
    merged[np.asarray(problem.labels) == 3] = merged[0]
    for number, H in enumerate([frame(problem), merged]):
        first, second = tmp_path / f"{number}.json", tmp_path / f"{number}-again.json"
        certificate = certifier.certify(H)
        certificate.save(first)
        loaded = Certificate.load(first)
        loaded.save(second)
        assert first.read_bytes() == second.read_bytes()
        assert (loaded.status, loaded.gap, loaded.implied, loaded.problem) == (
            certificate.status,
            certificate.gap,
            certificate.implied,
            certificate.problem,
        )
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("text", ["", "{}", "[1]", "{", '{"checksum": 1}', "\x00\x01", "[" * 100_000])
def test_loading_what_is_no_certificate(text, tmp_path):
    path = tmp_path / "junk.json"
    path.write_text(text)
    with pytest.raises(ufm.InvalidInput, match="path"):
        Certificate.load(path)
    with pytest.raises(ufm.InvalidInput, match="path"):
        Certificate.load(tmp_path / "missing.json")


def test_loading_an_edited_certificate(tmp_path):
    path = tmp_path / "edited.json"
    certify(np.eye(4), ufm.Problem(range(4), 4, multiplicity=[2, 2, 3, 3])).save(path)
    content = json.loads(path.read_text())
    content["claims"]["gap"] = (0.0).hex()
    path.write_text(json.dumps(content))
    with pytest.raises(ufm.InvalidInput, match="path"):
        Certificate.load(path)


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def broken(*_args, **_kwargs):
        raise OSError(28, "disk full")

    monkeypatch.setattr("solvers.files.os.replace", broken)
    with pytest.raises(OSError, match="disk full"):
        certify(np.eye(2), ufm.Problem([0, 1], 2)).save(tmp_path / "a.json")
    assert not list(tmp_path.iterdir())


def test_a_million_samples(tmp_path):
    """The cost is one pass over the rows; the file does not grow with n."""
    small, large = (ufm.Problem.from_class_sizes([size] * 10, d=10) for size in (10, 100_000))
    for problem in (small, large):
        H = frame(problem)
        start = perf_counter()
        certificate = certify(H, problem)
        seconds = perf_counter() - start
        certificate.save(tmp_path / f"{problem.num_points}.json")
        assert certificate.status == Proof.CERTIFIED
        assert seconds < 3
    sizes = [(tmp_path / f"{n}.json").stat().st_size for n in (100, 1_000_000)]
    assert sizes[1] < 1.1 * sizes[0]


def test_time_to_certify_does_not_grow_with_n():
    """Once the labels have been read, by the rows the orbits share: fastest of twenty, side by side."""
    fastest = {}
    cases = []
    for size in (10, 100_000):
        problem = ufm.Problem.from_class_sizes([size] * 10, d=10)
        cases.append((size, Certifier(problem), ufm.SharedRows(np.eye(10), np.asarray(problem.labels))))
    for _ in range(20):
        for size, certifier, H in cases:
            start = perf_counter()
            assert certifier.certify(H).status == Proof.CERTIFIED
            fastest[size] = min(fastest.get(size, math.inf), perf_counter() - start)
    assert fastest[100_000] <= 1.5 * fastest[10]


@pytest.mark.parametrize("make", [lambda: step(4, 3, 0.5), lambda: family(3)])
def test_shared_rows_and_all_rows_get_one_certificate(make):
    problem = make()
    certifier = Certifier(problem, conic=False)
    orbits = ufm.orbits(problem)
    rows = np.eye(problem.k, problem.d)[np.asarray(orbits.quotient.labels)]
    shared = ufm.SharedRows(rows, orbits.index)
    finer = ufm.SharedRows(np.asarray(shared), np.arange(problem.num_points))
    assert len({certifier.certify(H).serialised() for H in (shared, np.asarray(shared), finer)}) == 1
    with pytest.raises(ufm.InvalidInput, match="shape"):
        certifier.certify(ufm.SharedRows(rows, orbits.index[1:]))
    spoilt = rows.copy()
    spoilt[0, 0] = np.nan
    with pytest.raises(ufm.InvalidInput, match="NaN"):
        certifier.certify(ufm.SharedRows(spoilt, orbits.index))


@pytest.mark.thorough
def test_a_thousand_orbits():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 1000)
    batches = [rng.choice(1000, 40, replace=False) for _ in range(120)]
    problem = ufm.Problem(labels, 12, 0.5, batches)
    certificate = certify(frame(problem), problem)
    assert len(certificate.problem) > 950
    assert certificate.status == Proof.CERTIFIED
    assert certificate.second_opinion is None


def test_negligible_and_negative_entries_are_moved_and_reported():
    problem = step(4, 1, 1.0)
    H = frame(problem)
    H[H == 0] = -1e-8
    certificate = certify(H, problem)
    assert certificate.status == Proof.CERTIFIED
    assert 1e-8 < certificate.moved < 2e-8
    assert (certificate.point.rows >= 0).all()


def test_no_effective_pair():
    """Batches of single classes constrain nothing but equal values; the margin is then of the loss itself."""
    problem = PROBLEMS["classes that never meet"]()
    certificate = certify(np.full((6, 2), 0.5), problem)
    assert certificate.status == Proof.CERTIFIED
    assert certificate.unique is False


def test_cold_ufm_far_from_its_optimum_is_not_certified():
    """Two classes at cosine -1/2: the loss differs by 1e-13 only, the forces say that it matters."""
    problem = ufm.Problem.from_class_sizes([3, 3], d=2, tau=0.05, nonneg=False)
    rows = np.array([[1.0, 0.0], [-0.5, np.sqrt(0.75)]])
    assert certify(rows[np.repeat([0, 1], 3)], problem).status is not Proof.CERTIFIED
    opposite = np.array([[1.0, 0.0], [-1.0, 0.0]])
    assert certify(opposite[np.repeat([0, 1], 3)], problem).status is Proof.CERTIFIED


def test_the_finest_tolerance_still_certifies_the_optimum():
    problem = ufm.Problem.from_class_sizes([3, 3, 2], d=4)
    assert certify(frame(problem), problem, tolerance=1e-30).status is Proof.CERTIFIED
    with pytest.raises(ufm.InvalidInput, match="tolerance"):
        certify(frame(problem), problem, tolerance=1e-60)
