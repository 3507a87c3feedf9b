"""The same weights, the same images, the same loss in PyTorch. Collected only where it is installed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

import ufm
from experiments.measurements import throughput
from networks.architectures import DenseLayer, ResidualBlock
from networks.layers import BatchNorm, Conv, Moments, Norms
from ufm.model.evaluation import batch_gradient

CLOSE = 1e-5
torch.set_num_threads(1)


def images(seed=0, n=6, side=7, channels=4):
    return np.random.default_rng(seed).normal(size=(n, side, side, channels)).astype(np.float32)


def to_torch(x):
    return torch.tensor(np.asarray(x).transpose(0, 3, 1, 2).copy())


def conv_of(conv):
    weight = np.asarray(conv.weight)
    made = nn.Conv2d(weight.shape[2], weight.shape[3], weight.shape[0], conv.stride, weight.shape[0] // 2, bias=False)
    made.weight.data = torch.tensor(weight.transpose(3, 2, 0, 1).copy())
    return made


def norm_of(norm, moments):
    made = nn.BatchNorm2d(len(norm.scale))
    for name, x in (
        ("weight", norm.scale),
        ("bias", norm.shift),
        ("running_mean", moments[0]),
        ("running_var", moments[1]),
    ):
        getattr(made, name).data = torch.tensor(np.array(x))
    return made


def apart(ours, theirs):
    """Largest difference over the largest entry."""
    theirs = theirs.detach().numpy()
    theirs = theirs.transpose(0, 2, 3, 1) if theirs.ndim == 4 else theirs
    return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


def random_norm(channels, seed):
    random, layer = np.random.default_rng(seed), BatchNorm(channels)
    scale, shift, mean = (jnp.asarray(random.normal(size=channels), jnp.float32) for _ in range(3))
    layer = jax.tree.unflatten(jax.tree.structure(layer), [scale, shift])
    return layer, Moments(mean, jnp.asarray(random.uniform(0.5, 2, channels), jnp.float32))


@pytest.mark.parametrize(("size", "stride"), [(3, 1), (3, 2), (1, 2)])
def test_convolution(size, stride):
    conv, x = Conv(4, 5, size, jax.random.key(1), stride), images()
    assert apart(conv(jnp.asarray(x)), conv_of(conv)(to_torch(x))) < CLOSE


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm(training):
    (layer, moments), x = random_norm(4, 2), images()
    norms, theirs = Norms([moments], training), norm_of(layer, moments).train(training)
    assert apart(layer(jnp.asarray(x), norms), theirs(to_torch(x))) < CLOSE
    assert apart(norms.renewed[0].mean, theirs.running_mean) < CLOSE
    assert apart(norms.renewed[0].variance, theirs.running_var) < CLOSE


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("stride", [1, 2])
def test_residual_block(stride, training):
    block, x = ResidualBlock(4, 4 * stride, stride, jax.random.key(3)), images()
    made = [random_norm(4 * stride, seed) for seed in range(3 if block.shortcut else 2)]
    moments = [m for _, m in made]
    block = jax.tree.unflatten(jax.tree.structure(block), [*jax.tree.leaves(block)])
    first, second = (conv_of(conv) for conv in block.convolutions)
    norms = [
        norm_of(norm, m).train(training)
        for norm, m in zip([*block.norms, *([block.shortcut[1]] if block.shortcut else [])], moments, strict=True)
    ]
    at = to_torch(x)
    h = norms[1](second(torch.relu(norms[0](first(at)))))
    at = norms[2](conv_of(block.shortcut[0])(at)) if block.shortcut else at
    assert apart(block(jnp.asarray(x), Norms(moments, training)), torch.relu(h + at)) < CLOSE


@pytest.mark.parametrize("training", [True, False])
def test_dense_layer(training):
    layer, x = DenseLayer(4, 3, jax.random.key(4)), images()
    moments = [random_norm(4, 5)[1], random_norm(12, 6)[1]]
    norms = [norm_of(norm, m).train(training) for norm, m in zip(layer.norms, moments, strict=True)]
    at = to_torch(x)
    h = at
    for norm, conv in zip(norms, layer.convolutions, strict=True):
        h = conv_of(conv)(torch.relu(norm(h)))
    assert apart(layer(jnp.asarray(x), Norms(moments, training)), torch.cat([at, h], 1)) < CLOSE


def supcon(H, labels, tau):
    """As SupContrast computes it: logits less their maximum, the mean over positives of log-probabilities."""
    logits = H @ H.T / tau
    logits = logits - logits.max(1, keepdim=True).values.detach()
    itself = 1 - torch.eye(len(labels), dtype=H.dtype)
    positives = (labels[:, None] == labels[None, :]).to(H.dtype) * itself
    log_probability = logits - torch.log((torch.exp(logits) * itself).sum(1, keepdim=True))
    return -((positives * log_probability).sum(1) / positives.sum(1)).sum()


@pytest.mark.parametrize(("dtype", "close"), [("float32", 1e-5), ("float64", 1e-11)])
@pytest.mark.parametrize("tau", [0.1, 0.5])
def test_loss_and_gradient(dtype, close, tau):
    random, labels = np.random.default_rng(7), np.arange(256) % 10
    H = np.abs(random.normal(size=(256, 128)))
    H = (H / np.linalg.norm(H, axis=1, keepdims=True)).astype(dtype)
    ours = jax.jit(jax.value_and_grad(lambda H, y: ufm.scl_loss(H, ufm.Problem(y, 128, tau, k=10))))
    value, slope = ours(jnp.asarray(H), jnp.asarray(labels))
    at = torch.tensor(H, requires_grad=True)
    loss = supcon(at, torch.tensor(labels), tau)
    loss.backward()
    assert abs(float(value) - loss.item()) < close * loss.item()
    exact = torch.tensor(H.astype(np.float64), requires_grad=True)
    supcon(exact, torch.tensor(labels), tau).backward()
    assert apart(slope, exact.grad) < close


def test_throughput_times_every_peer(monkeypatch):
    """That they compute the same is `test_one_stochastic_step_is_torchs`."""
    for name in ("STEPS", "PEER_STEPS", "REPEATS"):
        monkeypatch.setattr(throughput, name, 1)
    problem = ufm.Problem.from_class_sizes([6, 4], d=3)
    rows = throughput.throughput(problem, np.ones((2, 10, 3)) / 2, 4)
    assert [row["peer"] for row in rows][:2] == ["this project", "torch-sgd"]
    assert all(row["ratio"] > 0 and row["n"] == 10 for row in rows)


def test_one_stochastic_step_is_torchs():
    problem = ufm.Problem.from_class_sizes([6, 4], d=3, tau=0.4)
    H = np.abs(np.random.default_rng(0).normal(size=(10, 3))) / 2
    drawn = np.array([0, 2, 3, 7, 9])
    rows = torch.tensor(H[drawn], requires_grad=True)
    throughput.batch_loss(torch, 0.4, 5)(rows, torch.tensor(np.asarray(problem.labels)[drawn])).backward()
    result = batch_gradient(jnp.asarray(H), problem, jnp.asarray(drawn, jnp.int32))
    np.testing.assert_allclose(result, rows.grad.numpy(), rtol=1e-10)
