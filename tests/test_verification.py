"""The verifier on planted cases: the right verdict, and the right culprit by name."""

import numpy as np
import pytest
from problems import PROBLEMS

import solvers
import ufm
from solvers.certification.verification import FEASIBLE, Verdict, Verifier, verify


@pytest.fixture(scope="module")
def imbalanced():
    problem = ufm.Problem.from_class_sizes(ufm.step_imbalance(10, 5, 1000), d=12)
    return problem, np.asarray(problem.labels), Verifier(problem)


def test_exact_frame(imbalanced):
    _, labels, verifier = imbalanced
    verdict = verifier.verify(np.eye(12)[labels])
    assert verdict.verdict is Verdict.GLOBAL_MINIMISER
    assert verdict.is_orthogonal_frame
    assert verdict.excess == 0
    assert verdict.residual < 1e-14


def test_merged_minorities_are_spurious_though_the_loss_hardly_sees_them(imbalanced):
    problem, labels, verifier = imbalanced
    H = np.eye(12)[np.where(labels == 9, 7, labels)]
    verdict = verifier.verify(H)
    assert verdict.excess / float(ufm.loss_bound(problem)) < 3e-8
    assert verdict.verdict is Verdict.SPURIOUS
    assert not verdict.orthogonal
    assert verdict.collapsed
    assert verdict.unit_norms
    assert verdict.worst_pair.classes == (7, 9)
    assert [labels[s] for s in verdict.worst_pair.samples] == [7, 9]


def test_one_sample_off(imbalanced):
    problem = ufm.Problem.from_class_sizes([50, 50, 5], d=6)
    labels = np.asarray(problem.labels)
    H = np.eye(6)[labels]
    H[73, 5] = 1e-3
    H[73] /= np.linalg.norm(H[73])
    verdict = solvers.verify(H, problem)
    assert verdict.verdict is Verdict.NOT_CONVERGED
    assert not verdict.is_orthogonal_frame
    assert 73 in verdict.worst_pair.samples
    assert verdict.worst_pair.classes == (1, 1)
    assert verdict.worst_residual == 73
    assert str(verdict.worst_pair).startswith("samples 73 and ")


def test_scaled_norms(imbalanced):
    _, labels, verifier = imbalanced
    verdict = verifier.verify(0.9 * np.eye(12)[labels])
    assert verdict.verdict is Verdict.NOT_CONVERGED
    assert not verdict.unit_norms
    assert verdict.orthogonal
    assert np.isclose(verdict.norm.value, 0.9)


def _simplex(k, d):
    rows = np.zeros((k, d))
    rows[:, :k] = (np.eye(k) - 1 / k) / np.sqrt(1 - 1 / k)
    return rows


def test_simplex_is_infeasible_with_relu_and_global_without():
    sizes = [4] * 5
    rows = _simplex(5, 6)[np.repeat(np.arange(5), 4)]
    with_relu = solvers.verify(rows, ufm.Problem.from_class_sizes(sizes, d=6))
    assert with_relu.verdict is Verdict.INFEASIBLE
    assert not with_relu.is_orthogonal_frame
    assert np.isclose(with_relu.violation, -rows.min())
    without = solvers.verify(rows, ufm.Problem.from_class_sizes(sizes, d=6, nonneg=False))
    assert without.verdict is Verdict.GLOBAL_MINIMISER
    assert np.isclose(without.across.value, -0.25)


def test_what_is_printed_of_pairs_is_what_they_are():
    """Three unit vectors in the plane, their cosines -0.77, -0.5 and -0.17: -0.77 is not called the largest."""
    angles = np.radians([0.0, 100.0, 240.0])
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    result = solvers.verify(rows[[0, 0, 1, 1, 2, 2]], ufm.Problem.from_class_sizes([2, 2, 2], d=2, nonneg=False))
    lines = result.summary().lines
    assert not any(name.startswith("largest cosine") for name in lines)
    assert lines["cosine furthest from 0"] == "samples 2 and 4 (classes 1 and 2): -0.766"
    assert lines["largest distance within a class"] == "0: every class is one row"
    alone = solvers.verify(rows, ufm.Problem([0, 1, 2], 2, nonneg=False)).summary().lines
    assert alone["largest distance within a class"] == "0: every class is one row"
    unmeasured = solvers.verify(np.full((3, 2), np.nan), ufm.Problem([0, 1, 2], 2)).summary().lines
    assert unmeasured["largest distance within a class"] == "sample 0 (class 0): inf"


def test_frame_without_relu_is_not_stationary():
    problem = PROBLEMS["five equal classes"](nonneg=False)
    assert solvers.verify(np.eye(6)[np.repeat(np.arange(5), 4)], problem).verdict is Verdict.NOT_CONVERGED


def test_stationary_point_of_ufm_that_is_not_global():
    # All classes in one point: every force is radial.
    problem = ufm.Problem.from_class_sizes([4] * 3, d=4, nonneg=False)
    verdict = solvers.verify(np.tile(np.eye(4)[0], (12, 1)), problem)
    assert verdict.verdict is Verdict.SPURIOUS


