"""Whether the weights or margins of a problem are so far apart that residuals hide the small ones."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from ufm.losses import Loss
from ufm.model.problem import Problem

# Logarithm of the largest ratio, 10^4, of weights, or of exponentials of margins, that is left as it is. Beyond it the
# number of steps grows, and beyond 10^10 the gap contributions of the small ones count as 0.
SPREAD = np.log(1e4)


def is_far_apart(problem: Problem) -> bool:
    """Whether weights, or exponentials of margins, differ by more than a factor of 10^4."""
    return bool(_spread(problem) > SPREAD)


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
