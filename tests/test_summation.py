"""Fast summation never errs by more than its own bound, and is exact once classes have collapsed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ufm
from solvers.descent.collapse import bucket
from ufm.loss import evaluate
from ufm.summation import moment_loss

_fast = jax.jit(moment_loss, static_argnames="order")
_exact = jax.jit(evaluate)
CASES = 125  # each times two kinds of H, two temperatures, two orders: 1,000


def _random_problem(rng, tau):
    sizes = rng.integers(1, 9, size=4)
    labels = np.repeat(np.arange(4), sizes)
    points = bucket(32)
    multiplicity = np.zeros(points)
    multiplicity[: len(labels)] = 1
    batches = np.full((2, points), -1)
    batches[0, : len(labels)] = np.arange(len(labels))
    some = rng.permutation(len(labels))[: rng.integers(2, len(labels) + 1)]
    batches[1, : len(some)] = some
    padded = np.pad(labels, (0, points - len(labels)))
    return ufm.Problem(padded, 6, tau, batches, multiplicity=multiplicity)


def _embedding(rng, problem, collapsed):
    H = rng.standard_normal((problem.num_points, 6))
    if rng.random() < 0.5:
        H = np.abs(H)
    if collapsed:
        centres = np.abs(rng.standard_normal((4, 6)))
        H = centres[np.asarray(problem.labels)] + 10.0 ** -rng.integers(1, 6) * H
    return jnp.asarray(H / np.linalg.norm(H, axis=1, keepdims=True))


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("tau", [0.1, 1.0])
@pytest.mark.parametrize("collapsed", [False, True], ids=["random", "collapsed"])
def test_error_is_never_above_the_bound(collapsed, tau, order):
    rng = np.random.default_rng([collapsed, int(10 * tau)])
    tightest = np.inf
    for _ in range(CASES):
        problem = _random_problem(rng, tau)
        H = _embedding(rng, problem, collapsed)
        fast, exact = _fast(H, problem, order=order), _exact(H, problem)
        error = abs(float(fast.loss) - float(exact.loss))
        assert error <= float(fast.remainder) + 1e-12 * abs(float(exact.loss))
        tightest = min(tightest, float(fast.remainder) / max(error, 1e-300))
    assert tightest < 1e4  # the bound is a bound on this error, and not just a large number


@pytest.mark.parametrize("order", [1, 2])
def test_exact_when_collapsed(order):
    problem = ufm.Problem.from_class_sizes([7, 3, 2], d=4, tau=0.3)
    rows = np.abs(np.random.default_rng(0).standard_normal((3, 4)))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    H = jnp.asarray(rows[np.asarray(problem.labels)])
    fast, exact = _fast(H, problem, order=order), _exact(H, problem)
    assert np.isclose(fast.loss, exact.loss, rtol=1e-13)
    assert float(fast.remainder) < 1e-12
    # Pair weights take the classes as collapsed, which they are here.
    assert np.allclose(fast.pair_weight, exact.pair_weight, rtol=1e-9)


def test_second_order_is_closer_and_gradients_follow():
    problem = ufm.Problem.from_class_sizes([40, 30, 30], d=8)
    H = _embedding(np.random.default_rng(1), problem, False)
    exact = _exact(H, problem)

    def error(order):
        gradient = jax.grad(lambda H: _fast(H, problem, order=order).loss)(H)
        return np.abs(gradient - exact.gradient).max() / np.abs(exact.gradient).max()

    assert error(2) < 0.2 * error(1)


def test_order_is_checked():
    problem = ufm.Problem.from_class_sizes([2, 2], d=2)
    with pytest.raises(ValueError, match="order"):
        moment_loss(jnp.eye(2)[jnp.array([0, 0, 1, 1])], problem, order=3)
