r"""The supervised contrastive loss and its family, their bounds, and their excess over these without cancellation.

The loss term of one anchor, its derivatives and its bound are in `ufm.model.anchor_losses`. The deficits 1 - G_ij of a
class keep their relative accuracy however small they are (`_deficits`). One sweep over blocks of anchors yields loss,
excess, gradient and scales of each point; the whole Gram matrix is never in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ufm.errors import Embedding, InvalidInput, real_rows
from ufm.model.anchor_losses import ANCHOR_LOSSES, AnchorTerms, AnchorValues, Pairs, anchor_terms
from ufm.model.batch import Batch
from ufm.model.problem import PADDING, Problem
from ufm.model.sums import grouped_sum
from ufm.settings import fixed_settings, in_fixed_settings

# Entries of one block of anchors times others; a few temporaries of this size exist at once.
BLOCK_ENTRIES = 2**18
# Pairs of the small batches that are swept together.
BATCHES_ENTRIES = 2**14
# A pair is at rest if its cosine is this close to the value that its gradient pushes towards.
AT_REST = 1e-8


class Evaluation(NamedTuple):
    """The result of one sweep over all pairs, at H (m, d).

    - loss: sum over batches and active anchors (theory, 1.1).
    - excess: loss minus the bound of Theorems 1 and 2 (theory, 2.14), computed without cancellation.
    - gradient: d loss / d H, summed over the samples that a point stands for.
    - preconditioner: sum over l of |C_il| + |C_li|, C = d loss / d G; steps are divided by it. Where the batch of
      anchor i has no other class, C vanishes at the minimiser and the curvature need not; there (p_il + 1 / positives)
      2 (1 - G_il) / (tau min(tau, 1)) is added, p the softmax of G_i. / tau.
    - gradient_scale: the same sum, but with (p_il + 1 / positives) / tau >= |C_il| in such batches: repulsion plus
      attraction of each pair, which cancel there. Residuals and gap contributions are compared with it.
    - gap_contribution: each point's contribution to the Lagrangian duality gap at H (theory, 4.9):
      sum over l of (|C_il| + |C_li|)/2 times G_il where C_il > 0 and 1 - G_il where C_il < 0 (only
      positives attract). With A = max(-C, 0), v = A 1, S = Laplacian(A) and N = max(C, 0),
      C = S - Diag(v) + N, so the total <C, G> + tr Diag(v) bounds loss(H) minus the minimum of
      UFM+ from above, by convexity in G. The bound uses H alone, and no theorem about frames.
    - restless: the sum of |C_il| + |C_li| over the pairs that are not at rest: those that repel and have G_il >
      AT_REST, and those that attract and have 1 - G_il > AT_REST. On UFM+ with d >= k a minimiser has no such pair.
    - lift: each point's contribution to the change by a lift (theory, 5.7): half the sum over l of C_il + C_li, times
      1 - G_il for points of its class and -G_il for others. Its sum over the points of a class, or of an attraction
      component, is q: the loss changes by q s^2 + O(s^4) when they receive mass s in a coordinate that no row uses.
    """

    loss: Float[Array, ""]
    excess: Float[Array, ""]
    gradient: Float[Array, "m d"]
    preconditioner: Float[Array, " m"]
    gradient_scale: Float[Array, " m"]
    gap_contribution: Float[Array, " m"]
    lift: Float[Array, " m"]
    restless: Float[Array, " m"]


def norm_deficit(H: Float[Array, "m d"]) -> Float[Array, " m"]:
    """1 - ||h_i||^2, accurate to about 1e-23, where the plain difference stops at 1e-16.

    Each entry is split on a grid of 2^-25: the squares of the coarse parts are multiples of 2^-50
    and sum exactly in float64 (rows of norm up to 2), and the rest is small.
    """
    coarse = jnp.round(H * 2.0**25) * 2.0**-25
    fine = H - coarse
    return (1.0 - jnp.sum(coarse * coarse, axis=-1)) - jnp.sum(fine * (coarse + H), axis=-1)


@in_fixed_settings
@eqx.filter_jit
def loss_bound(problem: Problem) -> Float[Array, ""]:
    """The lower bound of Theorems 1 and 2: sum_B sum_{c: n_{B,c} >= 2} n_{B,c} log Z_{B,c} (the family: theory, 2.14).

    It bounds the loss of every feasible point of UFM+ and is attained by orthogonal frames when
    d >= k. For UFM (nonneg=False) it is the loss of an orthogonal frame, and not a bound. Like the
    loss it is a sum over batches and active anchors, at the problem's tau.
    """

    def of_batch(batch: Batch) -> Float[Array, ""]:
        terms = anchor_terms(problem, batch)
        least = terms.log_partition if terms.offset is None else terms.log_partition + terms.offset
        return jnp.sum(terms.weight * least)

    return jnp.sum(jax.lax.map(of_batch, problem.all_batches))


@in_fixed_settings
def scl_loss(H: Embedding, problem: Problem) -> Float[Array, ""]:
    """The supervised contrastive loss, or the problem's other loss, summed over batches and active anchors, at the
    problem's tau (theory, 1.1, 1.5).

    Differentiable in H by reverse mode, in the memory of one block of anchors, and compiled once for every shape of
    problem. It is finite for every feasible H; rows of norm r > 1 overflow once (1 + 2 r^2) / tau exceeds 700.
    H of another real type is converted to doubles, and its gradient has the type of H. For training make a `Problem`
    with the argument k from traced labels. It also works if `jax_enable_x64` is off; in a trace JAX then rounds H and a
    traced problem to float32, the loss is float32, and only the first derivative exists. Raises InvalidInput for a
    wrong shape, and if it is differentiated with respect to the problem (tau).
    """
    return _in_H_alone(_loss, H, problem)


@in_fixed_settings
def excess(H: Embedding, problem: Problem) -> Float[Array, ""]:
    """`scl_loss` minus `loss_bound`, without cancellation (theory, 2.4; `ufm.model.anchor_losses`).

    This number is minimised, printed and certified. It is >= 0 on the feasible set of UFM+; on UFM it may be negative.
    It is a sum over batches and active anchors at the problem's tau, with the gradient and the inputs of `scl_loss`.
    Raises InvalidInput for a wrong shape.
    """
    return _in_H_alone(_excess, H, problem)


def _in_H_alone(quantity: Callable[..., Array], H: Embedding, problem: Problem) -> Float[Array, ""]:
    """The quantity, with derivatives in H only; Equinox's error for derivatives in the problem becomes InvalidInput."""
    try:
        return quantity(_rows_of(H, problem), problem)
    except RuntimeError as error:
        if "cannot be autodifferentiated" not in str(error):
            raise
        raise InvalidInput(
            "problem", "differentiated", "loss and excess can be differentiated in H only, not in tau"
        ) from None


