"""The end of descent through an activation, compared with the minimisers over its constraint set."""

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

# Tolerances of the predicted geometry: the cosines of a frame, and the distance from UFM's Gram matrix.
FRAME, ARRIVED = 1e-6, 1e-3
# Fractions of the steps: Adam's step decays from DECAY_FROM on; a speed is fitted from FIT_FROM to DECAY_FROM.
DECAY_FROM, FIT_FROM = 0.8, 0.4


@dataclass(frozen=True)
class DecayedAdam:
    """Adam with a constant step that falls to 0 over the last fifth of the steps, so that oscillation ends."""

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
    """Run every start through the activation; from a stuck end under UFM+ the staircase continues.

    problem: the smaller of UFM+ and UFM that contains the activation's constraint set. The certificates are of that
    problem: a certified point in a smaller set shows that the entry lower bound does not increase the minimum.
    """
    method = Activated(activation, normalised, DecayedAdam(step, steps), scale, tolerance=1e-13)
    solution = solve(problem, inits, seed, method, max_steps=steps, progress=progress)
    began = time.perf_counter()
    target, lowest = minimum(problem)
    ended = [solution.embedding(start) for start in range(inits)]
    grams = np.stack([gram(H, problem) for H in ended])
    distance = np.array([apart(matrix, target) for matrix in grams])
    within = ARRIVED if method.entry_bound != UFM_PLUS else math.inf
    largest = np.array([largest_cosine(matrix) for matrix in grams])
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
    """The ends, where those to be lifted are replaced by the ends of the staircase from them."""
    final, stuck = list(ended), np.flatnonzero(lifted)
    if len(stuck):
        onward = solve(problem, seed=seed, method="staircase", H0=np.stack([ended[s] for s in stuck]))
        for place, start in enumerate(stuck):
            final[start] = onward.embedding(place)
    return final


def minimum(problem: Problem) -> tuple[Float[np.ndarray, "k k"], float]:
    """The class-mean Gram matrix of every minimiser and its loss minus that of a frame: the identity and 0 under UFM+,
    else certified. Each class is one point (theory, 4.21)."""
    if problem.nonneg:
        return np.eye(problem.k), 0.0
    of_classes = _by_class(problem)
    rows = certified_minimiser(of_classes).point.placed()[orbits(of_classes).index]
    return rows @ rows.T, float(excess(rows, of_classes))


def _by_class(problem: Problem) -> Problem:
    """The problem with one point for each class."""
    sizes = np.asarray(problem.class_sizes)
    return Problem(np.arange(problem.k), problem.d, float(problem.tau), nonneg=problem.nonneg, multiplicity=sizes)


def gram(H: Float[np.ndarray, "n d"], problem: Problem) -> Float[np.ndarray, "k k"]:
    """Gram matrix of the class means."""
    means = class_means(H, np.asarray(problem.labels), np.asarray(problem.multiplicity))
    return means @ means.T


def apart(matrix: Float[np.ndarray, "k k"], target: Float[np.ndarray, "k k"]) -> float:
    """Distance of two Gram matrices, each scaled to norm 1 (delta_gm if one is the identity); inf if the first is 0."""
    norm = float(np.linalg.norm(matrix))
    return float(np.linalg.norm(matrix / norm - target / np.linalg.norm(target))) if norm > 0 else math.inf


def largest_cosine(matrix: Float[np.ndarray, "k k"]) -> float:
    """Largest cosine of two class means; 1 if a mean is 0, since that is no frame."""
    norms = np.sqrt(np.diagonal(matrix))
    if norms.min() == 0:
        return 1.0
    return float((matrix / np.outer(norms, norms))[~np.eye(len(matrix), dtype=bool)].max())


def steps_left(history: Record, lowest: float, distance: float, steps: int) -> float:
    """Extrapolated number of steps until the distance is ARRIVED; inf if the loss did not fall.

    The loss minus its certified minimum is taken as quadratic in the distance, and as falling at the rate that least
    squares fit before the step began to decay.
    """
    at, over = np.asarray(history.iteration), np.asarray(history.excess) - lowest
    fitted = (at >= FIT_FROM * steps) & (at <= DECAY_FROM * steps) & (over > 0)
    if fitted.sum() < 2:
        return math.inf
    speed = -np.polyfit(at[fitted], np.log(over[fitted]), 1)[0]
    return float(2 * math.log(distance / ARRIVED) / speed) if speed > 0 else math.inf
