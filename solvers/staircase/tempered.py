"""Problems with equal weights and no margins, for those whose gradient scales differ too much for doubles."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ufm.losses import Loss
from ufm.model.problem import Problem
from ufm.settings import in_fixed_settings

# Logarithm of the largest ratio, 10^4, of weights, or of exponentials of margins, that is left as it is. Beyond it the
# number of steps grows, and beyond 10^10 the gap contributions of the small ones count as 0.
SPREAD = np.log(1e4)


@in_fixed_settings
def tempered(problem: Problem) -> Problem:
    """The problem itself; for UFM+ with d >= k and a spread above SPREAD, the one with equal weights and no margins.

    Which points attract and which repel each other depends on neither, so the points whose gap contributions are all 0
    are the same (theory, 2.14, 5.16). The pytree structure stays the same, so compiled code is shared.
    """
    if not problem.bound_is_attained or problem.loss.is_custom or _spread(problem) <= SPREAD:
        return problem
    loss, even = problem.loss, problem
    for name, value in (("weights", 1.0), ("taus", 1.0), ("margins", 0.0), ("strength", 0.0), ("bias", 0.0)):
        number = getattr(loss, name)
        if number is not None:
            even = eqx.tree_at(lambda p, name=name: getattr(p.loss, name), even, jnp.full_like(number, value))
    if even.weights is not None:  # the weights of padding are 0
        even = eqx.tree_at(lambda p: p.weights, even, jnp.where(even.weights > 0, 1.0, 0.0))
    return even


def _spread(problem: Problem) -> float:
    """The largest logarithm of a ratio of weights, or the largest difference of margins."""
    loss: Loss = problem.loss
    spreads = [_range_of_logarithms(np.asarray(of)) for of in (loss.weights, problem.weights) if of is not None]
    if loss.margins is not None:
        margins = np.asarray(loss.margins)
        spreads.append(np.abs(margins - np.diag(margins)[:, None]).max())
    if loss.strength is not None:
        spreads.append(abs(float(loss.strength)) * _range_of_logarithms(np.asarray(problem.class_sizes)))
    if loss.bias is not None:
        spreads.append(abs(float(loss.bias)))
    return float(max(spreads, default=0.0))


def _range_of_logarithms(numbers: Float[np.ndarray, " n"]) -> float:
    return float(np.ptp(np.log(numbers[numbers > 0])))
