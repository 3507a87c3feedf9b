"""The paper's networks at any width, up to their features: no projection head, final activation, pooling, norm 1."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, PRNGKeyArray

from networks.layers import BatchNorm, Conv, Images, Linear, Norms, Running, halved, pooled
from ufm.errors import InvalidInput, checked_seed, whole_number

Activation = Callable[[Array], Array]
# The last activation decides the feasible set of features; those inside are ReLUs.
ACTIVATIONS: dict[str, Activation] = {
    "relu": jax.nn.relu,
    "none": lambda x: x,
    "leaky-relu": jax.nn.leaky_relu,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "elu": jax.nn.elu,
    "softplus": jax.nn.softplus,
    "abs": jnp.abs,
}
# Features shorter than the root of this are not stretched to norm 1.
SMALLEST_SQUARE = 1e-12


class MLP(eqx.Module):
    """pixels - width - width - outputs, fully connected."""

    layers: tuple[Linear, ...]
    activation: str = eqx.field(static=True)

    def __init__(self, shape: tuple[int, int, int], width: int, activation: str, key: PRNGKeyArray) -> None:
        height, across, channels = shape
        sizes = (height * across * channels, width, width, max(2, width // 4))
        keys = jax.random.split(key, 3)
        self.layers = tuple(Linear(*pair, key=k) for pair, k in zip(pairwise(sizes), keys, strict=True))
        self.activation = activation

    def __call__(self, x: Images, norms: Norms) -> Float32[Array, "b d"]:
        """Features before they are normalised."""
        h = x.reshape(x.shape[0], -1)
        for layer in self.layers[:-1]:
            h = jax.nn.relu(layer(h))
        return ACTIVATIONS[self.activation](self.layers[-1](h))


class ResidualBlock(eqx.Module):
    """act( BN conv relu BN conv x + shortcut ), a 1x1 convolution where shapes differ (He et al. 2016)."""

    convolutions: tuple[Conv, Conv]
    norms: tuple[BatchNorm, BatchNorm]
    shortcut: tuple[Conv, BatchNorm] | None

    def __init__(self, inputs: int, outputs: int, stride: int, key: PRNGKeyArray) -> None:
        first, second, third = jax.random.split(key, 3)
        self.convolutions = Conv(inputs, outputs, 3, first, stride), Conv(outputs, outputs, 3, second)
        self.norms = BatchNorm(outputs), BatchNorm(outputs)
        differ = stride != 1 or inputs != outputs
        self.shortcut = (Conv(inputs, outputs, 1, third, stride), BatchNorm(outputs)) if differ else None

    def __call__(self, x: Images, norms: Norms, activation: Activation = jax.nn.relu) -> Images:
        """activation: after the sum; that of the last block is the network's."""
        h = jax.nn.relu(self.norms[0](self.convolutions[0](x), norms))
        h = self.norms[1](self.convolutions[1](h), norms)
        if self.shortcut is not None:
            conv, norm = self.shortcut
            x = norm(conv(x), norms)
        return activation(h + x)


class ResNet18(eqx.Module):
    """A 3x3 stem without max-pooling, four stages of two blocks, of width, 2, 4 and 8 times that."""

    stem: Conv
    norm: BatchNorm
    blocks: tuple[ResidualBlock, ...]
    activation: str = eqx.field(static=True)

    def __init__(self, shape: tuple[int, int, int], width: int, activation: str, key: PRNGKeyArray) -> None:
        keys = iter(jax.random.split(key, 9))
        self.stem, self.norm = Conv(shape[2], width, 3, next(keys)), BatchNorm(width)
        blocks, inputs = [], width
        for stage in range(4):
            outputs = width * 2**stage
            blocks.append(ResidualBlock(inputs, outputs, 1 if stage == 0 else 2, next(keys)))
            blocks.append(ResidualBlock(outputs, outputs, 1, next(keys)))
            inputs = outputs
        self.blocks, self.activation = tuple(blocks), activation

    def __call__(self, x: Images, norms: Norms) -> Float32[Array, "b d"]:
        """Features, pooled after the final activation, before they are normalised."""
        h = jax.nn.relu(self.norm(self.stem(x), norms))
        for block in self.blocks[:-1]:
            h = block(h, norms)
        return pooled(self.blocks[-1](h, norms, ACTIVATIONS[self.activation]))


