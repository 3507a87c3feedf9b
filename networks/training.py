"""Training as in the paper: SGD with momentum. An epoch is one compiled scan, with the data on the device."""

from __future__ import annotations

import io
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Float32, Int, PRNGKeyArray, UInt8

import ufm
from networks.architectures import Network, features
from networks.batches import Epoch
from networks.data import Samples
from networks.layers import Linear, Running
from ufm.errors import InvalidInput
from ufm.settings import in_fixed_settings

# Images whose features are computed together, outside training.
CHUNK = 250
MARGIN = 4  # pixels of zeros around an image before it is cropped
AUGMENTS = ("none", "crop", "crop-flip")
LOSSES = ("scl", "cross-entropy")


@dataclass(frozen=True)
class Schedule:
    """SGD: learning rate, momentum and weight decay. The rate falls by 0.1 after each milestone, a fraction of the
    epochs.

    The defaults are those of the paper: 0.1, 0.9, 5e-4, and milestones at epochs 116 and 232 of 350.
    """

    epochs: int = 350
    rate: float = 0.1
    momentum: float = 0.9
    decay: float = 5e-4
    milestones: tuple[float, ...] = (116 / 350, 232 / 350)

    def rate_of(self, epoch: int) -> float:
        """The learning rate of an epoch; epochs count from 0."""
        return self.rate * 0.1 ** sum(epoch >= fraction * self.epochs for fraction in self.milestones)


class State(eqx.Module):
    """Everything that an epoch changes. head: the linear head of cross-entropy."""

    network: Network
    head: Linear | None
    running: Running
    velocity: optax.OptState


class _Data(eqx.Module):
    images: UInt8[Array, "n h w c"]
    labels: Int[Array, " n"]
    mean: Float32[Array, " c"]
    scale: Float32[Array, " c"]


class Training:
    """Training of one network on one set of samples. The first epoch, and the first call of `features`, compile."""

    @in_fixed_settings
    def __init__(
        self,
        network: Network,
        running: Running,
        samples: Samples,
        *,
        tau: float,
        schedule: Schedule,
        seed: int = 0,
        loss: str = "scl",
        augment: str = "none",
        views: int = 1,
    ) -> None:
        """loss: of LOSSES. augment: of AUGMENTS, for each view. views: of every image, 1 or 2. Raises InvalidInput."""
        if loss not in LOSSES:
            raise InvalidInput("loss", loss, f"choose one of {', '.join(LOSSES)}")
        if augment not in AUGMENTS:
            raise InvalidInput("augment", augment, f"choose one of {', '.join(AUGMENTS)}")
        if views not in (1, 2):
            raise InvalidInput("views", views, "give 1 or 2 views of every image")
        self.k = int(samples.labels.max()) + 1
        self.tau, self.schedule, self.seed = tau, schedule, seed
        self.loss, self.augment, self.views = loss, augment, views
        self.optimiser = optax.chain(optax.add_decayed_weights(schedule.decay), optax.trace(schedule.momentum))
        pixels = samples.images.reshape(-1, samples.images.shape[-1]).astype(np.float64)
        scale = 1.0 / np.maximum(pixels.std(axis=0), 1.0)
        mean, scale = (jnp.asarray(x, jnp.float32) for x in (pixels.mean(axis=0), scale))
        self._data = _Data(jnp.asarray(samples.images), jnp.asarray(samples.labels), mean, scale)
        shape = jax.ShapeDtypeStruct((1, *samples.shape), jnp.float32)
        self.d = int(jax.eval_shape(lambda x: features(network, running, x)[0], shape).shape[1])
        head = Linear(self.d, self.k, jax.random.key(seed)) if loss == "cross-entropy" else None
        velocity = self.optimiser.init(eqx.filter((network, head), eqx.is_array))
        self.start = State(network, head, running, velocity)
        self._static = eqx.partition(self.start, eqx.is_array)[1]
        self._epoch = jax.jit(self._scan)

    @in_fixed_settings
    def epoch(self, state: State, number: int, batches: Epoch) -> tuple[State, float]:
        """The state after one epoch, and its mean loss for each sample. number: of the epoch, from 0."""
        key = jax.random.fold_in(jax.random.key(self.seed), number)
        rate = np.float32(self.schedule.rate_of(number))
        arrays, losses = self._epoch(
            eqx.filter(state, eqx.is_array), self._data, batches.index, batches.counts, key, rate
        )
        return eqx.combine(arrays, self._static), float(np.mean(losses))

    @in_fixed_settings
    def features(self, state: State, images: UInt8[np.ndarray, "n h w c"]) -> Float32[np.ndarray, "n d"]:
        """Features of norm 1 up to float32 rounding, by the running moments."""
        n = len(images)
        padded = np.concatenate([images, np.repeat(images[:1], -n % CHUNK, axis=0)])
        chunks = jnp.asarray(padded.reshape(-1, CHUNK, *images.shape[1:]))
        return np.asarray(_features(state.network, state.running, self._data, chunks)).reshape(len(padded), -1)[:n]

    def _scan(
        self,
        arrays: State,
        data: _Data,
        index: Int[Array, "nb s"],
        counts: Bool[Array, "nb s"],
        key: PRNGKeyArray,
        rate: Float32[Array, ""],
    ) -> tuple[State, Float[Array, " nb"]]:
        """All batches of an epoch."""

        def step(arrays: State, batch: tuple[Array, Array, Array]) -> tuple[State, Array]:
            state = eqx.combine(arrays, self._static)
            members, counted, batch_key = batch
            images, labels = self._seen(data, members, batch_key), jnp.tile(data.labels[members], self.views)
            weight = jnp.tile(counted.astype(jnp.float64), self.views)
            (loss, running), slope = _slope((state.network, state.head), state.running, images, labels, weight, self)
            parameters = eqx.filter((state.network, state.head), eqx.is_array)
            steps, velocity = self.optimiser.update(slope, state.velocity, parameters)
            network, head = eqx.apply_updates((state.network, state.head), jax.tree.map(lambda u: -rate * u, steps))
            return eqx.filter(State(network, head, running, velocity), eqx.is_array), loss

        keys = jax.random.split(key, index.shape[0])
        return jax.lax.scan(step, arrays, (index, counts, keys))

    def _seen(self, data: _Data, members: Int[Array, " s"], key: PRNGKeyArray) -> Float32[Array, "b h w c"]:
        """The images as the network sees them in training: all first views, then all second ones."""
        views = []
        for view_key in jax.random.split(key, self.views):
            images = data.images[members]
            if self.augment != "none":
                images = augmented(images, view_key, flip=self.augment == "crop-flip")
            views.append(images)
        return _standardised(jnp.concatenate(views), data)


