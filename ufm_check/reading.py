"""What a certificate's file says: its JSON object, and the problem over orbits with its loss (theory, 6.1, 6.2)."""

import json
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from math import log
from pathlib import Path
from typing import Any, NamedTuple

from flint import arb

from ufm_check.composition import Composition
from ufm_check.fields import HEX_DOUBLE, Refusal, digest, doubles, items, need, prove, record, shown, wholes  # noqa: F401

# The most that a file of unknown origin may hold, so that the limits stated in `ufm_check.check` are kept.
# MOST_WORK limits the number of pairs times (600 + bits).
MOST_BYTES, MOST_ENTRIES, MOST_WORK, MOST_PRODUCTS, MOST_IN_A_MATRIX = 40 * 2**20, 2**22, 1_500_000_000, 2**23, 256
FORMAT = "ufm-scl certificate 3"
Gram = Callable[[int, int], arb]
# The numbers that a log-sum-exp loss may have, and those of the sigmoid: number of axes (classes), least, largest.
FAMILY = {"weights": (1, 1e-9, 1e9), "taus": (1, 1e-6, 1e6), "margins": (2, -100.0, 100.0), "strength": (0, -4.0, 4.0)}
SIGMOID = {"scale": (0, 1e-6, 1e6), "bias": (0, -100.0, 100.0)}


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
        """The fewest samples for which a batch of one class constrains them: the sigmoid merges two; three are tied if
        positives are in the denominator."""
        return 2 if self.kind == "sigmoid" else 3 if self.kind == "log-sum-exp" and self.positives else 2**62


class Statement(NamedTuple):
    """The problem over orbits: batches with their number of samples of each class, and compositions beside them."""

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


def fits(load: int, limit: int, what: str) -> None:
    """Refuse what would take longer than a file of unknown origin may take."""
    need(load <= limit, f"too many {what} to check within the limits; if you trust its origin, check it with --large")


def read(path: str, limit_factor: int = 1) -> dict[str, Any]:
    """The JSON object in a file, without repeated fields. limit_factor: multiplies the usual limits."""
    need(Path(path).is_file(), "not a file")
    fits(Path(path).stat().st_size, limit_factor * MOST_BYTES, "bytes")
    text = Path(path).read_bytes().decode("utf-8")
    content = json.loads(text, object_pairs_hook=lambda p: need(len(dict(p)) == len(p), "a field twice") or dict(p))
    need(isinstance(content, dict) and content.get("format") == FORMAT, f"format should be {FORMAT}")
    return content


def read_loss(value: Any, k: int) -> Loss:
    """The loss of a problem with k classes."""
    need(isinstance(value, dict), "loss should be an object")
    names = [name for name in (*FAMILY, *SIGMOID) if name in value]
    flags = ("kind", "positives_in_denominator", "averaged")
    kind, positives, averaged, *entries = record(value, "loss", *flags, *names)
    if kind == "log-sum-exp":
        known = set(names) <= set(FAMILY)
    else:
        known = names == {"sigmoid": list(SIGMOID), "supcon-in": []}.get(str(kind)) and positives and not averaged
    need(type(positives) is type(averaged) is bool and known, "loss is unknown")
    numbers: dict[str, Any] = {}
    for name, x in zip(names, entries, strict=True):
        axes, low, high = (FAMILY | SIGMOID)[name]
        if axes == 2:
            numbers[name] = [doubles(row, name, k, low, high) for row in items(x, name, k)]
        else:
            numbers[name] = doubles(x, name, k, low, high) if axes else doubles([x], name, 1, low, high)[0]
    return Loss(kind, positives, averaged, numbers)


def read_bits(loss: Loss, tau: float, n: int) -> int:
    """Enough bits that e^{-1/tau} at the smallest temperature, times e^{2 margin} of n samples, is far above the last
    one."""
    number = loss.numbers
    taus = [tau * float(x) for x in number.get("taus", [1 / number.get("scale", arb(1))])]
    need(all(0.01 * (1 - 1e-12) <= x <= 1e4 * (1 + 1e-12) for x in taus), "temperatures should lie from 0.01 to 1e4")
    fixed = [abs(float(x)) for row in number.get("margins", [[number.get("bias", arb(0))]]) for x in row]
    margin = max(fixed) + (abs(float(number.get("strength", 0))) + loss.averaged) * log(n)
    return 257 + int(6 / min(taus) + 6 * margin)


def read_compositions(batches: list[list[int]], sizes: list[int], expected: list[Any]) -> list[Composition]:
    """What each batch holds: all samples of its orbits unless `expected` gives counts and weights, and views if any."""
    if not expected:
        return [Composition(sizes, {a: sizes[a] for a in batch}, arb(1)) for batch in batches]
    counts, weights, *views = expected
    weighed, two = doubles(weights, "weights", len(batches), 1e-300, 1e300), wholes(views, "views", 2, 2)
    compositions = []
    for batch, numbers, weight in zip(batches, items(counts, "counts", len(batches)), weighed, strict=True):
        held = dict(zip(batch, wholes(numbers, "counts", 1, 2**53), strict=True))
        composition = Composition(sizes, held, weight, *two)
        for a, n in held.items():
            whole_images = n % composition.views == sizes[a] % composition.views == 0
            need(n <= sizes[a] and whole_images, "a batch holds more samples of an orbit than exist, or half an image")
        compositions.append(composition)
    return compositions


def read_problem(value: Any, limit_factor: int) -> Statement:
    """The problem. Its digest must be that of its fields."""
    shared = [name for name in ("counts", "weights", "views") if isinstance(value, dict) and name in value]
    fields = ("model", "d", "tau", "loss", "classes", "sizes", "batches", *shared)
    *values, stated_digest, _ = record(value, "problem", *fields, "digest", "samples_digest")
    model, d, tau, loss, classes, sizes, batches, *expected = values
    m = len(items(classes, "classes"))
    need(model == "UFM+" or (model == "UFM" and m * m <= MOST_ENTRIES), "model should be UFM+, or UFM of few orbits")
    k = len(set(wholes(classes, "classes", 0, m - 1)))
    need(k == max(classes, default=0) + 1 >= 2, "every class 0..k-1 should have an orbit, k >= 2")
    wholes([d], "d", 1, limit_factor * MOST_ENTRIES // m)
    (temperature,) = doubles([tau], "tau", 1, 0.01, 1e4)
    wholes(sizes, "sizes", 1, 2**53, m)
    for batch in items(batches, "batches"):
        increasing = all(a < b for a, b in pairwise(wholes(batch, "a batch", 0, m - 1)))
        need(batch != [] and increasing, "a batch should hold increasing indices, at least one")
    pairs = sum((len(batch) + 5) ** 2 for batch in batches)
    totals = sum((Counter({c: n}) for c, n in zip(classes, sizes, strict=True)), Counter())
    loss_read = read_loss(loss, k)
    bits = read_bits(loss_read, float(temperature), sum(sizes))
    fits(pairs * (600 + bits), limit_factor * MOST_WORK, "pairs in batches")
    compositions = read_compositions(batches, sizes, expected)
    prove(stated_digest == digest({field: value[field] for field in fields}), "the digest of the problem")
    counted = []
    for batch, composition in zip(batches, compositions, strict=True):
        of_classes = sum((Counter({classes[a]: n}) for a, n in composition.held.items()), Counter())
        counted.append((batch, of_classes))
    numbers = (d, k, temperature, classes, sizes)
    expectation = (compositions, bool(expected))
    return Statement(model == "UFM+", *numbers, counted, *expectation, limit_factor, loss_read, totals, bits)
