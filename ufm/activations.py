"""Activations as constraint sets: what sigma(z), z free, can be once it is normalised or cut to the ball.

All that decides is the infimum of sigma (theory, 1.6). A *floor* says which set it is, in one number f:
{h : ||h|| <= 1, h >= f}, for f = 0 the one of UFM+, for f = -1 that of UFM, since no entry of a unit vector is below.

| name | infimum | normalised | cut to the ball |
|---|---|---|---|
| relu, abs, softplus | 0 | UFM+ (softplus in closure) | UFM+ (softplus in closure) |
| leaky-relu, none | -infinity | UFM | UFM |
| elu | -1 (not attained) | UFM | UFM |
| silu | -0.278 | UFM | between |
| gelu | -0.170 | UFM | between |
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ufm.deprecated import former_method
from ufm.errors import InvalidInput, written_number
from ufm.model.projections import project_ball
from ufm.settings import in_fixed_settings

UFM_PLUS, UFM = 0.0, -1.0  # floors
DEFAULT_SLOPE = 0.01  # of LeakyReLU, PyTorch's and JAX's


@dataclass(frozen=True)
class Activation:
    """An activation sigma, continuous, unbounded above, applied entry by entry.

    - name: as `activation` knows it. function: sigma, of arrays (m, d). infimum: of sigma over the real line.
    """

    name: str
    function: Callable[[Array], Array]
    infimum: float

    floor = former_method("floor", "entry_bound")

    def entry_bound(self, *, normalised: bool) -> float:
        """The floor of the closure of {sigma(z)/||sigma(z)||} and of what is inside that sphere, or of
        {sigma(z) : ||sigma(z)|| <= 1} (theory, 1.6)."""
        if self.infimum >= 0:
            return UFM_PLUS
        return UFM if normalised else max(self.infimum, UFM)

    @in_fixed_settings
    def embedding(self, z: Float[Array, "m d"], *, normalised: bool) -> Float[Array, "m d"]:
        """sigma(z)/||sigma(z)||, or sigma(z)/max(1, ||sigma(z)||), row by row; a row of zeros stays one.

        The image of the latter is {sigma(z) : ||sigma(z)|| <= 1}: a longer row, divided by its norm, is in the image
        of sigma too. Differentiable; inside the ball with all rounding. Raises InvalidInput as `ufm.project_ball`.
        """
        x = self.function(z)
        if not normalised:
            return project_ball(x)
        squared = jnp.sum(x * x, axis=-1, keepdims=True)
        return x / (jnp.sqrt(jnp.where(squared > 0, squared, 1.0)) * (1.0 + 2.0**-50))


def _leaky(slope: float, x: Array) -> Array:
    return jnp.where(x > 0, x, slope * x)


# Minima of x Phi(x), at x = -0.75179, and of x / (1 + e^-x), at x = -1.27846, rounded up by less than 1e-16.
GELU_INFIMUM, SILU_INFIMUM = -0.16997120747990366, -0.2784645427610738

# By name; networks and experiments know them by these.
ACTIVATIONS: dict[str, Activation] = {
    row.name: row
    for row in (
        Activation("relu", jax.nn.relu, 0.0),
        Activation("none", lambda x: x, -math.inf),
        Activation("leaky-relu", partial(_leaky, DEFAULT_SLOPE), -math.inf),
        Activation("gelu", partial(jax.nn.gelu, approximate=False), GELU_INFIMUM),
        Activation("silu", jax.nn.silu, SILU_INFIMUM),
        Activation("elu", jax.nn.elu, -1.0),
        Activation("softplus", jax.nn.softplus, 0.0),
        Activation("abs", jnp.abs, 0.0),
    )
}


@cache
def activation(name: str) -> Activation:
    """The activation of that name; leaky-relu:0.1 with a slope of one's own, above 0 and at most 1.

    Raises InvalidInput, naming it, for what is none.
    """
    kind, colon, given = name.partition(":") if isinstance(name, str) else (name, "", "")
    if colon and kind == "leaky-relu":
        try:
            slope = written_number(given)
        except ValueError:
            slope = math.nan
        if not 0 < slope <= 1:
            raise InvalidInput("activation", name, "give a slope above 0 and at most 1, as in leaky-relu:0.1")
        return Activation(name, partial(_leaky, slope), -math.inf)
    if colon or kind not in ACTIVATIONS:
        raise InvalidInput("activation", name, f"choose one of {', '.join(ACTIVATIONS)}, leaky-relu:SLOPE")
    return ACTIVATIONS[kind]
