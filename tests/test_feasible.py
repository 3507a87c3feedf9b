"""Projections against a conic solver, and the properties that define a projection."""

import warnings

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import ufm

SETS = [True, False]
entries = st.floats(-1e3, 1e3) | st.sampled_from([0.0, 1.0, -1.0, 1e200, -1e200, 1e-200, 1.7e308])
rows = arrays(float, (3, 4), elements=entries)
moderate = arrays(float, (3, 4), elements=st.floats(-10, 10))

project = jax.jit(ufm.project, static_argnums=1)


def points():
    """1,000 points of all kinds: outside, inside, on the boundary, all-negative, sparse, zero."""
    rng = np.random.default_rng(0)
    P = rng.normal(size=(1000, 5)) * 10 ** rng.uniform(-2, 1, (1000, 1))
    P[:200] = -np.abs(P[:200])
    P[200:250] = 0
    P[250:400] *= rng.integers(0, 2, (150, 5))
    P[400:450] /= np.linalg.norm(P[400:450], axis=1, keepdims=True)
    P[450:500] = np.abs(P[450:500])
    return P


@pytest.mark.parametrize("nonneg", SETS)
def test_against_a_conic_solver(nonneg):
    P = points()
    X = cp.Variable(P.shape)
    constraints = [cp.norm(X, 2, axis=1) <= 1] + ([X >= 0] if nonneg else [])
    # Same minimiser; on the orthant the sum of distances is where the solver loses digits.
    distance = cp.sum_squares(X - P) if nonneg else cp.sum(cp.norm(X - P, 2, axis=1))
    problem = cp.Problem(cp.Minimize(distance), constraints)
    with warnings.catch_warnings():
        # More digits are asked than the solver promises; whether it has them is what is asserted.
        warnings.filterwarnings("ignore", message="Solution may be inaccurate")
        problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11)
    error = np.abs(np.asarray(project(jnp.asarray(P), nonneg)) - X.value)
    assert error.max() < 1e-6


@pytest.mark.parametrize("nonneg", SETS)
@given(H=rows)
def test_feasible_idempotent_and_never_nan(nonneg, H):
    X = np.asarray(project(jnp.asarray(H), nonneg))
    assert np.isfinite(X).all()
    assert (np.linalg.norm(X, axis=1) <= 1 + 1e-14).all()
    if nonneg:
        assert (X >= 0).all()
    np.testing.assert_allclose(project(jnp.asarray(X), nonneg), X, rtol=0, atol=1e-15)


@pytest.mark.parametrize("nonneg", SETS)
@given(H=moderate, other=moderate)
def test_variational_inequality_and_nonexpansiveness(nonneg, H, other):
    # x is the projection of h iff (h - x).(y - x) <= 0 for every feasible y.
    X, Y = np.asarray(project(jnp.asarray(H), nonneg)), np.asarray(project(jnp.asarray(other), nonneg))
    assert (np.sum((H - X) * (Y - X), axis=1) <= 1e-13).all()
    assert (np.linalg.norm(X - Y, axis=1) <= np.linalg.norm(H - other, axis=1) + 1e-14).all()


@pytest.mark.parametrize("nonneg", SETS)
def test_rows_inside_are_untouched(nonneg):
    H = jnp.asarray(np.random.default_rng(0).uniform(0, 0.4, (20, 5)))
    assert (project(H, nonneg) == H).all()


@pytest.mark.parametrize("size", [1e200, 1e308, 1.5e308])
def test_rows_whose_norm_overflows_keep_their_direction(size):
    np.testing.assert_allclose(ufm.project_ball(jnp.full((1, 4), size)), [[0.5] * 4], rtol=1e-15)
    np.testing.assert_allclose(
        ufm.project_nonnegative_ball(jnp.asarray([[size, -size, 0.0, size]])), [[0.5**0.5, 0, 0, 0.5**0.5]], rtol=1e-15
    )


