"""Batches of an expected loss: how many samples of its points each holds, and its weight (theory, 4.19)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from ufm.errors import InvalidInput, real_array, whole_number

# Limits of batch weights: squares of gradients must not overflow, the digits of a certificate must resolve the largest
# weight, and its file must be able to hold the smallest.
SMALLEST_WEIGHT, LARGEST_WEIGHT, LEAST_STRONGEST = 1e-300, 1e100, 1e-30


class Batch(NamedTuple):
    """One batch of a problem, or all of them with one more axis: see `ufm.Problem`.

    - members: indices of points, padded with -1. counts, weight: None unless the problem is an expected loss.
    """

    members: Int[Array, "*batches s"]
    counts: Float[Array, "*batches s"] | None
    weight: Float[Array, "*batches"] | None


def checked_counts(
    counts: Any, weights: Any, batches: np.ndarray, inside: np.ndarray, multiplicity: Array
) -> tuple[Array | None, Array | None]:
    """Samples of each slot (padding where not `inside`) and weights of batches, None without counts; or
    InvalidInput."""
    if counts is None:
        if weights is not None:
            raise InvalidInput(
                "weights", weights, "give counts too: the number of samples of each point that a batch holds"
            )
        return None, None
    if isinstance(counts, Tracer) or isinstance(weights, Tracer) or isinstance(multiplicity, Tracer):
        raise InvalidInput("counts", counts, "an expected loss cannot be made in a trace; make it outside")
    fix = f"give a whole number for each index in batches, shape {batches.shape}, from 1 to the point's multiplicity"
    held = real_array("counts", counts, fix)
    if held.shape != batches.shape:
        raise InvalidInput("counts", held.tolist(), fix)
    held = np.where(inside, held, 0.0)
    most = np.where(inside, np.asarray(multiplicity)[batches], 0)
    fits = (held == np.rint(held)) & (held <= most) & (held >= inside)
    if not fits.all():  # a NaN fits nowhere
        raise InvalidInput("counts", float(held[~fits][0]), fix)
    fix = f"give {len(batches)} numbers from {SMALLEST_WEIGHT:g} to {LARGEST_WEIGHT:g}, one for each batch"
    weight = real_array("weights", np.ones(len(batches)) if weights is None else weights, fix)
    fits = (weight >= SMALLEST_WEIGHT) & (weight <= LARGEST_WEIGHT)
    if weight.shape != (len(batches),) or not fits.all():
        raise InvalidInput("weights", weight[~fits].tolist() or weight.tolist(), fix)
    if weight.max() < LEAST_STRONGEST:
        fix = f"scale all of them so that the largest is at least {LEAST_STRONGEST:g}"
        raise InvalidInput("weights", weight.tolist(), fix)
    return jnp.asarray(held), jnp.asarray(weight)


def checked_views(views: object, counts: Array | None, multiplicity: Array, one_point_a_class: bool) -> int:
    """Samples of an image, 1 or 2, if points and batches can consist of such images; or InvalidInput.

    one_point_a_class: for UFM, whether every class is one point; True for UFM+ (theory, 4.19 (e)).
    """
    views = whole_number("views", views, 1, "give 1, or 2 where samples are images with two views")
    if views == 1:
        return 1
    if views > 2 or counts is None:
        raise InvalidInput("views", views, "give 1; or 2, with counts, for images with two views")
    if any((np.asarray(samples) % 2).any() for samples in (multiplicity, counts)):
        raise InvalidInput(
            "views", views, "a batch holds both views of an image or neither: give even numbers of samples"
        )
    if not one_point_a_class:
        raise InvalidInput(
            "views", views, "without the ReLU give one point for each class: views of one image may have different rows"
        )
    return 2
