"""One cell of the batching sweep: solve random families, certify every start, and compare with what theory predicts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from experiments.cells import histories, measured_of_starts
from solvers.certification.certificate import Proof
from solvers.certification.certifier import Certifier
from solvers.multistart import solve_each
from solvers.parallel.padding import Shape
from solvers.verification import Verifier
from ufm import Problem, loss_bound, uniqueness


@dataclass(frozen=True)
class Cell:
    """The families of one kind: R, batch size, bound or as drawn."""

    R: float
    batch_size: int
    bound: bool
    problems: tuple[Problem, ...]

    @property
    def name(self) -> str:
        """Unique within a sweep, and fit for a file."""
        return f"R{self.R:g}-b{self.batch_size}-{'bound' if self.bound else 'drawn'}"


def run_cell(
    cell: Cell, *, inits: int, seeds: Sequence[int], shape: Shape, progress: Callable[[int], None]
) -> tuple[xr.Dataset, dict[str, bytes]]:
    """Everything measured on the families of a cell, over the dimension init (family after family), and the
    certificates of all starts and of all other minimisers that theory names, by file name.

    seeds: one a family. shape: what its orbit problem is padded to.
    """
    solutions = solve_each(cell.problems, inits, seeds, shape=shape, progress=progress)
    began = time.perf_counter()
    columns: dict[str, list[Any]] = {}
    certificates: dict[str, bytes] = {}
    for p, (problem, solution) in enumerate(zip(cell.problems, solutions, strict=True)):
        certifier = Certifier(problem, conic=False)
        verifier = Verifier(problem, shape, certifier=certifier)
        starts = [solution.embedding(start) for start in range(inits)]
        proofs = [certifier.certify(H) for H in starts]
        verifications = [verifier.verify(H, proof) for H, proof in zip(starts, proofs, strict=True)]
        predicted = uniqueness(problem)
        named = {f"start{start:03d}": proof for start, proof in enumerate(proofs)}
        refuted = None
        if predicted.counterexample is not None:
            other = np.asarray(predicted.counterexample)
            named["counterexample"] = certifier.certify(other)
            zero = named["counterexample"].status is Proof.CERTIFIED
            refuted = zero and not verifier.verify(other, named["counterexample"]).is_orthogonal_frame
        for suffix, proof in named.items():
            certificates[f"certificates/{cell.name}-family{p:03d}-{suffix}.json"] = proof.serialised()
        of_starts = {
            "partition": [p] * inits,
            "start": list(range(inits)),
            "unique": [str(predicted.unique)] * inits,
            "plain_claim": [predicted.graph.plain_claims_unique] * inits,
            "counterexample_certified": [str(refuted)] * inits,
            "reason": [predicted.reason] * inits,
            "loss_bound": [float(loss_bound(problem))] * inits,
            "lower_bound": [proof.lower for proof in proofs],
            **measured_of_starts(solution, verifications, proofs),
        }
        for name, values in of_starts.items():
            columns.setdefault(name, []).extend(values)
    data: dict[str, Any] = {name: ("init", np.asarray(values)) for name, values in columns.items()}
    for name, values in histories([record for solution in solutions for record in solution.history]).items():
        data[f"history_{name}"] = (("init", "record"), values)
    data["class_sizes"] = ("class", np.asarray(cell.problems[0].class_sizes).astype(np.int64))
    timings = [solution.timings for solution in solutions]
    return xr.Dataset(
        data,
        attrs={
            "R": cell.R,
            "batch_size": cell.batch_size,
            "bound": int(cell.bound),
            "batches": len(cell.problems[0].batches),
            "n": cell.problems[0].num_samples,
            "nonneg": 1,
            "k": cell.problems[0].k,
            "d": cell.problems[0].d,
            "tau": float(cell.problems[0].tau),
            "partitions": len(cell.problems),
            "inits": inits,
            "seconds_compile": sum(timing.compile for timing in timings),
            "seconds_solve": sum(timing.solve for timing in timings),
            "seconds_certify": time.perf_counter() - began,
        },
    ), certificates
