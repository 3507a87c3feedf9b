"""The error of an expected loss whose count vectors were drawn (`ufm.model.expected`, theory, 4.19)."""

from __future__ import annotations

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ufm.errors import Embedding, InvalidInput, real_rows, whole_number
from ufm.model.batch import Batch
from ufm.model.evaluation import evaluate
from ufm.model.problem import Problem
from ufm.settings import in_fixed_settings


@in_fixed_settings
def standard_error(H: Embedding, problem: Problem, vectors: int) -> float:
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

    return jax.lax.map(of, problem.all_batches)
