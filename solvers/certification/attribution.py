"""Who is to blame for an excess: the share of every sample and of every pair, by name (theory, 2.18)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ufm.display import Readable, Summary

NAMED = 5
# Cosines this close to 0 within a class, to 1 across, are called by what they are.
NEARLY = 0.01


class AttributedPair(NamedTuple):
    """Two samples with their classes, their cosine, and their share in the excess."""

    samples: tuple[int, int]
    classes: tuple[int, int]
    cosine: float
    share: float

    def __str__(self) -> str:
        (i, j), (c, e) = self.samples, self.classes
        named = f"samples {i} and {j} of class {c}" if c == e else f"samples {i} (class {c}) and {j} (class {e})"
        if c == e and self.cosine <= NEARLY:
            return f"{named} are orthogonal"
        if c != e and self.cosine >= 1 - NEARLY:
            return f"{named} coincide"
        return f"{named} have cosine {self.cosine:.4g}"


class AttributedSample(NamedTuple):
    """A sample with its class, its mean cosine with the others of its class, and its share in the excess."""

    sample: int
    label: int
    mean_cosine: float
    share: float

    def __str__(self) -> str:
        return f"sample {self.sample} of class {self.label} (mean cosine {self.mean_cosine:.2f} with its class)"


@dataclass(frozen=True, repr=False)
class Attribution(Readable):
    """Shares in the excess of one H under UFM+ (theory, 2.18): every share is >= 0, and they sum to the excess.

    - samples: (n,) half of what the pairs of a sample share.
    - pairs: (n, n) symmetric: the share of both samples of a pair as anchors; None beyond 8192 points. Summed over
      unordered pairs it is the excess. Of points that stand for several samples the diagonal is theirs.
    - labels, rows: the classes, and the unit rows that were judged.
    """

    samples: Float[np.ndarray, " n"]
    pairs: Float[np.ndarray, "n n"] | None
    labels: Int[np.ndarray, " n"]
    rows: Float[np.ndarray, "n d"]

    def worst_samples(self, count: int = NAMED) -> list[AttributedSample]:
        """Those with the largest shares, the largest first."""
        chosen = np.argsort(-self.samples, kind="stable")[:count]
        return [
            AttributedSample(int(i), int(self.labels[i]), self._within(int(i)), float(self.samples[i])) for i in chosen
        ]

    def worst_pairs(self, count: int = NAMED) -> list[AttributedPair]:
        """Those with the largest shares, the largest first; none if pairs are not kept."""
        if self.pairs is None:
            return []
        first, second = np.triu_indices(len(self.labels), 1)
        share = self.pairs[first, second]
        count = min(count, len(share))
        chosen = np.argpartition(-share, count - 1)[:count] if count else np.arange(0)
        chosen = chosen[np.argsort(-share[chosen], kind="stable")]
        return [self._pair(int(first[p]), int(second[p]), float(share[p])) for p in chosen]

    def summary(self) -> Summary:
        """The largest shares in words."""
        total = float(self.samples.sum())
        if not total > 0:
            return Summary("Blame: nothing to share", {})
        shared = {"samples to blame": self.worst_samples(), "pairs to blame": self.worst_pairs()}
        lines = {
            name: "; ".join(f"{one} {one.share / total:.2%}" for one in worst if one.share > 0)
            for name, worst in shared.items()
            if worst
        }
        return Summary(f"Blame: shares of an excess of {total:.6g}", lines)

    def _pair(self, i: int, j: int, share: float) -> AttributedPair:
        return AttributedPair(
            (i, j), (int(self.labels[i]), int(self.labels[j])), float(self.rows[i] @ self.rows[j]), share
        )

    def _within(self, i: int) -> float:
        mates = np.flatnonzero(self.labels == self.labels[i])
        mates = mates[mates != i]
        return float((self.rows[mates] @ self.rows[i]).mean()) if len(mates) else 1.0
