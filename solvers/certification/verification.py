"""`verify`: a verdict on one embedding, recomputed from its raw numbers, with the evidence by name."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from flint import ctx
from jaxtyping import Float

from solvers.certification.certificate import Certificate, Proof
from solvers.certification.certifier import SNAP_TOLERANCE, TOLERANCE, Certifier
from solvers.certification.consequences import MOST_PAIRS
from solvers.certification.constraints import smallest_weight, smallest_weight_of_samples
from solvers.certification.features import renormalised
from solvers.certification.scans import Pair, worst_across, worst_norm, worst_within
from solvers.loop.stopping import STATIONARY
from solvers.measurement import Measurement, measure
from solvers.parallel.padding import Shape
from solvers.progress import ProgressCallback
from ufm.display import Readable, Summary
from ufm.errors import LARGEST_ENTRY, Embedding, InvalidInput, real_array
from ufm.model.geometry import GeometryMetrics
from ufm.model.orbits import Orbits
from ufm.model.problem import Problem
from ufm.settings import in_fixed_settings

FEASIBLE = 1e-9  # how far outside the feasible set rounding may leave a row
FRAME = 1e-6  # cosines, norms and distances of an orthogonal frame
ROUNDING = 2.0**-52  # of an entry of the Gram matrix, times its terms
SUMMATION = 1e-9  # relative, of a sum of terms >= 0 in float64, whatever their number


class Verdict(enum.StrEnum):
    """The verdict on a point. Where `solvers.certify` judges a point, a certified point is a global minimiser whatever
    its residual, and no other point is called one.

    - GLOBAL_MINIMISER: certified: in ball arithmetic the gap to a lower bound is at most a small fraction of the
      smallest constraint weight. For a point that has not collapsed onto its orbit means (UFM+ with d >= k): it is
      stationary, and its excess, enlarged by all rounding of float64, is at most that fraction of the smallest
      constraint weight of one sample.
    - SPURIOUS: feasible and stationary, and another point is better by more than that.
    - STATIONARY: feasible and stationary; whether it is a global minimiser is not known (d < k; UFM; the excess is
      within rounding of the limit).
    - NOT_CONVERGED: feasible, not certified, and the projected gradient does not vanish.
    - INFEASIBLE: a row is outside the unit ball, or has a negative entry under UFM+.
    - NOT_FINITE: the point, its excess or its residual has a NaN or an infinity.
    """

    GLOBAL_MINIMISER = "global minimiser"
    SPURIOUS = "stationary but spurious"
    STATIONARY = "stationary, globality unknown"
    NOT_CONVERGED = "not converged"
    INFEASIBLE = "infeasible"
    NOT_FINITE = "not finite"


@dataclass(frozen=True, repr=False)
class Verification(Readable):
    """Verdict and evidence. Everything is recomputed from H; no result of a solver is used.

    - verdict, reason: see `Verdict`; the reason is a sentence.
    - feasible, collapsed, orthogonal, unit_norms: each within the tolerance of `verify`.
    - violation: the largest distance of a row from the feasible set.
    - residual, worst_residual: the largest `solvers.loop.stopping.stationarity`, and the sample that has it.
    - excess: loss minus the bound of Theorems 1 and 2, a sum over batches and active anchors at the problem's tau
      (may be negative for UFM). Excess, residual and metrics are those of H moved into the feasible set, if only
      rounding took it outside (`FEASIBLE`).
    - allowed: the tolerance: the largest gap to a lower bound at which the verdict is a global minimiser.
    - across: the pair of samples of different classes with the largest |cosine|.
    - within: the pair of samples of one class that are furthest apart, up to a factor of 2 (value: distance); sample 0
      twice if every class is one row.
    - norm: the sample whose norm is furthest from 1 (value: its norm), named twice.
    - metrics: see `ufm.geometry_metrics`.
    - renormalised: the largest change of a norm when float32 rows, of norm 1 within float32 rounding, were scaled to
      norm 1 first (`solvers.certification.features`); 0 if there were none.
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
    renormalised: float = 0.0

    @property
    def is_orthogonal_frame(self) -> bool:
        """Neural collapse and a k-orthogonal frame (NC + k-OF of the paper), within FRAME."""
        return self.feasible and self.collapsed and self.orthogonal and self.unit_norms

    @property
    def worst_pair(self) -> Pair:
        """`across` or `within`, whichever is further from its value in an orthogonal frame."""
        return self.across if abs(self.across.value) >= self.within.value else self.within

    def summary(self) -> Summary:
        """Verdict, reason, and the evidence with the numbers of its samples."""
        frame = "yes" if self.is_orthogonal_frame else "no"
        delta_gm, scale = (
            float(self.metrics.delta_gm),
            f"relative to the gradient scale of sample {self.worst_residual}",
        )
        norm_of = f"sample {self.norm.samples[0]} of class {self.norm.classes[0]}"
        lines = {
            "reason": self.reason,
            "orthogonal frame": f"{frame} (delta_gm {delta_gm:.3g}; cosines, distances and norms to {FRAME:g})",
            "excess": f"{self.excess:.3g} over the loss of an orthogonal frame",
            "tolerance": f"a global minimiser is at most {self.allowed:.3g} above a proved lower bound",
            "largest residual": f"{self.residual:.3g} {scale} (stationary: at most {STATIONARY:g})",
            "cosine furthest from 0": str(self.across),
            "largest distance within a class": str(self.within) if self.within.value else "0: every class is one row",
            "norm furthest from 1": f"{self.norm.value:.6g} ({norm_of})",
        }
        if self.renormalised > 0:
            lines["renormalised"] = (
                f"float32 features were scaled to norm 1, which changed norms by at most {self.renormalised:.1g}"
            )
        return Summary(f"Verification: {self.verdict}", lines, np.asarray(self.metrics.gram))


