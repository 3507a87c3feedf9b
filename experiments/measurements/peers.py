"""Peers of the benchmark: other methods and packages for the same problem, which stop by the same untimed test.

A peer takes the starts (S, n, d) and a test of one embedding. It runs every start until the test passes or the time
limit is reached. Its seconds include neither compilation nor the test. A start also ends when it has taken twice the
limit with its tests.
"""

# The peers come with the extra `bench`; types are checked without it as well.
# pyright: reportMissingImports=false, reportPrivateImportUsage=false

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float
from scipy.optimize import OptimizeResult, minimize

from solvers.loop.method import Method, advance_slots, begin_slots
from solvers.methods.projected_gradient import ProjectedGradient
from solvers.multistart import solve
from ufm import Problem, excess, orbits, project, scl_loss

# Steps between two tests.
CHUNK = 20
# Multiple of the limit that a start may take with its tests.
WITH_TESTS = 2.0


@dataclass(frozen=True)
class Run:
    """One start of one peer: whether it reached the optimum, and in how many seconds and steps."""

    start: int
    reached: bool
    seconds: float
    iterations: int


def _goes_on(seconds: float, limit: float, began: float) -> bool:
    """Whether a start has time left: seconds are those of its steps, and began is when it started."""
    return seconds < limit and time.perf_counter() - began < WITH_TESTS * limit


Test = Callable[[Float[np.ndarray, "n d"]], bool]
Peer = Callable[[Problem, Float[np.ndarray, "s n d"], Test, float], list[Run]]


def staircase(problem: Problem, starts: Float[np.ndarray, "s n d"], reached: Test, limit: float) -> list[Run]:
    """This project's default method, which draws the same starts itself from seed 0."""
    del limit
    solve(problem, len(starts))  # compiles
    solution = solve(problem, len(starts))
    seconds = solution.timings.solve / len(starts)
    return [Run(s, reached(solution.embedding(s)), seconds, int(solution.iterations[s])) for s in range(len(starts))]


def reference(problem: Problem, starts: Float[np.ndarray, "s n d"], reached: Test, limit: float) -> list[Run]:
    """This project's reference method: SGD 0.1 / 0.9 on the summed loss and the projection, with exact sums."""
    return _one_by_one(ProjectedGradient(tolerance=0.0), problem, starts, reached, limit)


def _adam() -> optax.GradientTransformation:
    return optax.adam(0.01)


def adam(problem: Problem, starts: Float[np.ndarray, "s n d"], reached: Test, limit: float) -> list[Run]:
    """optax Adam, step 0.01, and the projection, on this project's exact gradient."""
    return _one_by_one(ProjectedGradient(_adam, tolerance=0.0), problem, starts, reached, limit)


def _one_by_one(
    method: Method, problem: Problem, starts: Float[np.ndarray, "s n d"], reached: Test, limit: float
) -> list[Run]:
    tau, most = problem.tau[None], jnp.array([2**31 - 1], jnp.int32)
    begin = jax.jit(lambda H: begin_slots(H, tau, most, problem, method=method))
    advance = jax.jit(lambda slots: advance_slots(slots, problem, method=method, records=1, every=CHUNK)[0])
    jax.block_until_ready(advance(begin(starts[:1])))
    runs = []
    for s in range(len(starts)):
        slots, seconds, steps, success = begin(starts[s : s + 1]), 0.0, 0, False
        entered = time.perf_counter()
        while _goes_on(seconds, limit, entered) and not success:
            began = time.perf_counter()
            slots = jax.block_until_ready(advance(slots))
            seconds += time.perf_counter() - began
            steps += CHUNK
            success = reached(np.asarray(method.iterate(slots.inner).H[0]))
        runs.append(Run(s, success, seconds, steps))
    return runs


def jaxopt_vmapped(problem: Problem, starts: Float[np.ndarray, "s n d"], reached: Test, limit: float) -> list[Run]:
    """jaxopt.ProjectedGradient, accelerated with line search (its defaults), vmapped over the starts.

    All starts share each chunk of steps, so the time of a start is the total time divided by their number.
    """
    import jaxopt

    solver = jaxopt.ProjectedGradient(
        fun=lambda H: scl_loss(H, problem), projection=lambda H, _: project(H, problem.nonneg), tol=0.0
    )

    def advance(H: Array, state: object) -> object:
        return jax.lax.fori_loop(0, CHUNK, lambda _, carry: tuple(solver.update(*carry)), (H, state))

    initial = jax.jit(jax.vmap(solver.init_state))
    advance = jax.jit(jax.vmap(advance))
    H = jnp.asarray(starts)
    state = initial(H)
    jax.block_until_ready(advance(H, state))
    seconds, steps = 0.0, 0
    when: dict[int, tuple[float, int]] = {}
    entered = time.perf_counter()
    while _goes_on(seconds, limit * len(starts), entered) and len(when) < len(starts):
        began = time.perf_counter()
        H, state = jax.block_until_ready(advance(H, state))
        seconds += time.perf_counter() - began
        steps += CHUNK
        for s in range(len(starts)):
            if s not in when and reached(np.asarray(H[s])):
                when[s] = (seconds / len(starts), steps)
    return [Run(s, s in when, *when.get(s, (seconds / len(starts), steps))) for s in range(len(starts))]


def lbfgsb_on_samples(problem: Problem, starts: Float[np.ndarray, "s n d"], reached: Test, limit: float) -> list[Run]:
    """scipy's L-BFGS-B on all samples: rows normalised, entries >= 0, the excess and its gradient jitted."""
    return _lbfgsb(problem, starts, reached, limit)


