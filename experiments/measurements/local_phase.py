"""The last phase of plain projected gradient: how fast it ends near an orthogonal frame, measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr

from solvers.loop.slots import Outcome, RunOptions, Start, run_slots
from solvers.methods.projected_gradient import ProjectedGradient
from ufm import Problem, loss_bound
from ufm.theory.local_rate import slowest_contraction

FITTED = 20  # steps over which a rate is measured
SMALLEST_EXCESS = 1e-12  # excess over the bound below which norms of 1 - 2^-50 begin to show


@dataclass(frozen=True)
class PerSample:
    """The optax transformation -eta gradient / multiplicity: a step eta for each sample a point stands for.

    With it projected gradient on points of multiplicity m is projected gradient on all samples, from a
    start where the m samples coincide: identical samples have identical gradients.
    """

    eta: float
    multiplicity: tuple[float, ...]
    momentum: float = 0.0

    def __call__(self) -> optax.GradientTransformation:
        """The transformation."""
        return optax.chain(optax.stateless(self._shared), optax.sgd(self.eta, momentum=self.momentum or None))

    def _shared(self, gradient: Any, _: Any) -> Any:
        return gradient / jnp.asarray(self.multiplicity)[:, None]


def grouped(sizes: Sequence[int] | np.ndarray, groups: int, d: int, tau: float) -> Problem:
    """Every class as `groups` points of equal multiplicity."""
    labels = np.repeat(np.arange(len(sizes)), groups)
    return Problem(labels, d, tau, multiplicity=np.repeat(np.asarray(sizes) / groups, groups))


def near_frame(problem: Problem, within: float, across: float, seed: int) -> np.ndarray:
    """An orthogonal frame that uses every coordinate, plus uniform noise, rows of norm 1.

    Class c holds the coordinates congruent to c modulo k, in equal parts, with noise in [0, within]: the
    within-class deviations. Noise in [0, across] in coordinates of other classes ends after finitely many steps.
    """
    same_class = np.asarray(problem.labels)[:, None] == np.arange(problem.d) % problem.k
    noise = np.random.default_rng(seed).uniform(size=same_class.shape) * np.where(same_class, within, across)
    H = same_class / np.sqrt(same_class.sum(axis=1, keepdims=True)) + noise
    return H / np.linalg.norm(H, axis=1, keepdims=True)


def local_phase(
    problem: Problem, eta: float, *, starts: int, steps: int, within: float, across: float, seed: int
) -> xr.Dataset:
    """Excess after every step from starts near a frame (start, step), relative to the bound; both rates.

    The measured rate is the square root of the factor a step of the excess, over the last FITTED steps
    before it falls below FLOOR.
    """
    method = ProjectedGradient(PerSample(eta, tuple(np.asarray(problem.multiplicity).tolist())), tolerance=0.0)
    histories: dict[int, np.ndarray] = {}

    def finished(outcome: Outcome) -> None:
        excess = outcome.history.excess
        histories[outcome.key] = np.pad(excess, (0, steps - len(excess)), mode="edge")[:steps]

    begun = [(s, Start(near_frame(problem, within, across, seed + s))) for s in range(starts)]
    run_slots(method, problem, begun, RunOptions(starts, records=50, every=1, max_steps=steps), finished)
    excess = np.stack([histories[s] for s in range(starts)]) / float(loss_bound(problem))
    return xr.Dataset(
        {
            "excess": (("start", "step"), excess),
            "measured": ("start", [measured_rate(row) for row in excess]),
            "predicted": slowest_contraction(problem, eta),
        },
        coords={"step": np.arange(1, steps + 1)},
        attrs={"tau": float(problem.tau), "eta": eta, "k": problem.k, "d": problem.d, "n": problem.num_samples},
    )


def measured_rate(excess: np.ndarray) -> float:
    """Factor a step of the deviations, from a history of the excess; NaN if it is too short."""
    last = int(np.sum(excess > SMALLEST_EXCESS)) - 1
    if last < FITTED:
        return float("nan")
    return float((excess[last] / excess[last - FITTED]) ** (0.5 / FITTED))
