"""What a batch of a file holds of its orbits (theory, 6.16)."""

from typing import NamedTuple

from flint import arb


class Share(NamedTuple):
    """What a batch holds of its orbits, any so many samples of each equally likely, and its weight (theory, 6.16)."""

    sizes: list[int]
    held: dict[int, int]
    weight: arb

    def pairs(self, a: int, b: int) -> int:
        """Ordered pairs of two samples that it holds, of orbits a and b."""
        return self.held[a] * (self.held[b] - (a == b))

    def met(self, a: int, b: int) -> arb:
        """Weight times the probability that two given samples, of which there are, are such a pair."""
        return self.weight * self.pairs(a, b) / (self.sizes[a] * (self.sizes[b] - (a == b)))
