"""One kind of error for every bad input, so that a command line can turn it into one line."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from jaxtyping import Float


class InvalidInput(ValueError):
    """An argument is unusable. The message is one line: the argument, its value and the mend."""

    def __init__(self, argument: str, value: object, mend: str) -> None:
        self.argument = argument
        shown = " ".join(repr(value).split())
        if len(shown) > 60:
            shown = shown[:57] + "..."
        super().__init__(f"{argument} = {shown}: {mend}")


def whole_number(argument: str, value: object, least: int, mend: str) -> int:
    """The value as an int (Python's, NumPy's and JAX's integers pass), or InvalidInput.

    Booleans and floats are refused even where they equal a whole number: they are slips.
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise InvalidInput(argument, value, mend) from None
    if number < least:
        raise InvalidInput(argument, value, mend)
    return number


def real_array(argument: str, value: Any, mend: str) -> Float[np.ndarray, ...]:
    """The value as an array of doubles, or InvalidInput; complex numbers are refused, never cut to their real part."""
    try:
        if np.iscomplexobj(value):
            raise TypeError
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise InvalidInput(argument, type(value).__name__, mend) from None
