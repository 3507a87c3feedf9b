"""What a certificate states, and its file, which `python -m solvers.check` proves again without this package."""

from __future__ import annotations

import enum
import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from flint import arb
from jaxtyping import Float

from solvers.certification.balls import upwards
from solvers.certification.consequences import Implied
from solvers.certification.constraints import is_constrained
from solvers.certification.dual_bounds import LowerBound, MatrixDual
from solvers.certification.orbit_problem import OrbitProblem, Point
from solvers.files import write_atomically
from ufm import InvalidInput
from ufm.display import Readable, Summary, cosines_of_class_means, count
from ufm.losses import Loss

FORMAT = "ufm-scl certificate 3"
_MINIMISERS = {
    True: "all have the same Gram matrix",
    False: "have several Gram matrices",
    None: "whether their Gram matrix is unique is not decided",
}


class Proof(enum.StrEnum):
    """What a certificate proves of the certified point, which is H with every orbit moved to its mean.

    - CERTIFIED: the point is a global minimiser to the accuracy of three conditions. (1) In ball arithmetic
      upper - lower <= tolerance times the smallest constraint weight, the least that breaking one pair or tie costs
      (`solvers.certification.constraints`). (2) UFM+: every value that batches fix or tie, directly or in chains
      (theory, 3.17), between any two samples that they reach, is met up to the square root of the tolerance.
      (3) H lies within 1e-6 of the certified point.
    - NOT_CERTIFIED: the point is not a global minimiser. The certificate holds another feasible point whose loss is
      lower, in ball arithmetic, by more than the margin of (1), or by less where (1) holds and only a chain of (2)
      is not proved.
    - INCONCLUSIVE: neither was proved. This says nothing about the point itself. Typical reasons: d < k, where the
      relaxation need not be tight; H has not collapsed and is therefore far from its orbit means; H has not converged
      and the model offers no better point.
    """

    CERTIFIED = "certified"
    NOT_CERTIFIED = "not certified"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class SecondOpinion:
    """What a conic solver reports for the same relaxation. It informs and proves nothing.

    - solver, status, value: the solver's name, its status, and the optimal loss it reports (not a bound).
    - repaired: the rigorous lower bound obtained from its dual (-inf if there is none).
    - seconds: wall time.
    """

    solver: str
    status: str
    value: float
    repaired: float
    seconds: float


