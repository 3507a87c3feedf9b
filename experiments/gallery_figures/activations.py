"""What the figures on activations are drawn from: leaving the frame under a leaky slope, and GELU's transition in d."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float

from experiments.harness.cells import Cell, Computed, ProgressCallback
from experiments.measurements.thresholds import certified_minimiser
from solvers.certification.certificate import Proof
from solvers.certification.certifier import Certifier
from solvers.certification.entry_bound_relaxation import entry_bound_relaxation
from solvers.methods.accelerated import Accelerated
from solvers.multistart import solve
from ufm import Problem, step_imbalance
from ufm import excess as ufm_excess
from ufm.activations import GELU_INFIMUM
from ufm.model.evaluation import evaluate
from ufm.model.geometry import geometry_metrics
from ufm.theory.entry_bounds import balanced_cosine, necessary_dimension, sufficient_dimension
from ufm.theory.local_rate import leaving_time

SLOPES = (0.01, 0.02, 0.05, 0.1, 0.2)
# A pair of class means has left the right angle once its cosine is below minus this: near the frame, and far from it.
LEFT = (0.02, 0.2)


def collapsed(k: int, n_min: int, R: float, d: int, tau: float = 1.0) -> Problem:
    """STEP imbalance without the ReLU, a point a class."""
    return Problem(np.arange(k), d, tau, nonneg=False, multiplicity=step_imbalance(k, n_min, R))


def leaving_cell(R: float) -> Cell:
    """Gradient descent through LeakyReLU from random positive starts, at several slopes."""
    parameters = {"R": R, "k": 4, "n_min": 5, "d": 16, "tau": 1.0, "step": 0.05, "steps": 8000, "starts": 8}
    return Cell(f"leaving-R{R:g}", _leaving, {**parameters, "slopes": list(SLOPES), "levels": list(LEFT)})


class _Seen(NamedTuple):
    """Of one step: distance from a frame, cosines of all pairs of class means."""

    delta_gm: Float[Array, ""]
    cosine: Float[Array, " pairs"]


def _leaving(
    *,
    R: float,
    k: int,
    n_min: int,
    d: int,
    tau: float,
    step: float,
    steps: int,
    starts: int,
    slopes: list[float],
    levels: list[float],
    progress: ProgressCallback,
) -> Computed:
    problem = collapsed(k, n_min, R, d, tau)
    start = jnp.abs(jax.random.normal(jax.random.key(0), (starts, k, d)))
    z0 = start / jnp.linalg.norm(start, axis=-1, keepdims=True)
    run = jax.jit(
        jax.vmap(
            jax.vmap(partial(_descent, problem=problem, step=step, steps=steps), in_axes=(0, None)),
            in_axes=(None, 0),
        )
    )
    seen: _Seen = jax.tree.map(np.asarray, run(z0, jnp.asarray(slopes)))
    left = [[[_time_to_leave(run, level) for run in of_slope] for of_slope in seen.cosine] for level in levels]
    at = np.unique(np.geomspace(1, steps, 400).astype(int)) - 1
    fine = np.geomspace(min(slopes) * 0.9, max(slopes) * 1.1, 41)
    return xr.Dataset(
        {
            "left": (("level", "slope", "start"), np.array(left)),
            "predicted": (
                ("level", "fine"),
                [[leaving_time(problem, x, level) / step for x in fine] for level in levels],
            ),
            "nearest": (("slope", "start"), seen.delta_gm.min(axis=-1)),
            "delta_gm": (("slope", "start", "record"), seen.delta_gm[..., at]),
        },
        coords={"slope": slopes, "fine": fine, "level": levels, "record": at + 1},
        attrs={"R": R, "k": k, "d": d, "tau": tau, "n_min": n_min, "step": step, "starts": starts},
    ), {}


def _descent(z: Float[Array, "k d"], slope: Float[Array, ""], *, problem: Problem, step: float, steps: int) -> _Seen:
    """What is seen after every step, which is that of one sample of each class."""

    def features(z: Float[Array, "k d"]) -> Float[Array, "k d"]:
        x = jnp.where(z > 0, z, slope * z)
        return x / jnp.linalg.norm(x, axis=-1, keepdims=True)

    def one(z: Float[Array, "k d"], _: None) -> tuple[Float[Array, "k d"], _Seen]:
        H, pulled_back = jax.vjp(features, z)
        (gradient,) = pulled_back(evaluate(H, problem).gradient / problem.multiplicity[:, None])
        z = z - step * gradient
        H = features(z)
        cosine = (H @ H.T)[np.triu_indices(len(H), 1)]
        return z, _Seen(geometry_metrics(H, problem.labels, k=problem.k).delta_gm, cosine)

    return jax.lax.scan(one, z, length=steps)[1]


def _time_to_leave(cosine: Float[np.ndarray, "steps pairs"], level: float) -> float:
    """Steps from where the first pair to fall below -level passed the right angle; NaN if none falls."""
    fallen = (cosine < -level).any(axis=1)
    if not fallen.any():
        return float("nan")
    end = int(fallen.argmax())
    pair = cosine[: end + 1, int(cosine[end].argmin())]
    above = np.flatnonzero(pair > 0)
    return float(end - (above[-1] if len(above) else 0))


def transition_cell(k: int, R: float, most: int, inits: int = 32) -> Cell:
    """The best point above GELU's floor in each dimension up to `most`, against UFM's certified minimum."""
    parameters = {"k": k, "R": R, "most": most, "n_min": 5, "tau": 1.0, "inits": inits, "floor": GELU_INFIMUM}
    return Cell(f"transition-k{k}-R{R:g}", _transition, {**parameters, "max_steps": 3000})


def _transition(
    *,
    k: int,
    R: float,
    most: int,
    n_min: int,
    tau: float,
    inits: int,
    entry_bound: float,
    max_steps: int,
    progress: ProgressCallback,
) -> Computed:
    problem = collapsed(k, n_min, R, most, tau)
    dimensions = np.arange(max(1, k - 1), most + 1)
    # Coordinates in which all rows are 0 stay so: dimension d within dimension `most`, for one compilation.
    noise = np.random.default_rng(0).standard_normal((len(dimensions), inits, k, most))
    noise *= np.arange(most) < dimensions[:, None, None, None]
    noise /= np.linalg.norm(noise, axis=-1, keepdims=True)
    method = Accelerated(entry_bound=entry_bound, tolerance=1e-11)
    solution = solve(problem, H0=noise.reshape(-1, k, most), method=method, max_steps=max_steps)
    excess = solution.excess.reshape(len(dimensions), inits)
    certifier = Certifier(problem)
    best = [certifier.certify(solution.embedding(i * inits + int(row.argmin()))) for i, row in enumerate(excess)]
    proof = certified_minimiser(problem)
    most_cosine = np.ones((k, k)) if proof.implied is None else np.array(proof.implied.cosine)
    lowest = float(ufm_excess(proof.point.placed()[certifier.orbits.index], problem))
    relaxed = entry_bound_relaxation(problem, entry_bound, dimensions.tolist()) - lowest
    balanced = [
        _over_simplex(problem, balanced_cosine(k, int(d), entry_bound)) if R == 1 else np.nan for d in dimensions
    ]
    return xr.Dataset(
        {
            "gap": ("d", [result.gap for result in best]),
            "certified": ("d", [result.status is Proof.CERTIFIED for result in best]),
            "relaxed": ("d", relaxed),
            "balanced": ("d", np.array(balanced)),
        },
        coords={"d": dimensions},
        attrs={
            **{"k": k, "R": R, "n_min": n_min, "tau": tau, "inits": inits, "floor": entry_bound},
            **{"necessary": necessary_dimension(most_cosine, entry_bound)},
            **{"sufficient": sufficient_dimension(k - 1, entry_bound)},
        },
    ), {}


def _over_simplex(problem: Problem, cosine: float) -> float:
    """Loss where all pairs of classes of one size have this cosine, minus that at -1/(k-1); without cancellation."""
    k, tau, n = problem.k, float(problem.tau), float(problem.class_sizes[0])
    least = -1 / (k - 1)
    crowd = n * (k - 1) * np.exp((least - 1) / tau)
    return float(k * n * np.log1p(crowd * np.expm1((cosine - least) / tau) / (n - 1 + crowd)))