class DenseLayer(eqx.Module):
    """BN relu conv1x1 (4 growths) BN relu conv3x3 (one growth), put beside its input (Huang et al. 2017, BC)."""

    norms: tuple[BatchNorm, BatchNorm]
    convolutions: tuple[Conv, Conv]

    def __init__(self, inputs: int, growth: int, key: PRNGKeyArray) -> None:
        first, second = jax.random.split(key)
        self.norms = BatchNorm(inputs), BatchNorm(4 * growth)
        self.convolutions = Conv(inputs, 4 * growth, 1, first), Conv(4 * growth, growth, 3, second)

    def __call__(self, x: Images, norms: Norms) -> Images:
        """Channels of x, and `growth` more."""
        h = self.convolutions[0](jax.nn.relu(self.norms[0](x, norms)))
        h = self.convolutions[1](jax.nn.relu(self.norms[1](h, norms)))
        return jnp.concatenate([x, h], axis=-1)


class DenseNet40(eqx.Module):
    """Three dense blocks of six layers; between them 1x1 convolutions to half the channels, and halving."""

    stem: Conv
    blocks: tuple[tuple[DenseLayer, ...], ...]
    transitions: tuple[tuple[BatchNorm, Conv], ...]
    norm: BatchNorm
    activation: str = eqx.field(static=True)

    def __init__(self, shape: tuple[int, int, int], width: int, activation: str, key: PRNGKeyArray) -> None:
        """width: the growth."""
        keys: Iterator[Any] = iter(jax.random.split(key, 3 * 6 + 3))
        channels = 2 * width
        self.stem = Conv(shape[2], channels, 3, next(keys))
        blocks, transitions = [], []
        for block in range(3):
            blocks.append(tuple(DenseLayer(channels + width * i, width, next(keys)) for i in range(6)))
            channels += 6 * width
            if block < 2:
                transitions.append((BatchNorm(channels), Conv(channels, channels // 2, 1, next(keys))))
                channels //= 2
        self.blocks, self.transitions = tuple(blocks), tuple(transitions)
        self.norm, self.activation = BatchNorm(channels), activation

    def __call__(self, x: Images, norms: Norms) -> Float32[Array, "b d"]:
        """Features, pooled after the final activation, before they are normalised."""
        h = self.stem(x)
        for place, block in enumerate(self.blocks):
            for layer in block:
                h = layer(h, norms)
            if place < len(self.transitions):
                norm, conv = self.transitions[place]
                h = halved(conv(jax.nn.relu(norm(h, norms))))
        return pooled(ACTIVATIONS[self.activation](self.norm(h, norms)))


# Any architecture: called with images (b, h, w, c) and `Norms` it gives features (b, d), not yet normalised.
Network = MLP | ResNet18 | DenseNet40
# The architectures by name.
ARCHITECTURES: dict[str, type[MLP] | type[ResNet18] | type[DenseNet40]] = {
    "mlp": MLP,
    "resnet18": ResNet18,
    "densenet40": DenseNet40,
}
MOST_WIDTH = 4096
# Of the paper's networks: width of hidden layers (features: a quarter), channels of the stem, growth.
WIDTHS = {"mlp": 512, "resnet18": 64, "densenet40": 12}


def build(
    name: str, shape: tuple[int, int, int], activation: str = "relu", width: int | None = None, seed: int = 0
) -> tuple[Network, Running]:
    """A network for images of this shape (height, width, channels), and the moments of its batch norms.

    Raises InvalidInput for a name, activation or width that does not exist.
    """
    if name not in ARCHITECTURES:
        raise InvalidInput("net", name, f"choose one of {', '.join(ARCHITECTURES)}")
    if activation not in ACTIVATIONS:
        raise InvalidInput("activation", activation, f"choose one of {', '.join(ACTIVATIONS)}")
    width = whole_number("width", WIDTHS[name] if width is None else width, 2, f"give 2 to {MOST_WIDTH:,}", MOST_WIDTH)
    network = ARCHITECTURES[name](shape, width, activation, jax.random.key(checked_seed(seed)))

    def recorded(x: Images) -> Running:
        norms = Norms(None, training=False)
        network(x, norms)
        return tuple(norms.renewed)

    return network, jax.jit(recorded)(jnp.zeros((1, *shape), jnp.float32))


def features(
    network: Network, running: Running, images: Images, *, training: bool = False
) -> tuple[Float32[Array, "b d"], Running]:
    """Features of norm 1 to float32, and the renewed moments (the same ones unless training).

    An image whose activations are all 0 keeps a feature of norm 0.
    """
    norms = Norms(running, training)
    h = network(images, norms)
    square = jnp.sum(jnp.square(h), axis=1, keepdims=True)
    return h * jax.lax.rsqrt(jnp.maximum(square, SMALLEST_SQUARE)), tuple(norms.renewed)
