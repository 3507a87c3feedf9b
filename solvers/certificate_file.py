"""The file format of certificates: JSON whose doubles are hexadecimal strings, written atomically."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from solvers.bounds import MatrixDual, OrbitProblem, Point
from solvers.files import write_atomically
from solvers.implications import Implied
from ufm import InvalidInput

if TYPE_CHECKING:
    from solvers.certificate import Certificate

FORMAT = "ufm-scl certificate 1"


def serialised(certificate: Certificate) -> bytes:
    """The content of its file."""
    content = _content(certificate)
    content["checksum"] = checksum(content)
    return (json.dumps(content, separators=(",", ":")) + "\n").encode()


def write(certificate: Certificate, path: Path) -> None:
    """Write to a file beside `path`, then rename: readers see the old file or the new one, never half of one."""
    write_atomically(path, serialised(certificate))


def read(path: Path) -> Certificate:
    """Parse a certificate. Raises InvalidInput if the file is not one or its checksum does not hold."""
    try:
        content = json.loads(path.read_bytes())
        stated = content.pop("checksum")
        if content["format"] != FORMAT or stated != checksum(content):
            raise ValueError("wrong format or checksum")
        return _certificate(content)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise InvalidInput("path", str(path), f"not a readable certificate ({type(error).__name__})") from None


def checksum(content: dict[str, Any]) -> str:
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
            },
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
    from solvers.certificate import Certificate, LowerBound, SecondOpinion, Status

    problem, claims = content["problem"], content["claims"]
    implied = claims["implied"]
    opinion = content["second_opinion"]
    return Certificate(
        status=Status(claims["status"]),
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
