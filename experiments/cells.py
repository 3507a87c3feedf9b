"""One cell of a sweep: solve a problem from many starts, verify and certify each, keep everything measured."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from solvers.certification.certificate import Certificate, Proof
from solvers.certification.certifier import Certifier
from solvers.descent.method import Record
from solvers.descent.status import Status
from solvers.multistart import Solution, solve
from solvers.verification import Verdict, Verification, Verifier
from ufm import Problem, loss_bound


def run_cell(
    problem: Problem,
    *,
    inits: int,
    seed: int,
    method: str,
    certificate: Callable[[int], Path],
    progress: Callable[[int], None],
) -> xr.Dataset:
    """Everything measured on one problem, as a dataset over the dimensions init, class, record.

    `certificate` says where to save the certificate of a start. A start that cannot be certified is
    a result, never an error.
    """
    solution = solve(problem, inits, seed, method, progress=progress)
    began = time.perf_counter()
    certifier = Certifier(problem)
    certifier.consider(solution.shared_rows(start) for start in range(inits))
    verifier = Verifier(problem, certifier=certifier)
    verifications, certificates = [], []
    for start in range(inits):
        certificates.append(certifier.certify(solution.shared_rows(start)))
        certificates[-1].save(certificate(start))
        verifications.append(verifier.verify(solution.embedding(start), certificates[-1]))
    certifying = time.perf_counter() - began
    metrics = [verification.metrics for verification in verifications]
    means = np.stack([_class_means(solution.embedding(start), problem) for start in range(inits)])
    data: dict[str, tuple[str | tuple[str, ...], np.ndarray]] = {
        name: ("init", np.asarray(values))
        for name, values in measured_of_starts(solution, verifications, certificates).items()
    }
    data["gram"] = (("init", "class", "class_"), np.stack([metric.gram for metric in metrics]))
    data["class_means"] = (("init", "class", "coordinate"), means)
    data["class_sizes"] = ("class", np.asarray(problem.class_sizes).astype(np.int64))
    for name, values in histories(solution.history).items():
        data[f"history_{name}"] = (("init", "record"), values)
    return xr.Dataset(
        data,
        attrs={
            "k": problem.k,
            "d": problem.d,
            "tau": float(problem.tau),
            "n": problem.num_samples,
            "nonneg": int(problem.nonneg),
            "inits": inits,
            "seed": seed,
            "method": method,
            "loss_bound": float(loss_bound(problem)),
            "lower_bound": max(proof.lower for proof in certificates),
            "seconds_compile": solution.timings.compile,
            "seconds_solve": solution.timings.solve,
            "seconds_certify": certifying,
        },
    )


def measured_of_starts(
    solution: Solution, verifications: Sequence[Verification], certificates: Sequence[Certificate]
) -> dict[str, Sequence[Any] | np.ndarray]:
    """What is measured of every start of one solution, by name."""
    metrics = [verification.metrics for verification in verifications]
    return {
        "status": [str(status) for status in solution.status],
        "verdict": [str(verification.verdict) for verification in verifications],
        "certified": [proof.status is Proof.CERTIFIED for proof in certificates],
        "orthogonal_frame": [verification.is_orthogonal_frame for verification in verifications],
        "excess": solution.excess,
        "gap": [proof.gap for proof in certificates],
        "delta_gm": [float(metric.delta_gm) for metric in metrics],
        "beta_nc": [float(metric.beta_nc) for metric in metrics],
        "trace_sw": [float(metric.trace_sw) for metric in metrics],
        "mean_cosine": [float(metric.mean_cosine) for metric in metrics],
        "max_cosine": [float(metric.max_cosine) for metric in metrics],
        "residual": solution.residual,
        "iterations": solution.iterations,
        "lifts": solution.lifts,
        "moved": solution.moved,
        "evidence": [describe(verification) for verification in verifications],
    }


def with_certificates(
    run: Callable[..., xr.Dataset], names: Sequence[str], **arguments: Any
) -> tuple[xr.Dataset, dict[str, bytes]]:
    """What `run` (such as `run_cell`) returns, and what it saves: certificate s as the content of a file names[s].

    Nothing else is written, so that a cell can be computed on any machine and stored on one.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.json" for number in range(len(names))]
        cell = run(certificate=paths.__getitem__, **arguments)
        return cell, {name: path.read_bytes() for name, path in zip(names, paths, strict=True)}


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


def converged(cell: xr.Dataset) -> np.ndarray:
    """Which starts the solver itself calls converged or in conflict, as against stopped."""
    return np.isin(cell["status"].values, [str(Status.CONVERGED), str(Status.CONFLICTED)])


def _class_means(H: np.ndarray, problem: Problem) -> np.ndarray:
    labels = np.asarray(problem.labels)
    totals = np.zeros((problem.k, H.shape[1]))
    np.add.at(totals, labels, H)
    return totals / np.bincount(labels)[:, None]


def histories(of_starts: Sequence[Record]) -> dict[str, np.ndarray]:
    """(init, record) arrays; a start that ended early repeats its last record."""
    longest = max(len(history.iteration) for history in of_starts)
    return {
        name: np.stack(
            [
                np.pad(getattr(history, name), (0, longest - len(history.iteration)), mode="edge")
                for history in of_starts
            ]
        )
        for name in Record._fields
    }
