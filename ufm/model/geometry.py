"""Metrics of an embedding's geometry: its distance from neural collapse and from an orthogonal frame."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int, Num

from ufm.errors import Embedding, InvalidInput, real_array, real_rows, unmasked, whole_number
from ufm.model.sums import grouped_sum
from ufm.settings import in_fixed_settings


class GeometryMetrics(NamedTuple):
    """Metrics of class means M (d x k, uncentred), G_M = M^T M (paper, Section 5; theory, 5.13).

    - delta_gm: || G_M / ||G_M||_F - I / sqrt(k) ||_F. It depends on the means only, and is 0 iff they are orthogonal
      and of equal norm.
    - beta_nc: tr(S_W S_B^+) / k. It depends on the spread of a class only within the span of the centred means. So it
      is 0 if every class has collapsed to its mean, but also if samples differ from it only in other directions.
    - trace_sw: tr S_W, the mean squared distance of a sample from the mean of its class. 0 iff every class has
      collapsed.
    - mean_cosine, max_cosine: over pairs of class means; a mean of norm 0 has cosine 0 with all.
    - gram: G_M.
    """

    delta_gm: Float[Array, ""]
    beta_nc: Float[Array, ""]
    trace_sw: Float[Array, ""]
    mean_cosine: Float[Array, ""]
    max_cosine: Float[Array, ""]
    gram: Float[Array, "k k"]


@partial(in_fixed_settings, traced=False)
def geometry_metrics(
    H: Embedding,
    labels: Int[Array, " m"] | Int[np.ndarray, " m"] | Sequence[int],
    *,
    k: int | None = None,
    multiplicity: Num[Array, " m"] | Num[np.ndarray, " m"] | Sequence[float] | None = None,
    spread: Float[Array, " r"] | None = None,
    collapsed: bool = False,
) -> GeometryMetrics:
    """Geometry of the rows of H. Under jit, k is required. multiplicity: how many samples each row stands for.

    spread: for samples that differ from the row that stands for them, their second moments about it along the axes of
    the scatter of the class means (`between`), summed over samples. They count in beta_nc and in trace_sw.
    collapsed: states that every class is one row. Then nothing is measured within classes, spread is not used, and
    beta_nc and trace_sw are 0.

    S_W is the average over samples of (h - mu_c)(h - mu_c)^T; S_B the average over classes of
    (mu_c - mu)(mu_c - mu)^T, mu the mean of class means. Never NaN for finite H: if all class means
    coincide within rounding, beta_nc is inf when the classes are spread and 0 when they are not. All
    but gram and trace_sw are invariant to the scale of H. Raises InvalidInput for fewer than two classes,
    and for labels or multiplicities that do not fit the rows.
    """
    H = real_rows("H", H)
    labels = _labels(labels, H.shape[0])
    # Under jit jax.numpy would trace constants too, so NumPy reads them.
    known = labels if isinstance(labels, Tracer) else np.asarray(labels)
    k = whole_number("k", int(known.max()) + 1 if k is None else k, 2, "give at least 2 classes")
    if isinstance(known, np.ndarray) and not 0 <= known.min() <= known.max() < k:
        raise InvalidInput("labels", [int(known.min()), int(known.max())], "give classes 0..k-1")
    # Scaling by a power of two is exact, and squares of the scaled rows neither overflow nor underflow.
    largest = jnp.max(jnp.abs(H))
    if spread is not None and not collapsed:
        largest = jnp.maximum(largest, jnp.sqrt(jnp.max(spread, initial=0.0)))
    scale = jnp.exp2(jnp.clip(jnp.ceil(jnp.log2(largest)), -1000.0, 1000.0))
    H = H / scale
    weight = jnp.asarray(_weight(multiplicity, H.shape[0]), dtype=H.dtype)
    sizes, sums = grouped_sum(weight, labels, k), grouped_sum(H * weight[:, None], labels, k)
    means = sums / jnp.maximum(sizes, 1.0)[:, None]
    gram = means @ means.T
    frobenius = jnp.sqrt(jnp.sum(gram**2))
    delta_gm = jnp.sqrt(jnp.sum((gram / jnp.where(frobenius > 0, frobenius, 1.0) - jnp.eye(k) / jnp.sqrt(k)) ** 2))

    norms = jnp.sqrt(jnp.diagonal(gram))
    units = means / jnp.where(norms > 0, norms, 1.0)[:, None]
    cosines = units @ units.T
    off_diagonal = ~jnp.eye(k, dtype=bool)
    mean_cosine = jnp.sum(jnp.where(off_diagonal, cosines, 0.0)) / (k * (k - 1))
    max_cosine = jnp.max(jnp.where(off_diagonal, cosines, -1.0))
    trace_sw = beta_nc = jnp.zeros((), H.dtype)
    if not collapsed:
        offset, samples, directions = H - means[labels], jnp.sum(weight), between(means)
        trace_sw = jnp.sum(weight[:, None] * offset**2) / samples
        along = jnp.sum(weight[:, None] * (offset @ directions.axes.T) ** 2, axis=0) / samples
        if spread is not None:
            within = spread / scale / scale / samples  # the square of the scale may vanish
            along, trace_sw = along + within, trace_sw + jnp.sum(within)
        beta_nc = within_over_between(along, trace_sw * samples, directions, k)
    square = scale * scale
    return GeometryMetrics(delta_gm, beta_nc, trace_sw * square, mean_cosine, max_cosine, gram * square)


def class_means(
    H: Float[np.ndarray, "m d"], labels: Int[np.ndarray, " m"], weight: Float[np.ndarray, " m"]
) -> Float[np.ndarray, "k d"]:
    """mu_c, one row for each class. weight: samples that a row stands for. NumPy only: nothing is compiled."""
    sums = np.zeros((labels.max() + 1, H.shape[1]))
    np.add.at(sums, labels, H * weight[:, None])
    return sums / np.bincount(labels, weight)[:, None]


def _labels(labels: Array | np.ndarray | Sequence[int], rows: int) -> Int[Array, " m"]:
    """One whole number for each row."""
    labels = labels if isinstance(labels, Array) else np.asarray(unmasked("labels", labels))
    if labels.shape != (rows,) or rows == 0 or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise InvalidInput(
            "labels", f"array of shape {labels.shape}", f"give {rows} whole numbers 0..k-1, one for each row"
        )
    return jnp.asarray(labels, dtype=jnp.int32)


def _weight(multiplicity: Any, rows: int) -> Array | np.ndarray:
    """One number for each row, finite and at least 0; checked unless it is traced."""
    fix = f"give {rows} numbers of at least 0, one for each row"
    if multiplicity is None:
        return np.ones(rows)
    weight = multiplicity if isinstance(multiplicity, Tracer) else real_array("multiplicity", multiplicity, fix)
    if weight.shape != (rows,):
        raise InvalidInput("multiplicity", f"array of shape {weight.shape}", fix)
    if isinstance(weight, np.ndarray) and not (np.isfinite(weight).all() and (weight >= 0).all() and weight.any()):
        raise InvalidInput("multiplicity", weight.tolist(), fix)
    return weight


class Between(NamedTuple):
    """The scatter S_B of k class means by its principal axes: S_B^+ = axes^T diag(inverse) axes.

    rounding: singular values of the centred means, and distances, are taken for 0 below this.
    """

    axes: Float[Array, "r d"]
    inverse: Float[Array, " r"]
    rounding: Float[Array, ""]


def between(means: Float[Array, "k d"]) -> Between:
    """The scatter, from the singular vectors of the centred means: S_B = V diag(s^2/k) V^T."""
    _, singular, V = jnp.linalg.svd(means - means.mean(axis=0), full_matrices=False)
    # A singular value that should be 0 has the size of the rounding of the means, not of their differences.
    rounding = jnp.linalg.norm(means) * max(means.shape) * jnp.finfo(means.dtype).eps
    nonzero = singular > rounding
    inverse = jnp.where(nonzero, means.shape[0] / jnp.where(nonzero, singular, 1.0) ** 2, 0.0)
    return Between(V, inverse, rounding)


def within_over_between(
    along: Float[Array, " r"], squares: Float[Array, ""], directions: Between, k: int
) -> Float[Array, ""]:
    """beta_nc = tr(S_W S_B^+)/k from the variances within classes along the axes of `between`.

    squares: sum over samples of their squared distances from the mean of their class.
    """
    degenerate = jnp.where(squares > directions.rounding**2, jnp.inf, 0.0)
    return jnp.where((directions.inverse > 0).any(), jnp.sum(along * directions.inverse) / k, degenerate)
