"""The paper's networks at any width, up to their features.

There is no projection head: features are the final activation, pooled and scaled to norm 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, PRNGKeyArray

from networks.layers import BatchNorm, Conv, Images, Linear, Norms, Running, halved, pooled
from ufm import activations
from ufm.errors import InvalidInput, checked_seed, whole_number
from ufm.settings import in_fixed_settings

Activation = Callable[[Array], Array]
# The last activation determines the feasible set of features (`ufm.activations`); inner ones are ReLUs.
ACTIVATIONS: dict[str, Activation] = {name: entry.function for name, entry in activations.ACTIVATIONS.items()}
HIDDEN_LAYERS = 2  # of an MLP
# Features of a smaller squared norm are not scaled to norm 1.
SMALLEST_SQUARE = 1e-12


class MLP(eqx.Module):
    """Fully connected layers: pixels, `depth` layers of `width`, d features; optionally batch norm before
    activations."""

    layers: tuple[Linear, ...]
    norms: tuple[BatchNorm, ...]
    activation: str = eqx.field(static=True)

    def __init__(
        self,
        shape: tuple[int, int, int],
        width: int,
        activation: str,
        key: PRNGKeyArray,
        depth: int = HIDDEN_LAYERS,
        d: int | None = None,
        batch_norm: bool = False,
    ) -> None:
        """d: a quarter of the width if None."""
        height, across, channels = shape
        sizes = (height * across * channels, *[width] * depth, max(2, width // 4) if d is None else d)
        keys = jax.random.split(key, depth + 1)
        self.layers = tuple(Linear(*pair, key=k) for pair, k in zip(pairwise(sizes), keys, strict=True))
        self.norms = tuple(map(BatchNorm, sizes[1:])) if batch_norm else ()
        self.activation = activation

    def __call__(self, x: Images, norms: Norms) -> Float32[Array, "b d"]:
        """Features before they are normalised."""
        h = x.reshape(x.shape[0], -1)
        inside = [jax.nn.relu] * (len(self.layers) - 1)
        for place, activation in enumerate([*inside, ACTIVATIONS[self.activation]]):
            h = self.layers[place](h)
            h = activation(self.norms[place](h, norms) if self.norms else h)
        return h


class ResidualBlock(eqx.Module):
    """act(BN conv relu BN conv x + shortcut); the shortcut is a 1x1 convolution if shapes differ (He et al. 2016)."""

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
        """activation: applied after the sum; in the last block it is the network's final one."""
        h = jax.nn.relu(self.norms[0](self.convolutions[0](x), norms))
        h = self.norms[1](self.convolutions[1](h), norms)
        if self.shortcut is not None:
            conv, norm = self.shortcut
            x = norm(conv(x), norms)
        return activation(h + x)


class ResNet18(eqx.Module):
    """A 3x3 stem without max-pooling, and four stages of two blocks with 1, 2, 4 and 8 times `width` channels."""

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
    """BN relu conv1x1 (4 growth) BN relu conv3x3 (growth), concatenated with the input (Huang et al. 2017, BC)."""

    norms: tuple[BatchNorm, BatchNorm]
    convolutions: tuple[Conv, Conv]

    def __init__(self, inputs: int, growth: int, key: PRNGKeyArray) -> None:
        first, second = jax.random.split(key)
        self.norms = BatchNorm(inputs), BatchNorm(4 * growth)
        self.convolutions = Conv(inputs, 4 * growth, 1, first), Conv(4 * growth, growth, 3, second)

    def __call__(self, x: Images, norms: Norms) -> Images:
        """The channels of x, and `growth` more."""
        h = self.convolutions[0](jax.nn.relu(self.norms[0](x, norms)))
        h = self.convolutions[1](jax.nn.relu(self.norms[1](h, norms)))
        return jnp.concatenate([x, h], axis=-1)


class DenseNet40(eqx.Module):
    """Three dense blocks of six layers; between them 1x1 convolutions halve the channels, and pooling halves the
    size."""

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


# Any architecture: a call with images (b, h, w, c) and `Norms` gives features (b, d), not yet normalised.
Network = MLP | ResNet18 | DenseNet40
# The architectures by name.
ARCHITECTURES: dict[str, type[MLP] | type[ResNet18] | type[DenseNet40]] = {
    "mlp": MLP,
    "resnet18": ResNet18,
    "densenet40": DenseNet40,
}
MOST_WIDTH, MOST_DEPTH = 4096, 64
# The widths of the paper's networks: hidden layers (features: a quarter), channels of the stem, growth.
WIDTHS = {"mlp": 512, "resnet18": 64, "densenet40": 12}


def checked_options(
    name: str, width: int | None, *, depth: int | None = None, d: int | None = None, batch_norm: bool = False
) -> tuple[int, dict[str, Any]]:
    """The width, and those options of an MLP that are not None. Raises InvalidInput."""
    width = whole_number("width", WIDTHS[name] if width is None else width, 2, f"give 2 to {MOST_WIDTH:,}", MOST_WIDTH)
    options = {"depth": depth, "d": d, "batch_norm": batch_norm or None}
    mlp_options = {option: value for option, value in options.items() if value is not None}
    if mlp_options and name != "mlp":
        raise InvalidInput(
            *next(iter(mlp_options.items())),
            f"only an mlp has this option; the layers of {name} are those of the paper",
        )
    if depth is not None:
        whole_number("depth", depth, 0, f"give 0 to {MOST_DEPTH} hidden layers", MOST_DEPTH)
    if d is not None:
        whole_number("d", d, 2, f"give 2 to {MOST_WIDTH:,} features", MOST_WIDTH)
    return width, mlp_options


@in_fixed_settings
def build(
    name: str,
    shape: tuple[int, int, int],
    activation: str = "relu",
    width: int | None = None,
    seed: int = 0,
    *,
    depth: int | None = None,
    d: int | None = None,
    batch_norm: bool = False,
) -> tuple[Network, Running]:
    """A network for images of this shape (height, width, channels), and the moments of its batch norms.

    For an MLP only: depth, its hidden layers (2 if None); d, its features (a quarter of the width if None); batch_norm.
    Raises InvalidInput for an unknown name or activation, or a bad number.
    """
    if name not in ARCHITECTURES:
        raise InvalidInput("net", name, f"choose one of {', '.join(ARCHITECTURES)}")
    if activation not in ACTIVATIONS:
        raise InvalidInput("activation", activation, f"choose one of {', '.join(ACTIVATIONS)}")
    width, mlp_options = checked_options(name, width, depth=depth, d=d, batch_norm=batch_norm)
    network = ARCHITECTURES[name](shape, width, activation, jax.random.key(checked_seed(seed)), **mlp_options)

    def recorded(x: Images) -> Running:
        norms = Norms(None, training=False)
        network(x, norms)
        return tuple(norms.renewed)

    return network, jax.jit(recorded)(jnp.zeros((1, *shape), jnp.float32))


@in_fixed_settings
def features(
    network: Network, running: Running, images: Images, *, training: bool = False
) -> tuple[Float32[Array, "b d"], Running]:
    """Features of norm 1 up to float32 rounding, and the updated moments (unchanged unless training).

    An image whose activations are all 0 has a feature of norm 0.
    """
    norms = Norms(running, training)
    h = network(images, norms)
    square = jnp.sum(jnp.square(h), axis=1, keepdims=True)
    return h * jax.lax.rsqrt(jnp.maximum(square, SMALLEST_SQUARE)), tuple(norms.renewed)
