"""The reference method: any optax gradient transformation, then the exact projection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from solvers.loop.method import Iterate
from solvers.loop.stopping import check_tolerances, relative_gap_contribution, stationarity
from ufm.errors import InvalidInput
from ufm.model.evaluation import evaluate
from ufm.model.problem import Problem
from ufm.model.projections import project
from ufm.settings import in_fixed_settings


def sgd() -> optax.GradientTransformation:
    """The authors' recipe, on the summed loss: step 0.1, momentum 0.9."""
    return optax.sgd(0.1, momentum=0.9)


Transformation = optax.GradientTransformation | Callable[[], optax.GradientTransformation]


def made(transformation: Transformation) -> optax.GradientTransformation:
    """The optax transformation itself, or the result of the function that makes it.

    Raises InvalidInput if that is not an optax transformation.
    """
    fix = "give an optax transformation such as optax.sgd(0.1), or a function without arguments that makes one"
    try:
        result = transformation if isinstance(transformation, optax.GradientTransformation) else transformation()
    except Exception:  # a user's function may raise anything
        result = None
    if not isinstance(result, optax.GradientTransformation):
        raise InvalidInput("transformation", transformation, fix)
    return result


class _State(NamedTuple):
    now: Iterate
    gradient: Float[Array, "m d"]
    optimiser: Any


@dataclass(frozen=True)
class ProjectedGradient:
    """H <- P(H + update), where `transformation` makes the update from the gradient of the summed loss.

    - transformation: an optax transformation such as `optax.sgd(0.1)`, or a function that makes one. Methods with the
      same function share compiled code.
    - tolerance: stop when the largest `stationarity` over samples is at most this.

    Raises InvalidInput, naming the field, for a value of the wrong kind or range.
    """

    transformation: Transformation = sgd
    tolerance: float = 1e-9

    def __post_init__(self) -> None:
        made(self.transformation)
        check_tolerances(self)

    @in_fixed_settings
    def init(self, H: Float[Array, "m d"], problem: Problem) -> _State:
        """The state at H, evaluated."""
        return self._at(H, made(self.transformation).init(H), problem)

    @in_fixed_settings
    def step(self, state: _State, problem: Problem) -> _State:
        """One update, one projection, and one evaluation at the new point."""
        update, optimiser = made(self.transformation).update(state.gradient, state.optimiser, state.now.H)
        H = project(optax.apply_updates(state.now.H, update), problem.nonneg)  # type: ignore[arg-type]
        return self._at(H, optimiser, problem)

    def iterate(self, state: _State) -> Iterate:
        """The current point."""
        return state.now

    @in_fixed_settings
    def converged(self, state: _State) -> Bool[Array, ""]:
        """Whether the residual at the current point is at most the tolerance."""
        return state.now.residual <= self.tolerance

    def _at(self, H: Float[Array, "m d"], optimiser: Any, problem: Problem) -> _State:
        at = evaluate(H, problem)
        residual = jnp.max(stationarity(H, at, problem))
        return _State(Iterate(H, at.excess, residual, relative_gap_contribution(at)), at.gradient, optimiser)
