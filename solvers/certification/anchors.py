r"""The loss of one active anchor in balls: a loss of the family, with the numbers of its batch and class (theory, 1.5).

At a frame (G = 1 within the class, 0 across) the anchor loss equals its bound (theory, 2.14). Its derivative there is
-attraction in a positive and +repulsion in a negative (theory, 2.15; for SupCon-in these are those of a lower bound).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import mul

import numpy as np
from flint import arb

from solvers.certification.balls import ZERO
from ufm.losses import Loss

ONE = arb(1)


@dataclass(frozen=True)
class Anchor:
    """An active anchor of class c in one batch.

    - positives, total: the numbers of its positives and of its negatives. count: samples of each class in the batch,
      the anchor among them; the anchors of a batch share it.
    - omega, s: its weight and inverse temperature; for the sigmoid s is the slope t, and bias is b.
    - held: whether the denominator contains the positives.
    - margins: a(c, e) by class e; a class that is missing has margin 0.
    """

    kind: str
    c: int
    positives: int
    total: int
    count: Mapping[int, int]
    omega: arb
    s: arb
    bias: arb
    held: bool
    margins: Mapping[int, arb]

    @property
    def negatives(self) -> dict[int, int]:
        """Negatives by class."""
        return {e: n for e, n in self.count.items() if e != self.c}

    @cached_property
    def factors(self) -> dict[int, arb]:
        """`factor` of each class for which it is not 1."""
        factors = {e: a.exp() for e, a in self.margins.items()}
        return factors if self.held else factors | {self.c: ZERO}

    def factor(self, e: int) -> arb:
        """The factor of e^{s G} for a sample of class e: e^{a(c, e)}, or 0 for positives outside the denominator."""
        return self.factors.get(e, ONE)

    def shifts(self, classes: Sequence[int]) -> list[float]:
        """The number added to s G for a sample of each class, in doubles: margin, -inf for factor 0, sigmoid bias."""
        if self.kind == "sigmoid":
            return [float(self.bias)] * len(classes)
        margins = {e: float(a) for e, a in self.margins.items()}
        return [margins.get(e, 0.0) if self.held or e != self.c else -np.inf for e in classes]

    @cached_property
    def _weighed_negatives(self) -> arb:
        """The sum of the factors of all negatives."""
        if not self.margins:
            return arb(self.total)
        return sum((n * self.factor(e) for e, n in self.negatives.items()), ZERO)

    @cached_property
    def _at_frame(self) -> tuple[arb, arb]:
        """At a frame: the part of the negatives in the denominator, and the denominator."""
        crowd = self._weighed_negatives * (-self.s).exp()
        return crowd, self.positives * self.factor(self.c) + crowd

    def least(self, drop: arb) -> arb:
        """The loss where all G_ij are 1 and all G_il are 1 - drop: the bound of UFM+ at drop 1, of UFM at 2."""
        if self.kind == "sigmoid":
            alone = self.positives * (-self.s - self.bias).exp().log1p()
            return alone + self.total * (self.bias + self.s * (1 - drop)).exp().log1p()
        inside = self.positives * self.factor(self.c) + self._weighed_negatives * (-drop * self.s).exp()
        return self.omega * inside.log()

    @property
    def attraction(self) -> arb:
        """kappa: the least rise of the loss per 1 - G of one positive, to first order; 0 if it does not rise."""
        if self.kind == "sigmoid":
            return self.s / (1 + (self.s + self.bias).exp())
        if not self.total:
            return ZERO
        crowd, partition = self._at_frame
        if self.kind == "supcon-in":
            return crowd * (1 - (-self.s).exp()) / (self.positives * (self.positives + crowd))
        return self.omega * self.s * crowd / (self.positives * partition)

    @cached_property
    def _push(self) -> arb:
        """rho for a class of factor 1."""
        if self.kind == "sigmoid":
            return self.s / (1 + (-self.bias).exp())
        return self.omega * self.s * (-self.s).exp() / self._at_frame[1]

    def repulsion(self, e: int) -> arb:
        """rho: the least rise of the loss per G of one negative of class e, to first order."""
        return self._push * self.factors[e] if e in self.factors else self._push

    def pays(
        self, classes: Sequence[int], met: Sequence[int], G: Sequence[arb], powers: Sequence[arb]
    ) -> tuple[arb, list[arb]]:
        """The loss f, and its derivative in one pair with each group of samples.

        classes, met, G, powers: of each group the class, the number of samples, G and e^{s G}.
        """
        c, s = self.c, self.s
        of_class = [i for i, e in enumerate(classes) if e == c]
        if self.kind == "sigmoid":
            tilt, inside = self.bias.exp(), set(of_class)
            odds = [1 / (x * tilt) if i in inside else x * tilt for i, x in enumerate(powers)]
            value = sum((n * x.log1p() for n, x in zip(met, odds, strict=True)), ZERO)
            slopes = [s * x / (1 + x) for x in odds]
            return value, [-x if i in inside else x for i, x in enumerate(slopes)]
        weighed = powers
        if self.factors:
            factors = self.factors
            weighed = [factors[e] * x if e in factors else x for e, x in zip(classes, powers, strict=True)]
        partition = sum(map(mul, met, weighed), ZERO)
        if self.kind == "supcon-in":
            within = sum((met[i] * powers[i] for i in of_class), ZERO)
            push, pull = s / partition, s * (1 / partition - 1 / within)
            slopes = [x * push for x in powers]
            for i in of_class:
                slopes[i] = powers[i] * pull
            return (self.positives * partition / within).log(), slopes
        mean = sum((met[i] * G[i] for i in of_class), ZERO) / self.positives
        push, pull = self.omega * s / partition, self.omega * s / self.positives
        slopes = [x * push for x in weighed]
        for i in of_class:
            slopes[i] -= pull
        return self.omega * (partition.log() - s * mean), slopes


def active_anchors(loss: Loss, tau: float, count: Counter[int], totals: Sequence[int]) -> Iterator[Anchor]:
    """The anchors of the active classes of a batch. count, totals: samples of each class in the batch and in all."""
    kind, held, n = loss.kind, loss.positives_in_denominator, sum(count.values())
    taus, weights, fixed = (None if x is None else np.asarray(x) for x in (loss.taus, loss.weights, loss.margins))
    scale = ONE if loss.scale is None else arb(float(loss.scale))
    bias = ZERO if loss.bias is None else arb(float(loss.bias))
    shared = _shared_margins(loss, count, totals)
    for c, samples in count.items():
        if samples < 2 or not (n > samples or held):
            continue
        s = scale / (arb(tau) if taus is None else arb(tau) * arb(float(taus[c])))
        omega = ONE if weights is None else arb(float(weights[c]))
        margins = shared
        if fixed is not None:
            margins = {e: a + arb(float(fixed[c, e])) for e, a in shared.items()}
        if loss.averaged:  # the anchor itself is not among the samples of its class
            margins = margins | {c: margins[c] + arb(samples).log() - arb(samples - 1).log()}
        yield Anchor(kind, c, samples - 1, n - samples, count, omega, s, bias, held, margins)


def _shared_margins(loss: Loss, count: Counter[int], totals: Sequence[int]) -> dict[int, arb]:
    """The part of the margins that all anchors of a batch share, by class; empty if there are no margins."""
    if not loss.has_margins:
        return {}
    strength = ZERO if loss.strength is None else arb(float(loss.strength))
    averaged = loss.averaged
    return {e: strength * arb(totals[e]).log() - (arb(n).log() if averaged else ZERO) for e, n in count.items()}


def spread(loss: Loss, samples: int) -> float:
    """An upper bound on the size of a margin (or of the sigmoid's bias) among so many samples, for the precision."""
    fixed = [0.0 if x is None else float(np.abs(np.asarray(x)).max()) for x in (loss.margins, loss.bias)]
    counted = (0.0 if loss.strength is None else abs(float(loss.strength))) + loss.averaged
    return sum(fixed) + counted * float(np.log(samples))
