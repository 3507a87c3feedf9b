"""How many samples of its points a batch holds, and what it weighs: what an expected loss is made of (theory, 4.19)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from ufm.errors import InvalidInput, real_array, whole_number

# Weights of batches: squares of forces stay doubles, the strongest is seen in the digits that certificates hold, and
# the weakest are numbers of their files.
SMALLEST_WEIGHT, LARGEST_WEIGHT, LEAST_STRONGEST = 1e-300, 1e100, 1e-30


class Batch(NamedTuple):
    """One batch of a problem, or all of them with an axis more: see `ufm.Problem`.

    - members: indices of points, -1 pads. counts, weight: None where they are not given.
    """

    members: Int[Array, "*batches s"]
    counts: Float[Array, "*batches s"] | None
    weight: Float[Array, "*batches"] | None


def checked_counts(
    counts: Any, weights: Any, batches: np.ndarray, inside: np.ndarray, multiplicity: Array
) -> tuple[Array | None, Array | None]:
    """Samples of each slot (those `inside` are no padding) and weights of batches, if given; or InvalidInput."""
    if counts is None:
        if weights is not None:
            raise InvalidInput(
                "weights", weights, "give them with counts, the samples of each point that a batch holds"
            )
        return None, None
    if isinstance(counts, Tracer) or isinstance(weights, Tracer) or isinstance(multiplicity, Tracer):
        raise InvalidInput("counts", counts, "an expected loss is no problem of a trace; make it outside")
    fix = f"give one whole number for each index of batches, shape {batches.shape}, from 1 to what the point stands for"
    held = real_array("counts", counts, fix)
    if held.shape != batches.shape:
        raise InvalidInput("counts", held.tolist(), fix)
    held = np.where(inside, held, 0.0)
    most = np.where(inside, np.asarray(multiplicity)[batches], 0)
    fits = (held == np.rint(held)) & (held <= most) & (held >= inside)
    if not fits.all():  # a NaN fits nowhere
        raise InvalidInput("counts", float(held[~fits][0]), fix)
    fix = f"give one number from {SMALLEST_WEIGHT:g} to {LARGEST_WEIGHT:g} for each of {len(batches)} batches"
    share = real_array("weights", np.ones(len(batches)) if weights is None else weights, fix)
    fits = (share >= SMALLEST_WEIGHT) & (share <= LARGEST_WEIGHT)
    if share.shape != (len(batches),) or not fits.all():
        raise InvalidInput("weights", share[~fits].tolist() or share.tolist(), fix)
    if share.max() < LEAST_STRONGEST:
        raise InvalidInput("weights", share.tolist(), f"multiply all, so that one is at least {LEAST_STRONGEST:g}")
    return jnp.asarray(held), jnp.asarray(share)


def checked_views(views: object, counts: Array | None, multiplicity: Array, one_point_a_class: bool) -> int:
    """Samples of an image, if points and batches can be made of such; or InvalidInput.

    one_point_a_class: of UFM, whether every class is one point; True of UFM+ (theory, 4.19 (e)).
    """
    views = whole_number("views", views, 1, "give 1, or 2 where samples are images with two views")
    if views == 1:
        return 1
    if views > 2 or counts is None:
        raise InvalidInput("views", views, "give 1, or 2 with counts, of images with two views")
    if any((np.asarray(samples) % 2).any() for samples in (multiplicity, counts)):
        raise InvalidInput(
            "views", views, "an image has both its views in a batch or none: give even numbers of samples"
        )
    if not one_point_a_class:
        raise InvalidInput("views", views, "without the ReLU give one point a class: views of one image may part")
    return 2