@dataclass(frozen=True, repr=False)
class Certificate(Readable):
    """A certified statement about one H (n, d). The checker can prove it again from the file alone.

    Losses are sums over batches and active anchors at the problem's tau (theory, 1.1), never means.

    - status, reason: see `Proof`; the reason is a sentence.
    - upper: the loss at the certified point is at most this. lower: the loss of every feasible point is at least this.
    - gap: an upper bound on upper - lower, computed in ball arithmetic before rounding.
    - theoretical: the loss of an orthogonal frame, the optimum of UFM+ for d >= k; None for UFM.
    - tolerance: see `Proof`.
    - implied: see `Implied`: what the gap implies of every point of no larger loss than the certified one; None where
      nothing is derived (UFM: other batches than the full one; UFM+: too many pairs). See `cosine_bounds`.
    - unique: True if it is proved that all minimisers have the same Gram matrix. False if it is proved that they do
      not: `other_minimiser` is a minimiser with another Gram matrix than the orthogonal frame. None if neither is
      claimed.
    - moved: the largest distance of a row of H from the certified point. It is measured, not proved.
    - samples_digest: sha256 of the problem over its samples (`solvers.certification.certifier.serialised_samples`),
      the file's only link to the user's data. embedding_digest: sha256 of H: of one row for each orbit if the samples
      of every orbit share a row, else of all rows.
    - problem, point, lower_bound, witness: what the inequalities are about; witness is the better point
      of NOT_CERTIFIED.
    - second_opinion: see `SecondOpinion`; None if no conic solver was called.
    - margin: the largest gap that certifies. It is known only right after `certify`; files do not hold it.
    """

    status: Proof
    reason: str
    upper: float
    lower: float
    gap: float
    theoretical: float | None
    tolerance: float
    implied: Implied | None
    unique: bool | None
    moved: float
    samples_digest: str
    embedding_digest: str
    problem: OrbitProblem
    point: Point
    lower_bound: LowerBound
    witness: Point | None
    other_minimiser: Point | None
    second_opinion: SecondOpinion | None
    margin: float = field(default=math.nan, compare=False)

    def summary(self) -> Summary:
        """The statements in words, and the class-mean cosines of the certified point."""
        problem = self.problem
        name = "" if problem.loss.is_plain else f", {problem.loss.name}"
        model = f"{problem.model}{name}, k = {problem.k}, d = {problem.d}"
        batches = count("batch", len(problem.batches))
        lines = {
            "reason": self.reason,
            "problem": f"{model}, tau = {problem.tau!r}, n = {sum(problem.sizes)}, {batches}",
            "loss": f"at most {self.upper!r} at the certified point, at least {self.lower!r} everywhere",
            "gap": f"at most {self.gap:.3g} (tolerance: {self.tolerance:g} of {self._scale})",
            "lower bound": self._bound_in_words(),
            "minimisers": _MINIMISERS[self.unique],
            "moved": f"H is {self.moved:.3g} away from the certified point",
            "check": "call certificate.save(path), then run: ufm-check path",
        }
        rows, sizes = self.point.placed(), np.array(problem.sizes, float)
        gram = cosines_of_class_means(rows, np.array(problem.classes), sizes)
        return Summary(f"Certificate: {self.status}", lines, gram)

    @property
    def _scale(self) -> str:
        """What the tolerance is relative to, in words."""
        if is_constrained(self.problem):
            return "the smallest constraint weight"
        return "1e-8 (1 + the loss of an orthogonal frame), as nothing is constrained"

    def _bound_in_words(self) -> str:
        """Where the lower bound comes from."""
        if self.lower_bound.kind == "laplacian":
            return "the loss of an orthogonal frame, by a graph-Laplacian dual"
        if self.lower_bound.kind == "matrix":
            return f"by a matrix dual, from the {self.lower_bound.source}"
        if self.lower_bound.kind == "elementary":
            return "elementary: every cosine is at least -1"
        return "none: a loss of your own has no proved bound"

    def cosine_bounds(
        self, *, no_larger_loss: bool = False
    ) -> tuple[Float[np.ndarray, "k k"], Float[np.ndarray, "k k"]]:
        """Proved least and largest cosines of every two class means: two arrays (k, k), with 1 on the diagonals.

        They hold for all global minimisers of the problem, also where the certified point is not one of them. Under
        UFM+ with `unique` True every minimiser has the Gram matrix of an orthogonal frame, so both arrays are exactly
        0 off the diagonal.

        no_larger_loss: bounds for every feasible point whose loss is at most that of the certified point, global
        minimisers among them. These are `implied` (UFM+: theory, 2.10; UFM: 4.14 and 4.17); the least cosine is 0
        under UFM+, whose entries are nonnegative.

        Where `implied` is None only the trivial bounds hold: -1 (UFM+: 0) and 1.
        """
        k, nonneg, implied = self.problem.k, self.problem.nonneg, self.implied
        least, largest = np.full((k, k), 0.0 if nonneg else -1.0), np.ones((k, k))
        if nonneg and self.unique is True and not no_larger_loss:
            largest = np.zeros((k, k))
        elif implied is not None:
            largest = np.array(implied.cosine)
            if implied.least_cosine is not None:
                least = np.array(implied.least_cosine)
        np.fill_diagonal(least, 1.0)
        np.fill_diagonal(largest, 1.0)
        return np.maximum(least, least.T), np.minimum(largest, largest.T)

    @property
    def relative_gap(self) -> float:
        """An upper bound on gap / lower, the gap relative to the loss; inf if lower is not positive."""
        return upwards(arb(self.gap) / arb(self.lower)) if self.lower > 0 else math.inf

    def serialised(self) -> bytes:
        """The content of its file: JSON with doubles as hexadecimal strings, so that they are read back exactly."""
        content = _content(self)
        content["checksum"] = _checksum(content)
        return (json.dumps(content, separators=(",", ":")) + "\n").encode()

    def save(self, path: str | Path) -> None:
        """Write `serialised` in one atomic step: readers see the old file or the new one, never a part of it."""
        write_atomically(Path(path), self.serialised())

    @classmethod
    def load(cls, path: str | Path) -> Certificate:
        """Read what `save` wrote, without proving it again. Raises InvalidInput if the file is not a certificate."""
        try:
            content = json.loads(Path(path).read_bytes())
            stated = content.pop("checksum")
            if content["format"] != FORMAT or stated != _checksum(content):
                raise ValueError("wrong format or checksum")
            return _certificate(content)
        except InvalidInput as bad:
            raise InvalidInput("path", str(path), f"not a readable certificate: {bad}") from None
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            raise InvalidInput("path", str(path), f"not a readable certificate ({type(error).__name__})") from None


