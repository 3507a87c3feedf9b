"""`verify`: what one embedding is, recomputed from its raw numbers, with the evidence by name."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
from flint import ctx
from jaxtyping import Float

from solvers.bounds import OrbitProblem, frame_loss, precision
from solvers.certificate import Status
from solvers.certifier import Certifier
from solvers.implications import weakest_pair
from solvers.measurement import Measurement, measure
from solvers.padding import Shape
from ufm.errors import InvalidInput, Rows, real_array
from ufm.geometry import GeometryMetrics
from ufm.orbits import Orbits, orbits
from ufm.problem import Problem

FEASIBLE = 1e-9  # how far outside the feasible set rounding may leave a row
STATIONARY = 1e-8  # projected gradient, as a share of the forces on a sample
FRAME = 1e-6  # cosines, norms and distances of an orthogonal frame
SEPARATED = 1e-6  # average cosine a minimiser may leave between any two classes that repel
NOTHING_REPELS = 1e-6  # share of the loss that takes the place of the weakest pair where no pair repels
ROWS = 2048  # rows of the Gram matrix in memory at once


class Verdict(enum.StrEnum):
    """What a point is.

    - GLOBAL_MINIMISER: feasible, stationary, and its excess is too small to hide a merged pair of
      orbits, even the smallest; without that theorem (UFM; d < k), certified by its duality gap.
    - SPURIOUS: feasible and stationary, but not a global minimiser: a lower loss is possible.
    - STATIONARY: feasible and stationary; whether it is global is not known (d < k; UFM).
    - NOT_CONVERGED: feasible, but the projected gradient does not vanish.
    - INFEASIBLE: a row is outside the unit ball, or negative under UFM+.
    - NOT_FINITE: a NaN or an infinity, in the point, its excess or its residual.
    """

    GLOBAL_MINIMISER = "global minimiser"
    SPURIOUS = "stationary but spurious"
    STATIONARY = "stationary, globality unknown"
    NOT_CONVERGED = "not converged"
    INFEASIBLE = "infeasible"
    NOT_FINITE = "not finite"


@dataclass(frozen=True)
class Pair:
    """Two samples by number and class, and what is measured between them."""

    samples: tuple[int, int]
    classes: tuple[int, int]
    value: float

    def __str__(self) -> str:
        (i, j), (c, e) = self.samples, self.classes
        return f"samples {i} and {j} (classes {c} and {e}): {self.value:.3g}"


@dataclass(frozen=True)
class Verification:
    """Verdict and evidence. Everything is recomputed from H; nothing is taken from a solver.

    - verdict, reason: see `Verdict`; the reason is a sentence.
    - feasible, collapsed, orthogonal, unit_norms: each within the tolerance of `verify`.
    - violation: distance outside the feasible set, largest over rows.
    - residual: largest `solvers.descent.stationarity`, and the sample where it is.
    - excess: loss minus the bound of Theorems 1 and 2 (may be negative for UFM), residual and metrics: of H
      moved into the feasible set, if it was outside by rounding only (`FEASIBLE`).
    - allowed: the largest excess (duality gap for UFM or d < k) a global minimiser may show.
    - across: the pair of samples of different classes with the largest |cosine|.
    - within: the pair of samples of one class that are furthest apart, up to a factor of 2 (value: distance).
    - norm: the sample whose norm is furthest from 1 (value: its norm), named twice.
    - metrics: see `ufm.geometry_metrics`.
    """

    verdict: Verdict
    reason: str
    feasible: bool
    collapsed: bool
    orthogonal: bool
    unit_norms: bool
    violation: float
    residual: float
    worst_residual: int
    excess: float
    allowed: float
    across: Pair
    within: Pair
    norm: Pair
    metrics: GeometryMetrics

    @property
    def is_orthogonal_frame(self) -> bool:
        """Neural collapse and a k-orthogonal frame (NC + k-OF of the paper), within FRAME."""
        return self.feasible and self.collapsed and self.orthogonal and self.unit_norms

    @property
    def worst_pair(self) -> Pair:
        """Of `across` and `within`, the one that misses an orthogonal frame by more."""
        return self.across if abs(self.across.value) >= self.within.value else self.within


class Verifier:
    """All of a verification that depends on the problem only, to be shared by many starts.

    - weakest: the least the loss rises when the mean cosine of two orbits that repel goes from 0 to
      1, by the stability inequality (theory, 2.11); 0 if no two do.
    """

    def __init__(self, problem: Problem, shape: Shape | None = None) -> None:
        """shape: pad the orbit problem to this (`solvers.padding`), to share what is compiled with other problems."""
        self.problem = problem
        self.orbits: Orbits = orbits(problem)
        self._shape = shape
        self._by_theorem = problem.bound_is_attained
        reduced = OrbitProblem.of(self.orbits.quotient)
        with ctx.workprec(precision(reduced.tau)):
            weakest = weakest_pair(reduced)
            # Nothing repels: the loss itself sets the scale.
            scale = weakest if weakest is not None else NOTHING_REPELS * (1 + frame_loss(reduced))
        self.weakest = float(weakest) if weakest is not None else 0.0
        self._allowed = SEPARATED * float(scale)
        self._certifier: Certifier | None = None

    def verify(self, H: Rows) -> Verification:
        """Verdict and evidence for one H (n, d). Raises InvalidInput for a wrong shape."""
        H = real_array("H", H, "give a real array (n, d)")
        shape = (self.problem.num_points, self.problem.d)
        if H.shape != shape:
            raise InvalidInput("H", f"array of shape {H.shape}", f"give one row a sample, shape {shape}")
        if not np.isfinite(H).all():
            return self._not_finite(H)
        rows, problem, sample = self._distinct(H)
        violation = _violation(rows, problem.nonneg)
        # A norm of 1 + 1e-10 would gain more than two merged minorities cost: what is judged is feasible.
        judged = _inside(rows, problem.nonneg) if violation <= FEASIBLE else rows
        at = measure(judged, problem, self._shape if problem is self.orbits.quotient else None)
        worst = int(np.argmax(at.residuals))
        labels = np.asarray(problem.labels)
        across, within, norm = _worst_across(rows, labels), _worst_within(rows, labels), _worst_norm(rows, labels)
        residual = float(at.residuals[worst])
        verdict, reason, allowed = self._judge(H, violation, residual, at)
        return Verification(
            verdict=verdict,
            reason=reason,
            feasible=violation <= FEASIBLE,
            collapsed=within.value <= FRAME,
            orthogonal=abs(across.value) <= FRAME,
            unit_norms=abs(norm.value - 1) <= FRAME,
            violation=violation,
            residual=residual,
            worst_residual=int(sample[worst]),
            excess=float(at.excess),
            allowed=allowed,
            across=_named(across, sample),
            within=_named(within, sample),
            norm=_named(norm, sample),
            metrics=at.metrics,
        )

    def excess(self, H: Float[np.ndarray, "n d"]) -> float:
        """The excess alone, recomputed from H moved into the feasible set."""
        rows, problem, _ = self._distinct(np.asarray(H, dtype=np.float64))
        return float(measure(_inside(rows, problem.nonneg), problem).excess)

    def _distinct(self, H: Float[np.ndarray, "n d"]) -> tuple[np.ndarray, Problem, np.ndarray]:
        """Rows, their problem and the sample each stands for: one an orbit if the orbits have identical rows.

        The loss of identical rows is the loss of the quotient exactly, so nothing is approximated.
        """
        rows = self.orbits.shared(H)
        if rows is not None:
            return rows, self.orbits.quotient, self.orbits.first
        return H, self.problem, np.arange(len(H))

    def _judge(
        self, H: Float[np.ndarray, "n d"], violation: float, residual: float, at: Measurement
    ) -> tuple[Verdict, str, float]:
        if not violation <= FEASIBLE:
            return Verdict.INFEASIBLE, f"A row is {violation:.1e} outside the feasible set.", self._allowed
        if not np.isfinite([residual, float(at.excess)]).all():
            return Verdict.NOT_FINITE, "The loss or its gradient is not finite.", self._allowed
        if not residual <= STATIONARY:
            return (
                Verdict.NOT_CONVERGED,
                f"The projected gradient is {residual:.1e} of the forces on a sample.",
                self._allowed,
            )
        if self._by_theorem:
            excess = float(at.excess)
            if excess <= self._allowed:
                return Verdict.GLOBAL_MINIMISER, "Stationary, at the bound of Theorems 1 and 2.", self._allowed
            return (
                Verdict.SPURIOUS,
                f"Stationary, {excess:.1e} above the bound, where {self._allowed:.1e} would be rounding.",
                self._allowed,
            )
        if self._certifier is None:
            self._certifier = Certifier(self.problem, conic=False)
        certificate = self._certifier.certify(H)
        if certificate.status is Status.CERTIFIED:
            return Verdict.GLOBAL_MINIMISER, "Stationary, and its duality gap closes.", certificate.gap
        if certificate.status is Status.NOT_CERTIFIED:
            return Verdict.SPURIOUS, f"Stationary, but {certificate.reason}.", certificate.gap
        return Verdict.STATIONARY, f"Stationary; {certificate.reason}.", certificate.gap

    def _not_finite(self, H: Float[np.ndarray, "n d"]) -> Verification:
        sample = int(np.flatnonzero(~np.isfinite(H).all(axis=1))[0])
        label = int(np.asarray(self.problem.labels)[sample])
        nowhere = Pair((sample, sample), (label, label), float("inf"))
        k = self.problem.k
        unknown = GeometryMetrics(*np.full(5, np.inf), np.full((k, k), np.inf))  # type: ignore[arg-type]
        return Verification(
            verdict=Verdict.NOT_FINITE,
            reason=f"Row {sample} is not finite.",
            feasible=False,
            collapsed=False,
            orthogonal=False,
            unit_norms=False,
            violation=float("inf"),
            residual=float("inf"),
            worst_residual=sample,
            excess=float("inf"),
            allowed=self._allowed,
            across=nowhere,
            within=nowhere,
            norm=nowhere,
            metrics=unknown,
        )


def verify(H: Rows, problem: Problem) -> Verification:
    """Verdict and evidence for one H (n, d): is it a global minimiser, and is it an orthogonal frame?

    For UFM+ with d >= k the judge is the excess over the bound of Theorems 1 and 2, against the
    weakest pair of orbits: a merged minority cannot hide in a relative tolerance (theory,
    5.14). Otherwise it is the rigorous duality gap of `solvers.certify`. For many H of one problem
    make one `Verifier`. Raises InvalidInput for a wrong shape; a NaN is a verdict.
    """
    return Verifier(problem).verify(H)


def _inside(rows: Float[np.ndarray, "m d"], nonneg: bool) -> Float[np.ndarray, "m d"]:
    rows = np.maximum(rows, 0.0) if nonneg else rows
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.where(norms > 1, rows / (np.maximum(norms, 1.0) * (1 + 2.0**-50)), rows)


def _violation(rows: Float[np.ndarray, "m d"], nonneg: bool) -> float:
    norms = np.linalg.norm(rows, axis=1)
    outside = max(float(norms.max()) - 1.0, 0.0)
    return max(outside, float(-rows.min()), 0.0) if nonneg else outside


def _worst_across(rows: Float[np.ndarray, "m d"], labels: np.ndarray) -> Pair:
    norms = np.linalg.norm(rows, axis=1)
    units = rows / np.where(norms > 0, norms, 1.0)[:, None]
    worst = Pair((0, 0), (0, 0), 0.0)
    largest = -1.0
    for start in range(0, len(rows), ROWS):
        cosines = units[start : start + ROWS] @ units.T
        size = np.where(labels[start : start + ROWS, None] == labels, -1.0, np.abs(cosines))
        i, j = np.unravel_index(int(np.argmax(size)), size.shape)
        if size[i, j] > largest:
            largest = float(size[i, j])
            worst = _pair(labels, start + int(i), int(j), float(cosines[i, j]))
    return worst


def _worst_within(rows: Float[np.ndarray, "m d"], labels: np.ndarray) -> Pair:
    """The sample furthest from its class mean, and the sample of its class furthest from that."""
    worst = _pair(labels, 0, 0, 0.0)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        inside = rows[members]
        i = int(np.argmax(np.linalg.norm(inside - inside.mean(axis=0), axis=1)))
        distances = np.linalg.norm(inside - inside[i], axis=1)
        j = int(np.argmax(distances))
        if distances[j] > worst.value:
            worst = _pair(labels, int(members[i]), int(members[j]), float(distances[j]))
    return worst


def _worst_norm(rows: Float[np.ndarray, "m d"], labels: np.ndarray) -> Pair:
    norms = np.linalg.norm(rows, axis=1)
    i = int(np.argmax(np.abs(norms - 1)))
    return _pair(labels, i, i, float(norms[i]))


def _pair(labels: np.ndarray, i: int, j: int, value: float) -> Pair:
    return Pair((i, j), (int(labels[i]), int(labels[j])), value)


def _named(pair: Pair, sample: np.ndarray) -> Pair:
    return Pair((int(sample[pair.samples[0]]), int(sample[pair.samples[1]])), pair.classes, pair.value)