def test_tiny_rows_are_inside():
    H = jnp.asarray([[1e-200, 0.0], [3e-200, 4e-200]])
    assert (ufm.project_ball(H) == H).all()
    assert (ufm.project_nonnegative_ball(-H) == 0).all()


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_row_without_a_projection_is_nan_and_alone(wrong):
    X = np.asarray(ufm.project_nonnegative_ball(jnp.asarray([[wrong, 1.0], [3.0, 4.0]])))
    assert np.isnan(X[0]).any()
    np.testing.assert_allclose(X[1], [0.6, 0.8])


@pytest.mark.parametrize("nonneg", SETS)
def test_derivative_is_finite_at_zero_rows(nonneg):
    H = jnp.asarray([[0.0, 0.0], [3.0, 4.0], [-1.0, -1.0]])
    assert np.isfinite(jax.jacobian(lambda X: ufm.project(X, nonneg))(H)).all()


@pytest.mark.parametrize("nonneg", SETS)
def test_batches_of_starts(nonneg):
    H = jnp.asarray(np.random.default_rng(1).normal(size=(3, 6, 4)))
    stacked = ufm.project(H, nonneg)
    for one, many in zip(H, stacked, strict=True):
        np.testing.assert_allclose(many, ufm.project(one, nonneg), rtol=1e-15)


SHORT = {"float16": jnp.float16, "bfloat16": jnp.bfloat16, "float32": jnp.float32}


@pytest.mark.parametrize("floor", [None, -0.17])
@pytest.mark.parametrize("nonneg", SETS)
@pytest.mark.parametrize("name", SHORT)
def test_shorter_numbers_are_projected_as_doubles_are_and_stay_inside(name, nonneg, floor):
    dtype = SHORT[name]
    largest, unit = float(jnp.finfo(dtype).max), float(jnp.finfo(dtype).eps)
    rng = np.random.default_rng(0)
    H = rng.normal(size=(5000, 7)) * 10 ** rng.uniform(-4, 1, (5000, 1)) * 10 ** rng.uniform(-2, 0, (5000, 7))
    H = jnp.asarray(np.concatenate([H, [[0.6 * largest, -0.8 * largest, *[0] * 5], [0] * 7]]), dtype)
    X = ufm.project(H, nonneg, floor)
    assert X.dtype == dtype
    assert (ufm.project(X, nonneg, floor) == X).all()
    x, right = (np.asarray(of.astype(jnp.float64)) for of in (X, ufm.project(H.astype(jnp.float64), nonneg, floor)))
    assert (np.linalg.norm(x, axis=1) <= 1).all()
    assert x.min() >= (-np.inf if floor is None and not nonneg else floor or 0.0)
    assert (np.abs(x - right) <= unit * np.abs(right) + float(jnp.finfo(dtype).smallest_normal)).all()
    slope = jax.grad(lambda H: ufm.project(H, False).astype(jnp.float64).sum())(jnp.asarray([[3.0, 4.0]], dtype))
    np.testing.assert_allclose(slope.astype(jnp.float64), [[0.032, -0.024]], rtol=4 * unit)


@pytest.mark.parametrize("dtype", [np.int8, np.uint64, ">f4", ">f8", ">i4", np.longdouble, bool, list])
def test_rows_of_other_numbers_are_projected(dtype):
    inputs = [[1, 0], [0, 1]] if dtype is list else np.array([[1, 0], [0, 1]], dtype)
    assert (np.asarray(ufm.project(inputs, False)) == np.eye(2)).all()
    least = np.array([[-128, 0]], np.int8)  # it has no absolute value
    np.testing.assert_allclose(ufm.project(least, False), [[-1.0, 0.0]], rtol=1e-14)
    assert (ufm.project(least, True) == 0).all()


@pytest.mark.parametrize("bad", [3.0, "H", None, [[1], [1, 2]], 1j * np.eye(2), np.zeros((2, 0))])
def test_what_is_no_row_is_named(bad, untyped):
    for function in (ufm.project_ball, ufm.project_nonnegative_ball, lambda H: ufm.project(H, True, -0.1)):
        with pytest.raises(ufm.InvalidInput, match=r"^H = .*: give a real array"):
            function(bad)