def _rows_of(H: Embedding, problem: Problem) -> Float[Array, "m d"]:
    if not isinstance(problem, Problem):
        raise InvalidInput("problem", type(problem).__name__, "give a ufm.Problem")
    return real_rows("H", H, (problem.num_points, problem.d))


@eqx.filter_custom_vjp
def _loss(H: Float[Array, "m d"], problem: Problem) -> Float[Array, ""]:
    return _compiled(H, problem, with_gradient=False).loss


@eqx.filter_custom_vjp
def _excess(H: Float[Array, "m d"], problem: Problem) -> Float[Array, ""]:
    return _compiled(H, problem, with_gradient=False).excess


# JAX calls both after `scl_loss` has returned, under the user's settings. Products are `jax.lax.dot`, since those of
# jax.numpy derive their type again when JAX maps a trace, and get float32.
def _forward(quantity: str, perturbed: object, H: Float[Array, "m d"], problem: Problem):  # noqa: ANN202
    with fixed_settings():
        at = _compiled(H, problem)
    return getattr(at, quantity), at.gradient


def _backward(residual: Array, cotangent: Array, perturbed: object, H: Array, problem: Problem) -> Array:
    with fixed_settings():
        return cotangent * residual


_loss.def_fwd(partial(_forward, "loss"))
_loss.def_bwd(_backward)
_excess.def_fwd(partial(_forward, "excess"))
_excess.def_bwd(_backward)


