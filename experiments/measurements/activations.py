"""Where descent through an activation ends, against the geometry that its constraint set has."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import optax
import xarray as xr
from jaxtyping import Bool, Float

from experiments.harness.cells import Computed, ProgressCallback, certificate_file
from experiments.measurements.thresholds import certified_minimiser
from solvers.certification.certificate import Proof
from solvers.certification.certifier import Certifier
from solvers.loop.method import Record
from solvers.methods.activated import Activated
from solvers.multistart import solve
from ufm import Problem, excess, loss_bound, orbits
from ufm.activations import UFM_PLUS
from ufm.model.geometry import class_means

# What counts as the geometry that theory names: a cosine of a frame, a distance from UFM's Gram matrix.
FRAME, ARRIVED = 1e-6, 1e-3
# The share of the steps after which Adam's step falls to 0, and of those before it over which a speed is fitted.
DECAY_FROM, FIT_FROM = 0.8, 0.4


@dataclass(frozen=True)
class DecayedAdam:
    """Adam with a constant step, which falls to 0 over the last fifth of all steps: a bounce off |z| = 0 ends."""

    step: float
    steps: int

    def __call__(self) -> optax.GradientTransformation:
        """The transformation."""
        begun = int(DECAY_FROM * self.steps)
        falling = optax.cosine_decay_schedule(self.step, max(1, self.steps - begun))
        schedule = optax.join_schedules([optax.constant_schedule(self.step), falling], [begun])
        return optax.adam(schedule)


def measure_activation(
    problem: Problem,
    *,
    name: str,
    activation: str,
    normalised: bool,
    scale: float,
    step: float,
    steps: int,
    inits: int,
    seed: int,
    progress: ProgressCallback,
) -> Computed:
    """Every start through the activation to its end; where a start of UFM+ is stuck, on from there by the staircase.

    problem: UFM+ or UFM, whichever the activation's constraint set is or is part of. Its certificates are of that
    problem: of a set between them that a point certifies says that the floor costs nothing.
    """
    method = Activated(activation, normalised, DecayedAdam(step, steps), scale, tolerance=1e-13)
    solution = solve(problem, inits, seed, method, max_steps=steps, progress=progress)
    began = time.perf_counter()
    target, lowest = minimum(problem)
    ended = [solution.embedding(start) for start in range(inits)]
    grams = np.stack([gram(H, problem) for H in ended])
    distance = np.array([apart(result, target) for result in grams])
    within = ARRIVED if method.entry_bound != UFM_PLUS else math.inf
    largest = np.array([largest_cosine(result) for result in grams])
    reached = (distance <= within) & ((largest < FRAME) if method.entry_bound == UFM_PLUS else True)
    lifted = ~reached & problem.nonneg
    final = freed(ended, lifted, problem, seed)
    proofs = [*map(Certifier(problem).certify, final)]
    left = np.zeros(inits)
    for start in np.flatnonzero(~reached & (not problem.nonneg)):
        left[start] = steps_left(solution.history[start], lowest, distance[start], steps)
    columns: dict[str, Any] = {
        "status": [str(status) for status in solution.status],
        "reached": reached,
        "lifted": lifted,
        "certified": [proof.status is Proof.CERTIFIED for proof in proofs],
        "distance": distance,
        "max_cosine": largest,
        "max_cosine_final": [largest_cosine(gram(H, problem)) for H in final],
        "excess": solution.excess,
        "gap": [proof.gap for proof in proofs],
        "residual": solution.residual,
        "iterations": solution.iterations,
        "steps_left": left,
    }
    data: dict[str, Any] = {column: ("init", np.asarray(values)) for column, values in columns.items()}
    data["gram"] = (("init", "class", "class_"), grams)
    data["target"] = (("class", "class_"), target)
    attrs = {
        **{"k": problem.k, "d": problem.d, "tau": float(problem.tau), "n": problem.num_samples, "inits": inits},
        **{"nonneg": int(problem.nonneg), "floor": method.entry_bound, "scale": scale, "step": step, "steps": steps},
        **{"loss_bound": float(loss_bound(problem)), "lower_bound": max(proof.lower for proof in proofs)},
        **{"seconds_compile": solution.timings.compile, "seconds_solve": solution.timings.solve},
        "seconds_certify": time.perf_counter() - began,
    }
    files = {certificate_file(name, start): proof.serialised() for start, proof in enumerate(proofs)}
    return xr.Dataset(data, attrs=attrs), files


def freed(
    ended: list[Float[np.ndarray, "n d"]], lifted: Bool[np.ndarray, " init"], problem: Problem, seed: int
) -> list[Float[np.ndarray, "n d"]]:
    """The ends, in the place of those to be lifted where the staircase leads from them."""
    final, stuck = list(ended), np.flatnonzero(lifted)
    if len(stuck):
        onward = solve(problem, seed=seed, method="staircase", H0=np.stack([ended[s] for s in stuck]))
        for place, start in enumerate(stuck):
            final[start] = onward.embedding(place)
    return final


def minimum(problem: Problem) -> tuple[Float[np.ndarray, "k k"], float]:
    """The Gram matrix of class means that every minimiser has, and its loss over a frame's: the identity and 0 under
    UFM+, else certified. Classes are one point each (theory, 4.21)."""
    if problem.nonneg:
        return np.eye(problem.k), 0.0
    of_classes = _by_class(problem)
    rows = certified_minimiser(of_classes).point.placed()[orbits(of_classes).index]
    return rows @ rows.T, float(excess(rows, of_classes))


def _by_class(problem: Problem) -> Problem:
    """The same with one point a class."""
    sizes = np.asarray(problem.class_sizes)
    return Problem(np.arange(problem.k), problem.d, float(problem.tau), nonneg=problem.nonneg, multiplicity=sizes)


def gram(H: Float[np.ndarray, "n d"], problem: Problem) -> Float[np.ndarray, "k k"]:
    """Of the class means."""
    means = class_means(H, np.asarray(problem.labels), np.asarray(problem.multiplicity))
    return means @ means.T


def apart(gram: Float[np.ndarray, "k k"], target: Float[np.ndarray, "k k"]) -> float:
    """Distance of two Gram matrices, each over its norm (delta_gm, if one is the identity); inf if one is 0."""
    norm = float(np.linalg.norm(gram))
    return float(np.linalg.norm(gram / norm - target / np.linalg.norm(target))) if norm > 0 else math.inf


def largest_cosine(gram: Float[np.ndarray, "k k"]) -> float:
    """Of two class means; 1 where a mean is 0, which is no frame."""
    norms = np.sqrt(np.diagonal(gram))
    if norms.min() == 0:
        return 1.0
    return float((gram / np.outer(norms, norms))[~np.eye(len(gram), dtype=bool)].max())


def steps_left(history: Record, lowest: float, distance: float, steps: int) -> float:
    """Steps to a distance of ARRIVED, extrapolated: the loss over its certified minimum, which is quadratic in the
    distance, goes on to fall as it did (fitted by least squares) before the step began to decay; inf if it did not."""
    at, over = np.asarray(history.iteration), np.asarray(history.excess) - lowest
    fitted = (at >= FIT_FROM * steps) & (at <= DECAY_FROM * steps) & (over > 0)
    if fitted.sum() < 2:
        return math.inf
    speed = -np.polyfit(at[fitted], np.log(over[fitted]), 1)[0]
    return float(2 * math.log(distance / ARRIVED) / speed) if speed > 0 else math.inf
