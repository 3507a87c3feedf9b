"""verify against certify: one way of judging, whatever the point, the family, the temperature and the model."""

from collections import Counter

import numpy as np
import pytest
from flint import arb, ctx

import ufm
from solvers.certification.balls import precision
from solvers.certification.certificate import Proof
from solvers.certification.certifier import SNAP_TOLERANCE, Certifier, certify
from solvers.certification.dual_bounds import elementary_bound
from solvers.certification.orbit_problem import loss
from solvers.certification.verification import Verdict, Verifier, verify

# What a verdict may stand beside. A certificate judges the point at the orbit means: farther than SNAP_TOLERANCE from H
# it is inconclusive, and the verdict, of H itself, may say more. An infeasible H may lie beside a feasible minimiser.
ALLOWED = {
    Verdict.GLOBAL_MINIMISER: {Proof.CERTIFIED},
    Verdict.SPURIOUS: {Proof.NOT_CERTIFIED},
    Verdict.STATIONARY: {Proof.INCONCLUSIVE},
    Verdict.NOT_CONVERGED: {Proof.NOT_CERTIFIED, Proof.INCONCLUSIVE},
    Verdict.INFEASIBLE: set(Proof),
}
# A certificate that asked a conic solver as well may know more than a verdict that did not, never the opposite.
ALLOWED_BESIDE_MORE = ALLOWED | {
    Verdict.STATIONARY: set(Proof),
    Verdict.NOT_CONVERGED: {Proof.NOT_CERTIFIED, Proof.INCONCLUSIVE, Proof.CERTIFIED},
}


def allowed(verdict, certificate, table=ALLOWED):
    if certificate.moved > SNAP_TOLERANCE:
        return certificate.status is Proof.INCONCLUSIVE
    return certificate.status in table[verdict]


FAMILIES = ("full", "imbalanced", "partition", "reshuffled", "bound", "single-class", "padded")


def random_problem(rng, family, nonneg):
    k = int(rng.integers(2, 5))
    d = int(rng.choice([max(1, k - 1), k, k + 2]))
    tau = float(np.exp(rng.uniform(np.log(0.01), np.log(1e4))))
    if family == "imbalanced":
        R = 10.0 ** rng.uniform(0, 6)
        return ufm.Problem(np.arange(k), d, tau, nonneg=nonneg, multiplicity=ufm.step_imbalance(k, 5, R))
    labels = np.concatenate([np.arange(k), np.sort(rng.integers(0, k, 12 - k))])
    seed = int(rng.integers(0, 2**31))
    if family == "full":
        batches = None
    elif family == "partition":
        batches = ufm.batching.partition(12, 4, seed)
    elif family == "reshuffled":
        batches = ufm.batching.reshuffled(12, 6, 2, seed)
    elif family == "bound":
        batches = ufm.batching.bind(ufm.batching.partition(12, 5, seed), labels, 1, seed)
    elif family == "single-class":
        pieces = [
            rng.choice(members, min(len(members), 3), replace=False) for members in (np.flatnonzero(labels == 0),) * 3
        ]
        batches = [rng.choice(12, 6, replace=False), *pieces]
    else:
        batches = [rng.choice(12, int(rng.integers(1, 12)), replace=False) for _ in range(3)]
    return ufm.Problem(labels, d, tau, batches, nonneg)


def minimiser(rng, certifier):
    """A frame where one fits, else the best point that is known."""
    problem = certifier.samples_problem
    labels = np.asarray(problem.labels)
    if problem.nonneg and problem.d >= problem.k:
        return np.eye(problem.d)[rng.permutation(problem.d)[labels]]
    if certifier.better is not None:
        return certifier.better.placed()[certifier.orbits.index]
    return np.eye(problem.d)[rng.integers(0, problem.d, problem.k)[labels]]


POINTS = ("minimiser", "near", "near samples", "ulp", "merged", "dead", "random", "short", "outside")


