"""Exact measurement of points: evaluation, stationarity and geometry, compiled once per shape."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from solvers.compilation.compiled import Compiled
from solvers.loop.method import Record
from solvers.loop.stopping import hides, stationarity
from solvers.parallel.padding import Shape, common_shape, padded
from solvers.progress import ProgressCallback, followed
from ufm.model.evaluation import Evaluation, anchor_blocks, evaluate
from ufm.model.geometry import GeometryMetrics, geometry_metrics
from ufm.model.problem import PADDING, Problem
from ufm.settings import in_fixed_settings

# The most pairs of samples in one call, which then takes seconds.
PIECE = 2**28
# The most pairs, and the most points, that are measured together.
TOGETHER, MOST_TOGETHER = 2**15, 16


class Measurement(NamedTuple):
    """The numbers of one H (m, d), by the exact objective; of several with one more axis.

    - loss, excess: see `ufm.model.evaluation.Evaluation`.
    - residuals: `solvers.loop.stopping.stationarity` of every point.
    - metrics: see `ufm.geometry_metrics`.
    - hidden: `solvers.loop.stopping.hides` of every point.
    """

    loss: Float[Array, "*points"]
    excess: Float[Array, "*points"]
    residuals: Float[Array, "*points m"]
    metrics: GeometryMetrics
    hidden: Bool[Array, "*points m"]

    @property
    def residual(self) -> Float[np.ndarray, "*points"]:
        """The largest stationarity residual over rows."""
        return np.asarray(np.asarray(self.residuals).max(axis=-1))

    def lines(self, iteration: Int[np.ndarray, " lines"]) -> Record:
        """A history whose lines are the measured points; iteration: the steps after which each was reached."""
        of, numbers = self.metrics, (self.excess, self.residual)
        return Record(iteration, *numbers, of.delta_gm, of.beta_nc, of.mean_cosine, of.max_cosine)


def measure_points(H: Float[Array, "p m d"], spread: Float[Array, "p r"], problem: Problem) -> Measurement:
    """Measure several points at once, traced once per shape. spread: see `ufm.geometry_metrics`."""

    def of(H: Float[Array, "m d"], spread: Float[Array, " r"]) -> Measurement:
        at = evaluate(H, problem)
        metrics = geometry_metrics(H, problem.labels, k=problem.k, multiplicity=problem.multiplicity, spread=spread)
        return Measurement(at.loss, at.excess, stationarity(H, at, problem), metrics, hides(at))

    return jax.vmap(of)(H, spread)


_compiled = Compiled(measure_points)


@in_fixed_settings
def measure(
    H: Float[Array, "m d"] | Float[np.ndarray, "m d"],
    problem: Problem,
    shape: Shape | None = None,
    progress: ProgressCallback | None = None,
) -> Measurement:
    """Measure one point; the result is on the host. Compiled once per shape, by default `common_shape` of the problem.

    More than PIECE pairs are measured in pieces, with a progress bar, and can be stopped (`solvers.progress.followed`).
    """
    pairs = _pairs(problem)
    if pairs > PIECE:
        return _in_pieces(jnp.asarray(H), problem, pairs, progress)
    return jax.tree.map(lambda leaf: leaf[0], measure_all(np.asarray(H)[None], problem, shape))


@in_fixed_settings
def measure_all(
    points: Float[np.ndarray, "s m d"],
    problem: Problem,
    shape: Shape | None = None,
    spread: Float[np.ndarray, "s r"] | None = None,
) -> Measurement:
    """Measure every point, several per call. spread: see `ufm.geometry_metrics`."""
    spread = np.zeros((len(points), min(problem.k, problem.d))) if spread is None else spread
    if (pairs := _pairs(problem)) > PIECE:
        each = (_in_pieces(jnp.asarray(H), problem, pairs, None, of) for H, of in zip(points, spread, strict=True))
        return jax.tree.map(lambda *leaves: np.stack(leaves), *each)
    shape = common_shape([problem]) if shape is None else shape
    wider, size = padded(problem, shape), _at_once(shape)
    missing = (0, -len(points) % size)
    H = np.pad(points, (missing, (0, shape[0] - points.shape[1]), (0, 0)))
    spread = np.pad(spread, (missing, (0, 0)))
    parts = [_compiled(H[p : p + size], spread[p : p + size], wider) for p in range(0, len(H), size)]
    at = jax.tree.map(lambda *each: np.concatenate(each)[: len(points)], *parts)
    return at._replace(residuals=at.residuals[:, : points.shape[1]], hidden=at.hidden[:, : points.shape[1]])


def prepare_measure(problem: Problem) -> None:
    """Compile, on another thread, the function that `measure` and `measure_all` will call for this problem."""
    if _pairs(problem) <= PIECE:
        shape = common_shape([problem])
        sizes = (_at_once(shape), shape[0], problem.d), (_at_once(shape), min(problem.k, problem.d))
        _compiled.prepare(*(jax.ShapeDtypeStruct(size, np.float64) for size in sizes), padded(problem, shape))


def _at_once(shape: Shape) -> int:
    """How many points are measured together: many small ones take hardly longer than one."""
    _, batches, slots = shape
    return 2 ** int(np.clip(TOGETHER // (batches * slots**2), 1, MOST_TOGETHER)).bit_length() // 2


def _pairs(problem: Problem) -> float:
    return float(problem.batches.shape[0]) * problem.batches.shape[1] ** 2


def _in_pieces(
    H: Float[Array, "m d"],
    problem: Problem,
    pairs: float,
    progress: ProgressCallback | None,
    spread: Float[np.ndarray, " r"] | None = None,
) -> Measurement:
    """`measure` as a sum of pieces: each is some whole batches, or some blocks of anchors of one batch."""
    batches, slots = problem.batches.shape
    rows, blocks = anchor_blocks(problem)
    together = max(1, PIECE // slots**2)  # batches
    width = blocks if together > 1 else max(1, PIECE // (rows * slots))
    missing = -batches % together
    empty = jnp.full((missing, slots), PADDING, problem.batches.dtype)
    all_batches = (
        jnp.concatenate([problem.batches, empty]),
        *(
            None if of is None else jnp.pad(of, [(0, missing)] + [(0, 0)] * (of.ndim - 1))
            for of in problem.all_batches[1:]
        ),
    )

    def pieces() -> Iterator[tuple[tuple[int, int], float]]:
        for b in range(0, batches, together):
            pairs_per_anchor = float(min(together, batches - b)) * slots
            for first in range(0, blocks, width):
                yield (b, first), pairs_per_anchor * (min(rows * (first + width), slots) - min(rows * first, slots))

    parts: list[Evaluation] = []

    def sweep(piece: tuple[int, int]) -> None:
        b, first = piece
        batches_of_piece = jax.tree.map(lambda of: of[b : b + together], all_batches)
        part_of = eqx.tree_at(
            lambda p: (p.batches, p.counts, p.weights), problem, batches_of_piece, is_leaf=lambda x: x is None
        )
        part = jax.block_until_ready(_part(H, part_of, np.int32(first), blocks=width))
        parts[:] = [jax.tree.map(jnp.add, parts[0], part) if parts else part]

    followed(sweep, pieces(), f"verifying: {pairs:.1e} pairs of samples", pairs, progress)
    (at,) = parts
    second_moments = None if spread is None else jnp.asarray(spread)
    metrics = geometry_metrics(H, problem.labels, k=problem.k, multiplicity=problem.multiplicity, spread=second_moments)
    measured = Measurement(at.loss, at.excess, stationarity(H, at, problem), metrics, hides(at))
    return jax.tree.map(np.asarray, measured)


def evaluate_part(H: Float[Array, "m d"], problem: Problem, first: Int[Array, ""], *, blocks: int) -> Evaluation:
    """`ufm.model.evaluation.evaluate`, restricted to some blocks of anchors."""
    return evaluate(H, problem, first=first, blocks=blocks)


_part = Compiled(evaluate_part)
