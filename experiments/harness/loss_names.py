"""The losses of the family by name, for command lines and files of problems."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from ufm import InvalidInput, losses
from ufm.errors import written_number
from ufm.losses import Loss

PLAIN = "scl"


class Named(NamedTuple):
    """A loss by name: how it is made from class sizes and numbers, and what these are if they are not given."""

    make: Callable[..., Loss]
    numbers: tuple[float, ...] = ()


def _rarity(sizes: Int[np.ndarray, " k"], power: float) -> np.ndarray:
    """(n_min / n_c)^power: 1 for the smallest classes."""
    return (np.min(sizes) / np.asarray(sizes)) ** power


NAMES = {
    PLAIN: Named(lambda n: losses.scl()),
    "class-weights": Named(lambda n, power: losses.class_weighted(_rarity(n, power)), (1.0,)),
    "logit-adjustment": Named(lambda n, strength: losses.logit_adjusted(strength), (1.0,)),
    "class-averaging": Named(lambda n: losses.class_averaged()),
    "weights-and-averaging": Named(
        lambda n, power: losses.log_sum_exp(weights=_rarity(n, power), averaged=True), (1.0,)
    ),
    "decoupled": Named(lambda n: losses.decoupled()),
    "class-temperatures": Named(lambda n, last: losses.class_temperatures(np.linspace(1.0, last, len(n))), (2.0,)),
    "sigmoid": Named(lambda n, scale, bias: losses.sigmoid(scale, bias), (1.0, 0.0)),
    "supcon-in": Named(lambda n: losses.supcon_in()),
}


def loss_of(text: str, sizes: Int[np.ndarray, " k"]) -> Loss:
    """The loss that a text names, for classes of these sizes: NAME, or NAME:NUMBER,... as in "logit-adjustment:0.5".

    Weights are (n_min / n_c)^NUMBER; temperatures go evenly from 1 (class 0) to NUMBER times tau; the sigmoid has scale
    and bias. Raises InvalidInput, one line that names what may be given.
    """
    name, _, value = text.partition(":") if isinstance(text, str) else ("", "", "")
    if name not in NAMES:
        raise InvalidInput("loss", text, f"choose one of {', '.join(NAMES)}")
    named = NAMES[name]
    try:
        numbers = tuple(map(written_number, value.split(","))) if value else named.numbers
    except ValueError:
        numbers = ()
    if len(numbers) != len(named.numbers):
        form = ",".join(f"{number:g}" for number in named.numbers)
        raise InvalidInput("loss", text, f"give it as {name}{':' * bool(form)}{form}")
    try:
        return named.make(sizes, *numbers)
    except InvalidInput as bad:
        raise InvalidInput("loss", text, f"no such loss: {bad}") from None


def in_names(text: str) -> tuple[str, ...]:
    """What the name of a cell says of its loss: nothing of SCL."""
    return () if text == PLAIN else (text.replace(":", "").replace(",", "_"),)
