"""One kind of error for every bad input, so that a command line can turn it into one line."""

from __future__ import annotations

import copyreg
import operator
from collections.abc import Sequence
from numbers import Real
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Num

# An embedding as a user gives it: one row for each sample, real numbers of any type.
Embedding = Num[Array, "m d"] | Num[np.ndarray, "m d"] | Sequence[Sequence[float]]
# Several of them.
Stack = Num[Array, "inits m d"] | Num[np.ndarray, "inits m d"] | Sequence[Sequence[Sequence[float]]]


LARGEST_SEED = 2**63 - 1
# Squares of larger entries might overflow.
LARGEST_ENTRY = 1e100
# Counts of starts, steps and lifts are 32-bit.
LARGEST_COUNT = 2**31 - 1


class InvalidInput(ValueError):
    """An argument is unusable. The message is one line: the argument, its value and how to fix it."""

    def __init__(self, argument: str, value: object, fix: str) -> None:
        self.argument = argument
        shown = " ".join(repr(value).split())
        if len(shown) > 60:
            shown = shown[:57] + "..."
        super().__init__(f"{argument} = {shown}: {fix}")

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process receives the message only, so the copy is made from it and not from the three arguments.
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]


def whole_number(argument: str, value: object, least: int, fix: str, most: int | None = None) -> int:
    """The value as an int from least to most (Python's, NumPy's and JAX's integers pass), or InvalidInput.

    Booleans and floats are refused even if they equal a whole number: they are usually mistakes.
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise InvalidInput(argument, value, fix) from None
    if number < least or (most is not None and number > most):
        raise InvalidInput(argument, value, fix)
    return number


def real_number(argument: str, value: object, least: float, most: float, fix: str | None = None) -> float:
    """The value as a float from least to most, or InvalidInput; so for booleans, texts, NaN and numbers that
    overflow."""
    if isinstance(value, (Real, np.number)) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = np.nan
        if least <= number <= most:
            return number
    raise InvalidInput(argument, value, fix or f"give a number from {least:g} to {most:g}")


def checked_seed(value: object, argument: str = "seed") -> int:
    """A seed of random numbers, or InvalidInput."""
    return whole_number(argument, value, 0, "give a whole number from 0 to 2^63 - 1", LARGEST_SEED)


def unmasked(argument: str, value: Any) -> Any:
    """The value, unless it is an array with masked entries, which NumPy would take for data."""
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        masked = f"array with {np.ma.count_masked(value)} masked entries"
        raise InvalidInput(argument, masked, "give all entries, or leave out the masked ones")
    return value


def written_number(text: str) -> float:
    """The number that a text holds, or ValueError. Unlike `float` it refuses 1_0 and digits of other scripts."""
    if "_" in text or not text.isascii():
        raise ValueError(text)
    return float(text)


def real_array(argument: str, value: Any, fix: str) -> Float[np.ndarray, ...]:
    """The value as an array of doubles, or InvalidInput; complex numbers are refused, not reduced to their real
    part."""
    try:
        if np.iscomplexobj(value):
            raise TypeError
        return np.asarray(unmasked(argument, value), dtype=np.float64)
    except InvalidInput:
        raise
    except (TypeError, ValueError):
        raise InvalidInput(argument, type(value).__name__, fix) from None


def real_rows(argument: str, value: Any, shape: tuple[int, ...] | None = None) -> Float[Array, "m d"]:
    """The value as a matrix of doubles on the device, traced or not, of this shape unless it is None; or
    InvalidInput."""
    fix = "give a real array (n, d)"
    rows = value if isinstance(value, Array) else real_array(argument, value, fix)
    if jnp.iscomplexobj(rows):
        raise InvalidInput(argument, type(value).__name__, fix)
    if rows.ndim != 2 or rows.shape[1] == 0 or (shape is not None and rows.shape != shape):
        fix = fix if shape is None else f"give one row for each sample, shape {shape}"
        raise InvalidInput(argument, f"array of shape {rows.shape}", fix)
    if not isinstance(rows, Tracer) and rows.size and float(np.max(np.abs(rows))) > LARGEST_ENTRY:
        raise InvalidInput(argument, "array with entries above 1e100", "give rows in the unit ball, or near it")
    return jnp.asarray(rows, dtype=float)
