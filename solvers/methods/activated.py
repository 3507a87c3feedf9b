"""Gradient descent through an activation: the last layer of a network whose inputs to it are free variables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from solvers.loop.method import Iterate
from solvers.loop.stopping import check_tolerances, relative_gap_contribution, stationarity
from solvers.methods.projected_gradient import made, sgd
from ufm.activations import activation
from ufm.deprecated import former_property
from ufm.errors import InvalidInput, real_number
from ufm.model.evaluation import evaluate
from ufm.model.problem import Problem
from ufm.settings import in_fixed_settings


class _State(NamedTuple):
    now: Iterate
    z: Float[Array, "m d"]
    gradient: Float[Array, "m d"]
    optimiser: Any


@dataclass(frozen=True)
class Activated:
    """z <- z + update on the loss of h_i = sigma(z_i)/||sigma(z_i)||, z_i free in R^d, without any projection.

    The least loss is that of a constraint set (theory, 1.6), if some minimiser in that set has rows of norm 1 only, as
    frames have: the set of UFM+ where sigma >= 0, and that of UFM where sigma takes both signs. `problem.nonneg` should
    name the same set: verdict and certificate are about it. Whether a descent reaches it is another question (theory,
    5.22).

    - activation: a name of `ufm.activations.ACTIVATIONS`, or leaky-relu:SLOPE.
    - normalised: False scales rows into the ball instead, h = sigma(z)/max(1, ||sigma(z)||). For GELU and SiLU the
      constraint set then lies between those of UFM+ and UFM.
    - transformation: applied to the gradient in z; any optax transformation, as in `solvers.ProjectedGradient`.
    - scale: the first z is the feasible H that the solver draws, or H0, times this.
    - tolerance: stop when the largest `stationarity` of h over samples, in the constraint set, is at most this. It is
      the one of h because an activation with a small slope makes the gradient in z small everywhere.

    Raises InvalidInput, naming the field, for a value of the wrong kind or range. `init` raises it for a problem of
    UFM+ if the activation takes both signs.
    """

    activation: str = "relu"
    normalised: bool = True
    transformation: optax.GradientTransformation | Callable[[], optax.GradientTransformation] = sgd
    scale: float = 1.0
    tolerance: float = 1e-9

    def __post_init__(self) -> None:
        activation(self.activation)
        if not isinstance(self.normalised, bool):
            raise InvalidInput("normalised", self.normalised, "give True or False")
        real_number("scale", self.scale, 1e-6, 1e6)
        made(self.transformation)
        check_tolerances(self)

    floor = former_property("floor", "entry_bound")

    @property
    def entry_bound(self) -> float:
        """The lower bound of the entries in the constraint set (`ufm.activations`)."""
        return activation(self.activation).entry_bound(normalised=self.normalised)

    @in_fixed_settings
    def init(self, H: Float[Array, "m d"], problem: Problem) -> _State:
        """The state at z = scale H."""
        if problem.nonneg and self.entry_bound < 0:
            fix = f"{self.activation} gives features of both signs: a Problem with nonneg=False"
            raise InvalidInput("problem", "UFM+", fix)
        z = self.scale * H
        return self._at(z, made(self.transformation).init(z), problem)

    @in_fixed_settings
    def step(self, state: _State, problem: Problem) -> _State:
        """One update of z, and one evaluation at the new point."""
        update, optimiser = made(self.transformation).update(state.gradient, state.optimiser, state.z)
        return self._at(optax.apply_updates(state.z, update), optimiser, problem)  # type: ignore[arg-type]

    def iterate(self, state: _State) -> Iterate:
        """The features of the current z."""
        return state.now

    @in_fixed_settings
    def converged(self, state: _State) -> Bool[Array, ""]:
        """Whether the residual at the current point is at most the tolerance."""
        return state.now.residual <= self.tolerance

    def _at(self, z: Float[Array, "m d"], optimiser: Any, problem: Problem) -> _State:
        sigma = activation(self.activation)
        H, pulled_back = jax.vjp(lambda z: sigma.embedding(z, normalised=self.normalised), z)
        at = evaluate(H, problem)
        (gradient,) = pulled_back(at.gradient)
        residual = jnp.max(stationarity(H, at, problem, self.entry_bound))
        return _State(Iterate(H, at.excess, residual, relative_gap_contribution(at)), z, gradient, optimiser)
