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
    """The Monte-Carlo standard error of the loss at H, if `vectors` is the number of drawn count vectors.

    It is the root of the variance over count vectors, divided by their number minus 1. Raises InvalidInput if the
    problem is not an expected loss, for H of another shape, or for vectors < 2.
    """
    if not problem.is_expected:
        raise InvalidInput("problem", "not an expected loss", "give a problem made by Problem.expected")
    vectors = whole_number("vectors", vectors, 2, "give the number of count vectors that were drawn, at least 2")
    each = np.asarray(_of_each(real_rows("H", H, (problem.num_points, problem.d)), problem))
    probability = np.asarray(problem.weights)
    return math.sqrt(float(probability @ (each - probability @ each) ** 2) / (vectors - 1))


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
