"""How many steps a frame takes to emerge from random starts: plain and stochastic projected gradient, one cell."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float
from scipy.special import gammaln

from experiments.harness.cells import Computed, ProgressCallback
from experiments.measurements.local_phase import PerSample
from solvers.loop.method import Record
from solvers.loop.slots import MOST_SLOTS, Limits, Outcome, RunOptions, Start, run_slots
from solvers.methods.accelerated import Accelerated
from solvers.methods.projected_gradient import ProjectedGradient
from solvers.multistart import solve
from solvers.solution import histories
from solvers.starts.random_starts import random_starts
from solvers.stochastic.projected_gradient import StochasticProjectedGradient
from ufm import InvalidInput, Problem, samplers
from ufm.model.geometry import class_means
from ufm.samplers import Sampler
from ufm.theory.local_rate import slowest_contraction
from ufm.theory.separation import separation_time
from ufm.theory.stochastic_rate import mean_square_rate

# A frame has emerged where delta_gm is below this.
EMERGED = 1e-3
FULL = "full"
BOUND = "+bound"
# Classes of more samples have their mean drawn from its normal limit.
ROWS_DRAWN = 4096
# Lines of a history, of random batches and of the full batch: the resolution of what is measured.
LINES, LINES_OF_FULL = 500, 2500
# How far the descent that tells stuck starts from slow ones may go.
DESCENT_STEPS = 5000


def sampler_of(name: str, batch_size: int, sizes: np.ndarray) -> Sampler | None:
    """The sampler of a name and a batch size; None of the full batch. Raises InvalidInput for another name.

    m-per-class: m = batch_size / k samples, at least 2 and at most what the smallest class has, of as many classes as
    the batch then holds.
    """
    plain = name.removesuffix(BOUND)
    k, smallest = len(sizes), int(sizes.min())
    if name == FULL:
        return None
    m = int(np.clip(batch_size // k, 2, max(smallest, 2)))
    made: dict[str, Callable[[], Sampler]] = {
        "uniform": lambda: samplers.uniform(batch_size),
        "reshuffled": lambda: samplers.reshuffled(batch_size),
        "class-balanced": lambda: samplers.class_balanced(batch_size),
        "m-per-class": lambda: samplers.m_per_class(m, max(1, min(batch_size // m, k))),
    }
    if plain not in made:
        raise InvalidInput("sampler", name, f"choose from {FULL}, {', '.join(made)}, each but the first also {BOUND}")
    result = made[plain]()
    return result.bound() if name.endswith(BOUND) else result


def emergence(
    *,
    sizes: tuple[int, ...],
    d: int,
    tau: float,
    sampler: str,
    batch_size: int,
    eta: float,
    inits: int,
    seed: int,
    max_steps: int,
    progress: ProgressCallback,
) -> Computed:
    """Steps until delta_gm < EMERGED of every start, which of the others are stuck, and what theory predicts.

    steps (init): NaN where it has not emerged; to the resolution of the history. stuck (init): not emerged, and a
    descent with all classes collapsed to their means, on the full batch, leads to no frame from there. The full batch
    itself is run in class space, from the means of random rows: the collapse, a few steps, is left out.
    """
    counts, began = np.asarray(sizes), time.perf_counter()
    made = sampler_of(sampler, batch_size, counts)
    requested = (counts, d, tau, eta, inits, seed, max_steps, progress)
    history, means = _full_batch(*requested) if made is None else _random_batches(made, *requested)
    reached = np.asarray(history["delta_gm"] < EMERGED)
    emerged = np.asarray(reached.any(axis=1))
    first = np.where(emerged, history["iteration"][np.arange(inits), reached.argmax(axis=1)], np.nan)
    data: dict[str, Any] = {
        "steps": ("init", first),
        "stuck": ("init", ~emerged & ~_leads_to_a_frame(means, counts, d, tau, emerged)),
        **{f"history_{name}": (("init", "record"), history[name]) for name in ("iteration", "delta_gm", "max_cosine")},
    }
    parameters = {
        "sampler": sampler,
        "batch_size": batch_size,
        "tau": tau,
        "d": d,
        "k": len(sizes),
        "n": int(counts.sum()),
    }
    parameters |= {"eta": eta, "inits": inits, "seed": seed, "max_steps": max_steps}
    predicted = predictions(counts, d, tau, made, eta)
    return xr.Dataset(data, attrs={**parameters, **predicted, "seconds_solve": time.perf_counter() - began}), {}


def predictions(sizes: np.ndarray, d: int, tau: float, sampler: Sampler | None, eta: float) -> dict[str, float]:
    """What theory says, NaN where it says nothing.

    - rate: factor a step of squared within-class deviations near a frame, of the slowest class (theory, 5.10, 5.20).
    - steps_collapse: in which deviations fall by a thousand at that rate.
    - steps_separate: in which two of the smallest classes turn from the angle of random starts to a right angle.
    """
    problem = Problem.from_class_sizes(sizes, d=d, tau=tau)
    order = np.argsort(sizes, kind="stable")
    try:
        rate = (
            slowest_contraction(problem, eta) ** 2 if sampler is None else max(mean_square_rate(problem, sampler, eta))
        )
    except InvalidInput:  # bound epochs
        rate = np.nan
    collapse = np.log(EMERGED**2) / np.log(rate) if 0 < rate < 1 else (np.inf if rate >= 1 else rate)
    separate = separation_time(sizes, int(order[0]), int(order[1]), tau, eta, sampler)
    return {"rate": float(rate), "steps_collapse": float(collapse), "steps_separate": separate}


def _random_batches(
    sampler: Sampler,
    sizes: np.ndarray,
    d: int,
    tau: float,
    eta: float,
    inits: int,
    seed: int,
    most: int,
    progress: ProgressCallback,
) -> tuple[dict[str, np.ndarray], Float[np.ndarray, "s k d"]]:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    problem = Problem(labels, d, tau)
    method = StochasticProjectedGradient(sampler, schedule=eta, every=max(1, most // LINES))

    def all_emerged(lines: Record) -> bool:
        return bool((np.asarray(lines.delta_gm) < EMERGED).all())

    starts = list(random_starts(problem, inits, seed))
    ended = method.run(problem, starts, seed, Limits(most), progress, until=all_emerged)
    means = np.stack([class_means(H, labels, np.ones(len(labels))) for H in ended.H])
    return histories(ended.history), means


def _full_batch(
    sizes: np.ndarray, d: int, tau: float, eta: float, inits: int, seed: int, most: int, progress: ProgressCallback
) -> tuple[dict[str, np.ndarray], Float[np.ndarray, "s k d"]]:
    """Samples that coincide stay together, and move as their class does: k points with multiplicities."""
    method = ProjectedGradient(PerSample(eta, tuple(map(float, sizes))))
    rng = np.random.default_rng(seed)
    starts = [(s, Start(_means_of_rows(rng, sizes, d))) for s in range(inits)]
    outcomes: dict[int, Outcome] = {}

    def finished(outcome: Outcome) -> None:
        outcomes[outcome.key] = outcome
        progress(1)

    schedule = RunOptions(MOST_SLOTS, every=max(1, most // LINES_OF_FULL), max_steps=most)
    run_slots(method, _collapsed(sizes, d, tau), starts, schedule, finished)
    ended = [outcomes[s] for s in range(inits)]
    return histories([outcome.history for outcome in ended]), np.stack([outcome.H for outcome in ended])


def _collapsed(sizes: np.ndarray, d: int, tau: float) -> Problem:
    return Problem(np.arange(len(sizes)), d, tau, multiplicity=sizes.astype(float))


def _means_of_rows(rng: np.random.Generator, sizes: np.ndarray, d: int) -> Float[np.ndarray, "k d"]:
    """Class means of rows uniform on the nonnegative part of the unit sphere; of many rows by their normal limit.

    Direction and length of a normal vector are independent, so that entries of a row have the mean
    sqrt(2/pi) / E(length), the squares 1/d and the products 2/(pi d) of two.
    """
    mean = np.sqrt(2 / np.pi) / (np.sqrt(2) * np.exp(gammaln((d + 1) / 2) - gammaln(d / 2)))
    covariance = np.full((d, d), 2 / (np.pi * d) - mean**2) + np.eye(d) * (1 - 2 / np.pi) / d
    means = []
    for size in sizes:
        if size > ROWS_DRAWN:
            means.append(rng.multivariate_normal(np.full(d, mean), covariance / size))
            continue
        rows = np.abs(rng.standard_normal((size, d)))
        means.append((rows / np.linalg.norm(rows, axis=1, keepdims=True)).mean(axis=0))
    return np.array(means)


def _leads_to_a_frame(
    means: Float[np.ndarray, "s k d"], sizes: np.ndarray, d: int, tau: float, emerged: Bool[np.ndarray, " s"]
) -> Bool[np.ndarray, " s"]:
    """Whether a descent in class space ends at a frame from these class means; only asked where none has emerged."""
    frames = emerged.copy()
    if not emerged.all():
        solution = solve(_collapsed(sizes, d, tau), method=Accelerated(), H0=means[~emerged], max_steps=DESCENT_STEPS)
        frames[~emerged] = [record.delta_gm[-1] < EMERGED for record in solution.history]
    return frames
