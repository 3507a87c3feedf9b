"""Layers in float32 throughout (importing `ufm` switches JAX to 64 bits); images are (batch, height, width,
channels)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, PRNGKeyArray

Images = Float32[Array, "b _ _ _"]
MOMENTUM = 0.1  # of running moments, as in PyTorch
EPSILON = 1e-5
_FORM = ("NHWC", "HWIO", "NHWC")


class Moments(NamedTuple):
    """Running mean and variance of every channel of one batch norm."""

    mean: Float32[Array, " c"]
    variance: Float32[Array, " c"]


Running = tuple[Moments, ...]


class Norms:
    """The moments of all batch norms of a network, read and updated in the order in which its layers are called.

    running: the moments to read; None: mean 0 and variance 1. training: normalise by the moments of the batch, and
    update the running ones.
    """

    def __init__(self, running: Sequence[Moments] | None, training: bool) -> None:
        self.training = training
        self.renewed: list[Moments] = []
        self._running: Iterator[Moments] | None = None if running is None else iter(running)

    def of(self, x: Float32[Array, "b ... c"]) -> Moments:
        """The moments of the next layer. In training the variance is biased; the running variance uses the unbiased
        one."""
        channels = x.shape[-1]
        if self._running is None:
            known = Moments(jnp.zeros(channels, jnp.float32), jnp.ones(channels, jnp.float32))
        else:
            known = next(self._running)
        if not self.training:
            self.renewed.append(known)
            return known
        count, over = x.size // channels, tuple(range(x.ndim - 1))
        mean = jnp.mean(x, axis=over)
        variance = jnp.mean(jnp.square(x - mean), axis=over)
        unbiased = variance * (count / max(count - 1, 1))
        self.renewed.append(
            Moments(
                (1 - MOMENTUM) * known.mean + MOMENTUM * jax.lax.stop_gradient(mean),
                (1 - MOMENTUM) * known.variance + MOMENTUM * jax.lax.stop_gradient(unbiased),
            )
        )
        return Moments(mean, variance)


class Linear(eqx.Module):
    """x W + b, initialised as in He et al. 2015 (normal, variance 2 / inputs), with b = 0."""

    weight: Float32[Array, "i o"]
    bias: Float32[Array, " o"]

    def __init__(self, inputs: int, outputs: int, key: PRNGKeyArray) -> None:
        self.weight = _he(key, (inputs, outputs), inputs)
        self.bias = jnp.zeros(outputs, jnp.float32)

    def __call__(self, x: Float32[Array, "b i"]) -> Float32[Array, "b o"]:
        """The output for every row."""
        return x @ self.weight + self.bias


class Conv(eqx.Module):
    """Cross-correlation with a square kernel, without bias, with zero padding; initialised as in He et al. 2015."""

    weight: Float32[Array, "h w i o"]
    stride: int = eqx.field(static=True)

    def __init__(self, inputs: int, outputs: int, size: int, key: PRNGKeyArray, stride: int = 1) -> None:
        self.weight = _he(key, (size, size, inputs, outputs), size * size * inputs)
        self.stride = stride

    def __call__(self, x: Images) -> Images:
        """Images whose height and width are divided by the stride, rounded up."""
        return convolved(x, self.weight, self.stride)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolved(x: Images, weight: Float32[Array, "k k i o"], stride: int) -> Images:
    """Cross-correlation with a square kernel and k // 2 zeros around the images.

    Its derivatives are written as such convolutions of transposed arrays, since the form that XLA derives is ten times
    slower inside a loop on a CPU.
    """
    margin = weight.shape[0] // 2
    return jax.lax.conv_general_dilated(x, weight, (stride, stride), [(margin, margin)] * 2, dimension_numbers=_FORM)


def _convolved(x: Images, weight: Array, stride: int) -> tuple[Images, tuple[Images, Array]]:
    return convolved(x, weight, stride), (x, weight)


def _slopes(stride: int, held: tuple[Images, Array], slope: Images) -> tuple[Images, Array]:
    x, weight = held
    size, margin = weight.shape[0], weight.shape[0] // 2
    before = size - 1 - margin
    spread = [(places - 1) * stride + 1 for places in slope.shape[1:3]]
    around = [(before, side - wide - before + size - 1) for side, wide in zip(x.shape[1:3], spread, strict=True)]
    turned = weight[::-1, ::-1].swapaxes(2, 3)
    of_x = jax.lax.conv_general_dilated(
        slope, turned, (1, 1), around, lhs_dilation=(stride, stride), dimension_numbers=_FORM
    )
    after = [(margin, size - 1 + wide - side - margin) for side, wide in zip(x.shape[1:3], spread, strict=True)]
    of_weight = jax.lax.conv_general_dilated(
        x.transpose(3, 1, 2, 0),
        slope.transpose(1, 2, 0, 3),
        (1, 1),
        after,
        rhs_dilation=(stride, stride),
        dimension_numbers=_FORM,
    )
    return of_x, of_weight.transpose(1, 2, 0, 3)


convolved.defvjp(_convolved, _slopes)


class BatchNorm(eqx.Module):
    """(x - mean) / sqrt(variance + EPSILON) times scale plus shift, channel by channel."""

    scale: Float32[Array, " c"]
    shift: Float32[Array, " c"]

    def __init__(self, channels: int) -> None:
        self.scale, self.shift = jnp.ones(channels, jnp.float32), jnp.zeros(channels, jnp.float32)

    def __call__(self, x: Float32[Array, "b ... c"], norms: Norms) -> Float32[Array, "b ... c"]:
        """Normalise by the moments of the batch in training, else by the running ones."""
        mean, variance = norms.of(x)
        return (x - mean) * (jax.lax.rsqrt(variance + EPSILON) * self.scale) + self.shift


def pooled(x: Images) -> Float32[Array, "b c"]:
    """The mean over all pixels."""
    return jnp.mean(x, axis=(1, 2))


def halved(x: Images) -> Images:
    """The mean over squares of two by two pixels; an odd last row or column is left out."""
    height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    x = x[:, :height, :width]
    return (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) * 0.25


def _he(key: PRNGKeyArray, shape: tuple[int, ...], inputs: int) -> Float32[Array, ...]:
    return jax.random.normal(key, shape, jnp.float32) * jnp.float32((2.0 / inputs) ** 0.5)
