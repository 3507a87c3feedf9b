"""A certificate: what it states, and its file, which `python -m solvers.check` proves again without this package."""

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


class Proof(enum.StrEnum):
    """What a certificate proves of the certified point (the given H with every orbit at its mean).

    - CERTIFIED: upper - lower <= tolerance times the least that breaking one pair or tie costs
      (`solvers.certification.constraints`) in balls; UFM+: no value that batches fix or tie, directly or in chains
      (theory, 3.17), between any two samples that they reach, is missed by more than the root of tolerance; and H lies
      within 1e-6 of the certified point: a global minimiser to that accuracy.
    - NOT_CERTIFIED: not a global minimiser. The certificate holds another feasible point whose loss is
      lower, in ball arithmetic, by more than that margin; by less where only a chain is not proved kept.
    - INCONCLUSIVE: neither was proved; of the point itself this says nothing. Typical reasons: d < k, where
      the relaxation need not be tight; H not collapsed, hence far from its orbit means; H not yet converged
      in a model without a better point at hand.
    """

    CERTIFIED = "certified"
    NOT_CERTIFIED = "not certified"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class SecondOpinion:
    """What a conic solver says of the same relaxation. Informs; proves nothing.

    - solver, status, value: its name, its own word, the optimal loss it reports (not a bound).
    - repaired: the rigorous lower bound got from its dual (-inf if none).
    - seconds: wall time.
    """

    solver: str
    status: str
    value: float
    repaired: float
    seconds: float


@dataclass(frozen=True, repr=False)
class Certificate(Readable):
    """A certified statement about one H (n, d), which the checker can redo from the file alone.

    Losses are sums over batches and active anchors at the problem's tau (theory, 1.1), never means.

    - status, reason: see `Proof`; the reason is a sentence.
    - upper: the loss at the certified point is at most this. lower: no feasible point has less.
    - gap: at least upper - lower, taken in ball arithmetic before rounding.
    - theoretical: the loss of an orthogonal frame, the optimum of UFM+ for d >= k; None for UFM.
    - tolerance: see `Proof`.
    - implied: what the gap before rounding implies of every point of no larger loss than the certified one; for UFM in
      the full batch only (`solvers.certification.consequences_ufm`).
    - unique: True if it is proved that all minimisers have the same Gram matrix, False if that they have not
      (`other_minimiser` is one beside the orthogonal frame); None if neither is claimed.
    - moved: largest distance of a row of H from the certified point. Measured, not proved.
    - samples_digest: sha256 of the problem over its samples (`solvers.certification.certifier.serialised_samples`):
      the file's only link to the user's data. embedding_digest: sha256 of H, of the rows of its orbits if the
      samples of every orbit share a row, else of all rows.
    - problem, point, lower_bound, witness: what the inequalities are about; witness is the better point
      of NOT_CERTIFIED.
    - second_opinion: see `SecondOpinion`; None if no conic solver was asked.
    - margin: the largest gap that certifies, where it was just computed; not kept in files.
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
        """What is stated, in the checker's words, and what it implies of all minimisers."""
        problem = self.problem
        name = "" if problem.loss.is_plain else f", {problem.loss.name}"
        model = f"{problem.model}{name}, k = {problem.k}, d = {problem.d}"
        batches = count("batch", len(problem.batches))
        several = {True: "one Gram matrix", False: "several Gram matrices", None: "not decided"}[self.unique]
        lines = {
            "reason": self.reason,
            "problem": f"{model}, tau = {problem.tau!r}, n = {sum(problem.sizes)}, {batches}",
            "loss": f"at most {self.upper!r} at the certified point, at least {self.lower!r} everywhere",
            "gap": f"at most {self.gap:.3g}; {self.tolerance:g} of {self._scale} is allowed",
            "bound": f"{self.lower_bound.kind}, {self.lower_bound.source}",
            "minimisers": several,
            "moved": f"{self.moved:.3g} from H to the certified point",
            "check": "certificate.save(path), then: ufm-check path",
        }
        rows, sizes = self.point.placed(), np.array(problem.sizes, float)
        gram = cosines_of_class_means(rows, np.array(problem.classes), sizes)
        return Summary(f"Certificate: {self.status}", lines, gram)

    @property
    def _scale(self) -> str:
        """What the tolerance is a share of, in words."""
        priced = is_constrained(self.problem)
        return "what a broken constraint costs" if priced else "1e-8 (1 + a frame's loss), as nothing is constrained,"

    @property
    def relative_gap(self) -> float:
        """At least gap / lower, a share of the whole loss; inf if lower is not above 0."""
        return upwards(arb(self.gap) / arb(self.lower)) if self.lower > 0 else math.inf

    def serialised(self) -> bytes:
        """The content of its file: JSON, doubles as hexadecimal strings so that they are read back exactly."""
        content = _content(self)
        content["checksum"] = _checksum(content)
        return (json.dumps(content, separators=(",", ":")) + "\n").encode()

    def save(self, path: str | Path) -> None:
        """Write `serialised` in one atomic step: readers see the old file or the new one, never half of one."""
        write_atomically(Path(path), self.serialised())

    @classmethod
    def load(cls, path: str | Path) -> Certificate:
        """Read what `save` wrote, without proving it again. Raises InvalidInput if it is not a certificate."""
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
    """Of a loss of one's own: no bound, from either side, and why; without digests."""
    loss = problem.loss
    trusted = ", and its bound, what frames pay, is taken on trust" if loss.minimal_at_frames else ""
    return Certificate(
        status=Proof.INCONCLUSIVE,
        reason=f"{loss.name} is a loss of your own: code, of which ball arithmetic knows neither its values nor "
        f"whether it is convex in the Gram matrix{trusted}",
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
    """Symmetric matrices by their lower triangles, row after row."""
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
