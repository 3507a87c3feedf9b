"""The loss of a mini-batch in a trace: labels as an argument, float32 features, padding by multiplicity 0."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import oracles
import pytest
from families import LOSSES

import ufm

K, D = 4, 6
# Labels of mini-batches: all classes, an absent one, singletons, one class only.
BATCHES = {
    "all classes": [0, 1, 2, 3, 0, 1, 2, 3, 3],
    "one is absent": [0, 0, 2, 2, 2, 3, 3, 0, 2],
    "singletons": [0, 1, 2, 2, 2, 2, 3, 2, 2],
    "one class": [1] * 9,
}
# dtype -> relative agreement asked for.
AGREEMENT = {"float32": 1e-5, "float64": 1e-11}


def rows(seed, dtype, n=9):
    H = np.abs(np.random.default_rng(seed).normal(size=(n, D)))
    return jnp.asarray(H / np.linalg.norm(H, axis=1, keepdims=True), dtype)


def loss(H, labels, tau=0.1, multiplicity=None):
    return ufm.scl_loss(H, ufm.Problem(labels, D, tau, multiplicity=multiplicity, k=K))


def plain(H, labels, tau=0.1):
    return oracles.scl_jnp(jnp.asarray(H, jnp.float64), labels, tau, [range(len(labels))])


@pytest.mark.parametrize("dtype", AGREEMENT)
@pytest.mark.parametrize("name", BATCHES)
def test_loss_and_gradient_of_a_traced_batch_against_plain_loops(name, dtype):
    labels, H = jnp.asarray(BATCHES[name]), rows(1, dtype)
    value, gradient = jax.jit(jax.value_and_grad(loss))(H, labels)
    true, true_gradient = jax.value_and_grad(plain)(H, BATCHES[name])
    assert gradient.dtype == jnp.dtype(dtype)
    assert abs(float(value) - float(true)) <= AGREEMENT[dtype] * abs(float(true))
    assert np.abs(np.asarray(gradient) - true_gradient).max() <= AGREEMENT[dtype] * np.abs(true_gradient).max()


def test_one_function_for_all_labels_is_traced_once():
    traced = []

    @jax.jit
    def step(H, labels):
        traced.append(1)
        return loss(H, labels)

    for labels in BATCHES.values():
        step(rows(2, "float32"), jnp.asarray(labels))
    assert len(traced) == 1


def test_vmap_over_batches_and_starts():
    labels = jnp.asarray(list(BATCHES.values()))
    H = jnp.stack([rows(seed, "float32") for seed in range(len(labels))])
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(loss)))(H, labels)
    for b in range(len(labels)):
        assert float(values[b]) == pytest.approx(float(loss(H[b], labels[b])), rel=1e-12)
        assert np.allclose(gradients[b], jax.grad(loss)(H[b], labels[b]), rtol=1e-5, atol=1e-6)


def test_padding_by_multiplicity_0_changes_nothing_and_has_no_gradient():
    labels, H = BATCHES["singletons"], rows(3, "float64")
    padded = jnp.concatenate([H, jnp.full((3, D), 0.3)])
    inputs = jnp.asarray([*labels, 0, 1, 3]), jnp.asarray([1.0] * 9 + [0.0] * 3)
    value, gradient = jax.jit(jax.value_and_grad(lambda H, y, m: loss(H, y, 0.1, m)))(padded, *inputs)
    assert float(value) == pytest.approx(float(loss(H, labels)), rel=1e-13)
    assert np.allclose(gradient[:9], jax.grad(loss)(H, jnp.asarray(labels)), rtol=1e-12, atol=1e-12)
    assert (np.asarray(gradient[9:]) == 0).all()


def test_a_traced_temperature_and_the_excess_over_the_bound():
    labels = BATCHES["all classes"]

    @jax.jit
    def excess(tau):
        problem = ufm.Problem(jnp.asarray(labels), D, tau, k=K)
        return ufm.excess(rows(4, "float64"), problem), ufm.loss_bound(problem)

    known = ufm.Problem(labels, D, 0.3)
    value, bound = excess(0.3)
    assert float(value) == pytest.approx(float(ufm.excess(rows(4, "float64"), known)), rel=1e-12)
    assert float(bound) == pytest.approx(float(ufm.loss_bound(known)), rel=1e-12)


@pytest.mark.parametrize("loss_of", [ufm.losses.class_averaged(), ufm.losses.decoupled(), ufm.losses.sigmoid()])
def test_the_family_takes_traced_batches(loss_of):
    labels, H = BATCHES["all classes"], rows(5, "float64")
    traced = jax.jit(lambda H, y: ufm.scl_loss(H, ufm.Problem(y, D, 0.5, k=K, loss=loss_of)))(H, jnp.asarray(labels))
    assert float(traced) == pytest.approx(float(ufm.scl_loss(H, ufm.Problem(labels, D, 0.5, loss=loss_of))), rel=1e-12)


ADJUSTED = {
    f"decoupled, logit adjustment of strength {strength:g}": lambda rng, k, strength=strength: ufm.losses.log_sum_exp(
        strength=strength, positives_in_denominator=False
    )
    for strength in (-1.0, 0.0, 0.5)
}


@pytest.mark.parametrize("name", [*LOSSES, *ADJUSTED])
def test_every_loss_of_a_batch_in_which_classes_are_absent(name):
    """Class 1 has no point, class 2 a point of no sample, a class may be missing from a batch or alone in one."""
    rng = np.random.default_rng(2)
    of = {**LOSSES, **ADJUSTED}[name](rng, 5)
    labels, samples, batches = (
        [0, 0, 3, 3, 3, 4, 2],
        [2, 1, 1, 1, 0, 1, 0],
        [range(7), [0, 1, 4, 6], [2, 5], [4], [3, 5, 6]],
    )
    H = oracles.random_rows(rng, "ufm", labels, 4)
    known = ufm.Problem(labels, 4, 0.3, batches, k=5, multiplicity=samples, loss=of)
    traced = jax.jit(
        lambda H, y, m: jax.value_and_grad(ufm.scl_loss)(
            H, ufm.Problem(y, 4, 0.3, batches, k=5, multiplicity=m, loss=of)
        )
    )
    with mpmath.workdps(40):
        right, least = (float(x) for x in oracles.family(H, known))
    size = abs(right) + abs(least)
    value, gradient = traced(jnp.asarray(H), jnp.asarray(labels), jnp.asarray(samples, float))
    assert float(value) == pytest.approx(right, abs=1e-12 * size)
    assert float(ufm.scl_loss(H, known)) == pytest.approx(right, abs=1e-12 * size)
    assert float(ufm.loss_bound(known)) == pytest.approx(least, abs=1e-12 * size)
    assert float(ufm.excess(H, known)) == pytest.approx(right - least, abs=1e-12 * size)
    moved = rng.normal(size=H.shape)
    ahead, behind = (float(ufm.scl_loss(H + step * moved, known)) for step in (1e-5, -1e-5))
    assert np.isfinite(np.asarray(gradient)).all()
    assert float(np.sum(np.asarray(gradient) * moved)) == pytest.approx((ahead - behind) / 2e-5, abs=1e-7 * (size + 1))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda y: ufm.Problem(y, D), "k = None: labels are traced, so give the number of classes"),
        (lambda y: ufm.Problem(y[:, None], D, k=K), "labels = 'int64 array"),
        (lambda y: ufm.Problem(y * 1.0, D, k=K), "labels = 'float64 array"),
        (lambda y: ufm.Problem([0, 1], D, multiplicity=y[:2]), "multiplicity"),
        (lambda y: ufm.Problem([0, 1], D, y[0] * 0.1), "tau"),
    ],
)
def test_what_a_trace_cannot_give(make, said, untyped):
    with pytest.raises(ufm.InvalidInput, match=said.replace("(", r"\(")):
        jax.eval_shape(lambda y: make(y).labels, jnp.arange(4))


def test_known_labels_are_checked_and_absent_classes_are_not_solved():
    with pytest.raises(ufm.InvalidInput, match="labels = 5"):
        ufm.Problem([0, 5], D, k=5)
    with pytest.raises(ufm.InvalidInput, match="k = 1"):
        ufm.Problem([0, 0], D, k=1)
    minibatch = ufm.Problem([0, 0, 2], D, k=4)
    assert "R = 2" in repr(minibatch)
    with pytest.raises(ufm.InvalidInput, match="labels = 1: this class has no sample"):
        ufm.orbits(minibatch)
