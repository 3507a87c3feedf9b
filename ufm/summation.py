r"""Fast summation: the loss from class moments, with a rigorous bound on what that leaves out.

For an anchor i and a class c of its batch let a_l = h_i . h_l / tau over the samples l of c (without
i itself). With K(s) = log mean_l e^{s a_l}, the cumulant generating function,

    log sum_{l in c} e^{a_l} = log n_c + K(1),    K(1) = mean + variance / 2 + K'''(s) / 6,  0 <= s <= 1.

All tilted distributions live on the same interval of length r <= 2 ||h_i|| rho_c / tau, rho_c the
largest distance of a sample of c from its class mean. A third central moment on such an interval is
at most r^3 / (6 sqrt 3), a variance at most r^2 / 4, hence the remainders

    second order: r^3 / (36 sqrt 3)          first order (mean only): r^2 / 8  (Hoeffding).

log-sum-exp is 1-Lipschitz in the maximum norm, so the anchor's loss is off by at most the largest
remainder among the classes it meets. The positives enter through their mean only: exactly. Cost
O(n k d^2) (first order O(n k d)) against O(n^2 d); exact when classes have collapsed (rho_c = 0).
(theory, 5.4)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ufm.loss import anchor_terms
from ufm.problem import PADDING, Problem
from ufm.shards import Axis, largest, total

# Anchors handled at once, so that temporaries of k numbers an anchor (second order: k d) stay in cache.
IN_ONE_PIECE = 2**15
ANCHORS = 4096


class MomentLoss(NamedTuple):
    """The loss from moments, its error bound, and the weight of the pairs at each point.

    - loss: approximates `scl_loss` (summed over batches and active anchors).
    - remainder: |loss - scl_loss| <= remainder, in exact arithmetic.
    - pair_weight: as in `ufm.loss.Evaluation`, with every class taken as collapsed.
    """

    loss: Float[Array, ""]
    remainder: Float[Array, ""]
    pair_weight: Float[Array, " m"]


class _Moments(NamedTuple):
    count: Float[Array, " k"]
    mean: Float[Array, "k d"]
    scatter: Float[Array, "k d d"]
    radius: Float[Array, " k"]


def moment_loss(H: Float[Array, "m d"], problem: Problem, *, order: int = 2, axis: Axis = None) -> MomentLoss:
    """The loss by cumulants of the given order (1 or 2) of each class in each batch.

    Differentiable in H (reverse mode) through `loss`. Points of multiplicity 0 and padding are ignored.

    axis: over which the samples are dealt out, if they are (`ufm.shards`). H and problem are then of this device's
    samples, and so are loss and remainder: their sums over devices are those of all. The gradient of this loss is
    that of the sum all the same, since derivatives of the moments come from every device.
    """
    if order not in (1, 2):
        raise ValueError(f"order = {order}: give 1 or 2")

    def of_batch(so_far: MomentLoss, members: Int[Array, " s"]) -> tuple[MomentLoss, None]:
        part = _of_batch(H[members], members, problem, order, axis)
        return MomentLoss(
            so_far.loss + part.loss,
            so_far.remainder + part.remainder,
            so_far.pair_weight.at[members].add(part.pair_weight),
        ), None

    zero = jnp.zeros((), H.dtype)
    whole, _ = jax.lax.scan(of_batch, MomentLoss(zero, zero, jnp.zeros(H.shape[0], H.dtype)), problem.batches)
    return whole


def _of_batch(
    rows: Float[Array, "s d"], members: Int[Array, " s"], problem: Problem, order: int, axis: Axis
) -> MomentLoss:
    terms = anchor_terms(problem, members, axis)
    weight = jnp.where(members != PADDING, problem.multiplicity[members], 0.0)
    label = problem.labels[members]
    moments = _moments(rows, label, weight, problem.k, order, axis)

    def of_anchors(anchors: tuple[Array, ...]) -> tuple[Array, Array, Array]:
        row, own, positives, anchor_weight = anchors
        loss, remainder, share = jax.vmap(_of_anchor, in_axes=(0, 0, 0, None, None, None))(
            row, own, positives, moments, problem.tau, order
        )
        return jnp.sum(anchor_weight * loss), jnp.sum(anchor_weight * remainder), share

    anchors = (rows, label, terms.positives, terms.weight)
    small = rows.shape[0] * (1 if order == 1 else rows.shape[1]) <= IN_ONE_PIECE
    loss, remainder, share = of_anchors(anchors) if small else _in_chunks(of_anchors, anchors)
    share = jax.lax.stop_gradient(share)
    pair_weight = _pair_weight(share, label, weight, terms.weight, moments.count, problem.tau, axis)
    return MomentLoss(loss, remainder, pair_weight)


def _in_chunks(
    of_anchors: Callable[[tuple[Array, ...]], tuple[Array, Array, Array]], anchors: tuple[Array, ...]
) -> tuple[Array, Array, Array]:
    """of_anchors(anchors), ANCHORS at a time, its temporaries recomputed for the gradient."""
    slots = anchors[0].shape[0]
    chunk = min(slots, ANCHORS)

    def chunked(leaf: Array) -> Array:
        # The rows that fill up the last chunk weigh 0, and have 1 positive to stay finite.
        padded = jnp.concatenate([leaf, jnp.zeros((-slots % chunk, *leaf.shape[1:]), leaf.dtype)])
        return padded.reshape(-1, chunk, *leaf.shape[1:])

    row, own, positives, weight = (chunked(leaf) for leaf in anchors)
    loss, remainder, share = jax.lax.map(jax.checkpoint(of_anchors), (row, own, jnp.maximum(positives, 1.0), weight))
    return loss.sum(), remainder.sum(), share.reshape(-1, share.shape[-1])[:slots]


def _moments(
    rows: Float[Array, "s d"], label: Int[Array, " s"], weight: Float[Array, " s"], k: int, order: int, axis: Axis
) -> _Moments:
    membership = jnp.where(label[:, None] == jnp.arange(k), weight[:, None], 0.0)
    count = total(membership.sum(axis=0), axis)
    mean = total(membership.T @ rows, axis) / jnp.maximum(count, 1.0)[:, None]
    offset = rows - mean[label]
    squares = jax.ops.segment_max(jnp.where(weight > 0, jnp.sum(offset**2, axis=1), 0.0), label, k)
    radius = jnp.sqrt(largest(jax.lax.stop_gradient(jnp.maximum(squares, 0.0)), axis))
    if order == 1:
        return _Moments(count, mean, jnp.zeros((k, 0, 0), rows.dtype), radius)
    by_class = total(jax.lax.map(lambda w: (offset * w[:, None]).T @ offset, membership.T), axis)
    return _Moments(count, mean, by_class / jnp.maximum(count, 1.0)[:, None, None], radius)


def _of_anchor(
    row: Float[Array, " d"],
    own: Int[Array, ""],
    positives: Float[Array, ""],
    moments: _Moments,
    tau: Float[Array, ""],
    order: int,
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, " k"]]:
    """One anchor's loss, its remainder, and the share of each class in its partition sum."""
    is_own = jnp.arange(moments.count.shape[0]) == own
    others = jnp.where(is_own, positives, moments.count)
    squared = row @ row
    mean = moments.mean @ row
    # The own class without the anchor itself.
    own_mean = ((positives + 1.0) * mean - squared) / positives
    exponent = jnp.where(is_own, own_mean, mean) / tau
    spread = 2.0 * jnp.sqrt(jax.lax.stop_gradient(squared)) * moments.radius / tau
    if order == 1:
        bound = spread**2 / 8.0
    else:
        variance = jnp.maximum((moments.scatter @ row) @ row, 0.0)
        # n (variance + mean^2) - squared^2 over the others, minus own_mean^2, without large cancellation.
        deviation = squared - mean
        own_variance = (positives + 1.0) / positives * (variance - deviation**2 / positives)
        exponent += jnp.maximum(jnp.where(is_own, own_variance, variance), 0.0) / (2.0 * tau**2)
        bound = spread**3 / (36.0 * jnp.sqrt(3.0))
    present = others > 0
    terms = jnp.where(present, jnp.log(jnp.where(present, others, 1.0)) + exponent, -jnp.inf)
    partition = jax.nn.logsumexp(terms)
    loss = partition - jnp.sum(jnp.where(is_own, own_mean, 0.0)) / tau
    return loss, jnp.max(jnp.where(present, bound, 0.0)), jnp.exp(terms - partition)


def _pair_weight(
    share: Float[Array, "s k"],
    label: Int[Array, " s"],
    weight: Float[Array, " s"],
    anchor_weight: Float[Array, " s"],
    count: Float[Array, " k"],
    tau: Float[Array, ""],
    axis: Axis,
) -> Float[Array, " s"]:
    """Row plus column sums of |C|, C constant on class pairs: see `Evaluation.pair_weight`."""
    own = label[:, None] == jnp.arange(count.shape[0])
    foreign = jnp.sum(jnp.where(own, 0.0, share), axis=1)
    # As anchor: the foreign share repels, and the same amount attracts the positives.
    as_anchor = 2.0 * anchor_weight * foreign
    magnitude = jnp.where(own, foreign[:, None], share) * anchor_weight[:, None]
    as_other = total(magnitude.sum(axis=0), axis) / jnp.maximum(count, 1.0)
    return (as_anchor + weight * as_other[label]) / tau
