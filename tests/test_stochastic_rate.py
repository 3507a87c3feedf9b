"""The rate in mean square: against the step itself averaged over batches, against runs, and its limits."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from solvers.descent.walks import Rule, advance, begin
from ufm import InvalidInput, Problem, losses, project, samplers, scl_loss, step_imbalance
from ufm.local_rate import attraction, best_tau as best_tau_of_full_batch, contraction
from ufm.stochastic_rate import best_step, best_tau, class_laws, least_rate, mean_square_rate, recursion

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
STARTS, SIZE = 256, 1e-5


def labels_of(sampler, sizes):
    """Class after class; of images with two views, first all first views."""
    if isinstance(sampler, samplers.TwoViews):
        return np.tile(np.repeat(np.arange(len(sizes)), np.array(sizes) // 2), 2)
    return np.repeat(np.arange(len(sizes)), sizes)


def squares(H, labels):
    """Sum over a class of squared distances from its mean, (start, class)."""
    return np.stack(
        [((own - own.mean(axis=1, keepdims=True)) ** 2).sum(axis=(1, 2)) for own in _by_class(H, labels)], axis=1
    )


def _by_class(H, labels):
    return [H[:, labels == c] for c in range(labels.max() + 1)]


def near_frame(labels, seed):
    """Starts with deviations of size SIZE where only the class itself has mass; d = 4 k."""
    k = labels.max() + 1
    own = labels[:, None] == np.arange(4 * k) % k
    noise = np.random.default_rng(seed).uniform(size=(STARTS, *own.shape)) * own * SIZE
    H = own / 2.0 + noise
    return H / np.linalg.norm(H, axis=-1, keepdims=True)


@pytest.mark.parametrize(("sampler", "sizes", "tau", "eta"), SETTINGS, ids=lambda value: str(value))
def test_predicted_is_measured(sampler, sizes, tau, eta):
    labels = labels_of(sampler, sizes)
    problem = Problem(labels, d=4 * len(sizes), tau=tau)
    predicted = mean_square_rate(problem, sampler, eta)
    laws = class_laws(sampler, sizes)
    rule, population = Rule(sampler, None, eta), sampler.population(labels)
    # To about e^-2 in the slowest class: beyond it the mean is of fewer and fewer starts. Whole epochs.
    epoch = laws[0].epoch
    steps = epoch * max(2, round(2.0 / -np.log(predicted.max()) / epoch))
    keys = np.stack([np.asarray(jax.random.key_data(jax.random.key(s))) for s in range(STARTS)])
    H = near_frame(labels, 0)
    state = begin(H, keys, population, rule=rule)
    seen = [squares(H, labels)]
    # Three times: what contracts faster than the rest has then gone where there is a recursion.
    for _ in range(2):
        state, _ = advance(state, population, problem, np.int32(steps), rule=rule)
        seen.append(squares(np.asarray(state.H), labels))
    slowest = int(predicted.argmax())
    first, last = (1, 2) if laws[slowest].bound else (0, 1)
    measured = (seen[last][:, slowest].mean() / seen[first][:, slowest].mean()) ** (1.0 / steps)
    assert 1 - measured == pytest.approx(1 - predicted[slowest], rel=0.03)
