"""What a batch in a file holds of its orbits (theory, 6.16)."""

from typing import NamedTuple

from flint import arb


class Composition(NamedTuple):
    """Samples of each orbit that a batch holds (all choices equally likely), its weight, and samples of an image."""

    sizes: list[int]
    held: dict[int, int]
    weight: arb
    views: int = 1

    def pairs(self, a: int, b: int) -> int:
        """The number of ordered pairs of two samples of orbits a and b in the batch."""
        return self.held[a] * (self.held[b] - (a == b))

    def met(self, a: int, b: int) -> arb:
        """Weight times the probability that two fixed samples of these orbits are in the batch; two must exist."""
        return self.weight * self.pairs(a, b) / (self.sizes[a] * (self.sizes[b] - (a == b)))

    def sure(self, a: int, b: int) -> arb:
        """Weight times the least probability that two fixed samples are in the batch; with two views: of two images."""
        n, held = self.sizes[a], self.held[a]
        images = a == b and n > self.views > 1
        return self.weight * held * (held - 2) / (n * (n - 2)) if images else self.met(a, b)

    def alike(self, a: int, b: int) -> int:
        """Ordered pairs of samples in the batch, in both orders; within an orbit of two views those of one image."""
        one_image = a == b and self.views > 1
        return self.held[a] if one_image else self.pairs(a, b) * (1 if a == b else 2)


def in_expectation(compositions: list[Composition]) -> str:
    """What the batches of an expected loss are, in words."""
    units = "images of two views" if any(composition.views > 1 for composition in compositions) else "samples"
    return f"count vectors of an expected loss, where all choices of that many {units} of an orbit are equally likely"
