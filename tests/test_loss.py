"""The loss, its bound, its excess and its gradient against slow oracles."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ufm
import ufm.model.evaluation
from ufm.model.anchor_losses import phi
from ufm.model.evaluation import evaluate, norm_deficit

TAUS = [0.05, 0.1, 0.5, 1.0, 5.0]
KINDS = ["ufm+", "ufm", "zeros", "duplicates", "near"]
LABELS = [0, 2, 1, 0, 1, 2, 0, 0, 1, 2, 2]
D = 4

evaluate_jit = eqx.filter_jit(evaluate)
bound_jit = eqx.filter_jit(ufm.loss_bound)


@pytest.fixture(autouse=True)
def many_digits():
    with mpmath.workdps(40):
        yield


def case(seed, kind, tau):
    rng = np.random.default_rng(seed)
    problem = ufm.Problem(LABELS, D, tau, oracles.random_batches(rng, LABELS, 6), nonneg=kind != "ufm")
    return problem, jnp.asarray(oracles.random_rows(rng, kind, LABELS, D))


def relative(value, truth):
    truth = mpmath.mpf(truth)
    return float(abs(mpmath.mpf(float(value)) - truth) / abs(truth))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tau", TAUS)
def test_loss_bound_and_excess_against_the_oracle(kind, tau):
    for seed in range(3):
        problem, H = case(seed, kind, tau)
        batches = oracles.batch_lists(problem)
        loss, bound = oracles.scl(H, LABELS, tau, batches), oracles.bound(LABELS, tau, batches)
        at = evaluate_jit(H, problem)
        assert relative(at.loss, loss) < 1e-12
        assert relative(bound_jit(problem), bound) < 1e-12
        assert abs(float(at.excess) - float(loss - bound)) < 1e-12 * float(loss)
        assert relative(ufm.scl_loss(H, problem), loss) < 1e-12
        assert float(ufm.excess(H, problem)) == pytest.approx(float(at.excess), rel=1e-12)


def test_float_oracle_agrees_with_the_one_in_forty_digits():
    problem, H = case(0, "ufm", 0.5)
    batches = oracles.batch_lists(problem)
    assert relative(oracles.scl(H, LABELS, 0.5, batches, math), oracles.scl(H, LABELS, 0.5, batches)) < 1e-13
    assert relative(oracles.bound(LABELS, 0.5, batches, math), oracles.bound(LABELS, 0.5, batches)) < 1e-13


@pytest.mark.parametrize("tau", [0.01, *TAUS, 100.0, 1e4])
@pytest.mark.parametrize("scale", [1e-2, 1e-6, 1e-9])
def test_excess_keeps_its_digits_however_small_it_is(tau, scale):
    rng = np.random.default_rng(7)
    batches = oracles.random_batches(rng, LABELS, 5)
    problem = ufm.Problem(LABELS, D, tau, batches)
    noise = np.abs(rng.normal(size=(len(LABELS), D)))
    H = np.asarray(ufm.project(jnp.asarray(oracles.orthogonal_frame(LABELS, D) + scale * noise), True))
    H = H * (1 - scale * rng.uniform(0, 0.1, (len(LABELS), 1)))
    truth = oracles.scl(H, LABELS, tau, batches) - oracles.bound(LABELS, tau, batches)
    at = evaluate_jit(jnp.asarray(H), problem)
    assert relative(at.excess, truth) < 1e-10


def test_excess_is_accurate_at_1e_12_of_the_loss():
    rng = np.random.default_rng(0)
    problem = ufm.Problem(LABELS, D, 1.0)
    H = oracles.orthogonal_frame(LABELS, D)
    H[3] *= 1 - 2e-11
    H[5, 3] = 1e-7
    H[5] /= np.linalg.norm(H[5]) * (1 + 1e-15)
    batches = [list(rng.permutation(len(LABELS)))]
    loss = oracles.scl(H, LABELS, 1.0, batches)
    truth = loss - oracles.bound(LABELS, 1.0, batches)
    assert truth / loss < 2e-12
    assert relative(ufm.excess(jnp.asarray(H), problem), truth) < 1e-10


def test_excess_keeps_its_digits_where_a_class_is_two_collapsed_pieces():
    # Two batches that share nothing: in each the frame is orthogonal, but class 0 sits on two axes.
    labels = [0, 0, 0, 1, 1, 0, 0, 0, 1, 1]
    batches = [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    H = np.eye(4)[[0, 0, 0, 1, 1, 2, 2, 2, 1, 1]]
    H[:, 3] = 1e-7 * np.arange(1, 11)
    H = H / np.linalg.norm(H, axis=1, keepdims=True) * (1 - 1e-15)
    truth = oracles.scl(H, labels, 1.0, batches) - oracles.bound(labels, 1.0, batches)
    assert truth < 1e-11
    assert relative(ufm.excess(jnp.asarray(H), ufm.Problem(labels, 4, 1.0, batches)), truth) < 1e-10


@pytest.mark.few(8)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tau", TAUS)
def test_gradient_against_central_differences_and_autodiff(kind, tau):
    problem, H = case(11, kind, tau)
    batches = oracles.batch_lists(problem)
    gradient = np.asarray(evaluate_jit(H, problem).gradient)

    reference = oracles.gradient(H, LABELS, tau, batches)
    size = np.linalg.norm(reference)
    autodiff = np.asarray(jax.grad(oracles.scl_jnp)(H, LABELS, tau, batches))
    # Near a frame at a low temperature the plain loss itself loses digits: terms of size 1/tau cancel.
    rounding = 1e-15 * len(batches) * len(LABELS) / tau
    assert np.linalg.norm(gradient - autodiff) < 1e-11 * size + rounding
    assert np.linalg.norm(gradient - reference) < 1e-11 * size
    for function in (ufm.scl_loss, ufm.excess):
        assert np.linalg.norm(np.asarray(jax.grad(function)(H, problem)) - reference) < 1e-11 * size

    rng = np.random.default_rng(5)
    # Dyadic entries: H + step * direction is exact enough for a step this short.
    direction = np.round(rng.normal(size=H.shape) * 8) / 8
    step = 2.0**-20

    def slope_over(h):
        above = oracles.scl(np.asarray(H) + h * direction, LABELS, tau, batches)
        return float((above - oracles.scl(np.asarray(H) - h * direction, LABELS, tau, batches)) / (2 * h))

    coarse, fine = slope_over(2 * step), slope_over(step)
    slope = fine + (fine - coarse) / 3  # Richardson: what is left is of the fourth order in the step
    assert abs(float(np.sum(gradient * direction)) - slope) < 1e-7 * size * np.linalg.norm(direction)


def test_backward_pass_scales_with_the_cotangent():
    problem, H = case(0, "ufm+", 1.0)
    once = jax.grad(ufm.scl_loss)(H, problem)
    thrice = jax.grad(lambda X: 3 * ufm.scl_loss(X, problem))(H)
    np.testing.assert_allclose(thrice, 3 * once, rtol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tau", TAUS)
def test_pair_weight_against_a_dense_oracle(kind, tau):
    problem, H = case(2, kind, tau)
    C = np.abs(oracles.gram_gradient(H, LABELS, tau, oracles.batch_lists(problem)[:1]))
    alone = ufm.Problem(LABELS, D, tau, oracles.batch_lists(problem)[:1])
    np.testing.assert_allclose(evaluate_jit(H, alone).preconditioner, C.sum(0) + C.sum(1), rtol=1e-9, atol=1e-13)


def test_pair_weight_adds_up_over_batches():
    problem, H = case(2, "ufm", 0.5)
    parts = [oracles.gram_gradient(H, LABELS, 0.5, [batch]) for batch in oracles.batch_lists(problem)]
    dense = sum(np.abs(C).sum(0) + np.abs(C).sum(1) for C in parts)
    for batch in oracles.batch_lists(problem):
        if len(batch) > 1 and len({LABELS[i] for i in batch}) == 1:
            # Beside |C|, (p + 1/positives) 2 (1 - G) / (tau min(tau, 1)), where C = (p - 1/positives) / tau.
            C, others = oracles.gram_gradient(H, LABELS, 0.5, [batch]), len(batch) - 1
            inside = np.zeros_like(C)
            inside[np.ix_(batch, batch)] = (1 - np.eye(len(batch))) * 2 / others
            curvature = (inside + 0.5 * C) * 2 * (1 - np.asarray(H) @ np.asarray(H).T) / 0.25
            dense += curvature.sum(0) + curvature.sum(1)
    np.testing.assert_allclose(evaluate_jit(H, problem).preconditioner, dense, rtol=1e-11)


@pytest.mark.parametrize("tau", TAUS)
@pytest.mark.parametrize("batches", [None, [[0, 1, 2, 3], [1, 2, 4], [0], [0, 3]]])
def test_multiplicity_means_identical_samples(tau, batches):
    problem = ufm.Problem([0, 1, 1, 0, 2], 3, tau, batches, multiplicity=[3, 1, 2, 4, 1])
    full, origin = oracles.expanded(problem)
    H = jnp.asarray(np.abs(oracles.random_rows(np.random.default_rng(1), "ufm", [0, 1, 1, 0, 2], 3)))
    few, many = evaluate_jit(H, problem), evaluate_jit(H[origin], full)
    np.testing.assert_allclose(few.loss, many.loss, rtol=1e-13)
    np.testing.assert_allclose(few.excess, many.excess, rtol=1e-12)
    np.testing.assert_allclose(ufm.loss_bound(problem), ufm.loss_bound(full), rtol=1e-13)
    summed = np.zeros((5, 3))
    np.add.at(summed, origin, np.asarray(many.gradient))
    np.testing.assert_allclose(few.gradient, summed, rtol=1e-11, atol=1e-13)


def test_quotient_by_orbits_has_the_loss_of_the_full_problem():
    labels = [0, 0, 0, 1, 1, 1, 1, 0]
    problem = ufm.Problem(labels, 3, 0.5, [[0, 1, 3, 4], [0, 1, 2, 5, 6], [7, 5, 6]])
    grouped = ufm.orbits(problem)
    U = jnp.asarray(np.random.default_rng(3).uniform(0, 0.5, (len(grouped), 3)))
    few, many = evaluate_jit(U, grouped.quotient), evaluate_jit(U[grouped.index], problem)
    np.testing.assert_allclose(few.loss, many.loss, rtol=1e-13)
    np.testing.assert_allclose(few.excess, many.excess, rtol=1e-12)
    np.testing.assert_allclose(ufm.loss_bound(grouped.quotient), ufm.loss_bound(problem), rtol=1e-13)


@pytest.mark.parametrize("tau", TAUS)
def test_padding_changes_nothing(tau):
    batches = [[0, 1, 2, 3], [1, 2, 4], [0, 2, 4]]
    plain = ufm.Problem([0, 1, 1, 0, 0], 3, tau, batches)
    # Points of multiplicity 0 that sit in batches, and rows longer than any batch.
    padded = ufm.Problem(
        [0, 1, 1, 0, 0, 1, 0], 3, tau, [[0, 5, 1, 2, 3], [1, 2, 6, 4], [0, 2, 4]], multiplicity=[1, 1, 1, 1, 1, 0, 0]
    )
    padded = eqx.tree_at(lambda p: p.batches, padded, jnp.pad(padded.batches, ((0, 0), (0, 3)), constant_values=-1))
    H = jnp.asarray(np.random.default_rng(2).normal(size=(7, 3)) / 3)
    at, beside = evaluate_jit(H[:5], plain), evaluate_jit(H, padded)
    np.testing.assert_allclose(beside.loss, at.loss, rtol=1e-13)
    np.testing.assert_allclose(beside.excess, at.excess, rtol=1e-12)
    np.testing.assert_allclose(ufm.loss_bound(padded), ufm.loss_bound(plain), rtol=1e-14)
    np.testing.assert_allclose(beside.gradient[:5], at.gradient, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(beside.preconditioner[:5], at.preconditioner, rtol=1e-11)
    assert not np.any(beside.gradient[5:])
    assert not np.any(beside.preconditioner[5:])


@pytest.mark.parametrize("tau", [0.01, 0.05, 1.0, 1e4])
@pytest.mark.parametrize("batches", [None, [[0], [2], [0, 2], [3, 4], [0, 1, 2, 3, 4]], [[0], [1]], [[0, 2], [1, 3]]])
def test_never_nan(tau, batches):
    labels = [0, 1, 2, 2, 2]
    problem = ufm.Problem(labels, 3, tau, batches, nonneg=False)
    opposite = np.zeros((5, 3))
    opposite[:, 0] = [1, 1, -1, 1, -1]
    for H in (np.zeros((5, 3)), opposite, np.ones((5, 3)) / np.sqrt(3), oracles.orthogonal_frame(labels, 3)):
        for values in evaluate_jit(jnp.asarray(H), problem):
            assert np.isfinite(values).all()
    assert np.isfinite(ufm.loss_bound(problem))


def test_an_anchor_without_a_positive_contributes_nothing_but_still_repels():
    lone = ufm.Problem([0, 1, 1], 2, 1.0)
    H = jnp.asarray([[0.6, 0.8], [1.0, 0.0], [1.0, 0.0]])
    expected = 2 * np.log(np.exp(1.0) + np.exp(0.6)) - 2 * 1.0
    np.testing.assert_allclose(ufm.scl_loss(H, lone), expected, rtol=1e-14)
    assert float(ufm.scl_loss(H, ufm.Problem([0, 1, 1], 2, 1.0, [[0, 1], [2]]))) == 0.0


@pytest.mark.parametrize("nonneg", [True, False])
def test_an_orthogonal_frame_has_no_excess(nonneg):
    problem = ufm.Problem(LABELS, 3, 0.1, nonneg=nonneg)
    H = jnp.asarray(oracles.orthogonal_frame(LABELS, 3))
    assert float(ufm.excess(H, problem)) == 0.0
    np.testing.assert_allclose(ufm.scl_loss(H, problem), ufm.loss_bound(problem), rtol=1e-14)


@given(st.integers(0, 10**6), st.sampled_from(TAUS))
def test_excess_of_ufm_plus_is_not_negative(seed, tau):
    problem, H = case(seed, "ufm+", tau)
    assert float(evaluate_jit(H, problem).excess) > 0


def test_excess_of_ufm_may_be_negative():
    # A simplex is better than an orthogonal frame once the ReLU is gone.
    problem = ufm.Problem([0, 0, 1, 1], 2, 1.0, nonneg=False)
    simplex = jnp.asarray([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]])
    assert float(ufm.excess(simplex, problem)) < -0.1


@pytest.mark.parametrize("entries", [1, 50, 33 * 37])
def test_blocks_do_not_change_the_answer(monkeypatch, entries):
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [40, 20, 10])
    batches = [list(range(70)), list(range(5, 69)), [0, 1, 45]]
    problem = ufm.Problem(labels, 3, 0.5, batches)
    H = jnp.asarray(oracles.random_rows(rng, "ufm+", labels, 3))
    whole = evaluate_jit(H, problem)
    monkeypatch.setattr(ufm.model.evaluation, "BLOCK_ENTRIES", entries)
    blocked = evaluate(H, problem)  # not compiled before: the size of blocks is read at tracing
    for name, one, other in zip(whole._fields, whole, blocked, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-11, atol=1e-12, err_msg=name)


def test_without_gradient_the_values_are_the_same():
    problem, H = case(0, "ufm+", 0.5)
    short = evaluate_jit(H, problem, with_gradient=False)
    at = evaluate_jit(H, problem)
    np.testing.assert_allclose(short.loss, at.loss, rtol=1e-14)
    np.testing.assert_allclose(short.excess, at.excess, rtol=1e-13)
    assert not np.any(short.gradient)
    assert not np.any(short.preconditioner)


def test_jit_and_vmap_over_starts_temperatures_and_batches():
    problem, _ = case(0, "ufm+", 0.5)
    other, _ = case(0, "ufm+", 2.0)
    starts = jnp.stack([case(seed, "ufm+", 0.5)[1] for seed in range(3)])
    single = np.array([float(ufm.scl_loss(H, problem)) for H in starts])
    mapped = jax.jit(jax.vmap(ufm.scl_loss, in_axes=(0, None)))(starts, problem)
    np.testing.assert_allclose(mapped, single, rtol=1e-13)

    gradients = jax.jit(jax.vmap(jax.grad(ufm.excess), in_axes=(0, None)))(starts, problem)
    for H, gradient in zip(starts, gradients, strict=True):
        np.testing.assert_allclose(gradient, evaluate_jit(H, problem).gradient, rtol=1e-11, atol=1e-13)

    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), problem, other)
    values = jax.jit(jax.vmap(ufm.excess, in_axes=(None, 0)))(starts[0], both)
    expected = [float(ufm.excess(starts[0], p)) for p in (problem, other)]
    np.testing.assert_allclose(values, expected, rtol=1e-12)


def test_a_new_temperature_does_not_recompile():
    traces = []

    @eqx.filter_jit
    def loss(H, problem):
        traces.append(1)
        return ufm.scl_loss(H, problem)

    for tau in (0.1, 1, 3.0):
        problem, H = case(0, "ufm+", tau)
        loss(H, problem)
    assert len(traces) == 1


def phi_relative_error(x):
    with mpmath.workdps(400):  # expm1(x) and x agree in all but the last of many digits
        return relative(phi(jnp.asarray([x]))[0], mpmath.expm1(mpmath.mpf(x)) - mpmath.mpf(x))


@given(st.floats(-700, 700).filter(lambda x: abs(x) > 1e-150))
def test_phi_is_accurate_everywhere(x):
    assert phi_relative_error(x) < 1e-14


@pytest.mark.parametrize("x", [s * (0.5 + e) for s in (-1, 1) for e in (-1e-3, -1e-16, 0.0, 1e-16, 1e-3)])
def test_phi_is_accurate_about_its_seam(x):
    assert phi_relative_error(x) < 1e-14


def test_phi_at_zero_and_where_its_square_vanishes():
    assert phi(jnp.asarray([0.0, 1e-200, -1e-200])).tolist() == [0.0, 0.0, 0.0]


def test_norm_deficit_is_accurate_to_1e_23():
    rng = np.random.default_rng(0)
    H = rng.normal(size=(50, 6))
    H /= np.linalg.norm(H, axis=1, keepdims=True)
    values = norm_deficit(jnp.asarray(H))
    for row, value in zip(H, values, strict=True):
        truth = 1 - mpmath.fsum(mpmath.mpf(float(x)) ** 2 for x in row)
        assert abs(mpmath.mpf(float(value)) - truth) < 1e-22
