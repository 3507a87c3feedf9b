"""Tiny rational problems on which Coq evaluates the formal losses, with the oracle's values: proofs/Examples.v.

`python -m tests.formal` writes the file anew; `bash proofs/check` proves that the formal loss of every case is within
1e-10 of the value, in interval arithmetic inside Coq.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import mpmath
import numpy as np
from mpmath import mp

from tests import oracles

PATH = Path(__file__).parents[1] / "proofs" / "Examples.v"
DIGITS = 20
SCL_CASES = 20


@dataclass(frozen=True)
class Loss:
    """A loss of theory, 1.5, with one weight, temperature and row of margins a class."""

    kind: str = "scl"
    weights: tuple[Fraction, ...] = ()
    margins: tuple[tuple[Fraction, ...], ...] = ()
    taus: tuple[Fraction, ...] = (Fraction(1),)
    positives_in_denominator: bool = True
    scale: Fraction = Fraction(1)
    bias: Fraction = Fraction(0)


@dataclass(frozen=True)
class Case:
    """Labels, one row of rational coordinates a sample, batches, a loss."""

    labels: tuple[int, ...]
    rows: tuple[tuple[Fraction, ...], ...]
    batches: tuple[tuple[int, ...], ...]
    loss: Loss = field(default_factory=Loss)


def value(case: Case) -> mpmath.mpf:
    """The loss to 40 digits: plain SCL by the tests' oracle, the others by their definitions."""
    with mp.workdps(40):
        if case.loss.kind == "scl":
            rows = np.array(case.rows, dtype=float)
            return oracles.scl(rows, case.labels, float(case.loss.taus[0]), case.batches)
        return mpmath.fsum(_anchor(case, batch, i) for batch in case.batches for i in batch)


def _number(x: Fraction) -> mpmath.mpf:
    return mpmath.mpf(x.numerator) / x.denominator


def _anchor(case: Case, batch: tuple[int, ...], i: int) -> mpmath.mpf:
    """The share of anchor i of a batch under the losses other than plain SCL."""
    loss, labels, c = case.loss, case.labels, case.labels[i]
    cosine = {j: _number(sum(a * b for a, b in zip(case.rows[i], case.rows[j], strict=True))) for j in batch}
    positives = [cosine[j] for j in batch if j != i and labels[j] == c]
    negatives = [(labels[j], cosine[j]) for j in batch if labels[j] != c]
    weight = _number(loss.weights[c])
    if not positives or (loss.kind == "log-sum-exp" and not loss.positives_in_denominator and not negatives):
        return mpmath.mpf(0)
    if loss.kind == "sigmoid":
        t, b = _number(loss.scale), _number(loss.bias)
        pull = [mp.log1p(mp.exp(-(t * g + b))) for g in positives]
        return weight * mpmath.fsum(pull + [mp.log1p(mp.exp(t * g + b)) for _, g in negatives])
    tau = _number(loss.taus[c])
    if loss.kind == "supcon-in":
        near = mpmath.fsum(mp.exp(g / tau) for g in positives)
        far = mpmath.fsum(mp.exp(g / tau) for _, g in negatives)
        return -weight * mp.log(near / len(positives) / (near + far))
    margins = [_number(a) for a in loss.margins[c]]
    terms = [mp.exp(margins[e] + g / tau) for e, g in negatives]
    if loss.positives_in_denominator:
        terms += [mp.exp(margins[c] + g / tau) for g in positives]
    return weight * (mp.log(mpmath.fsum(terms)) - mpmath.fsum(positives) / len(positives) / tau)