def lbfgsb_on_orbits(problem: Problem, starts: Float[np.ndarray, "s n d"], reached: Test, limit: float) -> list[Run]:
    """scipy's L-BFGS-B as above on the orbit problem, from the mean row of each orbit: samples have collapsed."""
    symmetry = orbits(problem)
    sums = np.zeros((len(starts), len(symmetry), problem.d))
    for rows, start in zip(sums, starts, strict=True):
        np.add.at(rows, symmetry.index, start)
    return _lbfgsb(symmetry.quotient, sums, lambda rows: reached(rows[symmetry.index]), limit)


def _lbfgsb(problem: Problem, starts: Float[np.ndarray, "s m d"], reached: Test, limit: float) -> list[Run]:
    def normalised(X: Array) -> Array:
        return X / jnp.maximum(jnp.linalg.norm(X, axis=1, keepdims=True), 1e-300)

    loss = jax.jit(jax.value_and_grad(lambda X: excess(normalised(X), problem)))
    shape = starts.shape[1:]
    jax.block_until_ready(loss(starts[0]))

    def evaluated(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = loss(x.reshape(shape))
        return float(value), np.asarray(gradient).ravel()

    bounds = [(0.0 if problem.nonneg else None, None)] * starts[0].size
    runs = []
    for s, start in enumerate(starts):
        began, off_the_clock, steps, success = time.perf_counter(), 0.0, 0, False

        def every(intermediate_result: OptimizeResult) -> None:
            nonlocal off_the_clock, steps, success
            steps += 1
            if steps % CHUNK == 0:
                paused = time.perf_counter()
                success = reached(np.asarray(normalised(jnp.asarray(intermediate_result.x.reshape(shape)))))
                off_the_clock += time.perf_counter() - paused
            if success or not _goes_on(time.perf_counter() - began - off_the_clock, limit, began):  # noqa: B023
                raise StopIteration

        options = {"maxiter": 10**6, "maxfun": 10**7, "ftol": 0.0, "gtol": 0.0}
        x0 = np.asarray(normalised(jnp.asarray(start))).ravel()
        end = minimize(evaluated, x0, jac=True, method="L-BFGS-B", bounds=bounds, callback=every, options=options)
        seconds = time.perf_counter() - began - off_the_clock
        success = success or reached(np.asarray(normalised(jnp.asarray(end.x.reshape(shape)))))
        runs.append(Run(s, success, seconds, steps))
    return runs


def torch_sgd(problem: Problem, starts: Float[np.ndarray, "s n d"], reached: Test, limit: float) -> list[Run]:
    """PyTorch, the loss written as in its papers, summed; SGD 0.1 / 0.9 as in the authors' recipe; projected."""
    import torch

    labels = torch.from_numpy(np.asarray(problem.labels).astype(np.int64))
    tau, n = float(problem.tau), len(labels)
    itself = torch.eye(n, dtype=torch.bool)
    positive = (labels[:, None] == labels[None, :]) & ~itself
    count = positive.sum(dim=1).clamp(min=1)
    active = positive.any(dim=1)

    def loss(H: torch.Tensor) -> torch.Tensor:
        logits = (H @ H.T / tau).masked_fill(itself, -torch.inf)
        mean = (logits.masked_fill(~positive, 0.0)).sum(dim=1) / count
        return (torch.logsumexp(logits, dim=1) - mean)[active].sum()

    return _torch_runs(loss, 0.1, problem, starts, reached, limit)


def torch_supcon(problem: Problem, starts: Float[np.ndarray, "s n d"], reached: Test, limit: float) -> list[Run]:
    """PyTorch with pytorch-metric-learning's SupConLoss (a mean over anchors, so the step is 0.1 n)."""
    import torch
    from pytorch_metric_learning.distances import DotProductSimilarity
    from pytorch_metric_learning.losses import SupConLoss

    labels = torch.from_numpy(np.asarray(problem.labels).astype(np.int64))
    mean = SupConLoss(temperature=float(problem.tau), distance=DotProductSimilarity(normalize_embeddings=False))
    return _torch_runs(lambda H: mean(H, labels), 0.1 * len(labels), problem, starts, reached, limit)


def _torch_runs(
    loss: Callable, step: float, problem: Problem, starts: Float[np.ndarray, "s n d"], reached: Test, limit: float
) -> list[Run]:
    import torch

    def advance(H: torch.Tensor, optimiser: torch.optim.Optimizer, until: float) -> int:
        """At most CHUNK steps, and none that begins after `until`; how many."""
        for taken in range(CHUNK):
            if taken and time.perf_counter() > until:
                return taken
            optimiser.zero_grad()
            loss(H).backward()
            optimiser.step()
            with torch.no_grad():
                if problem.nonneg:
                    H.clamp_(min=0)
                H.div_(H.norm(dim=1, keepdim=True).clamp(min=1))
        return CHUNK

    runs = []
    for s in range(len(starts)):
        H = torch.from_numpy(starts[s].copy()).requires_grad_()
        optimiser = torch.optim.SGD([H], lr=step, momentum=0.9)
        seconds, steps, success = 0.0, 0, False
        entered = time.perf_counter()
        while _goes_on(seconds, limit, entered) and not success:
            began = time.perf_counter()
            steps += advance(H, optimiser, began + limit - seconds)
            seconds += time.perf_counter() - began
            success = reached(H.detach().numpy())
        runs.append(Run(s, success, seconds, steps))
    return runs


PEERS: dict[str, Peer] = {
    "staircase": staircase,
    "reference": reference,
    "adam": adam,
    "jaxopt": jaxopt_vmapped,
    "lbfgsb-samples": lbfgsb_on_samples,
    "lbfgsb-orbits": lbfgsb_on_orbits,
    "torch-sgd": torch_sgd,
    "torch-supcon": torch_supcon,
}
