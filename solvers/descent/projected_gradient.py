"""The reference method: any optax gradient transformation, then the exact projection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from solvers.descent.method import Iterate
from solvers.descent.stopping import check_tolerances, relative_conflict, stationarity
from ufm.errors import InvalidInput
from ufm.loss import evaluate
from ufm.problem import Problem
from ufm.projections import project


def sgd() -> optax.GradientTransformation:
    """The authors' recipe, on the summed loss: step 0.1, momentum 0.9."""
    return optax.sgd(0.1, momentum=0.9)


def checked_transformation(given: Any) -> optax.GradientTransformation:
    """The optax transformation, or what a function makes; raises InvalidInput, naming it, for what is neither."""
    mend = "give an optax transformation such as optax.sgd(0.1), or a function without arguments that makes one"
    try:
        made = given if isinstance(given, optax.GradientTransformation) else given()
    except Exception:  # whatever a function of the user's raises, it makes none
        made = None
    if not isinstance(made, optax.GradientTransformation):
        raise InvalidInput("transformation", given, mend)
    return made


class _State(NamedTuple):
    now: Iterate
    gradient: Float[Array, "m d"]
    optimiser: Any


@dataclass(frozen=True)
class ProjectedGradient:
    """H <- P(H + update), update by `transformation` from the gradient of the summed loss.

    - transformation: an optax transformation such as `optax.sgd(0.1)`, or a function that makes one. Methods with
      one function share what is compiled.
    - tolerance: stop when the largest `stationarity` over samples is at most this.

    Raises InvalidInput for what is neither, or a tolerance that is none.
    """

    transformation: optax.GradientTransformation | Callable[[], optax.GradientTransformation] = sgd
    tolerance: float = 1e-9

    def __post_init__(self) -> None:
        checked_transformation(self.transformation)
        check_tolerances(self)

    def init(self, H: Float[Array, "m d"], problem: Problem) -> _State:
        """Evaluate at H."""
        return self._at(H, self._optax().init(H), problem)

    def step(self, state: _State, problem: Problem) -> _State:
        """One update, one projection, one evaluation at the new point."""
        update, optimiser = self._optax().update(state.gradient, state.optimiser, state.now.H)
        H = project(optax.apply_updates(state.now.H, update), problem.nonneg)  # type: ignore[arg-type]
        return self._at(H, optimiser, problem)

    def iterate(self, state: _State) -> Iterate:
        """The current point."""
        return state.now

    def converged(self, state: _State) -> Bool[Array, ""]:
        """The residual at the current point."""
        return state.now.residual <= self.tolerance

    def _optax(self) -> optax.GradientTransformation:
        return checked_transformation(self.transformation)

    def _at(self, H: Float[Array, "m d"], optimiser: Any, problem: Problem) -> _State:
        at = evaluate(H, problem)
        residual = jnp.max(stationarity(H, at, problem))
        return _State(Iterate(H, at.excess, residual, relative_conflict(at)), at.gradient, optimiser)
