r"""What one active anchor pays, in balls: a loss of the family with the numbers of its batch and class (theory, 1.5).

At a frame (G = 1 within the class, 0 across) an anchor pays its bound (theory, 2.14), and its derivatives there are
-attraction in a positive and +repulsion in a negative (theory, 2.15; of SupCon-in what bounds it takes their place).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from flint import arb

from solvers.certification.balls import ZERO
from ufm.losses import Loss

ONE = arb(1)


@dataclass(frozen=True)
class Anchor:
    """An active anchor of class c in one batch.

    - positives, negatives: how many it meets, the latter by class.
    - omega, s: its weight and inverse temperature; of the sigmoid s is the slope t, and bias is b.
    - margins: a(c, e) by class, 0 where there are none.
    """

    loss: Loss
    c: int
    positives: int
    negatives: Mapping[int, int]
    omega: arb
    s: arb
    bias: arb
    margins: Mapping[int, arb]

    @property
    def total(self) -> int:
        """Negatives of all classes."""
        return sum(self.negatives.values())

    def factor(self, e: int) -> arb:
        """What stands before e^{s G} of a sample of class e: e^{a(c, e)}, or 0 of positives that do not stand there."""
        if e == self.c and not self.loss.positives_in_denominator:
            return ZERO
        return self.margins[e].exp() if self.loss.has_margins else ONE

    def shifts(self, classes: Sequence[int]) -> list[float]:
        """What is added to s G of a sample of each class, as doubles: the margin, -inf for none, the sigmoid's bias."""
        if self.loss.kind == "sigmoid":
            return [float(self.bias)] * len(classes)
        held = self.loss.positives_in_denominator
        own = {e: float(a) for e, a in self.margins.items()}
        return [own.get(e, 0.0) if held or e != self.c else -np.inf for e in classes]

    def least(self, drop: arb) -> arb:
        """The loss where all G_ij are 1 and all G_il are 1 - drop: the bound of UFM+ at drop 1, of UFM at 2."""
        if self.loss.kind == "sigmoid":
            alone = self.positives * (-self.s - self.bias).exp().log1p()
            return alone + self.total * (self.bias + self.s * (1 - drop)).exp().log1p()
        inside = self.positives * self.factor(self.c)
        decay = (-drop * self.s).exp()
        for e, n in self.negatives.items():
            inside += n * self.factor(e) * decay
        return self.omega * inside.log()

    @property
    def attraction(self) -> arb:
        """kappa: what the anchor pays at least for 1 - G of one positive, to first order; 0 if for none."""
        if self.loss.kind == "sigmoid":
            return self.s / (1 + (self.s + self.bias).exp())
        crowd = sum((n * self.factor(e) for e, n in self.negatives.items()), ZERO) * (-self.s).exp()
        if not self.negatives:
            return ZERO
        if self.loss.kind == "supcon-in":
            return crowd * (1 - (-self.s).exp()) / (self.positives * (self.positives + crowd))
        partition = self.positives * self.factor(self.c) + crowd
        return self.omega * self.s * crowd / (self.positives * partition)

    def repulsion(self, e: int) -> arb:
        """rho: what it pays at least for G of one negative of class e, to first order."""
        if self.loss.kind == "sigmoid":
            return self.s / (1 + (-self.bias).exp())
        decay = (-self.s).exp()
        partition = self.positives * self.factor(self.c)
        for other, n in self.negatives.items():
            partition += n * self.factor(other) * decay
        return self.omega * self.s * self.factor(e) * decay / partition

    def pays(self, met: Sequence[tuple[int, int, arb, arb]]) -> tuple[arb, list[arb]]:
        """f and its derivatives in one pair with each group of samples met: (class, how many, G, e^{s G})."""
        if self.loss.kind == "sigmoid":
            tilt, s = self.bias.exp(), self.s
            odds = [x * tilt if e != self.c else 1 / (x * tilt) for e, _, _, x in met]
            value = sum((n * x.log1p() for (_, n, _, _), x in zip(met, odds, strict=True)), ZERO)
            slopes = [s * x / (1 + x) for x in odds]
            return value, [-x if e == self.c else x for (e, _, _, _), x in zip(met, slopes, strict=True)]
        weighed = [self.factor(e) * x if self.loss.has_margins or e == self.c else x for e, _, _, x in met]
        partition = sum((n * x for (_, n, _, _), x in zip(met, weighed, strict=True)), ZERO)
        if self.loss.kind == "supcon-in":
            own = sum((n * x for e, n, _, x in met if e == self.c), ZERO)
            slopes = [self.s * x * (1 / partition - (1 / own if e == self.c else 0)) for e, _, _, x in met]
            return (self.positives * partition / own).log(), slopes
        mean = sum((n * G for e, n, G, _ in met if e == self.c), ZERO) / self.positives
        scale, pull = self.omega * self.s, ONE / self.positives
        pulls = [pull if e == self.c else ZERO for e, *_ in met]
        slopes = [scale * (x / partition - own) for x, own in zip(weighed, pulls, strict=True)]
        return self.omega * (partition.log() - self.s * mean), slopes


def active_rows(loss: Loss, tau: float, count: Counter[int], totals: Sequence[int]) -> Iterator[Anchor]:
    """The rows of the active classes of a batch with so many samples of each class; totals: of the problem."""
    for c, own in count.items():
        negatives = {e: n for e, n in count.items() if e != c}
        if own < 2 or not (negatives or loss.positives_in_denominator):
            continue
        s = 1 / (arb(tau) if loss.taus is None else arb(tau) * arb(float(np.asarray(loss.taus)[c])))
        s = s if loss.scale is None else s * arb(float(loss.scale))
        omega = ONE if loss.weights is None else arb(float(np.asarray(loss.weights)[c]))
        bias = ZERO if loss.bias is None else arb(float(loss.bias))
        yield Anchor(loss, c, own - 1, negatives, omega, s, bias, _margins(loss, c, count, totals))


def _margins(loss: Loss, c: int, count: Counter[int], totals: Sequence[int]) -> dict[int, arb]:
    if not loss.has_margins:
        return {}
    fixed = None if loss.margins is None else np.asarray(loss.margins)
    margins = {}
    for e, n in count.items():
        a = ZERO if fixed is None else arb(float(fixed[c, e]))
        a += ZERO if loss.strength is None else arb(float(loss.strength)) * arb(totals[e]).log()
        margins[e] = a - (arb(n - (e == c)).log() if loss.averaged else ZERO)
    return margins


def spread(loss: Loss, samples: int) -> float:
    """At most the largest size of a margin (or of the sigmoid's bias) among so many samples: what precision covers."""
    fixed = [0.0 if x is None else float(np.abs(np.asarray(x)).max()) for x in (loss.margins, loss.bias)]
    counted = (0.0 if loss.strength is None else abs(float(loss.strength))) + loss.averaged
    return sum(fixed) + counted * float(np.log(samples))
