"""Attribution of an excess: the contribution of every sample and of every pair, by name (theory, 2.18)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ufm.display import Readable, Summary

NAMED = 5
# Cosines this close to 0 within a class are printed as orthogonal, those this close to 1 across as coinciding.
NEARLY = 0.01


class AttributedPair(NamedTuple):
    """Two samples with their classes, their cosine, and their contribution to the excess (`share`)."""

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
    """A sample, its class, its mean cosine with the rest of its class, and its contribution to the excess (`share`)."""

    sample: int
    label: int
    mean_cosine: float
    share: float

    def __str__(self) -> str:
        return f"sample {self.sample} of class {self.label} (mean cosine {self.mean_cosine:.2f} with its class)"


@dataclass(frozen=True, repr=False)
class Attribution(Readable):
    """Contributions to the excess of one H under UFM+ (theory, 2.18): each is >= 0, and they sum to the excess.

    - samples: (n,) the contribution of each sample, half of the sum over its pairs.
    - pairs: (n, n) symmetric: the contribution of each pair, with either sample as the anchor; None beyond 8192
      points. The sum over unordered pairs is the excess. The diagonal is nonzero only for points that stand for several
      samples: it is the contribution of the pairs among these.
    - labels, rows: the classes, and the rows of the point that was judged.
    """

    samples: Float[np.ndarray, " n"]
    pairs: Float[np.ndarray, "n n"] | None
    labels: Int[np.ndarray, " n"]
    rows: Float[np.ndarray, "n d"]

    def worst_samples(self, count: int = NAMED) -> list[AttributedSample]:
        """The samples with the largest contributions, in falling order."""
        chosen = np.argsort(-self.samples, kind="stable")[:count]
        return [
            AttributedSample(int(i), int(self.labels[i]), self._within(int(i)), float(self.samples[i])) for i in chosen
        ]

    def worst_pairs(self, count: int = NAMED) -> list[AttributedPair]:
        """The pairs with the largest contributions, in falling order; an empty list if `pairs` is None."""
        if self.pairs is None:
            return []
        first, second = np.triu_indices(len(self.labels), 1)
        contribution = self.pairs[first, second]
        count = min(count, len(contribution))
        chosen = np.argpartition(-contribution, count - 1)[:count] if count else np.arange(0)
        chosen = chosen[np.argsort(-contribution[chosen], kind="stable")]
        return [self._pair(int(first[p]), int(second[p]), float(contribution[p])) for p in chosen]

    def summary(self) -> Summary:
        """The largest contributions in words."""
        total = float(self.samples.sum())
        if not total > 0:
            return Summary("Attribution: the excess is 0", {})
        largest = {"largest samples": self.worst_samples(), "largest pairs": self.worst_pairs()}
        lines = {
            name: "; ".join(f"{one} {one.share / total:.2%}" for one in worst if one.share > 0)
            for name, worst in largest.items()
            if worst
        }
        return Summary(f"Attribution of an excess of {total:.6g}", lines)

    def _pair(self, i: int, j: int, share: float) -> AttributedPair:
        return AttributedPair(
            (i, j), (int(self.labels[i]), int(self.labels[j])), float(self.rows[i] @ self.rows[j]), share
        )

    def _within(self, i: int) -> float:
        mates = np.flatnonzero(self.labels == self.labels[i])
        mates = mates[mates != i]
        return float((self.rows[mates] @ self.rows[i]).mean()) if len(mates) else 1.0
