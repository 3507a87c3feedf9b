"""Activations as constraint sets: the values of sigma(z), z free, after they are normalised or projected on the ball.

The set depends on the infimum of sigma alone (theory, 1.6). It is {h : ||h|| <= 1, h >= f} with an *entry lower
bound* f: f = 0 gives UFM+, and f = -1 gives UFM, since no entry of a unit vector is smaller.

| name | infimum | normalised | projected on the ball |
|---|---|---|---|
| relu, abs, softplus | 0 | UFM+ (softplus in closure) | UFM+ (softplus in closure) |
| leaky-relu, none | -infinity | UFM | UFM |
| elu | -1 (not attained) | UFM | UFM |
| silu | -0.278 | UFM | between UFM+ and UFM |
| gelu | -0.170 | UFM | between UFM+ and UFM |
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

UFM_PLUS, UFM = 0.0, -1.0  # entry lower bounds
DEFAULT_SLOPE = 0.01  # of LeakyReLU in PyTorch and JAX


@dataclass(frozen=True)
class Activation:
    """An activation sigma, applied entry by entry. It must be continuous and unbounded above.

    - name: the argument of `activation`. function: sigma for arrays (m, d). infimum: of sigma over the real line.
    """

    name: str
    function: Callable[[Array], Array]
    infimum: float

    floor = former_method("floor", "entry_bound")

    def entry_bound(self, *, normalised: bool) -> float:
        """The entry lower bound of the set of features (theory, 1.6).

        normalised: the set is the closure of {t sigma(z)/||sigma(z)|| : 0 <= t <= 1}; else it is
        {sigma(z) : ||sigma(z)|| <= 1}.
        """
        if self.infimum >= 0:
            return UFM_PLUS
        return UFM if normalised else max(self.infimum, UFM)

    @in_fixed_settings
    def embedding(self, z: Float[Array, "m d"], *, normalised: bool) -> Float[Array, "m d"]:
        """sigma(z)/||sigma(z)||, or sigma(z)/max(1, ||sigma(z)||), row by row; a row of zeros stays zero.

        The image of the latter is {sigma(z) : ||sigma(z)|| <= 1}: a longer row, divided by its norm, is in the image
        of sigma too. The result is differentiable, and inside the ball in spite of rounding. Raises InvalidInput as
        `ufm.project_ball`.
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

# The names that networks and experiments use.
ACTIVATIONS: dict[str, Activation] = {
    entry.name: entry
    for entry in (
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
    """The activation of that name. leaky-relu:0.1 sets the slope, above 0 and at most 1.

    Raises InvalidInput for an unknown name.
    """
    kind, colon, text = name.partition(":") if isinstance(name, str) else (name, "", "")
    if colon and kind == "leaky-relu":
        try:
            slope = written_number(text)
        except ValueError:
            slope = math.nan
        if not 0 < slope <= 1:
            raise InvalidInput("activation", name, "give a slope above 0 and at most 1, as in leaky-relu:0.1")
        return Activation(name, partial(_leaky, slope), -math.inf)
    if colon or kind not in ACTIVATIONS:
        raise InvalidInput("activation", name, f"choose one of {', '.join(ACTIVATIONS)}, leaky-relu:SLOPE")
    return ACTIVATIONS[kind]