def objective(
    parts: tuple[Network, Linear | None],
    running: Running,
    images: Float32[Array, "b h w c"],
    labels: Int[Array, " b"],
    weight: Float[Array, " b"],
    training: Training,
) -> tuple[Float[Array, ""], Running]:
    """The loss of a batch, divided by the number of samples that count, and the updated moments.

    It is SCL of features of norm 1, or the cross-entropy of a linear head on them, with logits divided by tau.
    """
    network, head = parts
    H, running = features(network, running, images, training=True)
    samples = jnp.maximum(jnp.sum(weight), 1.0)
    if head is None:
        problem = ufm.Problem(labels, training.d, training.tau, multiplicity=weight, k=training.k)
        return ufm.scl_loss(H, problem) / samples, running
    logits = head(H).astype(jnp.float64) / training.tau
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return jnp.sum(weight * losses) / samples, running


_slope = eqx.filter_value_and_grad(objective, has_aux=True)


def augmented(images: UInt8[Array, "b h w c"], key: PRNGKeyArray, *, flip: bool) -> UInt8[Array, "b h w c"]:
    """Images padded with MARGIN zeros and cropped to their size at random; with `flip`, half of them are mirrored."""
    height, width = images.shape[1:3]
    places, mirrored = jax.random.split(key)
    corner = jax.random.randint(places, (len(images), 2), 0, 2 * MARGIN + 1)
    padded = jnp.pad(images, ((0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)))

    def cut(image: Array, at: Array) -> Array:
        return jax.lax.dynamic_slice(image, (at[0], at[1], jnp.zeros_like(at[0])), (height, width, image.shape[2]))

    cuts = jax.vmap(cut)(padded, corner)
    if not flip:
        return cuts
    chosen = jax.random.bernoulli(mirrored, 0.5, (len(images),))
    return jnp.where(chosen[:, None, None, None], cuts[:, :, ::-1], cuts)


def serialised(state: State) -> bytes:
    """The arrays of a state, which `restored` reads back bit for bit."""
    buffer = io.BytesIO()
    eqx.tree_serialise_leaves(buffer, state)
    return buffer.getvalue()


def restored(content: bytes, like: State) -> State:
    """The state of a network of the same kind as `like`. Raises InvalidInput for other content."""
    try:
        return eqx.tree_deserialise_leaves(io.BytesIO(content), like)
    except (RuntimeError, ValueError, EOFError, OSError) as error:
        raise InvalidInput("state", type(error).__name__, "this is not the state of such a network") from None


def _standardised(images: UInt8[Array, "b h w c"], data: _Data) -> Float32[Array, "b h w c"]:
    return (images.astype(jnp.float32) - data.mean) * data.scale


@eqx.filter_jit
def _features(
    network: Network, running: Running, data: _Data, chunks: UInt8[Array, "m b h w c"]
) -> Float32[Array, "m b d"]:
    return jax.lax.map(lambda images: features(network, running, _standardised(images, data))[0], chunks)