def random_point(rng, kind, certifier):
    problem = certifier.samples_problem
    labels, index = np.asarray(problem.labels), certifier.orbits.index
    H = minimiser(rng, certifier)
    if kind in ("near", "near samples"):
        size = 10.0 ** rng.uniform(-16, -1)
        noise = rng.standard_normal(H.shape)
        H = H + size * (noise[certifier.orbits.first][index] if kind == "near" else noise)
    elif kind == "ulp":
        rows = rng.integers(0, len(H), 3)
        H[rows] = np.nextafter(H[rows], 0 if rng.random() < 0.5 else 1)
    elif kind == "merged":
        H[labels == labels[-1]] = H[labels == 0][0]
    elif kind == "dead":
        H[labels == labels[-1]] = 0
    elif kind == "random":
        H = rng.standard_normal(H.shape)[certifier.orbits.first][index]
    elif kind == "short":
        H = H * (1 - 10.0 ** rng.uniform(-16, -1))
    elif kind == "outside":
        return H * (1 + 10.0 ** rng.uniform(-12, -5))
    H = np.maximum(H, 0) if problem.nonneg else H
    norms = np.linalg.norm(H, axis=1, keepdims=True)
    return H / np.maximum(norms, 1)


def one_problem(seed):
    """Every kind of point of one random problem; the pairs of verdict and status that were seen."""
    rng = np.random.default_rng(seed)
    family, nonneg = FAMILIES[seed % len(FAMILIES)], seed % 3 != 0
    problem = random_problem(rng, family, nonneg)
    certifier = Certifier(problem, conic=False)
    points = [random_point(rng, kind, certifier) for kind in POINTS]
    if seed % 2:
        certifier.consider(points)
    verifier = Verifier(problem, certifier=certifier)
    seen = Counter()
    for kind, H in zip(POINTS, points, strict=True):
        certificate, result = certifier.certify(H), verifier.verify(H)
        where = (seed, family, kind, result.verdict, result.reason, certificate.status, certificate.reason)
        assert allowed(result.verdict, certificate), where
        assert verifier.verify(H, certificate).verdict is result.verdict, where
        if kind in ("minimiser", "ulp") and problem.bound_is_attained:
            assert certificate.status is Proof.CERTIFIED, where
        if kind in ("merged", "dead") and problem.bound_is_attained and family in ("full", "imbalanced"):
            assert certificate.status is Proof.NOT_CERTIFIED, where
        seen[str(result.verdict), str(certificate.status)] += 1
    return seen


@pytest.mark.few(4)
@pytest.mark.parametrize("seed", range(2 * len(FAMILIES)))
def test_verdicts_and_certificates_agree(seed):
    one_problem(seed)


@pytest.mark.slow
def test_five_thousand_points_without_a_contradiction():
    seen = Counter()
    for seed in range(556):
        seen += one_problem(seed)
    print(seen.total(), "points:", dict(seen))
    assert seen.total() >= 5000
    assert len({verdict for verdict, _ in seen}) >= 5


@pytest.mark.parametrize("R", [1e4, 1e6])
def test_rounding_does_not_accuse_frames_of_large_imbalance(R):
    """float64 norms, times n, are more than the weakest pair leaves."""
    rng = np.random.default_rng(0)
    problem = ufm.Problem(np.arange(10), 20, 1.0, multiplicity=ufm.step_imbalance(10, 5, R))
    share = rng.uniform(0, 1, 10)
    rows = np.zeros((10, 20))
    rows[np.arange(10), np.arange(10)], rows[np.arange(10), 10 + np.arange(10)] = np.sqrt(share), np.sqrt(1 - share)
    assert certify(rows, problem, conic=False).status is Proof.CERTIFIED
    result = verify(rows, problem)
    assert result.verdict is Verdict.GLOBAL_MINIMISER
    assert result.is_orthogonal_frame


@pytest.mark.parametrize("tau", [0.01, 0.02])
def test_a_row_one_ulp_away_at_a_low_temperature(tau):
    problem = ufm.Problem.from_class_sizes([5, 4, 3], d=4, tau=tau)
    H = np.eye(4)[np.asarray(problem.labels)]
    H[0, 0] = np.nextafter(1, 0)
    assert certify(H, problem, conic=False).status is Proof.CERTIFIED
    assert verify(H, problem).verdict is Verdict.GLOBAL_MINIMISER


