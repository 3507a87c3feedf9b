"""One point measured exactly: evaluation, stationarity and geometry, compiled once a shape."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from solvers.compiled import Compiled
from solvers.descent import stationarity
from solvers.padding import Shape, common_shape, padded
from ufm.geometry import GeometryMetrics, geometry_metrics
from ufm.loss import evaluate
from ufm.problem import Problem


class Measurement(NamedTuple):
    """Of one H (m, d), by the exact objective.

    - loss, excess: see `ufm.loss.Evaluation`.
    - residuals: `solvers.descent.stationarity` of every point.
    - metrics: see `ufm.geometry_metrics`.
    """

    loss: Float[Array, ""]
    excess: Float[Array, ""]
    residuals: Float[Array, " m"]
    metrics: GeometryMetrics

    @property
    def residual(self) -> float:
        """Largest stationarity residual over points."""
        return float(jnp.max(self.residuals))


def measure_point(H: Float[Array, "m d"], problem: Problem) -> Measurement:
    """Traced once a shape by `measure`."""
    at = evaluate(H, problem)
    metrics = geometry_metrics(H, problem.labels, k=problem.k, multiplicity=problem.multiplicity)
    return Measurement(at.loss, at.excess, stationarity(H, at, problem), metrics)


_compiled = Compiled(measure_point)


def measure(
    H: Float[Array, "m d"] | Float[np.ndarray, "m d"], problem: Problem, shape: Shape | None = None
) -> Measurement:
    """Measure one point; the result is on the host. Compiled once a shape, by default the problem's size class."""
    shape = common_shape([problem]) if shape is None else shape
    rows = np.pad(np.asarray(H), ((0, shape[0] - len(H)), (0, 0)))
    at = jax.tree.map(np.asarray, _compiled(rows, padded(problem, shape)))
    return at._replace(residuals=at.residuals[: len(H)])
