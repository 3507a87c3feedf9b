"""The rate in mean square of stochastic projected gradient near an orthogonal frame, measured beside the prediction."""

from __future__ import annotations

import jax
import numpy as np
import xarray as xr
from jaxtyping import Float

from experiments.harness.cells import Cell, Computed, ProgressCallback
from experiments.measurements.emergence import sampler_of
from experiments.measurements.local_phase import near_frame
from solvers.stochastic.trajectories import Rule, begin, move
from ufm import Problem, step_imbalance
from ufm.samplers import Sampler
from ufm.theory.stochastic_rate import best_step, class_laws, least_rate, mean_square_rate

# Size of the deviations: their squares, relative to 1, are rounding.
DEVIATION = 1e-5
# Fall of the mean squares over which a rate is measured: beyond it few starts make up their mean.
FALL = np.exp(-2.0)
# Starts: as many as make so many steps together, since a class of few samples contracts in few steps, by chance.
START_STEPS, FEWEST, MOST = 60_000, 256, 4096


def measured_rate(problem: Problem, sampler: Sampler, eta: float, *, seed: int) -> tuple[float, float]:
    """Predicted and measured factor a step of the mean squares, over starts, of the class predicted to be slowest.

    Over whole epochs, until they have fallen by about FALL; of a sampler with bound samples after they have done so
    once, when what contracts faster is gone. Of images with two views, whose views approach each other faster than
    images do, their means are measured; problem: labels as the sampler wants them.
    """
    labels = np.asarray(problem.labels)
    predicted = mean_square_rate(problem, sampler, eta)
    slowest = int(predicted.argmax())
    law = class_laws(sampler, np.bincount(labels))[slowest]
    steps = law.epoch * max(1, round(np.log(FALL) / np.log(predicted[slowest]) / law.epoch))
    starts = int(np.clip(START_STEPS // steps, FEWEST, MOST))
    rule, population = Rule(sampler, None), sampler.population(labels)
    H = np.stack([near_frame(problem, DEVIATION, 0.0, seed + s) for s in range(starts)])
    keys = np.asarray(jax.random.key_data(jax.random.split(jax.random.key(seed), starts)))
    state = begin(H, keys, population, rule=rule)
    squares = [_squares(H[:, labels == slowest], law.views)]
    for _ in range(2 if law.bound else 1):
        state = move(state, population, problem, np.int32(steps), np.float64(eta), rule=rule)
        squares.append(_squares(np.asarray(state.H)[:, labels == slowest], law.views))
    return float(predicted[slowest]), float((squares[-1] / squares[-2]) ** (1.0 / steps))


def _squares(rows: Float[np.ndarray, "s n d"], views: int) -> float:
    """Mean over starts of the sum of squared distances from the class mean; of images, whose first views come first."""
    rows = rows.reshape(len(rows), views, -1, rows.shape[-1]).mean(axis=1)
    return float(((rows - rows.mean(axis=1, keepdims=True)) ** 2).sum(axis=(1, 2)).mean())


def rate_cell(sampler: str, batch_size: int, R: float) -> Cell:
    """The rate against the temperature and against the step, of one sampler."""
    requested = {"sampler": sampler, "batch_size": batch_size, "R": R, "k": 4, "n_min": 8, "eta": 0.3}
    name = f"mean-square-{sampler}-b{batch_size}-R{R:g}"
    parameters = {"taus": [0.2, 0.5, 1.0, 3.0], "etas": [0.1, 0.3, 1.0, 5.0]}
    return Cell(name, rates, {**requested, **parameters})


def rates(
    *,
    sampler: str,
    batch_size: int,
    R: float,
    k: int,
    n_min: int,
    eta: float,
    taus: list[float],
    etas: list[float],
    progress: ProgressCallback,
) -> Computed:
    """Measured at some temperatures and steps, predicted between them; the best step; the rate that no step beats."""
    sizes = step_imbalance(k, n_min, R)
    made = sampler_of(sampler, batch_size, sizes)
    assert made is not None

    def problem(tau: float) -> Problem:
        return Problem.from_class_sizes(sizes, d=2 * k, tau=tau)

    def predicted(tau: float, step: float) -> float:
        return float(mean_square_rate(problem(tau), made, step).max())

    fine_tau = np.geomspace(taus[0] / 1.2, taus[-1] * 1.2, 41)
    fine_eta = np.geomspace(etas[0] / 1.2, etas[-1] * 1.2, 41)
    by_tau = [measured_rate(problem(tau), made, eta, seed=0) for tau in taus]
    by_eta = [measured_rate(problem(0.5), made, step, seed=0) for step in etas]
    best = best_step(problem(0.5), made)
    return xr.Dataset(
        {
            "of_tau": (("tau", "which"), by_tau),
            "of_eta": (("eta", "which"), by_eta),
            "curve_of_tau": ("fine_tau", [predicted(tau, eta) for tau in fine_tau]),
            "curve_of_eta": ("fine_eta", [predicted(0.5, step) for step in fine_eta]),
            "best_step": best,
            "best_rate": predicted(0.5, best),
            "least_rate": float(least_rate(made, sizes).max()),
        },
        coords={
            "tau": taus,
            "eta": etas,
            "fine_tau": fine_tau,
            "fine_eta": fine_eta,
            "which": ["predicted", "measured"],
        },
        attrs={"sampler": sampler, "batch_size": batch_size, "R": R, "k": k, "n_min": n_min, "step": eta, "fixed": 0.5},
    ), {}
