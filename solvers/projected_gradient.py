"""The reference method: any optax gradient transformation, then the exact projection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from solvers.descent import Iterate, relative_conflict, stationarity
from ufm.feasible import project
from ufm.loss import evaluate
from ufm.problem import Problem


def sgd() -> optax.GradientTransformation:
    """The authors' recipe, on the summed loss: step 0.1, momentum 0.9."""
    return optax.sgd(0.1, momentum=0.9)


class _State(NamedTuple):
    now: Iterate
    gradient: Float[Array, "m d"]
    optimiser: Any


@dataclass(frozen=True)
class ProjectedGradient:
    """H <- P(H + update), update by `transformation` from the gradient of the summed loss.

    - transformation: makes the optax transformation. A function, so that the method stays hashable.
    - tolerance: stop when the largest `stationarity` over samples is at most this.
    """

    transformation: Callable[[], optax.GradientTransformation] = sgd
    tolerance: float = 1e-9

    def init(self, H: Float[Array, "m d"], problem: Problem) -> _State:
        """Evaluate at H."""
        return self._at(H, self.transformation().init(H), problem)

    def step(self, state: _State, problem: Problem) -> _State:
        """One update, one projection, one evaluation at the new point."""
        update, optimiser = self.transformation().update(state.gradient, state.optimiser, state.now.H)
        H = project(optax.apply_updates(state.now.H, update), problem.nonneg)  # type: ignore[arg-type]
        return self._at(H, optimiser, problem)

    def iterate(self, state: _State) -> Iterate:
        """The current point."""
        return state.now

    def converged(self, state: _State) -> Bool[Array, ""]:
        """The residual at the current point."""
        return state.now.residual <= self.tolerance

    def _at(self, H: Float[Array, "m d"], optimiser: Any, problem: Problem) -> _State:
        at = evaluate(H, problem)
        residual = jnp.max(stationarity(H, at, problem))
        return _State(Iterate(H, at.excess, residual, relative_conflict(at)), at.gradient, optimiser)
