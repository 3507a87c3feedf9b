"""The certifier: what is proved of an embedding, and of every other embedding of no larger loss.

`certify` bounds the loss at a point from above and the loss of every feasible point from below, both in ball
arithmetic, and states what follows. Where no certificate is found, the solution may still be a global minimiser: see
`Proof`. The file that `Certificate.save` writes holds everything needed to prove each inequality again without this
package; `python -m solvers.check` does so.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property

import numpy as np
from flint import arb, ctx
from jaxtyping import Float, Int

from solvers.certification.balls import downwards, upwards
from solvers.certification.candidates import MOST_POLISHED_ENTRIES, SPREAD, polish, polished_points
from solvers.certification.certificate import Certificate, Proof, SecondOpinion, unproved
from solvers.certification.consequences import Edges, implied, may_imply, pair_weights
from solvers.certification.consequences_ufm import implied_ufm
from solvers.certification.constraints import largest_violation, smallest_dual_weight, smallest_weight
from solvers.certification.dual_bounds import LowerBound, elementary, frame_loss, laplacian, stationarity_bound
from solvers.certification.orbit_problem import OrbitProblem, Point, loss_and_gradient, loss_at, orthogonal_frame
from solvers.certification.relaxation import ConicSolution, conic_bounds, solve_relaxation
from solvers.certification.rounding import on_ball, snap
from solvers.progress import ProgressCallback, Stopped, followed
from ufm import InvalidInput, Problem, SharedRows, orbits, uniqueness
from ufm.errors import Embedding, real_array
from ufm.model.problem import PADDING
from ufm.settings import in_fixed_settings

TOLERANCE = 1e-4
COARSEST_TOLERANCE = 1e-2
FINEST_TOLERANCE = 1e-30  # the precision of the balls supports no finer one
SNAP_TOLERANCE = 1e-6
# A conic solver takes a second at 30 orbits and a minute at 60. Under UFM+ it gives a second opinion only.
MOST_ORBITS_FOR_AN_OPINION = 32
MOST_ORBITS_FOR_A_SOLVER = 64

# What a lower bound proves where an orthogonal frame does not fit (theory, 4.21).
FEW_COORDINATES = (
    "the lower bound is proved for every dimension, but it is not known whether any point in d = {d} dimensions "
    "attains it, nor whether this point is a minimiser there"
)

# Said where the bounds do not meet and the best bound was read off a point whose orbits split (theory, 4.22).
SPREADS = (
    "the lower bound was read off a point at which samples of an orbit differ and which may need more than d "
    "dimensions; a point with one row for each orbit need not attain it, and the gap bounds how far this point is from "
    "the best one in any dimension"
)


class Certifier:
    """The part of a certificate that depends on the problem only, so that many starts can share it.

    - lower_bound: the best rigorous lower bound. better: the best feasible point known, or None; it is the witness
      against worse points (UFM+ with d >= k: the orthogonal frame; UFM: the best polished point; see `consider`).
    - second_opinion: see `SecondOpinion`.
    """

    @in_fixed_settings
    def __init__(self, problem: Problem, *, conic: bool = True, tolerance: float = TOLERANCE) -> None:
        """conic: call Clarabel too, up to 32 orbits for UFM+ and 64 for UFM.

        Raises InvalidInput for a tolerance outside [1e-30, 1e-2].
        """
        if not FINEST_TOLERANCE <= tolerance <= COARSEST_TOLERANCE:
            fix = f"give a number from {FINEST_TOLERANCE} to {COARSEST_TOLERANCE}"
            raise InvalidInput("tolerance", tolerance, fix)
        self.tolerance = float(tolerance)
        self.samples_problem = problem
        self.orbits = orbits(problem)
        self.problem = OrbitProblem.of(self.orbits.quotient)
        self.samples_digest = hashlib.sha256(serialised_samples(problem)).hexdigest()
        self.better: Point | None = None
        self._matrix: LowerBound | None = None
        self.second_opinion: SecondOpinion | None = None
        if problem.loss.is_custom:
            self.lower_bound = LowerBound(-math.inf, "none", "a loss of your own")
            return
        with ctx.workprec(self.problem.bits):
            self._frame_loss = frame_loss(self.problem)
            self._smallest_weight = smallest_weight(self.problem) if self.problem.nonneg else None

        solution = None
        if (
            conic
            and problem.loss.is_convex
            and len(self.problem) <= (MOST_ORBITS_FOR_AN_OPINION if problem.nonneg else MOST_ORBITS_FOR_A_SOLVER)
        ):
            solution = solve_relaxation(self.problem)
        opinions = [] if solution is None else conic_bounds(self.problem, solution)
        self.second_opinion = _opinion(solution, opinions)
        self.better = orthogonal_frame(self.problem) if self.problem.d >= self.problem.k else None
        if self.problem.nonneg:
            self.lower_bound = laplacian(self.problem)  # the optimum of the relaxation: no other bound is better
        else:
            points, polished = polished_points(self.problem, solution)
            self._take_up(points)
            matrices = [*opinions, *polished]
            self.lower_bound = max([elementary(self.problem), *matrices], key=lambda bound: bound.value)
            self._matrix = max(matrices, key=lambda bound: bound.value, default=None)

    @in_fixed_settings
    def consider(self, embeddings: Iterable[Embedding | SharedRows]) -> None:
        """Compare other points of the problem with `better`, such as all starts of a solution: the best of all becomes
        `better`, and for UFM a lower bound is read off it. Changes nothing where an orthogonal frame is a minimiser."""
        if self.samples_problem.bound_is_attained or self.samples_problem.loss.is_custom:
            return
        points = []
        for H in embeddings:
            with suppress(InvalidInput):  # a point that is not finite is no witness
                points.append(snap(*self._rows(H), self.problem.nonneg)[0])
        known = self.better
        self._take_up(points)
        if self.better is known or self.better is None or self.problem.nonneg:
            return
        m, d = self.better.rows.shape
        if m * d <= MOST_POLISHED_ENTRIES:
            self._take_up([on_ball(polish(self.problem, self.better.placed()))])
        bound = stationarity_bound(self.problem, self.better)
        if bound is not None and bound.value > self.lower_bound.value:
            self.lower_bound = self._matrix = bound

    @cached_property
    def _pair_weights(self) -> tuple[Edges, Edges] | None:
        """Computed once for all starts; None where no consequences are derived from them."""
        with ctx.workprec(self.problem.bits):
            return pair_weights(self.problem) if may_imply(self.problem) else None

    def _take_up(self, points: Sequence[Point]) -> None:
        """Set `better` to the best of these points and of itself."""
        with ctx.workprec(self.problem.bits):
            known = [*([] if self.better is None else [self.better]), *points]
            if points:
                self.better = min(known, key=lambda point: float(loss_at(self.problem, point)))

    @in_fixed_settings
    def certify(self, H: Embedding | SharedRows, progress: ProgressCallback | None = None) -> Certificate:
        """The certificate of one H (n, d), one row for each sample. Raises InvalidInput unless H is finite and of
        that shape.

        Rows outside the feasible set are moved into it; `moved` includes that. The time does not depend on n if H is
        given as the rows that orbits share (`Solution.shared_rows`).
        progress: a callback for each of five parts; without one a terminal shows a bar after a moment. Ctrl-C raises
        `solvers.progress.Stopped`, which states what is proved so far.
        """
        rows, index, multiplicity = self._rows(H)
        point, moved = snap(rows, index, multiplicity, self.problem.nonneg)
        if self.problem.loss.is_custom:
            certificate = unproved(self.problem, point, moved, self.lower_bound, self.tolerance)
            return replace(certificate, samples_digest=self.samples_digest, embedding_digest=_embedding_digest(rows))
        known = {"lower": self.lower_bound.value}
        made: list[Certificate] = []

        def proved() -> str:
            upper = f", and the loss of this point is at most {known['upper']!r}" if "upper" in known else ""
            return f"proved so far: no feasible point has a loss below {known['lower']!r}{upper}"

        def parts() -> Iterator[tuple[None, float]]:
            with ctx.workprec(self.problem.bits):
                yield from self._parts(rows, point, moved, known, made)

        followed(lambda _: None, parts(), "certifying", 5, progress, proved)
        return made[0]

    def _parts(
        self, rows: np.ndarray, point: Point, moved: float, known: dict[str, float], made: list[Certificate]
    ) -> Iterator[tuple[None, float]]:
        """Make the certificate of a point part by part; `known` receives the bounds on the losses meanwhile."""
        value, margin = self._at(point)
        # This is far below the last bit of a double and far above the rounding of balls:
        # every claim survives sums in another order.
        upper = value + (1 + abs(value)) * arb(2) ** (64 - ctx.prec)
        known["upper"] = upwards(upper)
        yield None, 1
        bound = self.lower_bound
        lower = self._rigorous(bound)
        if not upper - lower <= margin and not self.problem.nonneg:
            at_point = stationarity_bound(self.problem, point)
            if at_point is not None and at_point.value > bound.value:
                bound, lower = at_point, self._rigorous(at_point)
        bound = self._implying(bound, upper, margin)
        lower = self._rigorous(bound)
        known["lower"] = downwards(lower)
        gap = max(upwards(upper - lower), 0.0)
        status, reason, witness = self._judge(value, arb(gap), margin, moved, point)
        yield None, 1
        weights = self._pair_weights if self.problem.nonneg else None
        yield None, 1
        if self.problem.nonneg:
            consequences = implied(self.problem, upper - self._frame_loss, weights)
        else:
            consequences = implied_ufm(self.problem, upper - lower, bound.dual)
        yield None, 1
        other = None if consequences is None or consequences.rigid else self.other_minimiser
        made.append(
            Certificate(
                status=status,
                reason=reason,
                upper=upwards(upper),
                lower=downwards(lower),
                gap=gap,
                theoretical=float(self._frame_loss) if self.problem.nonneg else None,
                tolerance=self.tolerance,
                implied=consequences,
                unique=True if consequences is not None and consequences.rigid else None if other is None else False,
                moved=moved,
                samples_digest=self.samples_digest,
                embedding_digest=_embedding_digest(rows),
                problem=self.problem,
                point=point,
                lower_bound=bound,
                witness=witness,
                other_minimiser=other,
                second_opinion=self.second_opinion,
                margin=downwards(margin),
            )
        )
        yield None, 1

    def states_of(self, H: Embedding | SharedRows, certificate: Certificate) -> bool:
        """Whether a certificate that `certify` returned is for this H (n, d) and this problem, by their digests.

        Raises InvalidInput for an H that `certify` refuses.
        """
        same_problem = certificate.samples_digest == self.samples_digest and not math.isnan(certificate.margin)
        return same_problem and certificate.embedding_digest == _embedding_digest(self._rows(H)[0])

    @cached_property
    @in_fixed_settings
    def other_minimiser(self) -> Point | None:
        """A minimiser whose Gram matrix is not the orthogonal frame's, if `ufm.uniqueness` gives one with one row for
        each orbit; else None."""
        several = self.samples_problem.is_expected or (np.asarray(self.samples_problem.multiplicity) != 1).any()
        if not self.samples_problem.bound_is_attained or several:
            return None
        H = uniqueness(self.samples_problem).counterexample
        rows = None if H is None else self.orbits.shared(np.asarray(H))
        return None if rows is None else on_ball(rows)

    def _rows(
        self, H: Embedding | SharedRows
    ) -> tuple[Float[np.ndarray, "r d"], Int[np.ndarray, " r"], Float[np.ndarray, " r"]]:
        """The rows of H, the orbit of each row and how many samples it stands for: one row for each orbit if its
        samples share one, else all n."""
        if isinstance(H, SharedRows):
            shape_of_H = (*H.index.shape, *H.rows.shape[1:])
        else:
            H = real_array("H", H, "give a real array (n, d)")
            shape_of_H = H.shape
        shape = (self.samples_problem.num_points, self.samples_problem.d)
        if shape_of_H != shape:
            raise InvalidInput("H", f"array of shape {shape_of_H}", f"give one row for each sample, shape {shape}")
        shared = self.orbits.shared(H)
        rows = real_array("H", H if shared is None else shared, "give a real array (n, d)")
        if not np.isfinite(rows).all():
            raise InvalidInput("H", "array with NaN or infinite entries", "give finite numbers")
        if np.abs(rows).max() > 1e100:
            raise InvalidInput("H", float(np.abs(rows).max()), "give rows of norm at most 1")
        if shared is None:
            return rows, self.orbits.index, np.asarray(self.samples_problem.multiplicity)
        return rows, np.arange(len(rows)), np.asarray(self.orbits.quotient.multiplicity)

    def _at(self, point: Point) -> tuple[arb, arb]:
        """The loss at a point, and the largest gap that certifies it."""
        if self.problem.nonneg:
            value, least = loss_at(self.problem, point), self._smallest_weight
        else:
            gram = point.gram()
            value, C = loss_and_gradient(self.problem, gram)
            least = smallest_dual_weight(self.problem, C, gram)
        return value, self.tolerance * (1e-8 * (1 + abs(self._frame_loss)) if least is None else least)

    def _implying(self, bound: LowerBound, upper: arb, margin: arb) -> LowerBound:
        """In place of a bound without a matrix, which has no consequences, one with a matrix, if the verdict stays."""
        if bound.dual is not None or self._matrix is None:
            return bound
        lower, below = self._rigorous(bound), self._rigorous(self._matrix)
        same = bool(upper - lower <= margin) == bool(upper - below <= margin)
        return self._matrix if same and lower - below <= margin else bound

    @staticmethod
    def _rigorous(bound: LowerBound) -> arb:
        """The ball of a bound, so that a gap is computed before rounding."""
        return arb(bound.value) if bound.ball is None else bound.ball

    def _judge(self, value: arb, gap: arb, margin: arb, moved: float, point: Point) -> tuple[Proof, str, Point | None]:
        if moved > SNAP_TOLERANCE:
            return (
                Proof.INCONCLUSIVE,
                f"H is {moved:.1e} away from the feasible point at its orbit means, and only that point is judged",
                None,
            )
        meet = bool(gap <= margin)
        broken = largest_violation(self.problem, point) if meet and self.problem.nonneg else 0.0
        meet_but = "the bounds do not meet"
        if meet:
            if arb(broken) ** 2 <= self.tolerance:
                return Proof.CERTIFIED, "the upper and the lower bound meet", None
            meet_but = f"the bounds meet, but a value that batches fix or tie in a chain may be missed by {broken:.1e}"
        if self.better is not None:
            below = value - loss_at(self.problem, self.better)
            if below > (0 if meet else margin):
                return Proof.NOT_CERTIFIED, "another feasible point has a lower loss", self.better
        if not (self.problem.nonneg or self.problem.loss.is_convex):
            return (
                Proof.INCONCLUSIVE,
                f"{meet_but}: the loss is not convex in the Gram matrix, so no dual gives a lower bound",
                None,
            )
        if self.problem.d < self.problem.k:
            return (
                Proof.INCONCLUSIVE,
                f"{meet_but}, and with d < k they need not meet: {FEW_COORDINATES.format(d=self.problem.d)}",
                None,
            )
        if self.lower_bound.source == SPREAD:
            return Proof.INCONCLUSIVE, f"{meet_but}: {SPREADS}", None
        return Proof.INCONCLUSIVE, f"{meet_but}, and no better point is known", None


@in_fixed_settings
def certify(
    H: Embedding | SharedRows,
    problem: Problem,
    *,
    tolerance: float = TOLERANCE,
    conic: bool = True,
    progress: ProgressCallback | None = None,
) -> Certificate:
    """Certify one H (n, d), as an array or as `ufm.SharedRows`. For many H of one problem make one `Certifier`.

    The time grows with the number of pairs of orbits that meet in a batch, k^2 in the full batch. For progress and
    Ctrl-C see `Certifier.certify`. Raises InvalidInput.
    """
    try:
        certifier = Certifier(problem, conic=conic, tolerance=tolerance)
    except KeyboardInterrupt:
        raise Stopped("certifying: stopped before a lower bound was proved; nothing is decided") from None
    return certifier.certify(H, progress)


def _embedding_digest(rows: Float[np.ndarray, "r d"]) -> str:
    return hashlib.sha256(np.ascontiguousarray(rows).data).hexdigest()


def _opinion(solution: ConicSolution | None, bounds: list[LowerBound]) -> SecondOpinion | None:
    if solution is None:
        return None
    best = max((bound.value for bound in bounds), default=-math.inf)
    return SecondOpinion(solution.solver, solution.status, solution.value, best, solution.seconds)


def serialised_samples(problem: Problem) -> bytes:
    """The problem over its samples as bytes, different for different problems; `samples_digest` is their sha256.

    A line "MODEL d TAU LOSS m batches", tau as an exact hexadecimal double, the loss as compact JSON without spaces;
    then, as little-endian 64-bit whole numbers, m labels, m multiplicities, and for every batch its size and its
    members in increasing order. For an expected loss, " expected" follows LOSS, and every batch is followed by the
    number of samples that it holds of each member and by its weight, a little-endian double; with two views
    " expected of two views" follows LOSS. Read from the front, every length comes before what it counts, so the
    problem can be read back and the map is injective. A batch is a set: padding and the order of its members do not
    matter; the order of the batches does.
    """
    batches = [np.sort(row[row != PADDING]) for row in np.asarray(problem.batches)]
    batches = [np.concatenate([[len(batch)], batch]) for batch in batches if len(batch)]
    if problem.is_expected:
        batches = [np.concatenate(both) for both in zip(batches, _composition(problem), strict=True)]
    model, tau = "UFM+" if problem.nonneg else "UFM", float(problem.tau).hex()
    loss = json.dumps(problem.loss.to_dict(), sort_keys=True, separators=(",", ":"))
    if problem.is_expected:
        loss += " expected of two views" if problem.views > 1 else " expected"
    head = f"{model} {problem.d} {tau} {loss} {problem.num_points} {len(batches)}\n".encode()
    columns = (np.asarray(problem.labels), np.asarray(problem.multiplicity), *batches)
    return head + b"".join(np.asarray(column).astype("<i8").tobytes() for column in columns)


def _composition(problem: Problem) -> list[Int[np.ndarray, " _"]]:
    """For each batch: its samples of each member, in increasing order of the members, and the bits of its weight."""
    rows = zip(*(np.asarray(of) for of in problem.all_batches), strict=True)
    return [
        np.concatenate(
            [held[np.argsort(batch)][-(batch != PADDING).sum() :].astype("<i8"), [np.float64(w).view("<i8")]]
        )
        for batch, held, w in rows
    ]