def test_few_dimensions_without_the_relu_are_judged_by_all_that_is_known():
    problem = ufm.Problem.from_class_sizes([2] * 8, d=3, tau=0.5, nonneg=False)
    with_conic, without = Certifier(problem), Certifier(problem, conic=False)
    assert np.isclose(with_conic.lower_bound.value, without.lower_bound.value, rtol=1e-9)
    rng = np.random.default_rng(1)
    points = [rng.standard_normal((8, 3))[np.asarray(problem.labels)] for _ in range(3)]
    points = [H / np.linalg.norm(H, axis=1, keepdims=True) for H in points]
    points.append(without.better.placed()[without.orbits.index])
    for H in points:
        assert allowed(verify(H, problem).verdict, with_conic.certify(H), ALLOWED_BESIDE_MORE)
    before = float(without.certify(points[-1]).upper)
    without.consider(points)
    assert float(without.certify(points[-1]).upper) == before
    assert without.certify(points[0]).status is Proof.NOT_CERTIFIED


def test_other_starts_are_witnesses_where_nothing_is_known():
    """UFM+ with d < k: no frame fits, so the best of the points given is what others are held against."""
    problem = ufm.Problem.from_class_sizes([6, 4, 2], d=2)
    labels = np.asarray(problem.labels)
    better, worse = np.eye(2)[[0, 1, 1]][labels], np.eye(2)[[0, 0, 1]][labels]
    certifier = Certifier(problem, conic=False)
    assert certifier.certify(worse).status is Proof.INCONCLUSIVE
    certifier.consider([worse, better, np.full((12, 2), np.nan)])
    assert certifier.certify(worse).status is Proof.NOT_CERTIFIED
    assert certifier.certify(better).status is Proof.INCONCLUSIVE
    assert Verifier(problem, certifier=certifier).verify(worse).verdict is Verdict.SPURIOUS
    assert Verifier(problem, certifier=certifier).verify(better).verdict is Verdict.STATIONARY


@pytest.mark.parametrize("k", [2, 3, pytest.param(60, marks=pytest.mark.thorough)])
def test_the_simplex_of_equal_classes_is_certified_by_a_closed_form(k):
    """More classes than Newton's method is given: the bound is that of Jensen's inequality, and is attained."""
    problem = ufm.Problem(np.arange(k), k, 0.5, nonneg=False, multiplicity=np.full(k, 3))
    certifier = Certifier(problem, conic=False)
    simplex = np.eye(k) - 1 / k
    certificate = certifier.certify(simplex / np.linalg.norm(simplex, axis=1, keepdims=True))
    assert certificate.status is Proof.CERTIFIED
    assert certificate.relative_gap < 1e-12
    if k == 60:
        assert certificate.lower_bound.kind == "elementary"
        fewer = ufm.Problem(np.arange(k), 8, 0.5, nonneg=False, multiplicity=np.full(k, 3))
        assert Certifier(fewer, conic=False).lower_bound.value == certificate.lower_bound.value


@pytest.mark.few(5)
@pytest.mark.parametrize("seed", range(20))
def test_no_point_is_below_the_elementary_bound(seed):
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, FAMILIES[seed % len(FAMILIES)], nonneg=False)
    certifier = Certifier(problem, conic=False)
    with ctx.workprec(precision(float(problem.tau))):
        bound = elementary_bound(certifier.problem)
        for kind in POINTS:
            point = certifier.certify(random_point(rng, kind, certifier)).point
            assert loss(certifier.problem, point.gram()) - bound >= -(arb(2) ** -150) * (1 + abs(bound))


def test_the_dual_of_the_relaxation_serves_every_dimension():
    """Unequal classes, d < k: the bound is that of d = k, whose optimum is certified."""
    wide, narrow = (
        Certifier(ufm.Problem.from_class_sizes([9, 6, 3, 2], d=d, tau=0.5, nonneg=False), conic=False) for d in (4, 2)
    )
    assert np.isclose(wide.lower_bound.value, narrow.lower_bound.value, rtol=1e-10)
    assert narrow.lower_bound.kind == "matrix"
    assert float(narrow.certify(narrow.better.placed()[narrow.orbits.index]).gap) >= 0
