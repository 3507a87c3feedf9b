"""The fields of a file: typed values, or a refusal that names the field; and decimals that are rounded outwards."""

import hashlib
import json
import re
from decimal import ROUND_CEILING, Context, Decimal
from functools import partial
from math import inf, nextafter
from typing import Any

from flint import arb

HEX_DIGEST = re.compile("[0-9a-f]{64}")
HEX_DOUBLE = re.compile(r"-?0x[01]\.[0-9a-f]{1,13}p[+-][0-9]{1,4}")


class Refusal(Exception):
    """The exit status (1: a claim does not follow, 2: the file is not a certificate), and what is wrong."""


def need(condition: bool, what: str, status: int = 2) -> None:
    """Refuse the file unless the condition holds."""
    if not condition:
        raise Refusal(status, what)


prove = partial(need, status=1)  # for a claim, by a comparison of balls


def record(value: Any, name: str, *fields: str) -> list[Any]:
    """The values of an object that has exactly these fields."""
    need(isinstance(value, dict) and set(value) == set(fields), f"{name} should have the fields {', '.join(fields)}")
    return [value[field] for field in fields]


def items(value: Any, name: str, length: int | None = None) -> list[Any]:
    """A list, of this length unless it is None."""
    fits = isinstance(value, list) and length in (None, len(value))
    need(fits, f"{name} should be a list" + ("" if length is None else f" of length {length}"))
    return value


def wholes(value: Any, name: str, low: int, high: int, length: int | None = None) -> list[int]:
    """A list of whole numbers in low..high."""
    for entry in items(value, name, length):
        need(type(entry) is int and low <= entry <= high, f"{name} should hold whole numbers from {low} to {high}")
    return value


def doubles(value: Any, name: str, length: int, low: float = -1e300, high: float = 1e300) -> list[arb]:
    """A list of exact doubles in [low, high], written in hexadecimal."""
    for x in items(value, name, length):
        fit = isinstance(x, str) and HEX_DOUBLE.fullmatch(x) is not None and low <= float.fromhex(x) <= high
        need(fit, f"{name} should hold hexadecimal doubles from {low} to {high}")
    return [arb(float.fromhex(x)) for x in value]


def shown(value: Any, digits: int = 3, rounding: str = ROUND_CEILING) -> str:
    """A double or the numbers of a ball in decimal, rounded so that the sentence stays true."""
    up = rounding == ROUND_CEILING
    bound = float(arb(value).upper() if up else arb(value).lower())
    if not (arb(bound) >= value if up else arb(bound) <= value):
        bound = nextafter(bound, inf if up else -inf)
    return str(Context(prec=digits, rounding=rounding).create_decimal(Decimal(bound)))


def digest(value: Any) -> str:
    """sha256 of a value as compact JSON with sorted keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