def cases() -> list[Case]:
    """Plain SCL at random quarters (UFM+ and UFM, overlapping and single-class batches), then the other losses."""
    rng = np.random.default_rng(17)
    taus = [Fraction(1), Fraction(1, 2), Fraction(2), Fraction(1, 4)]
    plain = [_random(rng, Loss(taus=(taus[number % 4],)), number) for number in range(SCL_CASES)]
    half, third, two = Fraction(1, 2), Fraction(1, 3), Fraction(2)
    margins = ((Fraction(0), third, -half), (half, Fraction(-1), Fraction(1)), (third, third, two))
    weights, by_class = (half, two, third), (Fraction(1), half, Fraction(3, 4))
    others = [
        Loss("log-sum-exp", weights, margins, by_class),
        Loss("log-sum-exp", weights, margins, by_class, positives_in_denominator=False),
        Loss("sigmoid", weights, scale=Fraction(3), bias=Fraction(-1)),
        Loss("supcon-in", weights, taus=by_class),
    ]
    return plain + [_random(rng, loss, 2 * number) for number, loss in enumerate(others)]


def _random(rng: np.random.Generator, loss: Loss, number: int) -> Case:
    n, classes, d = int(rng.integers(4, 6)), 3, 2
    labels = [int(c) for c in rng.integers(classes, size=n)]
    labels[1], labels[2] = labels[0], (labels[0] + 1) % classes  # some anchor is active, and has a negative
    low = 0 if number % 3 else -3
    rows = tuple(tuple(Fraction(int(x), 4) for x in row) for row in rng.integers(low, 4, size=(n, d)))
    batches = [tuple(range(n))]
    if number % 2:
        batches = [(0, 1, *map(int, rng.permutation(np.arange(2, n))[: n - 3])), tuple(range(1, n)), (0, 1)]
    return Case(tuple(labels), rows, tuple(batches), loss)


def rational(x: Fraction) -> str:
    """A number in Coq's notation for rationals."""
    return f"({x.numerator})#{x.denominator}"


def listed(items: list[str]) -> str:
    """A list in Coq's notation."""
    return "[" + "; ".join(items) + "]"


def formal_loss(loss: Loss) -> str:
    """The loss as a term of type qloss."""
    if loss.kind == "scl":
        return f"QSCL ({rational(loss.taus[0])})"

    def by_class(numbers: tuple[Fraction, ...]) -> str:
        return f"(fun _ c => nth c {listed([rational(x) for x in numbers])} 1)"

    weights = by_class(loss.weights)
    if loss.kind == "sigmoid":
        return f"QSigmoid {weights} ({rational(loss.scale)}) ({rational(loss.bias)}) false"
    if loss.kind == "supcon-in":
        return f"QSupConIn {weights} {by_class(loss.taus)}"
    margins = listed([listed([rational(x) for x in row]) for row in loss.margins])
    alpha = str(loss.positives_in_denominator).lower()
    parts = [weights, f"(fun _ c e => nth e (nth c {margins} []) 0)", by_class(loss.taus), alpha]
    return "\n      ".join(["QLogSumExp", *parts])


def formal_case(case: Case) -> str:
    """The case as a term of type case."""
    rows = listed([listed([rational(x) for x in row]) for row in case.rows])
    batches = listed([listed([str(i) for i in batch]) + "%nat" for batch in case.batches])
    with mp.workdps(40):
        expected = int(mp.nint(value(case) * mpmath.mpf(10) ** DIGITS))
    return "\n    ".join(
        [
            f"Case {listed([str(c) for c in case.labels])}%nat",
            rows,
            batches,
            f"({formal_loss(case.loss)})",
            f"(({expected})#{10**DIGITS})",
        ]
    )


def text() -> str:
    """The file proofs/Examples.v."""
    body = ";\n  ".join(formal_case(case) for case in cases())
    return f"""(** The definitions are the right ones: at tiny rational embeddings the formal losses have the values
    that the tests' oracle computes, to 1e-10. Written by `python -m tests.formal`. *)

From Coq Require Import List QArith.
From UFM Require Import Evaluation.
Import ListNotations.
Open Scope Q_scope.

Definition cases : list case := [
  {body}
].

Theorem formal_losses_agree : Forall agrees cases.
Proof. apply all_agree. vm_cast_no_check (eq_refl true). Qed.
"""


if __name__ == "__main__":
    PATH.write_text(text())
