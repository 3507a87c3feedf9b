r"""The expected mini-batch loss, with collapsed classes: a mixture over count vectors (theory, 4.19).

Batches of a sampler are alike within classes, so their expected loss is convex in the Gram matrix of all samples and
does not change if samples of a class are exchanged. Hence its least value is attained where classes are collapsed, by
UFM+ and by UFM, and there a batch is known by its counts: L(H) = sum_v P(v) L_v(H), H one row a class.

A bound sampler tells its m binding samples of each class from the others, and only among these two kinds samples can
be exchanged: there the problem has two points a class, the binding samples first.

Samples of two views are exchanged image by image. What a batch pays at class rows does not know of it, nor does the
least value, but for UFM with a bound sampler; what a gap says of samples does (theory, 4.19 (e)).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from ufm.errors import InvalidInput
from ufm.model.batch import SMALLEST_WEIGHT
from ufm.model.laws import Law

# Count vectors that are listed without being asked for, and how many are drawn where there are more.
LISTED = 4096


@runtime_checkable
class HasLaw(Protocol):
    """A sampler, as far as its expected loss goes."""

    def law(self, sizes: Sequence[int] | Int[np.ndarray, " k"]) -> Law:
        """The law of its batches from classes of these sizes."""
        ...


class CountVectors(NamedTuple):
    """Points, and batches of them.

    - labels, multiplicity: class and samples of each point.
    - members, counts: the points of each batch, in the order of their numbers, and how many samples of each it holds;
      of counts 0, no members.
    - weights: probability of each batch.
    - views: samples of an image, which are in a batch all or none: 1 or 2.
    """

    labels: Int[np.ndarray, " m"]
    multiplicity: Int[np.ndarray, " m"]
    members: Int[np.ndarray, "v s"]
    counts: Int[np.ndarray, "v s"]
    weights: Float[np.ndarray, " v"]
    views: int


def count_vectors(
    sizes: Sequence[int] | Int[np.ndarray, " k"], sampler: HasLaw, vectors: int | None, seed: int
) -> CountVectors:
    """What `Problem.expected` is made of.

    sizes: samples of each class. vectors: so many count vectors are drawn, with `seed`, and their frequencies take the
    place of probabilities; by default all are listed, or 4096 drawn if there are more
    (`ufm.batches.expected_error.standard_error`).
    Vectors of probability below 1e-300 are left out.
    Points: classes, of all their samples; of a bound sampler binding samples by class, and then the others of each
    class that has others. Raises InvalidInput if the sampler cannot draw from such classes.
    """
    if not isinstance(sampler, HasLaw):
        raise InvalidInput("sampler", sampler, "give a sampler of ufm.samplers, such as ufm.samplers.uniform(64)")
    law = sampler.law(sizes)
    if vectors is None and law.vectors <= LISTED:
        counts = law.counts()
    else:
        counts = law.sampled(LISTED if vectors is None else vectors, seed)
    likely = counts.probability >= SMALLEST_WEIGHT
    labels, multiplicity, held = _points(law, counts.drawn[likely])
    width = int((held > 0).sum(axis=1).max())
    members = np.argsort(held == 0, axis=1, kind="stable")[:, :width]
    inside = np.take_along_axis(held, members, axis=1)
    return CountVectors(labels, multiplicity, members, inside, counts.probability[likely], law.views)


def _points(
    law: Law, drawn: Int[np.ndarray, "v k"]
) -> tuple[Int[np.ndarray, " m"], Int[np.ndarray, " m"], Int[np.ndarray, "v m"]]:
    """Class and samples of each point, and how many of them a batch with these counts holds."""
    sizes, k = np.array(law.sizes), law.k
    if not law.bound:
        return np.arange(k), law.views * sizes, law.views * drawn
    others = np.flatnonzero(sizes > law.bound)
    labels = np.concatenate([np.arange(k), others])
    multiplicity = np.concatenate([np.full(k, law.bound), sizes[others] - law.bound])
    binding = np.full((len(drawn), k), law.bound)
    return labels, law.views * multiplicity, law.views * np.concatenate([binding, drawn[:, others]], axis=1)