def anchor_blocks(problem: Problem) -> tuple[int, int]:
    """How `evaluate` cuts a batch: the number of anchors in a block, and of blocks."""
    slots = problem.batches.shape[1]
    rows = min(slots, max(32, BLOCK_ENTRIES // slots))
    return rows, -(-slots // rows)


def evaluate(
    H: Float[Array, "m d"],
    problem: Problem,
    *,
    with_gradient: bool = True,
    unit: Bool[Array, " m"] | None = None,
    first: Int[Array, ""] | int = 0,
    blocks: int | None = None,
    along: Float[Array, "m w"] | None = None,
) -> Evaluation:
    """Loss, excess, gradient and the scales of `Evaluation` in one sweep over blocks of anchors.

    unit: rows that have norm 1 except for rounding, and are treated as of norm 1. Otherwise this rounding, times the
    gradient of a majority, could exceed the whole effect of a minority. By default computed norms are used.
    first, blocks: sweep this number of blocks of each batch (`anchor_blocks`), beginning with `first`; all by default.
    The results of parts that cover all blocks add up to the whole.
    along: replaces the gradient K H by K V, for any V (m, w). K is the symmetric matrix of the derivatives in the inner
    products of points, summed over the samples of a point. V = I gives K itself.

    Time O(sum_B n_B^2 d), memory O(m d + BLOCK_ENTRIES). With with_gradient=False the gradient and
    the scales are zeros.
    """
    rows, all_blocks = anchor_blocks(problem)
    swept = first + jnp.arange(all_blocks if blocks is None else blocks)

    def of_batch(batch: Batch) -> Evaluation:
        terms = anchor_terms(problem, batch)
        inside = _features(H, problem, batch, unit, along)

        def of_block(part: Evaluation, block: Array) -> tuple[Evaluation, None]:
            return jax.tree.map(jnp.add, part, _block(inside, terms, problem, block * rows, rows, with_gradient)), None

        return jax.lax.scan(of_block, _zeros(inside.acted_on), swept)[0]

    def of_batches(total: Evaluation, batches: Batch) -> tuple[Evaluation, None]:
        parts = jax.vmap(of_batch)(batches)

        def added(whole: Array, part: Array) -> Array:
            if not whole.ndim:
                return whole + jnp.sum(part)
            return whole + grouped_sum(part.reshape(-1, *whole.shape[1:]), batches.members.reshape(-1), len(whole))

        return jax.tree.map(added, total, parts), None

    count, slots = problem.batches.shape
    together = min(count, max(1, BATCHES_ENTRIES // (rows * slots)))
    missing = -count % together
    batches = jnp.pad(problem.batches, ((0, missing), (0, 0)), constant_values=PADDING)
    others = jax.tree.map(
        lambda of: jnp.pad(of, [(0, missing)] + [(0, 0)] * (of.ndim - 1)), (problem.counts, problem.weights)
    )
    grouped = jax.tree.map(lambda of: of.reshape(-1, together, *of.shape[1:]), Batch(batches, *others))
    return jax.lax.scan(of_batches, _zeros(H if along is None else along), grouped)[0]


def batch_gradient(H: Float[Array, "m d"], problem: Problem, members: Int[Array, " s"]) -> Float[Array, "s d"]:
    """The gradient of the summed loss of one batch of samples in its own rows; 0 where `members` is padding (-1).

    Every point stands for one sample, and the batches of the problem are not used. Time O(s^2 d), whatever m is. Plain
    SCL is computed by rounded differences: it is accurate relative to attraction and repulsion of a row, and not
    relative to their sum, which vanishes at a minimiser.
    """
    batch = Batch(members, None, None)
    terms = anchor_terms(problem, batch)
    if not problem.loss.is_plain:
        inside = _features(H, problem, batch, None)
        return _block(inside, terms, problem, jnp.zeros((), jnp.int32), len(members), True).gradient
    inside, label = members != PADDING, problem.labels[members]
    row = jnp.where(inside[:, None], H[members], 0.0)
    met = inside[:, None] & inside[None, :] & ~jnp.eye(len(members), dtype=bool)
    # E is computed once and stored, since it takes more time than all the rest.
    exponential = jax.lax.optimization_barrier(jnp.where(met, jnp.exp((row @ row.T - 1.0) / problem.tau), 0.0))
    partition = jnp.sum(exponential, axis=1)
    push = terms.weight / (problem.tau * jnp.where(partition > 0, partition, 1.0))
    pull = 2.0 * terms.weight / (problem.tau * terms.positives)
    one_hot = ((label[:, None] == jnp.arange(problem.k)) & inside[:, None]) * 1.0
    others = (one_hot.T @ row)[label] - row
    # C + C^T is diag(push) E + E diag(push), minus pull over pairs of positives.
    repelled = (exponential * (push[:, None] + push[None, :])) @ row
    return jnp.where(inside[:, None], repelled - pull[:, None] * others, 0.0)


# Outside jit, a scan would be compiled again at every call.
_compiled = eqx.filter_jit(evaluate)


def _zeros(H: Float[Array, "m d"]) -> Evaluation:
    zero = jnp.zeros((), H.dtype)
    points = jnp.zeros(H.shape[0], H.dtype)
    return Evaluation(zero, zero, jnp.zeros_like(H), points, points, points, points, points)


class _Features(NamedTuple):
    """For each slot of a batch: row, offset from its class mean in the batch, 1 - ||h||^2, label, multiplicity.

    acted_on: the matrix that is multiplied by the derivatives in the inner products; for the gradient, the rows.
    """

    row: Float[Array, "s d"]
    offset: Float[Array, "s d"]
    norm_deficit: Float[Array, " s"]
    label: Int[Array, " s"]
    weight: Float[Array, " s"]
    acted_on: Float[Array, "s w"]


def _features(
    H: Float[Array, "m d"],
    problem: Problem,
    batch: Batch,
    unit: Bool[Array, " m"] | None,
    along: Float[Array, "m w"] | None = None,
) -> _Features:
    """The features of the members of one batch; padding gets weight 0 and a row of zeros.

    The mean is that of the batch. If a class consists of collapsed parts in different batches, its rows are far from
    the mean of the whole class, and small distances within a part would be lost to rounding.
    """
    members = batch.members
    label, weight = problem.labels[members], problem.samples_in(batch)
    row = jnp.where(weight[:, None] > 0, H[members], 0.0)
    total = grouped_sum(row * weight[:, None], label, problem.k)
    mean = total / jnp.maximum(grouped_sum(weight, label, problem.k), 1.0)[:, None]
    deficit = norm_deficit(row) if unit is None else jnp.where(unit[members], 0.0, norm_deficit(row))
    acted_on = row if along is None else jnp.where(weight[:, None] > 0, along[members], 0.0)
    return _Features(row, row - mean[label], deficit, label, weight, acted_on)


def _block(
    batch: _Features,
    terms: AnchorTerms,
    problem: Problem,
    start: Int[Array, ""],
    rows: int,
    with_gradient: bool,
) -> Evaluation:
    """The contribution of the anchors in slots start .. start + rows - 1 of one batch, by slot of the batch."""
    slots = batch.row.shape[0]
    if rows == slots:  # the one block of a small batch
        slot, anchor, of_anchors = jnp.arange(slots), batch, terms
    else:
        slot = start + jnp.arange(rows)
        present = slot < slots
        slot = jnp.minimum(slot, slots - 1)
        anchor = jax.tree.map(lambda leaf: leaf[slot], batch)
        of_anchors = jax.tree.map(lambda leaf: leaf[slot] if leaf.ndim else leaf, terms)
        of_anchors = of_anchors._replace(weight=jnp.where(present, of_anchors.weight, 0.0))

    itself = slot[:, None] == jnp.arange(slots)[None, :]
    same = anchor.label[:, None] == batch.label[None, :]
    others = jnp.maximum(batch.weight[None, :] - itself, 0.0)  # padding stays at 0
    # Only these pairs have a term; the deficits of padding have no meaning, and could overflow.
    met = (of_anchors.weight[:, None] > 0) & (others > 0)
    deficit = _deficits(anchor, batch, itself)
    mean_deficit = jnp.sum(jnp.where(same, others * deficit, 0.0), axis=1) / of_anchors.positives
    cosine = jax.lax.dot(anchor.row, batch.row.T)
    alone = jnp.sum(jnp.where(same, 0.0, batch.weight[None, :]), axis=1, keepdims=True) == 0
    pairs = Pairs(same, others, met, deficit, mean_deficit, cosine, batch.label)
    values = ANCHOR_LOSSES[problem.loss.kind](pairs, of_anchors, problem, with_gradient)
    loss, gap = jnp.sum(of_anchors.weight * values.loss), jnp.sum(of_anchors.weight * values.gap)
    if values.C is None:
        return _zeros(batch.acted_on)._replace(loss=loss, excess=gap)

    C = values.C
    magnitude = jnp.abs(C)
    off = jnp.where(C < 0, deficit, cosine)
    mismatch, restless = magnitude * off, jnp.where(off > AT_REST, magnitude, 0.0)
    lifted = C * jnp.where(same, deficit, -cosine)
    step, gradient_scale = _scales(magnitude, deficit, alone, values, of_anchors)

    def at_slots(of_anchors: Array, of_members: Array) -> Array:
        if rows == slots:
            return of_members + of_anchors
        return of_members.at[slot].add(of_anchors)  # repeated slots of the last block carry zeros

    return Evaluation(
        loss,
        gap,
        at_slots(jax.lax.dot(C, batch.acted_on), jax.lax.dot(C.T, anchor.acted_on)),
        at_slots(step.sum(axis=1), step.sum(axis=0)),
        at_slots(gradient_scale.sum(axis=1), gradient_scale.sum(axis=0)),
        0.5 * at_slots(mismatch.sum(axis=1), mismatch.sum(axis=0)),
        0.5 * at_slots(lifted.sum(axis=1), lifted.sum(axis=0)),
        at_slots(restless.sum(axis=1), restless.sum(axis=0)),
    )


def _scales(
    magnitude: Float[Array, "r s"],
    deficit: Float[Array, "r s"],
    alone: Bool[Array, "r 1"],
    row: AnchorValues,
    terms: AnchorTerms,
) -> tuple[Float[Array, "r s"], Float[Array, "r s"]]:
    """For each pair, the scale of a step and the scale of a gradient: |C|, except in batches of one class.

    There attraction and repulsion cancel at the minimiser. The curvature across a row is about proportional to the
    deficit, so it vanishes only as the rows become equal.
    """
    if row.both is None:
        return magnitude, magnitude
    tau = jnp.minimum(terms.tau if terms.tau.ndim == 0 else terms.tau[:, None], 1.0)
    step = magnitude + jnp.where(alone, row.both * 2.0 * deficit / tau, 0.0)
    return step, jnp.where(alone, row.both, magnitude)


def _deficits(anchor: _Features, batch: _Features, itself: Bool[Array, "r s"]) -> Float[Array, "r s"]:
    """1 - G_ij = (1 - ||h_i||^2)/2 + (1 - ||h_j||^2)/2 + ||h_i - h_j||^2/2, meaningful within a class.

    The distance is that of offsets from the class mean in the batch, which is exact for collapsed rows.
    """
    squared = jnp.sum(anchor.offset**2, axis=-1)[:, None] + jnp.sum(batch.offset**2, axis=-1)[None, :]
    distance = jnp.where(itself, 0.0, jnp.maximum(squared - 2 * jax.lax.dot(anchor.offset, batch.offset.T), 0.0))
    return 0.5 * (anchor.norm_deficit[:, None] + batch.norm_deficit[None, :] + distance)
