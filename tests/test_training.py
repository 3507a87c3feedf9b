"""Training: one step against its formula, resuming to the last bit, and what is learned of images that need no file."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import networks
import ufm
from networks.training import objective, restored, serialised

SIZES = [24, 24, 6]


def training(net="mlp", width=32, activation="relu", **options):
    samples = networks.synthetic(SIZES).train
    network, running = networks.build(net, samples.shape, activation, width)
    options = {"tau": 0.2, "schedule": networks.Schedule(epochs=30), **options}
    return samples, networks.Training(network, running, samples, **options)


def trained(made, samples, epochs, state=None, batching="reshuffled", first=0):
    state = made.start if state is None else state
    for number in range(first, epochs):
        state, loss = made.epoch(state, number, networks.epoch_of(batching, samples.labels, 18, number, 0))
    return state, loss


def bits(state):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state) if hasattr(leaf, "dtype")]


def test_one_step_is_sgd_with_momentum_and_decay():
    samples, made = training(schedule=networks.Schedule(epochs=10, rate=0.05, momentum=0.7, decay=0.01))
    batches = networks.epoch_of("fixed", samples.labels, len(samples.labels), 0, 0)
    pixels = samples.images[batches.index[0]].astype(np.float64)
    images = jnp.asarray((pixels - samples.images.mean()) / samples.images.astype(np.float64).std(), jnp.float32)
    labels, weight = jnp.asarray(samples.labels[batches.index[0]]), jnp.ones(len(samples.labels))
    parameters, velocity = made.start.network, jax.tree.map(jnp.zeros_like, made.start.network)
    state = made.start
    for number in range(3):
        slope = jax.grad(lambda p: objective((p, None), (), images, labels, weight, made)[0])(parameters)
        velocity = jax.tree.map(lambda v, g, p: 0.7 * v + g + 0.01 * p, velocity, slope, parameters)
        parameters = jax.tree.map(lambda p, v: p - 0.05 * v, parameters, velocity)
        state, _ = made.epoch(state, number, batches)
    for ours, plain, begun in zip(*map(jax.tree.leaves, (state.network, parameters, made.start.network)), strict=True):
        assert np.allclose(ours, plain, rtol=1e-4, atol=1e-6)
        assert not np.allclose(ours, begun, rtol=1e-4, atol=1e-6)


def test_rates_fall_where_the_papers_do():
    schedule = networks.Schedule()
    assert [round(schedule.rate_of(epoch), 9) for epoch in (0, 115, 116, 231, 232, 349)] == [
        0.1,
        0.1,
        0.01,
        0.01,
        0.001,
        0.001,
    ]


@pytest.mark.few(1)
@pytest.mark.parametrize("options", [{}, {"augment": "crop-flip", "views": 2}, {"loss": "cross-entropy"}])
def test_resuming_changes_no_bit(options):
    samples, made = training(**options)
    whole, loss = trained(made, samples, 4)
    half, _ = trained(made, samples, 2)
    _, fresh = training(**options)
    state, again = trained(fresh, samples, 4, restored(serialised(half), fresh.start), first=2)
    assert bits(state) == bits(whole)
    assert again == loss


@pytest.mark.thorough
def test_batch_norm_resumes_too():
    samples, made = training("densenet40", 2)
    whole, _ = trained(made, samples, 2)
    half, _ = trained(made, samples, 1)
    state, _ = trained(made, samples, 2, restored(serialised(half), made.start), first=1)
    assert bits(state) == bits(whole)
    assert bits(half.running) != bits(made.start.running)


@pytest.mark.parametrize("content", [b"", b"no state", serialised(training(width=8)[1].start)])
def test_what_is_no_state_of_the_network(content):
    with pytest.raises(ufm.InvalidInput, match="state"):
        restored(content, training()[1].start)


def test_images_that_need_no_file_are_learned_up_to_a_frame():
    samples, made = training(width=128)
    state, loss = trained(made, samples, 30, batching="bound")
    H = made.features(state, samples.images)
    assert H.dtype == np.float32
    metrics = ufm.geometry_metrics(H, samples.labels)
    assert float(metrics.delta_gm) < 0.1
    assert float(ufm.geometry_metrics(made.features(made.start, samples.images), samples.labels).delta_gm) > 0.4
    assert np.isfinite(loss)


def test_slots_that_do_not_count_change_nothing_but_batch_norm():
    samples, made = training()
    batches = networks.epoch_of("bound", samples.labels, 18, 0, 0)
    other = np.where(batches.counts, batches.index, 0)
    assert (~batches.counts).any()
    ours, _ = made.epoch(made.start, 0, batches)
    plain, _ = made.epoch(made.start, 0, batches._replace(index=other))
    for a, b in zip(jax.tree.leaves(ours.network), jax.tree.leaves(plain.network), strict=True):
        assert np.allclose(a, b, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"loss": "mse"}, "loss = 'mse'"), ({"augment": "flip"}, "augment = 'flip'"), ({"views": 3}, "views = 3")],
)
def test_what_is_no_training(options, said):
    with pytest.raises(ufm.InvalidInput, match=said):
        training(**options)
