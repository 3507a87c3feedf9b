"""Problems with equal weights and no margins, for those whose gradient scales differ too much for doubles."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp

from solvers.loop.spread import is_far_apart
from ufm.model.problem import Problem
from ufm.settings import in_fixed_settings


@in_fixed_settings
def tempered(problem: Problem) -> Problem:
    """The problem itself; for UFM+ with d >= k and a spread above SPREAD, the one with equal weights and no margins.

    Which points attract and which repel each other depends on neither, so the points whose gap contributions are all 0
    are the same (theory, 2.14, 5.16). The pytree structure stays the same, so compiled code is shared.
    """
    if not problem.bound_is_attained or problem.loss.is_custom or not is_far_apart(problem):
        return problem
    loss, even = problem.loss, problem
    for name, value in (("weights", 1.0), ("taus", 1.0), ("margins", 0.0), ("strength", 0.0), ("bias", 0.0)):
        number = getattr(loss, name)
        if number is not None:
            even = eqx.tree_at(lambda p, name=name: getattr(p.loss, name), even, jnp.full_like(number, value))
    if even.weights is not None:  # the weights of padding are 0
        even = eqx.tree_at(lambda p: p.weights, even, jnp.where(even.weights > 0, 1.0, 0.0))
    return even