def test_too_few_dimensions_leave_globality_open():
    problem = ufm.Problem.from_class_sizes([4] * 3, d=2)
    rows = np.array([[1.0, 0], [0, 1], [0, 1]])
    verdict = solvers.verify(rows[np.asarray(problem.labels)], problem)
    assert verdict.verdict is Verdict.STATIONARY


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_number_that_is_none_is_a_verdict(imbalanced, bad):
    _, labels, verifier = imbalanced
    H = np.eye(12)[labels]
    H[25003, 3] = bad
    verdict = verifier.verify(H)
    assert verdict.verdict is Verdict.NOT_FINITE
    assert verdict.worst_residual == 25003
    assert not verdict.is_orthogonal_frame


def test_norm_above_one_is_infeasible(imbalanced):
    _, labels, verifier = imbalanced
    assert verifier.verify((1 + 1e-6) * np.eye(12)[labels]).verdict is Verdict.INFEASIBLE


def test_wrong_shape_is_named(imbalanced):
    _, _, verifier = imbalanced
    with pytest.raises(ufm.InvalidInput, match=r"^H = "):
        verifier.verify(np.eye(12))


def test_identical_and_distinct_rows_are_judged_alike():
    problem = ufm.Problem.from_class_sizes([8, 6, 4], d=5)
    frame = np.eye(5)[np.asarray(problem.labels)]
    exact = solvers.verify(frame, problem)
    nearly = frame.copy()
    nearly[3, 4] = 1e-13  # orbits no longer identical: the full problem is evaluated
    assert solvers.verify(nearly, problem).verdict is exact.verdict is Verdict.GLOBAL_MINIMISER


def test_rounding_outside_the_ball_cannot_pay_for_merged_minorities():
    problem = ufm.Problem(range(4), 4, 1.0, multiplicity=[200_000, 200_000, 2, 2])
    half = np.sqrt(0.5)
    rows = np.array([[half, 0, 0, half], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0]]) * (1 + 2e-10)
    verdict = solvers.verify(rows, problem)
    assert verdict.feasible
    assert verdict.verdict is Verdict.SPURIOUS
    assert verdict.excess > 1e-5


def test_cold_ufm_is_judged_by_its_own_forces():
    """A six-cycle of classes twisted by 120 degrees is stationary; antipodal neighbours are better, by 5e-12."""
    labels = np.repeat(np.arange(6), 3)
    batches = [np.flatnonzero((labels == c) | (labels == (c + 1) % 6)) for c in range(6)]
    problem = ufm.Problem(labels, 2, 0.05, batches, nonneg=False)
    angles = 2 * np.pi * labels / 3
    twisted = solvers.verify(np.column_stack([np.cos(angles), np.sin(angles)]), problem)
    assert twisted.residual < 1e-12
    assert twisted.verdict is not Verdict.GLOBAL_MINIMISER


@pytest.mark.parametrize("scale", [50.0, 1e60, 1e300])
def test_far_outside_nothing_is_known_and_nothing_is_nan(scale):
    problem = ufm.Problem.from_class_sizes([3, 3, 1], d=4, tau=0.1)
    result = solvers.verify(np.random.default_rng(0).uniform(0, scale, (7, 4)), problem)
    assert result.verdict is Verdict.INFEASIBLE
    assert not np.isnan([result.excess, result.residual, result.violation, *np.ravel(result.metrics.gram)]).any()
    assert "nan" not in repr(result)


def float32_features(seed, labels, d, spread=0.3):
    H = np.abs(np.eye(d)[labels] + spread * np.random.default_rng(seed).normal(size=(len(labels), d)))
    H = H.astype(np.float32)
    return H / np.linalg.norm(H, axis=1, keepdims=True)


def test_features_that_are_unit_to_float32_are_scaled_to_norm_1_and_it_is_said():
    labels = np.repeat([0, 1, 2], 20)
    problem = ufm.Problem(labels, 4, 0.5)
    H = float32_features(0, labels, 4)
    assert H.dtype == np.float32
    assert np.linalg.norm(H.astype(float), axis=1).max() > 1 + FEASIBLE
    result = verify(H, problem)
    assert result.feasible
    assert result.verdict is Verdict.NOT_CONVERGED
    assert 0 < result.renormalised < 1e-6
    assert "scaled to norm 1" in repr(result)
    exact = H.astype(float) / np.linalg.norm(H.astype(float), axis=1, keepdims=True)
    assert result.excess == pytest.approx(verify(exact, problem).excess, rel=1e-12)
    # Doubles that merely hold float32 numbers are the same features.
    assert verify(H.astype(float), problem).excess == result.excess


@pytest.mark.parametrize(
    ("change", "verdict"),
    {
        "far outside": (lambda H: H * np.float32(1.001), Verdict.INFEASIBLE),
        "negative": (lambda H: H * np.float32(-1), Verdict.INFEASIBLE),
        "doubles": (lambda H: H.astype(float) * (1 + 1e-8), Verdict.INFEASIBLE),
        "NaN": (lambda H: np.where(np.arange(len(H))[:, None] == 3, np.float32(np.nan), H), Verdict.NOT_FINITE),
    }.values(),
)
def test_what_renormalising_does_not_forgive(change, verdict):
    labels = np.repeat([0, 1, 2], 20)
    result = verify(change(float32_features(1, labels, 4)), ufm.Problem(labels, 4, 0.5))
    assert result.verdict is verdict
