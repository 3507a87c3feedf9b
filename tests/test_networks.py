"""Layers and architectures against plain loops, what activations allow, and what no network is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import networks
import ufm
from networks.layers import BatchNorm, Conv, Moments, Norms, convolved, halved, pooled
from networks.training import augmented

KEY = jax.random.key(0)
SHAPE = (8, 8, 3)
SMALL = {"mlp": 16, "resnet18": 2, "densenet40": 2}
# Features of these are >= 0: the final activation's image is the orthant (or dense in it).
NONNEGATIVE = {"relu", "softplus", "abs"}


def images(n=4, seed=0, shape=SHAPE):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(n, *shape)), jnp.float32)


@pytest.mark.parametrize(("size", "stride"), [(3, 1), (3, 2), (1, 1), (1, 2)])
def test_convolution_against_loops(size, stride):
    conv, x = Conv(3, 5, size, KEY, stride), np.asarray(images(2), float)
    margin, weight = size // 2, np.asarray(conv.weight, float)
    around = np.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    places = range(0, 8, stride)
    plain = np.array(
        [[[np.tensordot(a[i : i + size, j : j + size], weight, 3) for j in places] for i in places] for a in around]
    )
    result = conv(images(2))
    assert result.dtype == jnp.float32
    assert np.allclose(result, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("size", "stride", "side"), [(3, 1, 7), (3, 2, 7), (3, 2, 8), (1, 1, 5), (1, 2, 7), (1, 2, 8)])
def test_derivatives_of_the_convolution_are_those_of_jax(size, stride, side):
    weight = Conv(3, 5, size, KEY, stride).weight
    margin, form = size // 2, ("NHWC", "HWIO", "NHWC")

    def plain(x, weight):
        return jax.lax.conv_general_dilated(x, weight, (stride, stride), [(margin, margin)] * 2, dimension_numbers=form)

    x = images(2, shape=(side, side, 3))
    result, pull = jax.vjp(lambda x, w: convolved(x, w, stride), x, weight)
    same, push = jax.vjp(plain, x, weight)
    assert np.array_equal(result, same)
    slope = jnp.asarray(np.random.default_rng(1).normal(size=result.shape), jnp.float32)
    for ours, theirs in zip(pull(slope), push(slope), strict=True):
        assert ours.dtype == jnp.float32
        assert np.allclose(ours, theirs, rtol=1e-5, atol=1e-4)


def test_batch_norm_in_both_modes():
    layer, x = BatchNorm(3), np.asarray(images(), float)
    running = Moments(jnp.full(3, 0.5, jnp.float32), jnp.full(3, 2.0, jnp.float32))
    training, evaluating = Norms([running], training=True), Norms([running], training=False)
    result, known = layer(images(), training), layer(images(), evaluating)
    mean, variance, count = x.mean((0, 1, 2)), x.var((0, 1, 2)), x.size // 3
    assert np.allclose(result, (x - mean) / np.sqrt(variance + 1e-5), atol=1e-5)
    assert np.allclose(known, (x - 0.5) / np.sqrt(2 + 1e-5), atol=1e-5)
    (renewed,) = training.renewed
    assert np.allclose(renewed.mean, 0.9 * 0.5 + 0.1 * mean, atol=1e-6)
    assert np.allclose(renewed.variance, 0.9 * 2 + 0.1 * variance * count / (count - 1), atol=1e-6)
    assert evaluating.renewed == [running]


def test_pooling():
    x = np.asarray(images(shape=(5, 4, 2)), float)
    assert np.allclose(pooled(images(shape=(5, 4, 2))), x.mean((1, 2)), atol=1e-6)
    plain = np.array([[x[:, i : i + 2, j : j + 2].mean((1, 2)) for j in (0, 2)] for i in (0, 2)]).transpose(2, 0, 1, 3)
    assert np.allclose(halved(images(shape=(5, 4, 2))), plain, atol=1e-6)


@pytest.mark.few(2)
@pytest.mark.parametrize(
    ("name", "activation"),
    [*(("mlp", activation) for activation in networks.ACTIVATIONS)]
    + [(name, activation) for name in ("resnet18", "densenet40") for activation in ("relu", "none")],
)
def test_features_are_unit_float32_and_in_the_image_of_the_activation(name, activation):
    network, running = networks.build(name, SHAPE, activation, SMALL[name])
    H, renewed = jax.jit(lambda x: networks.features(network, running, x, training=True))(images(6))
    assert H.dtype == jnp.float32
    norms = np.linalg.norm(np.asarray(H, float), axis=1)
    assert np.allclose(norms[norms > 0.5], 1, atol=2**-20)
    assert (norms > 0.5).sum() >= 5  # a ReLU may switch all of an image off
    assert bool(np.asarray(H).min() >= 0) is (activation in NONNEGATIVE)
    assert len(renewed) == len(running) == {"mlp": 0, "resnet18": 20, "densenet40": 39}[name]
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((network, renewed)))


def test_parameters_of_the_papers_networks():
    """ResNet-18 has 11.17 million without its classifier; DenseNet-BC of 40 layers and growth 12 has 0.17 million."""
    counts = {}
    for name in networks.ARCHITECTURES:
        network, _ = jax.eval_shape(lambda name=name: networks.build(name, (32, 32, 3)))
        counts[name] = sum(leaf.size for leaf in jax.tree.leaves(network))
    assert counts["resnet18"] == 11_168_832
    assert 165_000 < counts["densenet40"] < 176_122
    assert counts["mlp"] == 3072 * 512 + 512 + 512 * 512 + 512 + 512 * 128 + 128


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_an_mlp_of_any_depth_against_products(depth):
    network, running = networks.build("mlp", SHAPE, "relu", 16, depth=depth, d=5)
    assert running == ()
    h = np.asarray(images(), float).reshape(4, -1)
    for layer in network.layers:
        h = np.maximum(h @ np.asarray(layer.weight, float) + np.asarray(layer.bias, float), 0)
    H, _ = networks.features(network, running, images())
    assert H.shape == (4, 5)
    assert len(network.layers) == depth + 1
    assert np.allclose(H, h / np.linalg.norm(h, axis=1, keepdims=True), atol=1e-5)


def test_batch_norm_of_an_mlp_stands_before_every_activation():
    network, running = networks.build("mlp", SHAPE, "none", 16, depth=1, d=5, batch_norm=True)
    assert [len(norm.scale) for norm in network.norms] == [len(moments.mean) for moments in running] == [16, 5]
    h = np.asarray(images(9), float).reshape(9, -1)
    for layer, last in zip(network.layers, (False, True), strict=True):
        h = h @ np.asarray(layer.weight, float)  # a shift of all is taken off
        h = (h - h.mean(axis=0)) / np.sqrt(h.var(axis=0) + 1e-5)
        h = h if last else np.maximum(h, 0)
    H, renewed = networks.features(network, running, images(9), training=True)
    assert np.allclose(H, h / np.linalg.norm(h, axis=1, keepdims=True), atol=1e-4)
    assert all((a.variance != b.variance).any() for a, b in zip(running, renewed, strict=True))


def test_an_image_that_is_switched_off_has_feature_0_and_no_nan_in_its_gradient():
    network, running = networks.build("mlp", SHAPE, "relu", 16)
    dead = jax.tree.map(jnp.zeros_like, network)
    value, slope = jax.value_and_grad(lambda n: networks.features(n, running, images())[0].sum())(dead)
    assert float(value) == 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slope))


def test_augmentation_cuts_from_zeros_around_and_mirrors():
    x = jnp.arange(1, 1 + 6 * 6 * 2, dtype=jnp.uint8).reshape(1, 6, 6, 2).repeat(64, axis=0)
    around = np.pad(np.asarray(x[0]), ((4, 4), (4, 4), (0, 0)))
    cuts = {around[i : i + 6, j : j + 6].tobytes() for i in range(9) for j in range(9)}
    mirrored = {around[i : i + 6, j : j + 6][:, ::-1].tobytes() for i in range(9) for j in range(9)}
    plain = {one.tobytes() for one in np.asarray(augmented(x, KEY, flip=False))}
    flipped = {one.tobytes() for one in np.asarray(augmented(x, KEY, flip=True))}
    assert plain <= cuts
    assert len(plain) > 20
    assert flipped <= cuts | mirrored
    assert flipped & mirrored
    assert flipped & cuts


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("vgg", SHAPE), "net = 'vgg'"),
        (("mlp", SHAPE, "tanh"), "activation = 'tanh'"),
        (("mlp", SHAPE, "relu", 0), "width = 0"),
        (("mlp", SHAPE, "relu", 8, -1), "seed = -1"),
    ],
)
def test_what_is_no_network(arguments, said):
    with pytest.raises(ufm.InvalidInput, match=said):
        networks.build(*arguments)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("mlp", {"depth": -1}, "depth = -1"),
        ("mlp", {"depth": 65}, "depth = 65"),
        ("mlp", {"d": 1}, "d = 1"),
        ("resnet18", {"depth": 2}, "depth = 2: only an mlp has this option"),
        ("densenet40", {"batch_norm": True}, "batch_norm = True: only an mlp has this option"),
    ],
)
def test_options_that_a_network_does_not_take(name, options, said):
    with pytest.raises(ufm.InvalidInput, match=said):
        networks.build(name, SHAPE, "relu", 8, **options)
