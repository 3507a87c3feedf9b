"""The problem: the labels of samples, the batches they share, and the constraint."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from ufm.deprecated import former_property
from ufm.display import Readable, Summary, between, count, in_runs
from ufm.errors import InvalidInput, unmasked, whole_number
from ufm.losses import SHAPES, Loss
from ufm.model.batch import Batch, checked_counts, checked_views
from ufm.model.expected import HasLaw, count_vectors
from ufm.model.sums import grouped_sum
from ufm.settings import in_fixed_settings

PADDING = -1
# exp(2 / tau) is the largest ratio of two terms of the loss, and must not come near overflow.
SMALLEST_TAU = 0.01
LARGEST_TAU = 1e4
# Indices of points are 32-bit.
MOST_POINTS = 2**31 - 1
# Numbers of samples are stored as doubles.
MOST_SAMPLES = 2**53


class Problem(Readable, eqx.Module):
    r"""UFM+ (or UFM) under the supervised contrastive loss or its family, summed over batches and active anchors.

        minimise over H in R^{n x d}   sum_B sum_{i in B active} f_{B,i}(H)
        subject to ||h_i|| <= 1, and h_i >= 0 if `nonneg` (UFM+)

    (paper, eq. (1)-(3); theory, 1.1). A point may stand for several identical samples; their number is its
    `multiplicity`, 1 by default. The quotient has one point for each orbit. A point of multiplicity 0 is padding.

    **Expected losses.** With `counts` and `weights` the sum is sum_B weight_B L_B, and a batch holds only `counts` of
    the samples of each of its points, where all choices are equally likely. This is the expected loss of randomly drawn
    batches if the samples of a point have one row (theory, 4.19; `Problem.expected`). With `views` = 2 the samples are
    images with two views, and a batch holds both views or neither.

    **Fields**
    - labels: class 0..k-1 of each point, every class present.
    - multiplicity: how many samples a point stands for.
    - batches: one row of point indices for each batch, padded with -1 at the end.
    - counts: how many samples of each of its points a batch holds; None (usual): all of them.
    - weights: of each batch in the sum, from 1e-300 to 1e100, the largest at least 1e-30; None with counts: all 1.
    - views: samples of an image: 1, or 2 in an expected loss.
    - tau: temperature, a scalar array, so that a new value needs no compilation.
    - d: embedding dimension. k: number of classes. nonneg: UFM+ if True, UFM if False.
    - loss: which loss of the family (`ufm.losses`, theory, 1.5).

    **A mini-batch in a trace.** With `k`, labels, multiplicity and tau may be traced, and classes may be absent:
    `ufm.scl_loss(H, ufm.Problem(labels, d, tau, k=10))` is a training loss under jit, grad and vmap. Traced values
    cannot be checked, so the caller must make sure that labels are in 0..k-1. Such a problem is for `ufm.scl_loss`,
    `ufm.excess` and `ufm.loss_bound`; functions that solve or certify refuse absent classes.
    """

    labels: Int[Array, " m"]
    multiplicity: Float[Array, " m"]
    batches: Int[Array, "nb s"]
    tau: Float[Array, ""]
    loss: Loss
    counts: Float[Array, "nb s"] | None
    weights: Float[Array, " nb"] | None
    d: int = eqx.field(static=True)
    k: int = eqx.field(static=True)
    nonneg: bool = eqx.field(static=True)
    views: int = eqx.field(static=True)

    @in_fixed_settings
    def __init__(
        self,
        labels: Sequence[int] | np.ndarray | Array,
        d: int,
        tau: float | Array = 1.0,
        batches: Iterable[Sequence[int] | np.ndarray | Array] | np.ndarray | Array | None = None,
        nonneg: bool = True,
        *,
        multiplicity: Sequence[float] | np.ndarray | Array | None = None,
        loss: Loss | None = None,
        k: int | None = None,
        counts: Iterable[Sequence[int] | np.ndarray | Array] | np.ndarray | Array | None = None,
        weights: Sequence[float] | np.ndarray | Array | None = None,
        views: int = 1,
    ) -> None:
        """Raises InvalidInput, which names the argument, if the arguments do not define a problem."""
        labels, self.k = _labels_of_classes(labels, k)
        m = len(labels)
        self.labels = jnp.asarray(labels, dtype=jnp.int32)
        self.multiplicity = jnp.asarray(_checked_multiplicity(multiplicity, labels, k), dtype=jnp.float64)
        rows = checked_batches(batches, m)
        self.batches = jnp.asarray(rows, dtype=jnp.int32)
        self.counts, self.weights = checked_counts(counts, weights, rows, rows != PADDING, self.multiplicity)
        self.tau = jnp.asarray(_traced_tau(tau, k) if isinstance(tau, Tracer) else _checked_tau(tau), dtype=jnp.float64)
        self.d = whole_number("d", d, 1, "give the embedding dimension as a whole number of at least 1")
        if not isinstance(nonneg, (bool, np.bool_)):
            raise InvalidInput("nonneg", nonneg, "give True (UFM+) or False (UFM)")
        self.nonneg = bool(nonneg)
        self.views = checked_views(views, self.counts, self.multiplicity, self.nonneg or m == self.k)
        self.loss = _checked_loss(Loss() if loss is None else loss, self.k, self.tau)

    @classmethod
    def from_class_sizes(
        cls,
        sizes: Sequence[int] | np.ndarray,
        d: int,
        tau: float = 1.0,
        batches: Iterable[Sequence[int] | np.ndarray | Array] | np.ndarray | Array | None = None,
        nonneg: bool = True,
        *,
        loss: Loss | None = None,
    ) -> Problem:
        """The problem of sizes (k,): class c has sizes[c] samples, numbered class after class. Raises InvalidInput."""
        sizes = _array("sizes", sizes, "give a number of samples for each class, and at least 2 classes")
        if sizes.ndim != 1 or len(sizes) < 2:
            raise InvalidInput(
                "sizes", sizes.tolist(), "give a number of samples for each class, and at least 2 classes"
            )
        if not np.issubdtype(sizes.dtype, np.integer) or sizes.min() < 1:
            raise InvalidInput("sizes", sizes.tolist(), "give whole numbers of at least 1 sample for each class")
        if sum(sizes.tolist()) > MOST_POINTS:
            raise InvalidInput("sizes", sizes.tolist(), "more than 2^31 - 1 samples in all; give fewer")
        return cls(np.repeat(np.arange(len(sizes)), sizes.astype(np.int64)), d, tau, batches, nonneg, loss=loss)

    @classmethod
    def expected(
        cls,
        sizes: Sequence[int] | np.ndarray,
        sampler: HasLaw,
        d: int,
        tau: float = 1.0,
        nonneg: bool = True,
        *,
        loss: Loss | None = None,
        vectors: int | None = None,
        seed: int = 0,
    ) -> Problem:
        """The expected loss of a sampler's batch, with collapsed classes: one point for each class (theory, 4.19).

        sizes (k,): samples of each class. The loss is a sum over count vectors, weighted by their probabilities.
        See `ufm.model.expected.count_vectors` for when they are listed or drawn, and when a class has two points.
        Raises InvalidInput, also for UFM with a bound sampler of two views, where one row for each point may not do.
        """
        of = count_vectors(sizes, sampler, vectors, seed)
        if of.views > 1 and not nonneg and len(of.labels) > of.labels.max() + 1:
            fix = "without the ReLU views of one image may have different rows; give a sampler without binding"
            raise InvalidInput("sampler", sampler, fix)
        batches = np.where(of.counts > 0, of.members, PADDING)
        compositions = {"counts": of.counts, "weights": of.weights, "views": of.views}
        return cls(of.labels, d, tau, batches, nonneg, multiplicity=of.multiplicity, loss=loss, **compositions)

    @property
    def all_batches(self) -> Batch:
        """All batches, with their counts and weights."""
        return Batch(self.batches, self.counts, self.weights)

    @in_fixed_settings
    def samples_in(self, batch: Batch) -> Float[Array, "*batches s"]:
        """How many samples each slot of a batch, or of several, stands for; 0 for padding."""
        held = self.multiplicity[batch.members] if batch.counts is None else batch.counts
        return jnp.where(batch.members != PADDING, held, 0.0)

    @property
    def is_expected(self) -> bool:
        """Whether it is an expected loss, whose batches hold only some of the samples of a point."""
        return self.counts is not None

    @property
    def num_points(self) -> int:
        """Rows of H. Equals the number of samples unless points stand for several."""
        return self.labels.shape[0]

    @property
    @in_fixed_settings
    def class_sizes(self) -> Float[Array, " k"]:
        """Samples of each class (n_c in the paper)."""
        if isinstance(self.labels, Tracer) or isinstance(self.multiplicity, Tracer):
            return grouped_sum(self.multiplicity, self.labels, self.k)
        # On the host, since jax.numpy would compile it for each number of points.
        return jnp.asarray(np.bincount(np.asarray(self.labels), np.asarray(self.multiplicity), self.k))

    @property
    def num_samples(self) -> int:
        """n, the sum of the multiplicities."""
        return int(np.asarray(self.multiplicity).sum())

    @property
    def is_full_batch(self) -> bool:
        """Whether there is one batch, which holds all samples."""
        whole = self.batches.shape[0] == 1 and bool((np.asarray(self.batches) >= 0).sum() == self.num_points)
        return whole and not self.is_expected

    rows = former_property("rows", "all_batches")
    coldest = former_property("coldest", "smallest_temperature")
    is_crowded = former_property("is_crowded", "fewer_dimensions_than_classes")

    @property
    def smallest_temperature(self) -> float:
        """The smallest temperature of an anchor: tau, unless the loss has temperatures of classes."""
        return float(self.tau) * min(self.loss.temperatures)

    @property
    def fewer_dimensions_than_classes(self) -> bool:
        """Whether it is UFM+ with d < k: classes share coordinates, and merge for good at small temperatures."""
        return self.nonneg and self.d < self.k

    @property
    def bound_is_attained(self) -> bool:
        """Whether the bound is attained by Theorem 1: UFM+ with d >= k, and a loss that frames minimise."""
        return self.nonneg and self.d >= self.k and self.loss.minimal_at_frames

    def summary(self) -> Summary:
        """Model, dimensions, temperature, class sizes and batches; without values in a trace or for a stack of
        problems."""
        model = f"{'UFM+' if self.nonneg else 'UFM'}, k = {self.k}, d = {self.d}"
        leaves = jax.tree.leaves(self)
        if self.labels.ndim != 1 or any(isinstance(leaf, Tracer) or not eqx.is_array_like(leaf) for leaf in leaves):
            return Summary(f"Problem: {model}, without values", {})
        sizes = np.asarray(self.class_sizes).astype(int)
        held = (np.asarray(self.batches) >= 0).sum(axis=1)
        named = {} if self.loss.is_plain else {"loss": self.loss.name}
        lines = {
            "class sizes": f"{in_runs(sizes)} (n = {self.num_samples}, R = {sizes.max() / sizes[sizes > 0].min():g})",
            "points": f"{self.num_points}",
            "batches": "the full batch" if self.is_full_batch else f"{len(held)}, of {in_runs(held)} points",
        }
        if self.is_expected:
            samples = np.asarray(self.samples_in(self.all_batches)).sum(axis=1)
            held_samples = f"{between(samples)} samples{', images with two views' if self.views > 1 else ''}"
            lines["batches"] = f"an expected loss: {count('count vector', len(held))}, of {held_samples}"
        return Summary(f"Problem: {model}, tau = {float(self.tau):g}", lines | named)


def _array(argument: str, value: object, fix: str) -> np.ndarray:
    """The value as an array, or InvalidInput, also for a ragged list."""
    try:
        return np.asarray(unmasked(argument, value))
    except InvalidInput:
        raise
    except (TypeError, ValueError):
        raise InvalidInput(argument, value, fix) from None


def _labels_of_classes(labels: Sequence[int] | np.ndarray | Array, k: int | None) -> tuple[np.ndarray | Array, int]:
    """Labels and the number of classes. If k is not None, labels may be traced, and classes absent."""
    if k is None:
        if isinstance(labels, Tracer):
            raise InvalidInput("k", None, "labels are traced, so give the number of classes, k=...")
        checked = checked_labels(labels)
        return checked, int(checked.max()) + 1
    k = whole_number("k", k, 2, "give the number of classes, at least 2")
    if isinstance(labels, Tracer):
        if labels.ndim != 1 or labels.size == 0 or not jnp.issubdtype(labels.dtype, jnp.integer):
            fix = "give one whole number 0..k-1 for each sample"
            raise InvalidInput("labels", f"{labels.dtype} array of shape {labels.shape}", fix)
        return labels, k
    whole = _whole_labels(labels)
    if whole.max() >= k:
        raise InvalidInput("labels", int(whole.max()), f"give classes 0..{k - 1}, or a larger k")
    return whole, k


def checked_labels(labels: Sequence[int] | np.ndarray | Array) -> np.ndarray:
    """Labels as a NumPy array, if they are whole numbers 0..k-1 with every class present, k >= 2."""
    labels = _whole_labels(labels)
    present = np.unique(labels)
    if len(present) != int(present[-1]) + 1:
        missing = int(np.flatnonzero(present != np.arange(len(present)))[0])
        fix = "this class has no sample; for a batch that lacks classes give their number, k=..., to ufm.Problem; else"
        raise InvalidInput("labels", missing, f"{fix} renumber with numpy.unique(labels, return_inverse=True)[1]")
    if len(present) < 2:
        raise InvalidInput("labels", "one class only", "give at least 2 classes")
    return labels


def _whole_labels(labels: Sequence[int] | np.ndarray | Array) -> np.ndarray:
    """Labels as a NumPy array, if they are whole numbers of at least 0."""
    labels = _array("labels", labels, "give a non-empty list with one label for each sample")
    if labels.ndim != 1 or labels.size == 0:
        raise InvalidInput("labels", labels.tolist(), "give a non-empty list with one label for each sample")
    if not np.issubdtype(labels.dtype, np.integer):
        raise InvalidInput("labels", labels.tolist(), "give whole numbers 0..k-1")
    if labels.min() < 0:
        raise InvalidInput("labels", int(labels.min()), "give labels that count from 0")
    if int(labels.max()) > MOST_POINTS:
        raise InvalidInput("labels", int(labels.max()), "give whole numbers below 2^31")
    return labels.astype(np.int64)


def _checked_multiplicity(
    multiplicity: Sequence[float] | np.ndarray | Array | None, labels: np.ndarray | Array, k: int | None
) -> np.ndarray | Array:
    """The multiplicities. If k is not None, samples and classes may be absent."""
    m = len(labels)
    if multiplicity is None:
        return np.ones(m)
    if isinstance(multiplicity, Tracer):
        if k is None or multiplicity.shape != (m,):
            fix = f"if it is traced, give {m} whole numbers >= 0, one for each label, and k"
            raise InvalidInput("multiplicity", f"array of shape {multiplicity.shape}", fix)
        return multiplicity
    fix = f"give {m} whole numbers >= 0, one for each label"
    counts = _array("multiplicity", multiplicity, fix)
    if counts.shape != (m,) or not (
        np.issubdtype(counts.dtype, np.integer) or np.issubdtype(counts.dtype, np.floating)
    ):
        raise InvalidInput("multiplicity", counts.tolist(), fix)
    if not np.isfinite(counts).all() or (counts < 0).any() or (counts != np.rint(counts)).any():
        raise InvalidInput("multiplicity", counts.tolist(), fix)
    # The sum in doubles comes first, so that the exact sum cannot overflow.
    if counts.sum(dtype=np.float64) > MOST_SAMPLES or counts.astype(np.int64).sum() > MOST_SAMPLES:
        raise InvalidInput("multiplicity", counts.tolist(), "more than 2^53 samples in all; give fewer")
    if k is not None:
        return counts
    of_class = np.bincount(labels, weights=counts)
    if (of_class == 0).any():
        missing = int(np.flatnonzero(of_class == 0)[0])
        raise InvalidInput("multiplicity", counts.tolist(), f"class {missing} has no sample left")
    return counts


def _checked_tau(tau: float | Array) -> float:
    fix = f"give the temperature as a number from {SMALLEST_TAU} to {LARGEST_TAU:g}"
    if isinstance(tau, (bool, str)) or np.ndim(tau) != 0:
        raise InvalidInput("tau", tau, fix)
    try:
        value = float(tau)
    except (TypeError, ValueError):
        raise InvalidInput("tau", tau, fix) from None
    if not SMALLEST_TAU <= value <= LARGEST_TAU:
        raise InvalidInput("tau", value, fix)
    return value


def _traced_tau(tau: Array, k: int | None) -> Array:
    if k is None or tau.ndim != 0:
        raise InvalidInput("tau", f"traced array of shape {tau.shape}", "if it is traced, give one number, and k")
    return tau


def _checked_loss(loss: object, k: int, tau: Array) -> Loss:
    if not isinstance(loss, Loss):
        raise InvalidInput("loss", loss, "give a loss of ufm.losses, such as ufm.losses.decoupled()")
    for name, axes in SHAPES.items():
        value = getattr(loss, name)
        if axes and value is not None and value.shape != (k,) * axes:
            raise InvalidInput("loss", loss.name, f"its {name} have {count('class', len(value))}, the problem has {k}")
    traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((loss, tau)))
    if not traced and not all(SMALLEST_TAU <= float(tau) * factor <= LARGEST_TAU for factor in loss.temperatures):
        fix = f"temperatures times tau = {float(tau):g} should lie from {SMALLEST_TAU} to {LARGEST_TAU:g}"
        raise InvalidInput("loss", loss.name, fix)
    return loss


def checked_batches(
    batches: Iterable[Sequence[int] | np.ndarray | Array] | np.ndarray | Array | None, m: int
) -> np.ndarray:
    """Batches as one padded array, whose rows hold distinct indices below m; the full batch if None.

    The width of an array is not changed, so that families of one shape give problems of one shape.
    """
    if batches is None:
        return np.arange(m)[None, :]
    if isinstance(batches, (str, bytes)) or not isinstance(batches, Iterable) or getattr(batches, "ndim", 1) == 0:
        raise InvalidInput("batches", batches, "give a list of batches, or None for the full batch")
    # One copy to the host, since rows of a device array would be fetched one by one.
    listed = np.asarray(unmasked("batches", batches)) if isinstance(batches, (np.ndarray, Array)) else list(batches)
    if len(listed) == 0:
        raise InvalidInput("batches", [], "give at least one batch, or None for the full batch")
    rows = [_checked_batch(f"batches[{b}]", row, m) for b, row in enumerate(listed)]
    width = listed.shape[1] if isinstance(listed, np.ndarray) and listed.ndim == 2 else max(len(row) for row in rows)
    padded = np.full((len(rows), width), PADDING, dtype=np.int64)
    for b, row in enumerate(rows):
        padded[b, : len(row)] = row
    return padded


def _checked_batch(name: str, batch: Sequence[int] | np.ndarray | Array, m: int) -> np.ndarray:
    fix = "give a batch as a list of sample indices"
    row = _array(name, batch, fix)
    if row.ndim != 1:
        raise InvalidInput(name, row.tolist(), fix)
    if row.size and not np.issubdtype(row.dtype, np.integer):
        raise InvalidInput(name, row.tolist(), "give sample indices as whole numbers")
    row = row[row != PADDING]
    if row.size == 0:
        raise InvalidInput(name, [], "this batch is empty; leave it out")
    if row.min() < 0 or row.max() >= m:
        outside = int(row[(row < 0) | (row >= m)][0])
        raise InvalidInput(name, outside, f"give sample indices from 0 to {m - 1}")
    if len(np.unique(row)) != len(row):
        raise InvalidInput(name, row.tolist(), "a batch is a set: list each sample once")
    return row
