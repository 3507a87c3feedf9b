"""What is measured of a problem solved from many starts: cells of the sweeps and of the gallery are computed here."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from experiments.harness.cells import Computed, ProgressCallback, certificate_file
from solvers.certification.certificate import Certificate, Proof
from solvers.certification.certifier import Certifier
from solvers.certification.verification import Verdict, Verification, Verifier
from solvers.loop.method import Record
from solvers.multistart import solve, solve_each
from solvers.parallel.padding import Shape
from solvers.solution import Solution, histories
from ufm import Problem, loss_bound, uniqueness
from ufm.model.geometry import class_means


def measure_problem(
    problem: Problem, *, name: str, inits: int, seed: int, method: str, progress: ProgressCallback
) -> Computed:
    """Everything measured on one problem, over the dimensions init, class, record; and the starts' certificates.

    A start that cannot be certified is a result, never an error. name: of the cell.
    """
    solution = solve(problem, inits, seed, method, progress=progress)
    began = time.perf_counter()
    certifier = Certifier(problem)
    certifier.consider(solution.shared_rows(start) for start in range(inits))
    verifier = Verifier(problem, certifier=certifier)
    proofs = [certifier.certify(solution.shared_rows(start)) for start in range(inits)]
    files = {certificate_file(name, start): proof.serialised() for start, proof in enumerate(proofs)}
    verifications = [verifier.verify(solution.embedding(start), proof) for start, proof in enumerate(proofs)]
    certifying = time.perf_counter() - began
    of_starts = _of_starts(solution, verifications, proofs)
    data: dict[str, Any] = {column: ("init", np.asarray(values)) for column, values in of_starts.items()}
    samples = np.asarray(problem.labels), np.asarray(problem.multiplicity)
    means = np.stack([class_means(solution.embedding(start), *samples) for start in range(inits)])
    data["gram"] = (("init", "class", "class_"), np.stack([result.metrics.gram for result in verifications]))
    data["class_means"] = (("init", "class", "coordinate"), means)
    data |= _of_problem(problem, solution.history)
    seconds = {"compile": solution.timings.compile, "solve": solution.timings.solve, "certify": certifying}
    bound = float(loss_bound(certifier.orbits.quotient))  # of one shape whatever n is
    parameters = {"inits": inits, "seed": seed, "method": method, "loss_bound": bound}
    return xr.Dataset(
        data, attrs=_attrs(problem, seconds, **parameters, lower_bound=max(p.lower for p in proofs))
    ), files


def measure_families(
    problems: Sequence[Problem],
    *,
    name: str,
    inits: int,
    seeds: Sequence[int],
    shape: Shape,
    progress: ProgressCallback,
) -> Computed:
    """Everything measured on batch families, over the dimension init (family after family); and the certificates of
    all starts and of all other minimisers that theory names.

    name: of the cell. seeds: one a family. shape: what its orbit problem is padded to.
    """
    solutions = solve_each(problems, inits, seeds, shape=shape, progress=progress)
    began = time.perf_counter()
    columns: dict[str, list[Any]] = {}
    files: dict[str, bytes] = {}
    for p, solution in enumerate(solutions):
        of_starts, proofs = _measure_family(solution, p, shape)
        files |= {certificate_file(name, which, p): proof.serialised() for which, proof in proofs.items()}
        for column, values in of_starts.items():
            columns.setdefault(column, []).extend(values)
    data: dict[str, Any] = {column: ("init", np.asarray(values)) for column, values in columns.items()}
    data |= _of_problem(problems[0], [record for solution in solutions for record in solution.history])
    seconds = {
        "compile": sum(solution.timings.compile for solution in solutions),
        "solve": sum(solution.timings.solve for solution in solutions),
        "certify": time.perf_counter() - began,
    }
    parameters = {"batches": len(problems[0].batches), "partitions": len(problems), "inits": inits}
    return xr.Dataset(data, attrs=_attrs(problems[0], seconds, **parameters)), files


def _measure_family(
    solution: Solution, p: int, shape: Shape
) -> tuple[dict[str, Sequence[Any] | np.ndarray], dict[int | str, Certificate]]:
    """What is measured of every start of family p, by name; and certificates, of the other minimiser as well."""
    problem, inits = solution.problem, len(solution.status)
    starts = [solution.embedding(start) for start in range(inits)]
    certifier = Certifier(problem, conic=False)
    certifier.consider(starts)
    verifier = Verifier(problem, shape, certifier=certifier)
    proofs: dict[int | str, Certificate] = {start: certifier.certify(H) for start, H in enumerate(starts)}
    verifications = [verifier.verify(H, proofs[start]) for start, H in enumerate(starts)]
    predicted, refuted = uniqueness(problem), None
    of_starts = _of_starts(solution, verifications, list(proofs.values()))
    lower = [proof.lower for proof in proofs.values()]
    if predicted.counterexample is not None:
        other = np.asarray(predicted.counterexample)
        proof = proofs["counterexample"] = certifier.certify(other)
        refuted = proof.status is Proof.CERTIFIED and not verifier.verify(other, proof).is_orthogonal_frame
    once = {
        "partition": p,
        "unique": str(predicted.unique),
        "plain_claim": predicted.graph.plain_claims_unique,
        "counterexample_certified": str(refuted),
        "reason": predicted.reason,
        "loss_bound": float(loss_bound(problem)),
    }
    repeated = {column: [value] * inits for column, value in once.items()}
    return {**repeated, "start": range(inits), "lower_bound": lower, **of_starts}, proofs


def _of_starts(
    solution: Solution, verifications: Sequence[Verification], proofs: Sequence[Certificate]
) -> dict[str, Sequence[Any] | np.ndarray]:
    """What is measured of every start of one solution, by name."""
    metrics = ("delta_gm", "beta_nc", "trace_sw", "mean_cosine", "max_cosine")
    return {
        "status": [str(status) for status in solution.status],
        "verdict": [str(result.verdict) for result in verifications],
        "certified": [proof.status is Proof.CERTIFIED for proof in proofs],
        "orthogonal_frame": [result.is_orthogonal_frame for result in verifications],
        "excess": solution.excess,
        "gap": [proof.gap for proof in proofs],
        **{name: [float(getattr(result.metrics, name)) for result in verifications] for name in metrics},
        "residual": solution.residual,
        "iterations": solution.iterations,
        "lifts": solution.lifts,
        "moved": solution.moved,
        "evidence": [describe(result) for result in verifications],
    }


# Pairs of classes under STEP imbalance.
KINDS = ("majority", "between", "minority")


def cosines_by_kind(gram: Float[np.ndarray, "k k"]) -> list[float]:
    """Mean cosine over pairs of two majorities, of one of each, of two minorities (STEP imbalance), of class means."""
    norms = np.sqrt(np.diagonal(gram))
    cosine = gram / np.outer(norms, norms)
    many = (len(gram) + 1) // 2
    few = len(gram) - many
    return [
        float((cosine[:many, :many].sum() - many) / (many * (many - 1))),
        float(cosine[:many, many:].mean()),
        float((cosine[many:, many:].sum() - few) / (few * (few - 1))),
    ]


def _of_problem(problem: Problem, history: Sequence[Record]) -> dict[str, Any]:
    """The class sizes, and what was recorded of every start."""
    records = {f"history_{name}": (("init", "record"), values) for name, values in histories(history).items()}
    return {**records, "class_sizes": ("class", np.asarray(problem.class_sizes).astype(np.int64))}


def _attrs(problem: Problem, seconds: Mapping[str, float], **parameters: Any) -> dict[str, Any]:
    argument = {"k": problem.k, "d": problem.d, "tau": float(problem.tau), "n": problem.num_samples}
    spent = {f"seconds_{name}": value for name, value in seconds.items()}
    return {**argument, "nonneg": int(problem.nonneg), **parameters, **spent}


def describe(verification: Verification) -> str:
    """What a start looks like, in a phrase: empty for an orthogonal frame that is a global minimiser.

    For others that are feasible and stationary it names what misses an orthogonal frame by most.
    """
    if verification.verdict is Verdict.GLOBAL_MINIMISER and verification.is_orthogonal_frame:
        return ""
    unfit = (Verdict.NOT_CONVERGED, Verdict.INFEASIBLE, Verdict.NOT_FINITE)
    if verification.verdict in unfit or verification.is_orthogonal_frame:
        return verification.reason
    across, within, norm = verification.across, verification.within, verification.norm
    worst = max(abs(across.value), within.value, abs(norm.value - 1))
    if abs(norm.value - 1) == worst:
        return f"a sample of class {norm.classes[0]} has norm {norm.value:.2g}"
    if within.value == worst:
        return f"two samples of class {within.classes[0]} are {within.value:.2g} apart"
    return f"samples of classes {min(across.classes)} and {max(across.classes)} have cosine {across.value:.2g}"
