"""What a certificate's file says: doubles, the problem over orbits, the Gram matrix of a point (theory, 6.1, 6.2)."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable
from decimal import ROUND_CEILING, Context, Decimal
from functools import partial
from itertools import pairwise
from math import inf, log, nextafter
from pathlib import Path
from typing import Any, NamedTuple

from flint import arb

from ufm_check.composition import Composition

# What a file of unknown origin may hold, for the limits of `solvers.check`. MOST_WORK: pairs times 600 plus bits.
MOST_BYTES, MOST_ENTRIES, MOST_WORK, MOST_PRODUCTS, MOST_IN_A_MATRIX = 40 * 2**20, 2**22, 1_500_000_000, 2**23, 256
FORMAT = "ufm-scl certificate 3"
HEX_DIGEST = re.compile("[0-9a-f]{64}")
HEX_DOUBLE = re.compile(r"-?0x[01]\.[0-9a-f]{1,13}p[+-][0-9]{1,4}")
Gram = Callable[[int, int], arb]
# The numbers that a loss may have, or the sigmoid has: axes of classes, least and largest.
FAMILY = {"weights": (1, 1e-9, 1e9), "taus": (1, 1e-6, 1e6), "margins": (2, -100.0, 100.0), "strength": (0, -4.0, 4.0)}
SIGMOID = {"scale": (0, 1e-6, 1e6), "bias": (0, -100.0, 100.0)}


class Refusal(Exception):
    """The exit status, 1 for a claim that does not follow or 2 for a file that is no certificate, and what is wrong."""


class Loss(NamedTuple):
    """A loss of the family: kind, whether positives are in the denominator, class averaging, and numbers by name."""

    kind: str
    positives: bool
    averaged: bool
    numbers: dict[str, Any]

    @property
    def plain(self) -> bool:
        """Whether it is SCL."""
        return self == ("log-sum-exp", True, False, {})

    @property
    def alone(self) -> int:
        """The fewest samples of a batch of one class that is not free: the sigmoid glues, positives inside tie."""
        return 2 if self.kind == "sigmoid" else 3 if self.kind == "log-sum-exp" and self.positives else 2**62


class Statement(NamedTuple):
    """The problem over orbits; each batch with its samples of each class counted, and beside it its share."""

    nonneg: bool
    d: int
    k: int
    tau: arb
    classes: list[int]
    sizes: list[int]
    batches: list[tuple[list[int], Counter[int]]]
    compositions: list[Composition]
    expected: bool
    limit_factor: int
    loss: Loss
    totals: Counter[int]
    bits: int


def need(condition: bool, what: str, status: int = 2) -> None:
    """Refuse the file unless the condition holds."""
    if not condition:
        raise Refusal(status, what)


prove = partial(need, status=1)  # of a claim, by a comparison of balls


def record(value: Any, name: str, *fields: str) -> list[Any]:
    """The values of an object that has exactly these fields."""
    need(isinstance(value, dict) and set(value) == set(fields), f"{name} should have the fields {', '.join(fields)}")
    return [value[field] for field in fields]


def items(value: Any, name: str, length: int | None = None) -> list[Any]:
    """A list, of the given length."""
    need(isinstance(value, list) and length in (None, len(value)), f"{name} should be a list ({length})")
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
        need(fit, f"{name} should be hexadecimal, from {low} to {high}")
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


def fits(load: int, limit_factor: int, what: str) -> None:
    """Refuse what takes longer than a file of unknown origin may."""
    need(
        load <= limit_factor,
        f"too many {what} to check within the limits; if you trust its origin, check it with --large",
    )


def read(path: str, limit_factor: int = 1) -> dict[str, Any]:
    """The JSON object in a file, without repeated fields; room: how many times the usual limits it may take."""
    need(Path(path).is_file(), "not a file")
    fits(Path(path).stat().st_size, limit_factor * MOST_BYTES, "bytes")
    text = Path(path).read_bytes().decode("utf-8")
    content = json.loads(text, object_pairs_hook=lambda p: need(len(dict(p)) == len(p), "a field twice") or dict(p))
    need(isinstance(content, dict) and content.get("format") == FORMAT, f"format should be {FORMAT}")
    return content


def read_loss(value: Any, k: int) -> Loss:
    """The loss, of k classes."""
    need(isinstance(value, dict), "loss should be an object")
    flags, names = ("kind", "positives_in_denominator", "averaged"), [x for x in (*FAMILY, *SIGMOID) if x in value]
    kind, held, averaged, *given = record(value, "loss", *flags, *names)
    others = {"sigmoid": list(SIGMOID), "supcon-in": []}.get(str(kind))
    fits = set(names) <= set(FAMILY) if kind == "log-sum-exp" else names == others and held and not averaged
    need(type(held) is type(averaged) is bool and fits, "loss is unknown")
    numbers: dict[str, Any] = {}
    for name, x in zip(names, given, strict=True):
        axes, low, high = (FAMILY | SIGMOID)[name]
        table = items(x, name, k) if axes == 2 else [x if axes else [x]]
        read = [doubles(row, name, k if axes else 1, low, high) for row in table]
        numbers[name] = read if axes == 2 else read[0] if axes else read[0][0]
    return Loss(kind, held, averaged, numbers)


def read_bits(loss: Loss, tau: float, n: int) -> int:
    """Bits that leave e^{-1/tau} of the coldest anchor, times e^{2 margin} of n samples, far above the last one."""
    number = loss.numbers
    taus = [tau * float(x) for x in number.get("taus", [1 / number.get("scale", arb(1))])]
    need(all(0.01 * (1 - 1e-12) <= x <= 1e4 * (1 + 1e-12) for x in taus), "temperatures should lie from 0.01 to 1e4")
    fixed = [abs(float(x)) for row in number.get("margins", [[number.get("bias", arb(0))]]) for x in row]
    margin = max(fixed) + (abs(float(number.get("strength", 0))) + loss.averaged) * log(n)
    return 257 + int(6 / min(taus) + 6 * margin)


def read_shares(batches: list[list[int]], sizes: list[int], given: list[Any]) -> list[Composition]:
    """All samples of every orbit, or so many as are given, of each batch; weights of batches, views of images."""
    if not given:
        return [Composition(sizes, {a: sizes[a] for a in batch}, arb(1)) for batch in batches]
    counts, weights, *views = given
    weighed, two = doubles(weights, "weights", len(batches), 1e-300, 1e300), wholes(views, "views", 2, 2)
    compositions = zip(batches, items(counts, "counts", len(batches)), weighed, strict=True)
    held = [
        Composition(sizes, dict(zip(b, wholes(n, "counts", 1, 2**53), strict=True)), w, *two)
        for b, n, w in compositions
    ]
    fit = all(n <= sizes[a] and n % of.views == sizes[a] % of.views == 0 for of in held for a, n in of.held.items())
    need(fit, "more samples of an orbit than it has, or one view of an image")
    return held


def read_problem(value: Any, limit_factor: int) -> Statement:
    """The problem; its own digest must hold."""
    shared = [name for name in ("counts", "weights", "views") if isinstance(value, dict) and name in value]
    fields = ("model", "d", "tau", "loss", "classes", "sizes", "batches", *shared)
    *known, own, _ = record(value, "problem", *fields, "digest", "samples_digest")
    model, d, tau, loss, classes, sizes, batches, *given = known
    m = len(items(classes, "classes"))
    need(model == "UFM+" or (model == "UFM" and m * m <= MOST_ENTRIES), "model should be UFM+, or UFM of few orbits")
    k = len(set(wholes(classes, "classes", 0, m - 1)))
    need(k == max(classes, default=0) + 1 >= 2, "every class 0..k-1 should have an orbit, k >= 2")
    wholes([d], "d", 1, limit_factor * MOST_ENTRIES // m)
    (heat,) = doubles([tau], "tau", 1, 0.01, 1e4)
    wholes(sizes, "sizes", 1, 2**53, m)
    for batch in items(batches, "batches"):
        need(batch != [] and all(a < b for a, b in pairwise(wholes(batch, "a batch", 0, m - 1))), "batches increase")
    pairs = sum((len(batch) + 5) ** 2 for batch in batches)
    totals, of = sum((Counter({c: n}) for c, n in zip(classes, sizes, strict=True)), Counter()), read_loss(loss, k)
    bits = read_bits(of, float(heat), sum(sizes))
    fits(pairs * (600 + bits), limit_factor * MOST_WORK, "pairs in batches")
    compositions = read_shares(batches, sizes, given)
    prove(own == digest({field: value[field] for field in fields}), "the digest of the problem")
    counted = [sum((Counter({classes[a]: n}) for a, n in share.held.items()), Counter()) for share in compositions]
    held = list(zip(batches, counted, strict=True))
    return Statement(
        model == "UFM+", d, k, heat, classes, sizes, held, compositions, bool(given), limit_factor, of, totals, bits
    )
