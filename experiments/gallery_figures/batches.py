"""What the figures of batch families are drawn from: cells, as in `experiments.gallery_figures.cells`."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import xarray as xr

from experiments.harness.cells import Cell, Computed, ProgressCallback
from solvers.multistart import solve
from solvers.solution import histories
from ufm import Problem, batching, interaction, loss_bound, step_imbalance, uniqueness
from ufm.model.geometry import geometry_metrics
from ufm.theory.reshuffling import epochs_until_unique


def graphs_cell(k: int = 3) -> Cell:
    """A small batch family before and after binding: who shares a batch, who acts on whom."""
    return Cell("graphs", _graphs, {"sizes": [6] + [3] * (k - 1), "batch_size": 4, "seed": 10, "m": 1, "d": 2 * k})


def _graphs(*, sizes: list[int], batch_size: int, seed: int, m: int, d: int, progress: ProgressCallback) -> Computed:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    family = batching.reshuffled(len(labels), batch_size, 2, seed)
    families = {"as drawn": family, "bound": batching.bind(family, labels, m, seed)}
    plain, effective, claims, unique, reasons, rows = [], [], [], [], [], []
    for batches in families.values():
        problem = Problem(labels, d, batches=batches)
        graph = interaction(problem)
        verdict = uniqueness(problem)
        shared = _share_a_batch(batches, len(labels))
        acts = graph.cross.toarray()[np.ix_(graph.component, graph.component)] > 0
        merged = graph.component[:, None] == graph.component[None, :]
        plain.append(shared)
        effective.append(shared & (acts | merged))
        claims.append(graph.plain_claims_unique)
        unique.append(str(verdict.unique))
        reasons.append(verdict.reason)
        rows.append(len(batches))
    return xr.Dataset(
        {
            "plain": (("family", "sample", "sample_"), np.array(plain)),
            "effective": (("family", "sample", "sample_"), np.array(effective)),
            "label": ("sample", labels),
            "plain_claims_unique": ("family", claims),
            "unique": ("family", unique),
            "reason": ("family", reasons),
        },
        coords={"family": list(families)},
        attrs={"k": len(sizes), "n": len(labels), "d": d, "batch_size": batch_size, "batches": rows[0], "m": m},
    ), {}


def _share_a_batch(batches: np.ndarray, n: int) -> np.ndarray:
    member = np.zeros((len(batches), n), dtype=int)
    batch, slot = np.nonzero(batches >= 0)
    member[batch, batches[batch, slot]] = 1
    shared = member.T @ member > 0
    np.fill_diagonal(shared, False)
    return shared


FAMILIES = ("fixed", "reshuffled", "bound")


def batching_cell(family: str, batch_size: int, k: int = 5, R: float = 4) -> Cell:
    """One batch family at one batch size, solved by the staircase."""
    settings = {"family": family, "batch_size": batch_size}
    common = {"sizes": step_imbalance(k, 4, R).tolist(), "d": 2 * k, "inits": 8, "epochs": 10, "m": 1, "seed": 0}
    name = f"batching-{family}-{batch_size}" + ("" if (k, R) == (5, 4) else f"-k{k}-R{R:g}")
    return Cell(name, _batching, {**settings, **common})


def _batching(
    *,
    family: str,
    batch_size: int,
    sizes: list[int],
    d: int,
    inits: int,
    epochs: int,
    m: int,
    seed: int,
    tau: float = 1.0,
    max_steps: int = 5000,
    progress: ProgressCallback,
) -> Computed:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    n = len(labels)
    fixed = batching.partition(n, batch_size, seed)
    batches = {
        "fixed": lambda: fixed,
        "reshuffled": lambda: batching.reshuffled(n, batch_size, epochs, seed),
        "bound": lambda: batching.bind(fixed, labels, m, seed),
    }[family]()
    problem = Problem(labels, d, tau, batches=batches)
    solution = solve(problem, inits, max_steps=max_steps)
    metrics = [geometry_metrics(jnp.asarray(solution.embedding(s)), problem.labels, k=problem.k) for s in range(inits)]
    records = histories(solution.history)
    return xr.Dataset(
        {
            "delta_gm": ("init", [float(metric.delta_gm) for metric in metrics]),
            "excess": ("init", solution.excess),
            "status": ("init", [str(status) for status in solution.status]),
            "history_iteration": (("init", "record"), records["iteration"]),
            "history_delta_gm": (("init", "record"), records["delta_gm"]),
        },
        attrs={
            "family": family,
            "batch_size": batch_size,
            "batches": len(batches),
            "unique": str(uniqueness(problem).unique),
            "loss_bound": float(loss_bound(problem)),
            "k": problem.k,
            "n": n,
            "d": d,
            "tau": tau,
            "inits": inits,
            "epochs": epochs,
            "m": m,
            "sizes": sizes,
        },
    ), {}


def reshuffling_cell(k: int = 5, R: float = 4) -> Cell:
    """Which random reshuffled families have the frame as their only minimiser."""
    parameters = {
        "sizes": step_imbalance(k, 4, R).tolist(),
        "d": 2 * k,
        "batch_sizes": [3, 4, 5, 6, 8, 10, 14, 20, 28],
        "epochs": [1, 2, 3, 4, 6, 8, 12, 16, 24],
        "families": 64,
    }
    return Cell("reshuffling", _reshuffling, parameters)


def _reshuffling(
    *, sizes: list[int], d: int, batch_sizes: list[int], epochs: list[int], families: int, progress: ProgressCallback
) -> Computed:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    unique = np.zeros((len(batch_sizes), len(epochs), families), dtype=bool)
    for at in np.ndindex(unique.shape):
        drawn = batching.reshuffled(len(labels), batch_sizes[at[0]], epochs[at[1]], at[2])
        unique[at] = uniqueness(Problem(labels, d, batches=drawn)).unique is True
    return xr.Dataset(
        {
            "unique": (("batch_size", "epochs", "family"), unique),
            "half": ("batch_size", [epochs_until_unique(sizes, size) for size in batch_sizes]),
        },
        coords={"batch_size": batch_sizes, "epochs": epochs},
        attrs={"sizes": sizes, "d": d},
    ), {}
