"""What a batch of a file holds of its orbits (theory, 6.16)."""

from typing import NamedTuple

from flint import arb


class Composition(NamedTuple):
    """What a batch holds of its orbits, any so many samples of each equally likely, and its weight (theory, 6.16)."""

    sizes: list[int]
    held: dict[int, int]
    weight: arb
    views: int = 1

    def pairs(self, a: int, b: int) -> int:
        """Ordered pairs of two samples that it holds, of orbits a and b."""
        return self.held[a] * (self.held[b] - (a == b))

    def met(self, a: int, b: int) -> arb:
        """Weight times the probability that two given samples, of which there are, are such a pair."""
        return self.weight * self.pairs(a, b) / (self.sizes[a] * (self.sizes[b] - (a == b)))

    def sure(self, a: int, b: int) -> arb:
        """Weight times the least probability of two given samples; with two views that of two images (theory, 6.16)."""
        n, held = self.sizes[a], self.held[a]
        images = a == b and n > self.views > 1
        return self.weight * held * (held - 2) / (n * (n - 2)) if images else self.met(a, b)

    def alike(self, a: int, b: int) -> int:
        """Pairs of samples that it holds, unordered across orbits; within an orbit of two views those of one image."""
        return 2 * self.pairs(a, b) if a != b else self.held[a] if self.views > 1 else self.pairs(a, a)


def in_expectation(compositions: list[Composition]) -> str:
    """What the batches of an expected loss are, in words."""
    units = "images of two views" if any(share.views > 1 for share in compositions) else "samples"
    return f"count vectors of an expected loss, in which any so many {units} of an orbit are equally likely"
