r"""The expected mini-batch loss, with collapsed classes: a mixture over count vectors (theory, 4.19).

Batches of a sampler are alike within classes, so their expected loss is convex in the Gram matrix of all samples and
does not change if samples of a class are exchanged. Hence its least value is attained where classes are collapsed, by
UFM+ and by UFM, and there a batch is known by its counts: L(H) = sum_v P(v) L_v(H), H one row a class.

A bound sampler tells its m binding samples of each class from the others, and only among these two kinds samples can
be exchanged: there the problem has two points a class, the binding samples first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ufm.errors import InvalidInput, Rows, real_rows, whole_number
from ufm.laws import Law
from ufm.loss import evaluate
from ufm.losses import Loss
from ufm.problem import PADDING, Batch, Problem
from ufm.samplers import Sampler

# Count vectors that are listed without being asked for, and how many are drawn where there are more.
LISTED = 4096


def expected_problem(
    sizes: Sequence[int] | Int[np.ndarray, " k"],
    sampler: Sampler,
    d: int,
    tau: float = 1.0,
    nonneg: bool = True,
    *,
    loss: Loss | None = None,
    vectors: int | None = None,
    seed: int = 0,
) -> Problem:
    """`Problem.expected`: the mean over all batches of a sampler of the loss of one.

    sizes: samples of each class. vectors: so many count vectors are drawn, with `seed`, and their frequencies take the
    place of probabilities; by default all are listed, or 4096 drawn if there are more (`standard_error` is the error).
    Points: classes, of all their samples; of a bound sampler binding samples by class, and then the others of each
    class that has others. Raises InvalidInput if the sampler cannot draw from such classes, and as `Problem`.
    """
    if not isinstance(sampler, Sampler):
        raise InvalidInput("sampler", sampler, "give a sampler of ufm.samplers, such as ufm.samplers.uniform(64)")
    law = sampler.law(sizes)
    if vectors is None and law.vectors <= LISTED:
        counts = law.counts()
    else:
        counts = law.sampled(LISTED if vectors is None else vectors, seed)
    labels, multiplicity, held = _points(law, counts.drawn)
    width = int((held > 0).sum(axis=1).max())
    order = np.argsort(held == 0, axis=1, kind="stable")[:, :width]
    taken = np.take_along_axis(held, order, axis=1)
    batches = np.where(taken > 0, order, PADDING)
    return Problem(
        labels,
        d,
        tau,
        batches,
        nonneg,
        multiplicity=multiplicity,
        loss=loss,
        counts=taken,
        weights=counts.probability,
    )


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


def standard_error(H: Rows, problem: Problem, vectors: int) -> float:
    """The Monte-Carlo standard error of the loss at H, of a problem from so many drawn count vectors.

    The root of the variance over vectors, divided by their number less 1. Raises InvalidInput for a problem that is no
    expected loss, H of another shape, or vectors < 2.
    """
    if not problem.is_expected:
        raise InvalidInput("problem", "with all samples in its batches", "give one of Problem.expected")
    vectors = whole_number("vectors", vectors, 2, "give the number of count vectors that were drawn, at least 2")
    each = np.asarray(_of_each(real_rows("H", H, (problem.num_points, problem.d)), problem))
    share = np.asarray(problem.weights)
    return math.sqrt(float(share @ (each - share @ each) ** 2) / (vectors - 1))


@eqx.filter_jit
def _of_each(H: Float[Array, "m d"], problem: Problem) -> Float[Array, " nb"]:
    """The loss of each batch, unweighted."""

    def of(batch: Batch) -> Float[Array, ""]:
        assert batch.counts is not None
        alone = eqx.tree_at(
            lambda p: (p.batches, p.counts, p.weights),
            problem,
            (batch.members[None], batch.counts[None], jnp.ones(1)),
        )
        return evaluate(H, alone, with_gradient=False).loss

    return jax.lax.map(of, problem.rows)
