"""What is asked of a trained network, beyond its training: cells of `experiments.network_questions`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

import ufm
from experiments.harness.cells import Computed, ProgressCallback
from experiments.measurements.networks import AUTOPSY, Recipe, train_cell
from experiments.measurements.thresholds import certified_minimiser
from networks import Dataset, law_of
from solvers.certification.certificate import Proof
from solvers.certification.certifier import Certifier
from solvers.certification.features import renormalised
from solvers.certification.suboptimality import suboptimality
from solvers.certification.verification import Verifier
from solvers.measurement import measure
from solvers.multistart import solve
from solvers.solution import histories
from ufm.theory.reshuffling import epochs_until_unique, expected_obstructions

# Released features are descended over all pairs of samples.
MOST_RELEASED = 2**13
# What features are released to: descent on all samples, no lift; and the default method, which lifts.
RELEASED = {"plain": "projected-gradient", "staircase": "staircase"}


def question_cell(
    question: str,
    recipe: Recipe,
    data: Dataset,
    name: str,
    checkpoint: str | None,
    progress: ProgressCallback,
    planted: Int[np.ndarray, " p"] | None = None,
) -> Computed:
    """`train_cell`, and the answer to one of the questions in ANSWERS."""
    cell, files = train_cell(recipe, data, name, checkpoint, progress, planted)
    H, _ = renormalised(cell["features"].values.astype(np.float64))
    problem = ufm.Problem(data.train.labels, H.shape[1], recipe.tau, nonneg=bool(cell.attrs["nonneg"]))
    variables, attrs = ANSWERS[question](H, problem, recipe, cell)
    return cell.drop_vars("features").assign(variables).assign_attrs(attrs), files


Answer = tuple[dict[str, Any], dict[str, Any]]


def released(H: Float[np.ndarray, "n d"], problem: ufm.Problem, recipe: Recipe, cell: xr.Dataset) -> Answer:
    """The features as a start of the free embeddings, descended by each of RELEASED: where it ends, in how many steps.

    plain_excess and its like hold the way; attributes the end: gap (proved, above the minimum), verdict, steps, lifts;
    residual, stationarity of the trained features themselves.
    """
    certifier = Certifier(problem)
    verifier = Verifier(problem, certifier=certifier)
    variables: dict[str, Any] = {}
    attrs: dict[str, Any] = {"residual": float(measure(H, problem).residual)}
    attrs["minimum"] = 0.0 if problem.nonneg else certifier.lower_bound.value - float(ufm.loss_bound(problem))
    for method, solver in RELEASED.items():
        solution = solve(problem, H0=H, method=solver)
        records = histories(solution.history)
        for column in ("iteration", "excess", "delta_gm"):
            variables[f"{method}_{column}"] = (f"{method}_record", records[column][0])
        end = solution.embedding(0)
        result = verifier.verify(end)
        attrs |= {
            f"{method}_gap": suboptimality(end, problem, certifier=certifier).gap,
            f"{method}_verdict": str(result.verdict),
            f"{method}_delta_gm": float(result.metrics.delta_gm),
            f"{method}_steps": int(solution.iterations[0]),
            f"{method}_lifts": int(solution.lifts[0]),
        }
    return variables, attrs


def dissected(H: Float[np.ndarray, "n d"], problem: ufm.Problem, recipe: Recipe, cell: xr.Dataset) -> Answer:
    """What blame and distance find of the planted labels is in the history; attributes: the most that either found."""
    return {}, {name.replace("found", "best"): float(cell[f"history_{name}"].max()) for name in AUTOPSY}


def recycled(H: Float[np.ndarray, "n d"], problem: ufm.Problem, recipe: Recipe, cell: xr.Dataset) -> Answer:
    """Of all batches of the training: whether they force the frame, and the excess of the features over their bound.

    Attributes: pool, how many different epochs there were; unique, what `ufm.uniqueness` decides of their union;
    share, of families of so many random partitions that do by the prediction of `ufm.theory.reshuffling`; half, how
    many
    partitions make that a half; pool_excess, proved, and pool_bound.
    """
    labels, law, epochs = np.asarray(problem.labels), law_of(recipe.batching), recipe.schedule.epochs
    drawn = [law(labels, min(recipe.batch_size, len(labels)), epoch, recipe.seed) for epoch in range(epochs)]
    different = {epoch.tobytes(): epoch for epoch in drawn}
    batches = np.concatenate(list(different.values()))
    union = ufm.Problem(labels, problem.d, recipe.tau, batches=batches, nonneg=problem.nonneg)
    sizes = np.bincount(labels).tolist()
    verdict = ufm.uniqueness(union)
    return {}, {
        "pool": len(different),
        "unique": str(verdict.unique),
        "reason": verdict.reason,
        "share": float(np.exp(-expected_obstructions(sizes, recipe.batch_size, len(different)))),
        "half": epochs_until_unique(sizes, recipe.batch_size),
        "pool_excess": float(ufm.excess(H, union)),
        "pool_bound": float(ufm.loss_bound(union)),
    }


def compared(H: Float[np.ndarray, "n d"], problem: ufm.Problem, recipe: Recipe, cell: xr.Dataset) -> Answer:
    """The class means' Gram matrix against the certified ones: of UFM+, the frame; of UFM, `predicted`.

    Attributes: to_frame and to_ufm, distances of Gram matrices over their Frobenius norms; proved, whether the
    minimiser of UFM is certified.
    """
    sizes = np.bincount(np.asarray(problem.labels))
    k = len(sizes)
    model = ufm.Problem(np.arange(k), problem.d, recipe.tau, nonneg=False, multiplicity=sizes)
    proof = certified_minimiser(model)
    rows = proof.point.placed()
    predicted = rows @ rows.T
    gram = np.asarray(ufm.geometry_metrics(H, problem.labels).gram)
    attrs = {"to_frame": _apart(gram, np.eye(k)), "to_ufm": _apart(gram, predicted)}
    proved = int(proof.status is Proof.CERTIFIED)
    return {"predicted": (("class", "class_"), predicted)}, {**attrs, "proved": proved, "proved_gap": proof.gap}


def _apart(gram: Float[np.ndarray, "k k"], other: Float[np.ndarray, "k k"]) -> float:
    return float(np.linalg.norm(gram / np.linalg.norm(gram) - other / np.linalg.norm(other)))


ANSWERS: dict[str, Callable[[Float[np.ndarray, "n d"], ufm.Problem, Recipe, xr.Dataset], Answer]] = {
    "landscape": released,
    "autopsy": dissected,
    "batches": recycled,
    "activations": compared,
}
