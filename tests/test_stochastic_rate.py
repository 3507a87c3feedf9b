"""The rate in mean square: against runs, against the step averaged over all batches, and its limits."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.measurements.mean_square import measured_rate
from ufm import InvalidInput, Problem, losses, project, samplers, scl_loss
from ufm.theory.local_rate import best_tau as best_tau_of_the_full_batch
from ufm.theory.local_rate import contraction
from ufm.theory.stochastic_rate import best_step, best_tau, class_laws, least_rate, mean_square_rate, recursion

TWO = samplers.two_views
# Sampler, class sizes, temperature, step.
SETTINGS = [
    (samplers.uniform(8), (12, 6, 6), 0.2, 0.1),
    (samplers.uniform(8), (12, 6, 6), 1.0, 0.1),
    (samplers.uniform(8), (12, 6, 6), 5.0, 0.5),
    (samplers.uniform(16), (12, 6, 6), 0.5, 0.1),
    (samplers.uniform(16), (20, 8, 8, 4), 1.0, 1.0),
    (samplers.uniform(6), (6, 6), 0.3, 0.3),
    (samplers.uniform(12), (30, 10, 5), 0.5, 0.3),
    (samplers.reshuffled(8), (12, 6, 6), 0.5, 0.1),
    (samplers.reshuffled(8), (14, 7, 5), 1.0, 0.1),
    (samplers.reshuffled(5), (6, 6, 5), 2.0, 0.5),
    (samplers.class_balanced(9), (12, 6, 6), 0.2, 0.1),
    (samplers.class_balanced(9), (30, 6, 4), 1.0, 0.5),
    (samplers.class_balanced(10), (12, 6, 6), 0.5, 3.0),
    (samplers.m_per_class(3, 2), (12, 6, 6), 0.5, 0.1),
    (samplers.m_per_class(2, 3), (8, 4, 4, 4), 1.0, 1.0),
    (samplers.m_per_class(4, 3), (30, 6, 4), 0.3, 0.3),
    (samplers.uniform(6).bound(1), (12, 6, 6), 0.5, 0.1),
    (samplers.uniform(6).bound(2), (10, 5, 5), 1.0, 0.3),
    (samplers.m_per_class(2, 2).bound(1), (8, 6, 6), 0.5, 0.3),
    (TWO(samplers.uniform(6)), (12, 8, 8), 0.5, 0.1),
    (TWO(samplers.class_balanced(6)), (12, 8, 8), 1.0, 0.3),
    (TWO(samplers.uniform(4).bound(1)), (12, 8, 8), 0.5, 0.1),
]


def problem_of(sampler, sizes, tau=0.5, d=None):
    """Class after class; of images with two views, first all first views."""
    views = 2 if isinstance(sampler, samplers.TwoViews) else 1
    labels = np.tile(np.repeat(np.arange(len(sizes)), np.array(sizes) // views), views)
    return Problem(labels, d or 2 * len(sizes), tau)


@pytest.mark.few(2)
@pytest.mark.parametrize(("sampler", "sizes", "tau", "eta"), SETTINGS, ids=[f"{s[0]} {s[2]:g}" for s in SETTINGS])
def test_predicted_is_measured(sampler, sizes, tau, eta):
    predicted, measured = measured_rate(problem_of(sampler, sizes, tau), sampler, eta, seed=0)
    assert 0.2 < predicted < 0.9999
    assert 1 - measured == pytest.approx(1 - predicted, rel=0.03)


@pytest.mark.parametrize("eta", [0.1, 2.0])
def test_it_is_the_average_over_all_batches_of_the_step_itself(eta):
    """Every batch of 4 of 7 samples, differentiated; no law of counts, no weights."""
    sizes, k, d = (4, 3), 2, 4
    problem = Problem.from_class_sizes(sizes, d=d, tau=0.5)
    labels = np.asarray(problem.labels)
    frame = (np.eye(k, d)[labels] + np.eye(k, d, k)[labels]) / np.sqrt(2)
    across = (np.eye(k, d)[labels] - np.eye(k, d, k)[labels]) / np.sqrt(2)
    size = np.random.default_rng(0).standard_normal(7)
    batches = list(itertools.combinations(range(7), 4))

    @jax.jit
    def moved(H, batch):
        G = jax.grad(lambda rows: scl_loss(rows, Problem(jnp.asarray(labels)[batch], d, 0.5, k=k)))(H[batch])
        return H.at[batch].set(project(H[batch] - eta * G, True))

    h = 1e-5
    lost = np.zeros(k)
    for batch in batches:
        ends = [moved(jnp.asarray(frame + sign * h * size[:, None] * across), jnp.array(batch)) for sign in (1, -1)]
        deviation = np.asarray(ends[0] - ends[1]) / (2 * h)
        lost += [_squares(deviation, labels, c) for c in range(k)]
    before = [_squares(size[:, None] * across, labels, c) for c in range(k)]
    np.testing.assert_allclose(
        lost / len(batches) / before, mean_square_rate(problem, samplers.uniform(4), eta), rtol=1e-6
    )


def _squares(rows, labels, c):
    members = rows[labels == c]
    return ((members - members.mean(axis=0)) ** 2).sum()


def test_of_the_whole_in_one_batch_it_is_the_square_of_the_full_rate():
    problem = Problem.from_class_sizes([9, 5, 3], d=6, tau=0.7)
    full = np.asarray(contraction(problem, 0.2)) ** 2
    for sampler in (samplers.uniform(17), samplers.reshuffled(17)):
        np.testing.assert_allclose(mean_square_rate(problem, sampler, 0.2), full, rtol=1e-12)


def test_recursion_of_bound_samples_by_drawing():
    """The step as 5.20 states it, on numbers, for many batches: all three squares from any start."""
    sampler, sizes, tau, eta = samplers.uniform(6).bound(2), (9, 5), 0.5, 0.4
    law = class_laws(sampler, sizes)[0]
    matrix = recursion(law, law.contraction(tau, eta))
    rng = np.random.default_rng(0)
    x = rng.standard_normal(9)
    x -= x.mean()
    start = _three(x, 2)
    total, draws = np.zeros(3), 100_000
    chosen = rng.choice(len(law.drawn), p=law.probability, size=draws)
    rho = law.contraction(tau, eta)
    for v in chosen:
        members = np.concatenate([[0, 1], 2 + rng.permutation(7)[: law.drawn[v]]])
        y = x.copy()
        y[members] = x[members].mean() + rho[v] * (x[members] - x[members].mean())
        total += _three(y, 2)
    np.testing.assert_allclose(matrix @ start, total / draws, rtol=0.02)


def test_recursion_beside_one_sample_that_is_not_bound():
    """Theory, 5.20 (c), with f = 1, where V_F and its row are left out: exactly, by both batches that there are."""
    tau, eta = 0.5, 0.4
    law = class_laws(samplers.uniform(4).bound(2), (3, 5))[0]
    rho, x = law.contraction(tau, eta), np.array([0.3, -1.1, 0.8])
    expected = np.zeros(3)
    for drawn, factor, probability in zip(law.drawn, rho, law.probability, strict=True):
        y, members = x.copy(), slice(0, 2 + drawn)
        y[members] = x[members].mean() + factor * (x[members] - x[members].mean())
        expected += probability * _three(y, 2)
    np.testing.assert_allclose(recursion(law, rho) @ _three(x, 2)[[0, 2]], expected[[0, 2]], rtol=1e-12)


def _three(x, a):
    bound, free = x[:a], x[a:]
    apart = len(bound) * len(free) / len(x) * (bound.mean() - free.mean()) ** 2
    return np.array([((part - part.mean()) ** 2).sum() for part in (bound, free)] + [apart])


def test_an_epoch_contracts_more_than_as_many_fresh_batches():
    problem = problem_of(samplers.uniform(8), (16, 8, 8))
    fresh, epochs = (mean_square_rate(problem, made(8), 0.3) for made in (samplers.uniform, samplers.reshuffled))
    assert (epochs < fresh).all()


def test_the_smallest_class_is_the_slowest_where_the_largest_is_in_the_full_batch():
    problem = Problem.from_class_sizes([100, 100, 5, 5], d=4, tau=1.0)
    assert mean_square_rate(problem, samplers.uniform(16), 0.1).argmax() >= 2
    assert np.asarray(contraction(problem, 0.1)).argmax() < 2
    assert mean_square_rate(problem, samplers.class_balanced(16), 0.1).argmax() < 2


@pytest.mark.parametrize("sampler", [samplers.uniform(8), samplers.m_per_class(3, 2), TWO(samplers.uniform(6))])
def test_no_step_beats_the_least_rate(sampler):
    problem = problem_of(sampler, (12, 6, 6))
    least = least_rate(sampler, (12, 6, 6))
    for eta in np.geomspace(0.01, 100, 9):
        assert (mean_square_rate(problem, sampler, eta) >= least - 1e-12).all()


def test_where_the_counts_are_certain_the_best_step_and_temperature_are_those_of_the_book():
    sampler, sizes = samplers.class_balanced(9), (12, 6, 6)
    problem = problem_of(sampler, sizes)
    (law, *_) = class_laws(sampler, sizes)
    eta = float(0.5 / law.pull(0.5)[0])
    assert best_step(problem, sampler) == pytest.approx(eta, rel=1e-3)
    assert mean_square_rate(problem, sampler, eta).max() == pytest.approx(least_rate(sampler, sizes).max(), abs=1e-12)
    # m = 3 beside 6 others: of a full batch of such classes.
    assert best_tau(sampler, sizes, 0.01) == pytest.approx(best_tau_of_the_full_batch([3, 3, 3]), rel=1e-3)


def test_the_best_step_and_temperature_are_the_best_of_many():
    sampler, sizes = samplers.uniform(10), (12, 6, 4)
    problem = problem_of(sampler, sizes)
    at_best = mean_square_rate(problem, sampler, best_step(problem, sampler)).max()
    assert at_best <= min(mean_square_rate(problem, sampler, eta).max() for eta in np.geomspace(0.01, 100, 60)) + 1e-9
    tau = best_tau(sampler, sizes, 0.1)
    rates = [mean_square_rate(problem_of(sampler, sizes, t), sampler, 0.1).max() for t in np.geomspace(0.05, 20, 60)]
    assert mean_square_rate(problem_of(sampler, sizes, tau), sampler, 0.1).max() <= min(rates) + 1e-9


def test_a_class_that_no_batch_pulls_together():
    problem = problem_of(samplers.m_per_class(1, 2), (4, 4))
    np.testing.assert_array_equal(mean_square_rate(problem, samplers.m_per_class(1, 2), 0.1), 1.0)
    np.testing.assert_array_equal(mean_square_rate(problem, samplers.m_per_class(3, 1), 0.1), 1.0)
    with pytest.raises(InvalidInput, match="pull no class together"):
        best_step(problem, samplers.m_per_class(1, 2))
    alone = Problem.from_class_sizes([4, 1], d=2)
    assert mean_square_rate(alone, samplers.uniform(4), 0.1)[1] == 0


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda p: mean_square_rate(p, samplers.uniform(4), 0.0), "eta"),
        (lambda p: mean_square_rate(p, samplers.uniform(4), float("nan")), "eta"),
        (lambda p: mean_square_rate(p, samplers.uniform(99), 0.1), "batch_size"),
        (lambda p: mean_square_rate(p, samplers.reshuffled(4).bound(1), 0.1), "sampler"),
        (lambda p: least_rate(samplers.uniform(4).bound(1), [4, 4]), "sampler"),
        (lambda p: best_tau(samplers.m_per_class(2, 3), [4, 4], 0.1), "p"),
        (lambda p: best_tau(samplers.uniform(4), [4, 4], -1.0), "eta"),
        (
            lambda p: mean_square_rate(Problem([0, 0, 1, 1], 2, loss=losses.decoupled()), samplers.uniform(2), 1.0),
            "loss",
        ),
    ],
)
def test_bad_input_is_refused(call, named, untyped):
    with pytest.raises(InvalidInput, match=f"^{named} = "):
        call(Problem.from_class_sizes([4, 4], d=2))