class Verifier:
    """The part of a verification that depends on the problem only, so that many starts can share it.

    - certifier: the certifier that judges; it may know other points (`Certifier.consider`).
    """

    @in_fixed_settings
    def __init__(self, problem: Problem, shape: Shape | None = None, *, certifier: Certifier | None = None) -> None:
        """shape: pad the orbit problem to this (`solvers.parallel.padding`), so that compiled code is shared.
        certifier: one of the same problem; by default a new one that calls no conic solver."""
        self.problem = problem
        self.certifier = Certifier(problem, conic=False) if certifier is None else certifier
        self.orbits: Orbits = self.certifier.orbits
        self._shape = shape
        self._in_balls = sum(len(batch) ** 2 for batch in self.certifier.problem.batches) <= MOST_PAIRS

    @cached_property
    def smallest_weight(self) -> float:
        """UFM+: the least increase of the loss when one pair or tie of orbits is broken; 0 if there is none."""
        with ctx.workprec(self.certifier.problem.bits):
            least = smallest_weight(self.certifier.problem)
        return 0.0 if least is None else float(least)

    @cached_property
    def _smallest_weight_of_samples(self) -> float:
        with ctx.workprec(self.certifier.problem.bits):
            least = smallest_weight_of_samples(self.certifier.problem)
        return 0.0 if least is None else float(least)

    @in_fixed_settings
    def verify(
        self, H: Embedding, certificate: Certificate | None = None, progress: ProgressCallback | None = None
    ) -> Verification:
        """Verdict and evidence for one H (n, d). certificate: the one of this H by `certifier`, if it exists already.

        progress: called with the name of the scan, the number of pairs done and their total; without it a terminal
        shows a bar after a moment. Raises InvalidInput for a wrong shape; `solvers.progress.Stopped` for Ctrl-C.
        """
        H = real_array("H", H, "give a real array (n, d)")
        shape = (self.problem.num_points, self.problem.d)
        if H.shape != shape:
            raise InvalidInput("H", f"array of shape {H.shape}", f"give one row for each sample, shape {shape}")
        if not np.isfinite(H).all():
            sample = int(np.flatnonzero(~np.isfinite(H).all(axis=1))[0])
            return self._unmeasured(sample, Verdict.NOT_FINITE, f"Row {sample} is not finite.")
        if np.abs(H).max() > LARGEST_ENTRY:
            sample = int(np.abs(H).max(axis=1).argmax())
            return self._unmeasured(sample, Verdict.INFEASIBLE, f"Row {sample} is far outside the feasible set.")
        H, scaled = renormalised(H)
        rows, problem, sample = self._distinct(H)
        violation = _violation(rows, problem.nonneg)
        # A norm of 1 + 1e-10 lowers the loss by more than two merged minorities raise it: a feasible point is judged.
        judged = _inside(rows, problem.nonneg) if violation <= FEASIBLE else rows
        at = measure(judged, problem, self._shape if problem is self.orbits.quotient else None, progress)
        worst = int(np.argmax(at.residuals))
        labels = np.asarray(problem.labels)
        across, within, norm = (
            worst_across(rows, labels, progress),
            worst_within(rows, labels),
            worst_norm(rows, labels),
        )
        # For rows outside the ball the loss may overflow: then nothing is known, and no NaN is passed on.
        residual, over = (float(np.nan_to_num(x, nan=np.inf)) for x in (at.residuals[worst], at.excess))
        if scaled > 0:
            certificate = None  # it is one of the rows before scaling
        if violation <= FEASIBLE and certificate is None and (self._in_balls or self.problem.loss.is_custom):
            certificate = self.certifier.certify(H, progress)
        verdict, reason, allowed = self._judge(violation, residual, at, len(rows) == len(self.orbits), certificate)
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
            excess=over,
            allowed=allowed,
            across=_named(across, sample),
            within=_named(within, sample),
            norm=_named(norm, sample),
            metrics=at.metrics,
            renormalised=scaled,
        )

    @in_fixed_settings
    def excess(self, H: Float[np.ndarray, "n d"]) -> float:
        """The excess alone, recomputed from H moved into the feasible set."""
        rows, problem, _ = self._distinct(np.asarray(H, dtype=np.float64))
        return float(measure(_inside(rows, problem.nonneg), problem).excess)

    def _distinct(self, H: Float[np.ndarray, "n d"]) -> tuple[np.ndarray, Problem, np.ndarray]:
        """Rows, their problem and the sample each stands for: one row for each orbit if the orbits have identical rows.

        The loss of identical rows is exactly the loss of the quotient, so nothing is approximated.
        """
        rows = self.orbits.shared(H)
        if rows is not None:
            return rows, self.orbits.quotient, self.orbits.first
        return H, self.problem, np.arange(len(H))

    def _judge(
        self, violation: float, residual: float, at: Measurement, collapsed: bool, certificate: Certificate | None
    ) -> tuple[Verdict, str, float]:
        """Verdict, reason and tolerance. Every comparison with NaN counts against the point."""
        if not violation <= FEASIBLE:
            return Verdict.INFEASIBLE, f"A row lies {violation:.1e} outside the feasible set.", 0.0
        if not np.isfinite([residual, float(at.excess)]).all():
            return Verdict.NOT_FINITE, "The loss or its gradient is not finite.", 0.0
        if certificate is None or (certificate.moved > SNAP_TOLERANCE and not self.problem.loss.is_custom):
            return self._judge_in_float64(residual, float(at.excess), collapsed, certificate)
        allowed = certificate.margin
        if certificate.status is Proof.CERTIFIED:
            reason = f"Certified: the loss is within {certificate.gap:.1e} of a rigorous lower bound."
            return Verdict.GLOBAL_MINIMISER, reason, allowed
        if not residual <= STATIONARY:
            return Verdict.NOT_CONVERGED, _moving(residual), allowed
        if certificate.status is Proof.NOT_CERTIFIED:
            return Verdict.SPURIOUS, f"Stationary, but {certificate.reason}.", allowed
        return Verdict.STATIONARY, f"Stationary; {certificate.reason}.", allowed

    def _judge_in_float64(
        self, residual: float, excess: float, collapsed: bool, certificate: Certificate | None
    ) -> tuple[Verdict, str, float]:
        """The verdict on points that no certificate judges: not collapsed, or with too many pairs for balls.

        For rows in the ball the error of an anchor's excess is at most d + 8 roundings of its cosines over tau, plus
        SUMMATION times the excess (`ufm.model.evaluation`: every term is >= 0 and none cancels).
        """
        allowed = TOLERANCE * (self.smallest_weight if collapsed else self._smallest_weight_of_samples)
        anchors = self.certifier.problem.anchors
        rounding = ROUNDING * anchors * (self.problem.d + 8) / self.problem.smallest_temperature + SUMMATION * abs(
            excess
        )
        by_theorem = self.problem.bound_is_attained
        # One sample of many may be far off at little cost; a collapsed point passes whatever its residual.
        residual_passes = collapsed or residual <= STATIONARY
        if by_theorem and residual_passes and excess + rounding <= allowed:
            return Verdict.GLOBAL_MINIMISER, f"At the bound: the excess is {excess:.1e}, within the tolerance.", allowed
        if not residual <= STATIONARY:
            return Verdict.NOT_CONVERGED, _moving(residual), allowed
        if by_theorem and excess - rounding > allowed:
            reason = f"Stationary, but {excess:.1e} above the bound, more than the tolerance of {allowed:.1e}."
            return Verdict.SPURIOUS, reason, allowed
        if by_theorem:
            reason = f"Stationary, {excess:.1e} above the bound, which rounding of up to {rounding:.0e} hides."
            return Verdict.STATIONARY, reason, allowed
        why = "too many pairs for ball arithmetic" if certificate is None else certificate.reason
        return Verdict.STATIONARY, f"Stationary; {why}.", allowed

    def _unmeasured(self, sample: int, verdict: Verdict, reason: str) -> Verification:
        """The verification of a point whose numbers exceed doubles; the sample that shows this is all its evidence."""
        label = int(np.asarray(self.problem.labels)[sample])
        nowhere = Pair((sample, sample), (label, label), float("inf"))
        k = self.problem.k
        unknown = GeometryMetrics(*np.full(5, np.inf), np.full((k, k), np.inf))  # type: ignore[arg-type]
        return Verification(
            verdict=verdict,
            reason=reason,
            feasible=False,
            collapsed=False,
            orthogonal=False,
            unit_norms=False,
            violation=float("inf"),
            residual=float("inf"),
            worst_residual=sample,
            excess=float("inf"),
            allowed=0.0,
            across=nowhere,
            within=nowhere,
            norm=nowhere,
            metrics=unknown,
        )


