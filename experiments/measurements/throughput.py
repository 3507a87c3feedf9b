"""Steps of stochastic projected gradient a second, beside PyTorch's SGD on the same loss."""

# The peer comes with the extra `bench`; types are checked without it as well.
# pyright: reportMissingImports=false, reportPrivateImportUsage=false

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from solvers.stochastic.trajectories import Rule, advance, begin
from ufm import Problem, samplers

OURS = "this project"
ETA = 0.1
# Steps of each start in one timing of this project's, and of PyTorch's, which takes one start after the other.
STEPS, PEER_STEPS, REPEATS = 500, 50, 3


def throughput(problem: Problem, starts: Float[np.ndarray, "s n d"], batch_size: int) -> list[dict[str, object]]:
    """Microseconds of one step of one start, the best of three timings; the peers' over this project's.

    Uniform batches, without replacement here, with (cheaper) there. Ours: with the line of a history that 500 steps
    have. torch-sgd: torch.optim.SGD on all of H, the loss of the rows drawn, all rows projected. torch-sgd, rows
    projected: only those drawn. torch by hand: only the rows drawn are differentiated, moved and projected.
    """
    import torch  # raises before anything is timed

    del torch
    ways: dict[str, Callable[[], float]] = {OURS: lambda: _ours(problem, starts, batch_size)}
    for name, options in (
        ("torch-sgd", {"dense": True, "project_all": True}),
        ("torch-sgd, rows projected", {"dense": True, "project_all": False}),
        ("torch by hand, rows drawn", {"dense": False, "project_all": False}),
    ):
        ways[name] = lambda options=options: _torch(problem, starts[0], batch_size, **options)
    seconds = {name: min(way() for _ in range(REPEATS)) for name, way in ways.items()}
    return [
        {
            "peer": name,
            "n": problem.num_samples,
            "batch": batch_size,
            "starts": len(starts),
            "microseconds a start-step": round(1e6 * taken, 1),
            "ratio": round(taken / seconds[OURS], 1),
        }
        for name, taken in seconds.items()
    ]


def _ours(problem: Problem, starts: Float[np.ndarray, "s n d"], batch_size: int) -> float:
    sampler = samplers.uniform(batch_size)
    rule, population = Rule(sampler, None), sampler.population(np.asarray(problem.labels))
    keys = np.stack([np.asarray(jax.random.key_data(jax.random.key(s))) for s in range(len(starts))])
    state = begin(starts, keys, population, rule=rule)

    def run(steps: int) -> None:
        jax.block_until_ready(advance(state, population, problem, np.int32(steps), np.float64(ETA), rule=rule))

    run(1)  # compiles
    began = time.perf_counter()
    run(STEPS)
    return (time.perf_counter() - began) / STEPS / len(starts)


def batch_loss(torch: Any, tau: float, batch_size: int) -> Callable[[Any, Any], Any]:
    """The summed loss of the rows of a batch and their labels, in PyTorch (the module)."""
    itself = torch.eye(batch_size, dtype=torch.bool)

    def loss(rows: Any, drawn_labels: Any) -> Any:
        positive = (drawn_labels[:, None] == drawn_labels[None, :]) & ~itself
        count = positive.sum(dim=1)
        logits = (rows @ rows.T / tau).masked_fill(itself, -torch.inf)
        mean = logits.masked_fill(~positive, 0.0).sum(dim=1) / count.clamp(min=1)
        return (torch.logsumexp(logits, dim=1) - mean)[count > 0].sum()

    return loss


def _torch(
    problem: Problem, start: Float[np.ndarray, "n d"], batch_size: int, *, dense: bool, project_all: bool
) -> float:
    import torch

    labels, n = torch.from_numpy(np.asarray(problem.labels).astype(np.int64)), len(start)
    loss = batch_loss(torch, float(problem.tau), batch_size)

    def projected(rows: torch.Tensor) -> torch.Tensor:
        rows = rows.clamp(min=0) if problem.nonneg else rows
        return rows / rows.norm(dim=1, keepdim=True).clamp(min=1)

    H = torch.from_numpy(start.copy()).requires_grad_(dense)
    optimiser = torch.optim.SGD([H], lr=ETA) if dense else None
    generator = torch.Generator().manual_seed(0)

    def step() -> None:
        drawn = torch.randint(n, (batch_size,), generator=generator)
        if optimiser is not None:
            optimiser.zero_grad()
            loss(H[drawn], labels[drawn]).backward()
            optimiser.step()
            with torch.no_grad():
                if project_all:
                    H.copy_(projected(H))
                else:
                    H[drawn] = projected(H[drawn])
            return
        rows = H[drawn].requires_grad_()
        (gradient,) = torch.autograd.grad(loss(rows, labels[drawn]), rows)
        with torch.no_grad():
            H[drawn] = projected(rows - ETA * gradient)

    step()
    began = time.perf_counter()
    for _ in range(PEER_STEPS):
        step()
    return (time.perf_counter() - began) / PEER_STEPS