def unproved(
    problem: OrbitProblem, point: Point, moved: float, lower_bound: LowerBound, tolerance: float
) -> Certificate:
    """The certificate for a custom loss: no bound from either side, and the reason. It has no digests."""
    loss = problem.loss
    trusted = "; its bound, the loss of an orthogonal frame, is taken on trust" if loss.minimal_at_frames else ""
    return Certificate(
        status=Proof.INCONCLUSIVE,
        reason=f"{loss.name} is a loss of your own: it is code, so ball arithmetic cannot bound its values, and "
        f"whether it is convex in the Gram matrix is not known{trusted}",
        upper=math.inf,
        lower=-math.inf,
        gap=math.inf,
        theoretical=None,
        tolerance=tolerance,
        implied=None,
        unique=None,
        moved=moved,
        samples_digest="",
        embedding_digest="",
        problem=problem,
        point=point,
        lower_bound=lower_bound,
        witness=None,
        other_minimiser=None,
        second_opinion=None,
        margin=0.0,
    )


def _checksum(content: dict[str, Any]) -> str:
    """sha256 of the content without its checksum, as compact JSON with sorted keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _content(certificate: Certificate) -> dict[str, Any]:
    problem, bound, implied = certificate.problem, certificate.lower_bound, certificate.implied
    opinion = certificate.second_opinion
    return {
        "format": FORMAT,
        "problem": problem.describe() | {"digest": problem.digest(), "samples_digest": certificate.samples_digest},
        "point": _point_content(certificate.point)
        | {"embedding_digest": certificate.embedding_digest, "moved": _hex(certificate.moved)},
        "lower_bound": {"kind": bound.kind, "source": bound.source, "value": _hex(bound.value)}
        | ({} if bound.dual is None else _dual_content(bound.dual)),
        **{
            name: None if point is None else _point_content(point)
            for name, point in (("witness", certificate.witness), ("other_minimiser", certificate.other_minimiser))
        },
        "claims": {
            "status": str(certificate.status),
            "reason": certificate.reason,
            "upper": _hex(certificate.upper),
            "lower": _hex(certificate.lower),
            "gap": _hex(certificate.gap),
            "theoretical": None if certificate.theoretical is None else _hex(certificate.theoretical),
            "tolerance": _hex(certificate.tolerance),
            "unique": certificate.unique,
            "implied": None
            if implied is None
            else {
                "cosine": [_hexes(row) for row in implied.cosine],
                "spread": _hexes(implied.spread),
                "norm": _hexes(implied.norm),
            }
            | ({} if implied.tie is None else {"tie": _hexes(implied.tie)})
            | ({} if implied.least_cosine is None else {"least_cosine": [_hexes(row) for row in implied.least_cosine]}),
        },
        "second_opinion": None
        if opinion is None
        else {
            "solver": opinion.solver,
            "status": opinion.status,
            "value": _hex(opinion.value),
            "repaired": _hex(opinion.repaired),
            "seconds": _hex(opinion.seconds),
        },
    }


def _certificate(content: dict[str, Any]) -> Certificate:
    problem, claims = content["problem"], content["claims"]
    implied = claims["implied"]
    opinion = content["second_opinion"]
    return Certificate(
        status=Proof(claims["status"]),
        reason=claims["reason"],
        upper=_double(claims["upper"]),
        lower=_double(claims["lower"]),
        gap=_double(claims["gap"]),
        theoretical=None if claims["theoretical"] is None else _double(claims["theoretical"]),
        tolerance=_double(claims["tolerance"]),
        implied=None
        if implied is None
        else Implied(
            cosine=tuple(tuple(map(_double, row)) for row in implied["cosine"]),
            spread=tuple(map(_double, implied["spread"])),
            norm=tuple(map(_double, implied["norm"])),
            rigid=claims["unique"] is True,
            tie=tuple(map(_double, implied["tie"])) if "tie" in implied else None,
            least_cosine=tuple(tuple(map(_double, row)) for row in implied["least_cosine"])
            if "least_cosine" in implied
            else None,
        ),
        unique=claims["unique"],
        moved=_double(content["point"]["moved"]),
        samples_digest=problem["samples_digest"],
        embedding_digest=content["point"]["embedding_digest"],
        problem=OrbitProblem(
            classes=tuple(problem["classes"]),
            sizes=tuple(problem["sizes"]),
            batches=tuple(map(tuple, problem["batches"])),
            tau=_double(problem["tau"]),
            d=problem["d"],
            nonneg=problem["model"] == "UFM+",
            loss=Loss.of_description(problem["loss"]),
            held=tuple(map(tuple, problem["counts"])) if "counts" in problem else None,
            weights=tuple(map(_double, problem["weights"])) if "counts" in problem else None,
            views=problem.get("views", 1),
        ),
        point=_point(content["point"]),
        lower_bound=LowerBound(**_bound_fields(content["lower_bound"])),
        witness=None if content["witness"] is None else _point(content["witness"]),
        other_minimiser=None if content["other_minimiser"] is None else _point(content["other_minimiser"]),
        second_opinion=None
        if opinion is None
        else SecondOpinion(
            opinion["solver"],
            opinion["status"],
            _double(opinion["value"]),
            _double(opinion["repaired"]),
            _double(opinion["seconds"]),
        ),
    )


def _bound_fields(content: dict[str, Any]) -> dict[str, Any]:
    dual = None
    if content["kind"] == "matrix":
        v = np.array(list(map(_double, content["v"])))
        dual = MatrixDual(content["source"], _symmetric(content["gram"]), v, _symmetric(content["N"]))
    return {"value": _double(content["value"]), "kind": content["kind"], "source": content["source"], "dual": dual}


def _point_content(point: Point) -> dict[str, Any]:
    return {"rows": [_hexes(row) for row in point.rows.tolist()], "norms": _hexes(point.norms.tolist())}


def _dual_content(dual: MatrixDual) -> dict[str, Any]:
    """Symmetric matrices as their lower triangles, row by row."""
    lower = {
        name: [_hexes(row[: a + 1]) for a, row in enumerate(matrix.tolist())]
        for name, matrix in (("gram", dual.gram), ("N", dual.N))
    }
    return lower | {"v": _hexes(dual.v.tolist())}


def _point(content: dict[str, Any]) -> Point:
    rows = np.array([list(map(_double, row)) for row in content["rows"]])
    return Point(rows, np.array(list(map(_double, content["norms"]))))


def _symmetric(lower: list[list[str]]) -> np.ndarray:
    matrix = np.zeros((len(lower), len(lower)))
    for a, row in enumerate(lower):
        matrix[a, : a + 1] = list(map(_double, row))
    return matrix + np.tril(matrix, -1).T


def _hex(value: float) -> str:
    return float(value).hex() if math.isfinite(value) else str(float(value))


def _hexes(values: Iterable[float]) -> list[str]:
    return [_hex(value) for value in values]


def _double(text: str) -> float:
    return float.fromhex(text)
