"""The local rate: against the derivative of the step itself, against runs, and the best temperature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.measurements.local_phase import grouped, local_phase
from ufm import InvalidInput, Problem, long_tail_imbalance, project, scl_loss, step_imbalance
from ufm.theory.local_rate import attraction, best_tau, contraction, slowest_contraction


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("sizes", "eta", "tau"), [((4, 3), 0.1, 0.2), ((2, 2, 2), 0.7, 4.0), ((7, 3, 2), 0.1, 1.0), ((7, 3, 2), 3.0, 0.3)]
)
def test_contraction_is_the_derivative_of_a_step(sizes, eta, tau):
    k = len(sizes)
    problem = Problem.from_class_sizes(sizes, d=2 * k, tau=tau)
    labels = np.asarray(problem.labels)
    # Class c holds coordinates c and k + c, in parts that are not equal.
    frame = jnp.asarray(0.8 * np.eye(k, 2 * k)[labels] + 0.6 * np.eye(k, 2 * k, k)[labels])

    def step(H):
        return project(H - eta * jax.grad(scl_loss)(H, problem), problem.nonneg)

    rho = contraction(problem, eta)
    for c in range(k):
        members = np.flatnonzero(labels == c)
        across = 0.8 * np.eye(k, 2 * k, k)[c] - 0.6 * np.eye(k, 2 * k)[c]
        deviation = np.zeros((len(labels), 2 * k))
        deviation[members[0]], deviation[members[1]] = across, -across
        h = 1e-5
        moved = (step(frame + h * deviation) - step(frame - h * deviation)) / (2 * h)
        np.testing.assert_allclose(moved, float(rho[c]) * deviation, atol=2e-7)


@pytest.mark.parametrize("tau", [0.3, 1.0])
def test_measured_rate_is_the_predicted_one(tau):
    sizes = np.array([40, 20, 8, 4])
    run = local_phase(grouped(sizes, 4, 2 * len(sizes), tau), 0.1, starts=2, steps=200, within=5e-3, across=0.0, seed=0)
    speed = 1 - float(run["predicted"])
    np.testing.assert_allclose(1 - run["measured"].values, speed, rtol=0.01)


def test_attraction_is_the_gradient_in_the_gram_matrix():
    problem = Problem.from_class_sizes([5, 3, 1], d=3, tau=0.7)
    n, e = 9, np.exp(-1 / 0.7)
    expected = [(1 / (size - 1) - 1 / (size - 1 + (n - size) * e)) / 0.7 for size in (5, 3)]
    np.testing.assert_allclose(attraction(problem), [*expected, 0.0], rtol=1e-12)


def test_groups_contract_like_their_samples():
    sizes = step_imbalance(4, 4, 5)
    whole = Problem.from_class_sizes(sizes, d=8)
    np.testing.assert_allclose(contraction(grouped(sizes, 4, 8, 1.0), 0.1), contraction(whole, 0.1), rtol=1e-12)


@pytest.mark.parametrize("eta", [1e-4, 0.1])
@pytest.mark.parametrize(
    "sizes",
    [step_imbalance(10, 5, 1), step_imbalance(10, 5, 1000), long_tail_imbalance(7, 3, 50), np.array([2, 2])],
    ids=["balanced", "step", "long tail", "smallest"],
)
def test_best_tau_is_the_best_on_a_grid(sizes, eta):
    grid = np.geomspace(0.15, 6, 801)
    rates = [_slowest(sizes, tau, eta) for tau in grid]
    best = best_tau(sizes)
    assert abs(np.log(grid[int(np.argmin(rates))] / best)) < 0.01
    assert _slowest(sizes, best, eta) <= min(rates) + 1e-15


def _slowest(sizes, tau, eta):
    sizes = np.asarray(sizes, float)
    others = (sizes.sum() - sizes) * np.exp(-1 / tau)
    w = others / ((sizes - 1) * (sizes - 1 + others) * tau)
    return np.max(np.abs((1 - 2 * eta * w) / (1 + 2 * eta * w * (sizes - 1))))


def test_a_class_of_one_sample_has_no_deviations():
    problem = Problem.from_class_sizes([4, 1], d=2)
    assert contraction(problem, 0.1)[1] == 0
    assert 0 < slowest_contraction(problem, 0.1) < 1


@pytest.mark.parametrize("eta", [0.0, -1.0, float("nan"), float("inf")])
def test_a_bad_step_is_refused(eta):
    with pytest.raises(InvalidInput, match="eta"):
        contraction(Problem.from_class_sizes([3, 3], d=2), eta)


def test_batches_are_refused():
    problem = Problem.from_class_sizes([2, 2], d=2, batches=[[0, 1], [2, 3]])
    with pytest.raises(InvalidInput, match="full batch"):
        contraction(problem, 0.1)


@pytest.mark.parametrize("sizes", [[4], [1, 1], [3, 0]])
def test_sizes_without_pairs_are_refused(sizes):
    with pytest.raises(InvalidInput, match="sizes"):
        best_tau(sizes)