@in_fixed_settings
def verify(
    H: Embedding, problem: Problem, *, certificate: Certificate | None = None, progress: ProgressCallback | None = None
) -> Verification:
    """Verdict and evidence for one H (n, d): is it a global minimiser, and is it an orthogonal frame?

    `solvers.certify` judges, in ball arithmetic and relative to the smallest constraint weight of the problem. So a
    merged minority cannot hide in a relative tolerance, and rounding cannot fail a frame. Features of norm 1 within
    float32 rounding are scaled to norm 1 first. For many H of one problem make one
    `solvers.certification.verification.Verifier`. Raises InvalidInput for a wrong shape; a NaN in H leads to a verdict.

    certificate: the one that `solvers.certify` returned for this H and this problem, so that balls are not computed
    twice. Digests of both are compared; InvalidInput is raised for another. The verdict uses its tolerance.

    Where the samples of an orbit share a row, the time does not grow with n. Otherwise all n^2 pairs are swept twice:
    for the loss and its gradient, and for the cosines that bounds do not rule out. A terminal shows the progress, or
    `progress` receives it (see `Verifier.verify`). Ctrl-C stops at once with a KeyboardInterrupt that says so.
    """
    verifier = Verifier(problem)
    if certificate is not None and not verifier.certifier.states_of(H, certificate):
        fix = (
            "give the one that certify returned for this H and this problem, not one read from a file, or leave it out"
        )
        raise InvalidInput("certificate", str(certificate.status), fix)
    return verifier.verify(H, certificate, progress)


def _moving(residual: float) -> str:
    return f"The projected gradient is {residual:.1e} relative to the gradient scale of a sample."


def _inside(rows: Float[np.ndarray, "m d"], nonneg: bool) -> Float[np.ndarray, "m d"]:
    rows = np.maximum(rows, 0.0) if nonneg else rows
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.where(norms > 1, rows / (np.maximum(norms, 1.0) * (1 + 2.0**-50)), rows)


def _violation(rows: Float[np.ndarray, "m d"], nonneg: bool) -> float:
    norms = np.linalg.norm(rows, axis=1)
    outside = max(float(norms.max()) - 1.0, 0.0)
    return max(outside, float(-rows.min()), 0.0) if nonneg else outside


def _named(pair: Pair, sample: np.ndarray) -> Pair:
    return Pair((int(sample[pair.samples[0]]), int(sample[pair.samples[1]])), pair.classes, pair.value)
