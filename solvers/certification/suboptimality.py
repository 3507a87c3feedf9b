r"""A rigorous bound on the suboptimality of a raw embedding, and the samples and pairs that contribute to it.

`certify` judges orbit means, on which balls are cheap. Features of a network never collapse, and n^2 pairs are too many
for balls. So the pairs are swept in float64 here, and a bound on the rounding of every anchor loss is proved (theory,
5.19). With weights w of sum 1 over the positives and negatives (`_Anchor`), delta = 1 - mean of G over positives, and
s = 1 / tau,

    excess of anchor i = omega log1p( sum_l w_l expm1(x_l) ),   x_l = s (G_il - 1 + delta) for positives,
                                                                      s (G_il + delta) for negatives,

the form of theory, 2.4 and 2.16, without cancellation. The constants of the losses and their bounds are balls.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from flint import arb, ctx
from jaxtyping import Float, Int

from solvers.certification.anchors import Anchor
from solvers.certification.attribution import Attribution
from solvers.certification.balls import downwards, upwards
from solvers.certification.certifier import Certifier
from solvers.certification.consequences import Edges, Implied, implied, may_imply, pair_weights
from solvers.certification.consequences_ufm import implied_ufm
from solvers.certification.dual_bounds import frame_loss
from solvers.certification.features import unit_rows
from solvers.certification.orbit_problem import OrbitProblem
from solvers.certification.rounding import UNIT
from ufm.deprecated import former_property
from ufm.display import Readable, Summary, cosines_of_class_means
from ufm.errors import Embedding, InvalidInput, real_rows
from ufm.model.orbits import Orbits, orbits
from ufm.model.problem import PADDING, Problem
from ufm.settings import in_fixed_settings

ROUNDOFF = 2.0**-53
# The proof of theory, 5.19, covers at most so many coordinates, and samples in a batch.
LARGEST = 2**22
# Anchors x others of one block.
BLOCK_ENTRIES = 2**20
# Contributions of pairs are stored up to so many points: a matrix of 512 MiB.
MOST_POINTS_OF_PAIRS = 2**13
# A row that leaves the feasible set by at most this is moved back.
OUTSIDE = 1e-9


@dataclass(frozen=True)
class Interval:
    """Two doubles that provably enclose a number."""

    lower: float
    upper: float

    @property
    def width(self) -> float:
        """Upper minus lower."""
        return self.upper - self.lower

    def __contains__(self, value: float) -> bool:
        return bool(self.lower <= value <= self.upper)

    def __str__(self) -> str:
        if self.width <= 1e-3 * abs(self.upper):
            return f"{self.upper:.9g} (to {self.width:.1g})"
        return f"{self.lower:.6g} to {self.upper:.6g}"


@dataclass(frozen=True, repr=False)
class Suboptimality(Readable):
    """What is proved of one raw H (n, d).

    The point judged is feasible: rows within 1e-9 of the sphere (float32 features: 2^-20) have norm exactly 1, and all
    other rows are the doubles of H.

    - loss, excess: rigorous intervals (theory, 5.19). The excess is over the loss of an orthogonal frame, which under
      UFM+ is a lower bound, and for d >= k the minimum. Both are sums over batches and active anchors at the problem's
      tau, not means.
    - gap: an upper bound on the suboptimality. UFM+: the largest possible excess. UFM: above a certified lower bound.
    - implied: what the gap implies of every point of no larger loss (`Implied`), or None.
    - attribution: the contribution of every sample and pair to the excess; None for UFM, where the excess has either
      sign.
    - moved: the largest change of a row when H is moved into the feasible set. It is measured, not proved.
    """

    problem: Problem
    loss: Interval
    excess: Interval
    gap: float
    implied: Implied | None
    attribution: Attribution | None

    blame = former_property("blame", "attribution")
    moved: float
    _orbits: Orbits
    _weights: tuple[Edges, Edges] | None
    _rows: Float[np.ndarray, "n d"]

    def implied_cosine(self, i: int, j: int) -> Interval:
        """What the gap implies for G_ij = <h_i, h_j> of two samples, at every point of no larger loss (theory, 2.7).

        For UFM, and beyond `MOST_PAIRS`, this is the trivial interval [-1, 1]. Raises InvalidInput.
        """
        n = self.problem.num_points
        if not (0 <= i < n and 0 <= j < n and i != j):
            raise InvalidInput("i, j", (i, j), f"give two different samples from 0 to {n - 1}")
        if self._weights is None:
            return Interval(-1.0, 1.0)
        a, b = sorted(int(self._orbits.index[sample]) for sample in (i, j))
        labels = np.asarray(self.problem.labels)
        weight = self._weights[0 if labels[i] == labels[j] else 1].get((a, b))
        if weight is None:
            return Interval(0.0, 1.0)
        off = arb(self.gap) / (2 * weight)
        if labels[i] == labels[j]:
            return Interval(max(downwards(1 - off), 0.0), 1.0)
        return Interval(0.0, min(upwards(off), 1.0))

    def summary(self) -> Summary:
        """The intervals, what they imply, and the attribution."""
        problem = self.problem
        above = "the minimum" if problem.bound_is_attained else "a proved lower bound"
        lines = {
            "loss": f"{self.loss}, proved",
            "excess": f"{self.excess} over an orthogonal frame, proved",
            "gap": f"the loss is at most {self.gap:.6g} above {above}",
            "moved": f"H is {self.moved:.1g} away from the point judged",
        }
        if self.implied is not None:
            spread = max(self.implied.spread)
            cosine = max(x for a, row in enumerate(self.implied.cosine) for b, x in enumerate(row) if a != b)
            lines["implied"] = (
                f"distances within a class are at most {spread:.3g}, cosines of class means at most {cosine:.3g}"
                if spread < 2.0 or cosine < 1.0
                else "nothing about class means, because the gap is too large"
            )
        if self.attribution is not None:
            lines |= self.attribution.summary().lines
        labels, times = np.asarray(problem.labels), np.asarray(problem.multiplicity)
        return Summary(
            f"Suboptimality: at most {self.gap:.6g}", lines, cosines_of_class_means(self._rows, labels, times)
        )


@in_fixed_settings
def suboptimality(H: Embedding, problem: Problem, *, certifier: Certifier | None = None) -> Suboptimality:
    """Rigorous loss and excess of one raw H (n, d), which may be float32, and their attribution. See `Suboptimality`.

    Loss and excess are sums over batches and active anchors at the problem's tau.

    Takes O(sum_B n_B^2 d) in float64. certifier: one of this problem, to reuse its lower bound; only UFM needs it.
    Raises InvalidInput for rows that are not finite or that lie more than 1e-9 (features in float32: 2^-20) outside
    the feasible set, and for losses other than log-sum-exp.
    """
    if not isinstance(problem, Problem):
        raise InvalidInput("problem", type(problem).__name__, "give a ufm.Problem")
    if problem.is_expected:
        raise InvalidInput(
            "problem", "an expected loss", "give the batches themselves, as H is an embedding of samples"
        )
    if problem.loss.kind != "log-sum-exp":
        raise InvalidInput("problem.loss", problem.loss.name, "rounding is proved for log-sum-exp losses only")
    if max(problem.d, problem.batches.shape[1]) > LARGEST:
        raise InvalidInput("problem", problem.batches.shape, f"rounding is proved up to {LARGEST:,} samples a batch")
    sweep = _Sweep(np.asarray(real_rows("H", H, (problem.num_points, problem.d))), problem)
    with ctx.workprec(sweep.orbit_problem.bits):
        bound = frame_loss(sweep.orbit_problem)
        excess = sweep.excess()
        if problem.nonneg:
            excess = Interval(max(excess.lower, 0.0), max(excess.upper, 0.0))
        loss = Interval(downwards(bound + arb(excess.lower)), upwards(bound + arb(excess.upper)))
        gap, consequences, weights = excess.upper, None, None
        if problem.nonneg:
            weights = pair_weights(sweep.orbit_problem) if may_imply(sweep.orbit_problem) else None
            consequences = implied(sweep.orbit_problem, arb(gap), weights)
        else:
            lower = (Certifier(problem, conic=False) if certifier is None else certifier).lower_bound
            gap = max(upwards(arb(loss.upper) - arb(lower.value)), 0.0)
            consequences = implied_ufm(sweep.orbit_problem, arb(gap), lower.dual)
    attribution = sweep.attribution() if problem.nonneg else None
    return Suboptimality(
        problem, loss, excess, gap, consequences, attribution, sweep.moved, sweep.orbits, weights, sweep.unit
    )


@dataclass(frozen=True)
class _Anchor:
    """The numbers of an active anchor of one class in one batch, as the nearest doubles of balls.

    weight: (k,) the weight of one sample of each class: e^{a(c, e) - s} / Z', for the anchor's class e^{a(c, c)} / Z'.
    Over all positives and negatives these weights sum to 1.
    """

    positives: float
    omega: float
    s: float
    weight: Float[np.ndarray, " k"]

    @classmethod
    def of(cls, active: Anchor, k: int) -> _Anchor:
        """Call within `flint.ctx.workprec`."""
        decay = (-active.s).exp()
        partition = (
            active.positives * active.factor(active.c)
            + sum((n * active.factor(e) for e, n in active.negatives.items()), 0) * decay
        )
        weight = np.zeros(k)
        weight[active.c] = float((active.factor(active.c) / partition).mid())
        for e in active.negatives:
            weight[e] = float((active.factor(e) * decay / partition).mid())
        return cls(float(active.positives), float(active.omega.mid()), float(active.s.mid()), weight)


class _Sweep:
    """One pass over all pairs of all batches: excess of each anchor, a bound on its rounding, and contributions."""

    def __init__(self, H: Float[np.ndarray, "n d"], problem: Problem) -> None:
        self.problem = problem
        self.orbits = orbits(problem)
        self.orbit_problem = OrbitProblem.of(self.orbits.quotient)
        self.labels = np.asarray(problem.labels)
        self.times = np.asarray(problem.multiplicity)
        self.unit, self.moved = _placed(H, problem.nonneg)
        # A bound for every entry of the Gram matrix (theory, 5.19).
        self.rounding = (2 * problem.d + 20) * ROUNDOFF
        self.values: list[float] = []
        self.errors: list[float] = []
        m = problem.num_points
        self.samples = np.zeros(m)
        self.pairs = np.zeros((m, m)) if problem.nonneg and m <= MOST_POINTS_OF_PAIRS else None

    def excess(self) -> Interval:
        """The excess, from one sweep over all pairs. Call within `flint.ctx.workprec`."""
        for batch, count in zip(np.asarray(self.problem.batches), self.orbit_problem.counts, strict=True):
            members = batch[batch != PADDING]
            for active in self.orbit_problem.anchor_by_class(count).values():
                anchor = _Anchor.of(active, self.problem.k)
                anchors = members[self.labels[members] == active.c]
                step = max(1, BLOCK_ENTRIES // len(members))
                for first in range(0, len(anchors), step):
                    self._block(anchors[first : first + step], members, active.c, anchor)
        total, error = math.fsum(self.values), math.fsum(self.errors)
        if not math.isfinite(total + error):
            return Interval(-math.inf, math.inf)
        error = error * (1 + 2.0**-10) + 4 * ROUNDOFF * abs(total)
        return Interval(math.nextafter(total - error, -math.inf), math.nextafter(total + error, math.inf))

    def attribution(self) -> Attribution:
        """Contributions to the excess. Call `excess` first."""
        pairs = None if self.pairs is None else self.pairs + self.pairs.T - np.diag(np.diagonal(self.pairs))
        return Attribution(self.samples, pairs, self.labels, self.unit)

    def _block(self, anchors: Int[np.ndarray, " a"], members: Int[np.ndarray, " s"], c: int, anchor: _Anchor) -> None:
        cosine = self.unit[anchors] @ self.unit[members].T
        others = np.maximum(self.times[members][None, :] - (anchors[:, None] == members[None, :]), 0.0)
        same = self.labels[members] == c
        mean = (others[:, same] * cosine[:, same]).sum(axis=1, keepdims=True) / anchor.positives
        x = anchor.s * np.where(same, cosine - mean, cosine + (1.0 - mean))
        x = np.where(others > 0, x, 0.0)
        weight = others * anchor.weight[self.labels[members]]
        above = np.expm1(x)
        relative = (weight * above).sum(axis=1)
        value = anchor.omega * np.log1p(relative)
        times = self.times[anchors]
        self.values += (times * value).tolist()
        self.errors += (times * self._rounding(anchor, weight, above, relative, value, len(members))).tolist()
        if self.problem.nonneg:
            self._attribute(
                anchors, members, same, cosine, weight * (above + 1.0), others, anchor, np.maximum(times * value, 0.0)
            )

    def _rounding(
        self,
        anchor: _Anchor,
        weight: Float[np.ndarray, "a s"],
        above: Float[np.ndarray, "a s"],
        relative: Float[np.ndarray, " a"],
        value: Float[np.ndarray, " a"],
        met: int,
    ) -> Float[np.ndarray, " a"]:
        """A bound on |value - excess| of each anchor: theory, 5.19, with its names in comments."""
        eta = anchor.s * (met + 24) * ROUNDOFF
        kappa = math.expm1(eta) + (met + 32) * ROUNDOFF
        A = (weight * (np.abs(above) + 1.0)).sum(axis=1)
        D = 1.0 + relative - kappa * A
        with np.errstate(divide="ignore", invalid="ignore"):
            of_sum = np.where(D > 0, kappa * A / D, np.inf)
        return anchor.omega * (2 * anchor.s * self.rounding + of_sum) + 24 * ROUNDOFF * np.abs(value)

    def _attribute(
        self,
        anchors: Int[np.ndarray, " a"],
        members: Int[np.ndarray, " s"],
        same: np.ndarray,
        cosine: Float[np.ndarray, "a s"],
        crowd: Float[np.ndarray, "a s"],
        others: Float[np.ndarray, "a s"],
        anchor: _Anchor,
        value: Float[np.ndarray, " a"],
    ) -> None:
        """Divide the excess of each anchor among its pairs as in theory, 2.18."""
        crowd = crowd / crowd.sum(axis=1, keepdims=True)
        pull = np.maximum(others / anchor.positives - crowd, 0.0) * np.maximum(1.0 - cosine, 0.0)
        mismatch = np.where(same, pull, crowd * np.maximum(cosine, 0.0))
        total = mismatch.sum(axis=1, keepdims=True)
        contribution = mismatch * np.where(total > 0, value[:, None] / np.where(total > 0, total, 1.0), 0.0)
        self.samples[anchors] += contribution.sum(axis=1) / 2
        self.samples[members] += contribution.sum(axis=0) / 2
        if self.pairs is not None:
            self.pairs[anchors[:, None], members[None, :]] += contribution


def _placed(H: Float[np.ndarray, "n d"], nonneg: bool) -> tuple[Float[np.ndarray, "n d"], float]:
    """The rows of the point judged, as computed, and the largest change of a row."""
    if not np.isfinite(H).all():
        raise InvalidInput("H", "array with NaN or infinite entries", "give finite numbers")
    if nonneg and H.min(initial=0.0) < -OUTSIDE:
        raise InvalidInput("H", float(H.min()), "UFM+ needs entries >= 0; nonneg=False judges by UFM")
    rows = np.maximum(H, 0.0) if nonneg else H
    norms = np.linalg.norm(rows, axis=1)
    unit = unit_rows(rows, norms, UNIT)
    if (norms[~unit] > 1.0).any():
        raise InvalidInput("H", f"row of norm {norms.max():.9g}", "give rows of norm at most 1: normalise the features")
    placed = np.where(unit[:, None], rows / np.where(unit, norms, 1.0)[:, None], rows)
    return placed, float(np.linalg.norm(placed - H, axis=1).max())
