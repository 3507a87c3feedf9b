"""The loss term of an active anchor, for each loss of the family, in balls (theory, 1.5, 2.14, 2.15, 6.15)."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from flint import arb

from ufm_check.reading import Loss, Statement


class Anchor(NamedTuple):
    """An anchor of class c in a batch: omega, s (the sigmoid's t), b, and by class the factor of e^{s G}."""

    kind: str
    c: int
    positives: int
    negatives: dict[int, int]
    omega: arb
    s: arb
    b: arb
    factor: dict[int, arb]

    def at(self, x: arb) -> list[tuple[int, int, arb, arb]]:
        """The argument of `pays` where positives have G = 1 and negatives 1 - x; minus 1 if only differences matter."""
        top = arb(self.kind == "sigmoid")
        apart = ((e, n, top - x, (self.s * (top - x)).exp()) for e, n in self.negatives.items())
        return [(self.c, self.positives, top, (self.s * top).exp()), *apart]

    def forces(self) -> dict[int, arb]:
        """kappa for the anchor's class and rho for each other class: f is at least its bound, plus kappa (1 - G) summed
        over positives and rho G summed over negatives."""
        pull, *push = self.pays(self.at(arb(1)))[1]
        lowered = (1 - (-self.s).exp()) / self.s if self.kind == "supcon-in" else arb(1)  # it is not convex
        return {self.c: -lowered * pull, **dict(zip(self.negatives, push, strict=True))}

    def pays(self, met: Sequence[tuple[int, int, arb, arb]]) -> tuple[arb, Iterable[arb]]:
        """f, and its derivatives in each G, lazily. met: class, number of samples, G and e^{s G} of the others."""
        if self.kind == "sigmoid":
            odds = [1 / (x * self.b.exp()) if e == self.c else x * self.b.exp() for e, _, _, x in met]
            slopes = ((-1 if e == self.c else 1) * self.s * x / (1 + x) for (e, *_), x in zip(met, odds, strict=True))
            value = sum((n * x.log1p() for (_, n, *_), x in zip(met, odds, strict=True)), arb(0))
            return value, slopes
        inside = [self.factor[e] * x for e, _, _, x in met]
        total = sum((n * x for (_, n, *_), x in zip(met, inside, strict=True)), arb(0))
        if self.kind == "supcon-in":
            attracted = sum((n * x for e, n, _, x in met if e == self.c), arb(0))
            slopes = (self.s * (x / total - (x / attracted if e == self.c else 0)) for e, _, _, x in met)
            return (self.positives * total / attracted).log(), slopes
        pull = arb(1) / self.positives
        mean = sum((n * G for e, n, G, _ in met if e == self.c), arb(0)) / self.positives
        slopes = (x / total - (pull if e == self.c else 0) for (e, *_), x in zip(met, inside, strict=True))
        return self.omega * (total.log() - self.s * mean), (self.omega * self.s * slope for slope in slopes)


def rows(problem: Statement, count: Counter[int]) -> dict[int, Anchor]:
    """An anchor of each class that is active in a batch with this number of samples of each class."""
    anchors, (kind, positives, averaged, number) = {}, problem.loss
    for c in (c for c, n in count.items() if n > 1 and (positives or len(count) > 1)):
        of = {name: value[c] if name in ("weights", "taus", "margins") else value for name, value in number.items()}
        factor = {}
        for e, n in count.items():
            power = of["margins"][e].exp() if "margins" in of else arb(1)
            power *= (of["strength"] * arb(problem.totals[e]).log()).exp() if "strength" in of else 1
            factor[e] = power / (n - (e == c)) if averaged else power
        factor[c] *= int(positives)
        s = of.get("scale", arb(1)) / (problem.tau * of.get("taus", arb(1)))
        others = {e: n for e, n in count.items() if e != c}
        omega, b = of.get("weights", arb(1)), of.get("bias", arb(0))
        anchors[c] = Anchor(kind, c, count[c] - 1, others, omega, s, b, factor)
    return anchors


def in_words(loss: Loss) -> str:
    """A loss in a few words; an empty text for SCL."""
    flags = ["averaging over classes"] * loss.averaged + ["no positives in the denominator"] * (not loss.positives)
    words = ", ".join([*loss.numbers, *flags])
    return "" if loss.plain else f", {loss.kind} loss" + f" ({words})" * bool(words)
