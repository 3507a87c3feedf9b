r"""The expected mini-batch loss, with collapsed classes: a weighted sum over count vectors (theory, 4.19).

A sampler treats all samples of a class alike. So the expected loss, which is convex in the Gram matrix of all samples,
does not change if samples of a class are exchanged. Hence its least value is attained where classes are collapsed, in
UFM+ and in UFM. There the loss of a batch depends on its counts only: L(H) = sum_v P(v) L_v(H), with one row of H for
each class.

A bound sampler distinguishes its m binding samples of each class from the others, and samples can be exchanged only
within these two kinds. There the problem has two points for each class, the binding samples first.

Samples with two views are exchanged image by image. The loss of a batch at class rows does not depend on this, and
neither does the least value, except for UFM with a bound sampler. The implications of a gap for samples do depend on
it (theory, 4.19 (e)).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from ufm.errors import InvalidInput
from ufm.model.batch import SMALLEST_WEIGHT
from ufm.model.laws import Law

# By default all count vectors are listed if there are at most this many; otherwise this number is drawn.
LISTED = 4096


@runtime_checkable
class HasLaw(Protocol):
    """The part of a sampler that its expected loss depends on."""

    def law(self, sizes: Sequence[int] | Int[np.ndarray, " k"]) -> Law:
        """The law of its batches for classes of these sizes."""
        ...


class CountVectors(NamedTuple):
    """The points of an expected loss, and its batches.

    - labels, multiplicity: class and samples of each point.
    - members, counts: the points of each batch in increasing order, and how many samples of each it holds; a point of
      count 0 is no member.
    - weights: probability of each batch.
    - views: samples of an image, 1 or 2; a batch holds all of them or none.
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
    """Points and batches for `Problem.expected`.

    sizes: samples of each class. vectors: this number of count vectors is drawn, with `seed`, and their frequencies
    replace probabilities. By default all count vectors are listed, or 4096 are drawn if there are more
    (`ufm.batches.expected_error.standard_error` estimates the error). Vectors of probability below 1e-300 are left out.
    Each point is a class with all its samples. For a bound sampler the points are the binding samples of each class,
    and then the other samples of each class that has others. Raises InvalidInput if the sampler cannot draw from such
    classes.
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
    """Class and number of samples of each point, and how many of them a batch with these counts holds."""
    sizes, k = np.array(law.sizes), law.k
    if not law.bound:
        return np.arange(k), law.views * sizes, law.views * drawn
    others = np.flatnonzero(sizes > law.bound)
    labels = np.concatenate([np.arange(k), others])
    multiplicity = np.concatenate([np.full(k, law.bound), sizes[others] - law.bound])
    binding = np.full((len(drawn), k), law.bound)
    return labels, law.views * multiplicity, law.views * np.concatenate([binding, drawn[:, others]], axis=1)
