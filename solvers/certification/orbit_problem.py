r"""The problem, a point and the loss in ball arithmetic, over orbits. The loss of a feasible point is an upper bound.

Samples of one orbit are exchangeable (theory, 3.1), so everything here is over orbits a = 0..m-1 of class c_a with n_a
samples. A point has one row for each orbit; a Gram matrix has one number G_ab for all pairs of samples of two orbits,
and G_aa for the pairs within an orbit.

Doubles are converted exactly. No decision is made in floating point.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from flint import arb, arb_mat
from jaxtyping import Float

from solvers.certification.anchors import ONE, Anchor, active_anchors, spread
from solvers.certification.balls import ZERO, Table, precision
from ufm import InvalidInput, Problem
from ufm.losses import Loss
from ufm.model.problem import PADDING


@dataclass(frozen=True)
class Composition:
    """How many samples of each orbit a batch holds, and its weight in the sum.

    All sets of that many samples of an orbit are equally likely.
    """

    sizes: tuple[int, ...]
    samples: dict[int, int]
    weight: float
    views: int = 1

    @cached_property
    def is_whole(self) -> bool:
        """Whether it holds all samples of its orbits, with weight 1, so that every pair meets for sure."""
        return self.weight == 1 and all(n == self.sizes[a] for a, n in self.samples.items())

    def others(self, a: int, b: int) -> int:
        """The number of samples of orbit b that an anchor of orbit a meets in the batch."""
        return self.samples[b] - (a == b)

    def pairs(self, a: int, b: int) -> int:
        """The number of ordered pairs of samples in the batch, the first of orbit a, the second of orbit b."""
        return self.samples[a] * self.others(a, b)

    def met(self, a: int, b: int) -> arb:
        """Weight times the probability that one such pair of samples is in the batch. Such a pair must exist."""
        if self.is_whole:
            return ONE
        return arb(self.weight) * self.pairs(a, b) / (self.sizes[a] * (self.sizes[b] - (a == b)))

    def sure(self, a: int, b: int) -> arb:
        """Weight times the least probability that a pair of samples is in the batch. For an orbit of several images
        with two views it is that of two images, less than that of two views of one image (theory, 4.19 (e))."""
        n, held = self.sizes[a], self.samples[a]
        if a != b or self.views == 1 or n == self.views:
            return self.met(a, b)
        return arb(self.weight) * held * (held - self.views) / (n * (n - self.views))


@dataclass(frozen=True)
class OrbitProblem:
    """A problem over its orbits, in plain Python numbers.

    - classes, sizes: class and number of samples of each orbit.
    - batches: the orbits in each batch; all samples of an orbit are in the same batches.
    - tau, d, nonneg, loss: as `ufm.Problem`.
    - held, weights: for an expected loss, the number of samples of each orbit that a batch holds, and its weight in
      the sum; all sets of that many samples of an orbit are equally likely (theory, 4.19). None: all samples, with
      weight 1.
    - views: for an expected loss, the number of samples of an image; all sets of that many images are equally likely.
    """

    classes: tuple[int, ...]
    sizes: tuple[int, ...]
    batches: tuple[tuple[int, ...], ...]
    tau: float
    d: int
    nonneg: bool
    loss: Loss = field(default_factory=Loss)
    held: tuple[tuple[int, ...], ...] | None = None
    weights: tuple[float, ...] | None = None
    views: int = 1

    @classmethod
    def of(cls, quotient: Problem) -> OrbitProblem:
        """From the orbit-collapsed problem, `ufm.orbits(problem).quotient`."""
        held = weights = None
        if quotient.is_expected:
            rows = zip(np.asarray(quotient.batches).tolist(), np.asarray(quotient.counts).tolist(), strict=True)
            held = tuple(
                tuple(int(n) for _, n in sorted(pair for pair in zip(*row, strict=True) if pair[0] != PADDING))
                for row in rows
            )
            weights = tuple(np.asarray(quotient.weights).tolist())
        return cls(
            classes=tuple(np.asarray(quotient.labels).tolist()),
            sizes=tuple(int(size) for size in np.asarray(quotient.multiplicity)),
            batches=tuple(tuple(sorted(row[row != PADDING].tolist())) for row in np.asarray(quotient.batches)),
            tau=float(quotient.tau),
            d=quotient.d,
            nonneg=quotient.nonneg,
            loss=quotient.loss,
            held=held,
            weights=weights,
            views=quotient.views,
        )

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def k(self) -> int:
        """Number of classes."""
        return max(self.classes) + 1

    @property
    def model(self) -> str:
        """UFM+ (with the ReLU) or UFM."""
        return "UFM+" if self.nonneg else "UFM"

    @cached_property
    def counts(self) -> tuple[Counter[int], ...]:
        """Samples of each class in each batch (the paper's n_{B,c})."""
        counted = []
        for composition in self.compositions:
            count: Counter[int] = Counter()
            for a, samples in composition.samples.items():
                count[self.classes[a]] += samples
            counted.append(count)
        return tuple(counted)

    @cached_property
    def compositions(self) -> tuple[Composition, ...]:
        """The composition of each batch, with its weight."""
        if self.held is None or self.weights is None:
            return tuple(Composition(self.sizes, {a: self.sizes[a] for a in batch}, 1.0) for batch in self.batches)
        together = zip(self.batches, self.held, self.weights, strict=True)
        return tuple(
            Composition(self.sizes, dict(zip(batch, held, strict=True)), w, self.views) for batch, held, w in together
        )

    @cached_property
    def totals(self) -> tuple[int, ...]:
        """Samples of each class in the problem (the paper's n_c)."""
        held = Counter[int]()
        for c, size in zip(self.classes, self.sizes, strict=True):
            held[c] += size
        return tuple(held[c] for c in range(self.k))

    @property
    def bits(self) -> int:
        """Working precision: `solvers.certification.balls.precision` at the smallest temperature and largest margin."""
        return precision(self.tau * min(self.loss.temperatures), spread(self.loss, sum(self.sizes)))

    def anchor_by_class(self, count: Counter[int]) -> dict[int, Anchor]:
        """The anchors, by class, of the classes that are active in a batch with these counts, in balls."""
        if self.loss.is_custom:
            raise InvalidInput("loss", self.loss.name, "ball arithmetic cannot bound a loss of your own")
        return {anchor.c: anchor for anchor in active_anchors(self.loss, self.tau, count, self.totals)}

    @property
    def anchors(self) -> float:
        """The sum of the weights of active anchors; for the sigmoid, a sum over pairs, times their terms."""
        together = zip(self.counts, self.compositions, strict=True)
        weighed = (
            (composition.weight * count[c], anchor)
            for count, composition in together
            for c, anchor in self.anchor_by_class(count).items()
        )
        by_term = self.loss.kind == "sigmoid"
        return sum(
            n * float(anchor.omega) * (anchor.positives + anchor.total if by_term else 1) for n, anchor in weighed
        )

    def describe(self) -> dict[str, object]:
        """The content of a certificate's "problem", without digests."""
        expected: dict[str, object] = {}
        if self.held is not None and self.weights is not None:
            expected = {"counts": [list(held) for held in self.held], "weights": [w.hex() for w in self.weights]}
            expected |= {"views": self.views} if self.views > 1 else {}
        return expected | {
            "model": self.model,
            "d": self.d,
            "tau": self.tau.hex(),
            "loss": self.loss.to_dict(),
            "classes": list(self.classes),
            "sizes": list(self.sizes),
            "batches": [list(batch) for batch in self.batches],
        }

    def digest(self) -> str:
        """sha256 of `describe()` as compact JSON with sorted keys."""
        text = json.dumps(self.describe(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Point:
    """A point that is feasible by construction: h_a = norms[a] rows[a] / ||rows[a]||, norms in [0, 1].

    The division is exact, so that a row of norm 1 - 1e-16 stands for one of norm 1. A row of zeros has norm 0.
    For UFM+ rows >= 0 as well.
    """

    rows: Float[np.ndarray, "m d"]
    norms: Float[np.ndarray, " m"]

    def placed(self) -> Float[np.ndarray, "m d"]:
        """The rows h_a in floating point."""
        lengths = np.linalg.norm(self.rows, axis=1)
        return self.rows * (self.norms / np.where(lengths > 0, lengths, 1.0))[:, None]

    def balls(self) -> Table:
        """The rows h_a in balls, (m, d). Call within `flint.ctx.workprec`."""
        rows = []
        for row, norm in zip(self.rows.tolist(), self.norms.tolist(), strict=True):
            entries = [arb(x) for x in row]
            scale = arb(norm) / sum((x * x for x in entries), ZERO).sqrt() if norm > 0 else ZERO
            rows.append([x * scale for x in entries])
        return rows

    def gram(self) -> Table:
        """G in balls. Call within `flint.ctx.workprec`."""
        return self.products(range(len(self.norms)))

    def products(self, orbits: Sequence[int]) -> Table:
        """The part of G between these orbits, in balls. Call within `flint.ctx.workprec`."""
        chosen = np.asarray(orbits, dtype=int)
        rows, norms = arb_mat(self.rows[chosen].tolist()), self.norms[chosen].tolist()
        products = rows * rows.transpose()
        m = len(norms)
        scale = [arb(norm) * products[a, a].rsqrt() if norm > 0 else ZERO for a, norm in enumerate(norms)]
        table = [[ZERO] * m for _ in range(m)]
        for a in range(m):
            table[a][a] = arb(norms[a]) ** 2
            for b in range(a):
                table[a][b] = table[b][a] = products[a, b] * scale[a] * scale[b]
        return table


def orthogonal_frame(problem: OrbitProblem) -> Point:
    """Every class at its own unit vector (k-OF with neural collapse). Needs d >= k."""
    rows = np.zeros((len(problem), problem.d))
    rows[np.arange(len(problem)), np.array(problem.classes)] = 1.0
    return Point(rows, np.ones(len(problem)))


def loss(problem: OrbitProblem, gram: Table) -> arb:
    """L at an orbit-constant G: sum over batches B and active orbits a of n_a f_{B,a} (theory, 1.3, 4.19)."""
    return _sweep(problem, _part_of(gram), None)


def loss_at(problem: OrbitProblem, point: Point) -> arb:
    """`loss` at a point; where batches are small relative to the problem, pairs that never meet are not computed."""
    pairs = sum(len(batch) ** 2 for batch in problem.batches)
    return _sweep(problem, point.products if pairs < len(problem) ** 2 else _part_of(point.gram()), None)


def loss_and_gradient(problem: OrbitProblem, gram: Table) -> tuple[arb, Table]:
    """L and C, the symmetric gradient in the entries of the sample Gram matrix, one number for each pair of orbits."""
    m = len(problem)
    towards = [[ZERO] * m for _ in range(m)]
    value = _sweep(problem, _part_of(gram), towards)
    half = arb(0.5)
    return value, [[(towards[a][b] + towards[b][a]) * half for b in range(m)] for a in range(m)]


def _part_of(gram: Table) -> Callable[[Sequence[int]], Table]:
    """The counterpart of `Point.products` for a whole table."""
    return lambda orbits: [[row[b] for b in orbits] for row in map(gram.__getitem__, orbits)]


def _sweep(problem: OrbitProblem, products: Callable[[Sequence[int]], Table], towards: Table | None) -> arb:
    """L where orbits have these products. Adds to towards[a][b], unless that is None, the derivative of the loss of
    anchor i of a in G_ij, j of b."""
    total = ZERO
    powers: dict[tuple[int, int, int], arb] = {}
    by_class = problem.loss.taus is not None
    for batch, count, composition in zip(problem.batches, problem.counts, problem.compositions, strict=True):
        anchors, samples, weight = problem.anchor_by_class(count), composition.samples, arb(composition.weight)
        labels = [problem.classes[b] for b in batch]
        held = [samples[b] for b in batch]
        for position, (a, c, cosines) in enumerate(zip(batch, labels, products(batch), strict=True)):
            if c not in anchors:
                continue
            anchor = anchors[c]
            s, temperature = anchor.s, c if by_class else 0
            met, anchor_powers = [*held], []
            met[position] -= 1
            for b, cosine in zip(batch, cosines, strict=True):
                key = (a, b, temperature) if a < b else (b, a, temperature)
                power = powers.get(key)
                if power is None:
                    power = powers[key] = (s * cosine).exp()
                anchor_powers.append(power)
            value, slopes = anchor.pays(labels, met, cosines, anchor_powers)
            total += weight * samples[a] * value
            if towards is not None:
                into = towards[a]
                for b, others, slope in zip(batch, met, slopes, strict=True):
                    if others > 0:
                        into[b] += slope if composition.is_whole else composition.met(a, b) * slope
    return total
