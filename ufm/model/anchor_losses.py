r"""The anchor losses: the loss term of one anchor as a function of its cosines, and derivatives, without cancellation.

With the mean g of G_ij over its p positives, deficits delta_ij = 1 - G_ij, delta = 1 - g and phi(x) = e^x - 1 - x:

**Log-sum-exp.** If alpha = 1, only differences of margins matter for the excess. With r_e = e^{a(c,e) - a(c,c) - s},

    Z = p + sum_{neg} r,   D = p + sum_pos phi(s (delta - delta_ij)) + sum_{neg l} r_l e^{s (G_il + delta)}
    f = omega ( a(c,c) + log p + log1p( (D - p) / p ) )
    f - bound = omega log1p( [ sum_pos phi(s (delta - delta_ij)) + sum_{neg l} r_l expm1(s (G_il + delta)) ] / Z )

(theory, 2.4; phi appears since the linear terms sum to zero over the positives). With alpha = 0 the positives are left
out, and the r are divided by their sum over negatives, so that D = 1 at a frame.

**Sigmoid.** log(1 + e^{z + x}) - log(1 + e^z) = log1p(sigma(z) expm1(x)), x = t delta_ij or t G_il.

**SupCon-in.** f - log Z = log1p( e^{-s} [ sum_neg expm1(s G_il) + q (1 - y) ] / (y Z) ), y the mean of e^{-s delta_ij}.

**A custom loss** (`ufm.losses.custom`) is evaluated as it is; its excess is the difference to its value at a frame.

On UFM+ every term in these brackets is >= 0, so the excess keeps its relative accuracy however small it is, if the
deficits do. Where a bracket is far below 0, as can happen without the ReLU, the logarithm of the sum itself is taken.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ufm.model.batch import Batch
from ufm.model.problem import Problem
from ufm.model.sums import grouped_sum


class AnchorTerms(NamedTuple):
    """Constants of each anchor slot of a batch (theory, 2.2 and 2.14).

    - positives: their number. weight: omega times the samples it stands for, 0 if it is not active.
    - log_partition: log Z; plus `offset` it is the bound of the anchor's loss over omega. For the sigmoid and custom
      losses it is that bound itself.
    - tau: its temperature. ratio: r (head of this module), by class. Both are scalars if all anchors and classes agree.
    """

    positives: Float[Array, " s"]
    log_partition: Float[Array, " s"]
    weight: Float[Array, " s"]
    tau: Float[Array, ...]
    ratio: Float[Array, ...]
    offset: Float[Array, " s"] | None = None


class Pairs(NamedTuple):
    """Anchors of a block against all slots of their batch.

    - same: whether of one class. others: number of other samples in the slot. met: whether the pair has a term.
    - deficit: 1 - G, meaningful where same; mean_deficit: its mean over positives. cosine: G.
    - label: class of each slot.
    """

    same: Bool[Array, "r s"]
    others: Float[Array, "r s"]
    met: Bool[Array, "r s"]
    deficit: Float[Array, "r s"]
    mean_deficit: Float[Array, " r"]
    cosine: Float[Array, "r s"]
    label: Int[Array, " s"]


class AnchorValues(NamedTuple):
    """The losses of anchors, for one of the samples that each stands for.

    - loss, gap: f / omega and its excess over the bound / omega; to be multiplied by `AnchorTerms.weight`.
    - C: the derivatives in G_il, this weight included; None without gradient.
    - both: sums of repulsion and attraction, needed in batches of one class, where the two cancel at a minimiser;
      else None.
    """

    loss: Float[Array, " r"]
    gap: Float[Array, " r"]
    C: Float[Array, "r s"] | None = None
    both: Float[Array, "r s"] | None = None


def phi(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """exp(x) - 1 - x to full relative accuracy: Taylor near 0, where the difference would cancel."""
    near = jnp.abs(x) < 0.5
    y = jnp.where(near, x, 0.0)
    series = jnp.ones_like(y)
    for order in range(14, 2, -1):
        series = 1.0 + y / order * series
    return jnp.where(near, 0.5 * y * y * series, jnp.exp(x) - 1.0 - x)


def anchor_terms(problem: Problem, batch: Batch) -> AnchorTerms:
    """Counts, bounds and margins of every slot of one batch; padding and anchors that are not active weigh 0."""
    loss, tau = problem.loss, problem.tau
    weight = problem.samples_in(batch)
    label = problem.labels[batch.members]
    counts = grouped_sum(weight, label, problem.k)
    of_class = counts[label]
    positives = of_class - 1.0
    active = (positives >= 1.0) & (weight > 0)
    positives = jnp.where(active, positives, 1.0)
    negatives = jnp.sum(weight) - of_class
    if not loss.positives_in_denominator:
        active &= negatives > 0
    active_weight = jnp.where(active, weight, 0.0)
    if loss.weights is not None:
        active_weight = active_weight * loss.weights[label]
    if batch.weight is not None:
        active_weight = active_weight * batch.weight
    ratio, offset = jnp.exp(-1.0 / tau), None
    if loss.row is not None:
        anchor_loss = loss.row
        at_frame, positive = jnp.array([1.0, 0.0]), jnp.array([True, False])
        bound = jax.vmap(lambda p, q: anchor_loss(at_frame, jnp.stack([p, q]), positive, tau))(positives, negatives)
        return AnchorTerms(positives, jnp.where(active, bound, 0.0), active_weight, tau, ratio)
    if loss.kind == "sigmoid":
        t, b = _sigmoid(problem)
        bound = positives * jax.nn.softplus(-t - b) + negatives * jax.nn.softplus(b)
        return AnchorTerms(positives, bound, active_weight, tau, ratio)
    if loss.taus is None and not loss.has_margins and loss.positives_in_denominator:
        log_partition = jnp.log(positives) + jnp.log1p(negatives / positives * ratio)
        return AnchorTerms(positives, log_partition, active_weight, tau, ratio)
    if loss.taus is not None:
        tau = tau * loss.taus[label]
    exponent = _margins(problem, counts)[label] - (1.0 / tau if tau.ndim == 0 else 1.0 / tau[:, None])
    negative = (counts > 0) & (label[:, None] != jnp.arange(problem.k))
    if loss.positives_in_denominator:
        offset = jnp.diagonal(_margins(problem, counts))[label]
        ratio = jnp.where(negative, jnp.exp(jnp.where(negative, exponent - offset[:, None], 0.0)), 0.0)
        log_partition = jnp.log(positives) + jnp.log1p(jnp.sum(counts * ratio, axis=1) / positives)
        return AnchorTerms(positives, log_partition, active_weight, tau, ratio, offset)
    negative &= active[:, None]
    offset = jax.nn.logsumexp(jnp.where(active[:, None], exponent, 0.0), axis=1, b=jnp.where(negative, counts, 1e-300))
    offset = jnp.where(active, offset, 0.0)
    ratio = jnp.where(negative, jnp.exp(jnp.where(negative, exponent - offset[:, None], 0.0)), 0.0)
    return AnchorTerms(positives, jnp.zeros_like(positives), active_weight, tau, ratio, offset)


def _margins(problem: Problem, counts: Float[Array, " k"]) -> Float[Array, "k k"]:
    """a(c, e) in a batch with so many samples of each class."""
    loss = problem.loss
    margins = jnp.zeros((problem.k, problem.k)) if loss.margins is None else loss.margins
    if loss.strength is not None:
        # The margin of an absent class is not used, and log 0 would make it NaN.
        margins = margins + loss.strength * jnp.log(jnp.maximum(problem.class_sizes, 1.0))
    if loss.averaged:
        margins = margins - jnp.log(jnp.maximum(counts - jnp.eye(problem.k), 1.0))
    return margins


def _sigmoid(problem: Problem) -> tuple[Array, Array]:
    """t and b."""
    scale, bias = problem.loss.scale, problem.loss.bias
    return (1.0 if scale is None else scale) / problem.tau, jnp.zeros(()) if bias is None else bias


def log_sum_exp(pairs: Pairs, terms: AnchorTerms, problem: Problem, with_gradient: bool) -> AnchorValues:
    """The log-sum-exp family, which includes plain SCL."""
    same, others, positives = pairs.same, pairs.others, terms.positives
    has_positives = problem.loss.positives_in_denominator
    tau = terms.tau if terms.tau.ndim == 0 else terms.tau[:, None]
    ratio = terms.ratio if terms.ratio.ndim == 0 else terms.ratio[:, pairs.label]
    # shifted = -delta_ij for positives and G_il for negatives, each without cancellation.
    shifted = jnp.where(same, -pairs.deficit, pairs.cosine) + pairs.mean_deficit[:, None]
    x = jnp.where(pairs.met, shifted / tau, 0.0)
    weight = jnp.where(same, others, others * ratio)

    curved, exponential = phi(x), jnp.exp(x)
    of_positives = curved if has_positives else jnp.zeros_like(x)
    above = jnp.sum(weight * jnp.where(same, of_positives, curved + x), axis=1)
    crowding = jnp.sum(weight * jnp.where(same, of_positives, exponential), axis=1)
    relative = above * jnp.exp(-terms.log_partition)
    partition = positives + crowding if has_positives else jnp.where(crowding > 0, crowding, 1.0)
    if terms.offset is None:
        loss, gap = jnp.log(positives) + jnp.log1p(crowding / positives), jnp.log1p(relative)
    else:
        logarithm = jnp.log(positives) + jnp.log1p(crowding / positives) if has_positives else jnp.log(partition)
        loss, gap = terms.offset + logarithm, _log1p(relative, logarithm - terms.log_partition)
    if not with_gradient:
        return AnchorValues(loss, gap)

    # C_il = d f_i / d G_il; for positives e^x/D - 1/positives without cancellation.
    pull = (of_positives + x) - (crowding / positives)[:, None] if has_positives else -(partition / positives)[:, None]
    C = weight * jnp.where(same, pull, exponential) * (terms.weight / (partition * terms.tau))[:, None]
    if not has_positives:
        return AnchorValues(loss, gap, C)
    both = others * (exponential / partition[:, None] + 1.0 / positives[:, None]) * (terms.weight / terms.tau)[:, None]
    return AnchorValues(loss, gap, C, both)


def sigmoid(pairs: Pairs, terms: AnchorTerms, problem: Problem, with_gradient: bool) -> AnchorValues:
    """The pairwise sigmoid loss."""
    t, b = _sigmoid(problem)
    at_frame = jnp.where(pairs.same, -t - b, b)
    x = jnp.where(pairs.met, t * jnp.where(pairs.same, pairs.deficit, pairs.cosine), 0.0)
    reached = jax.nn.softplus(at_frame + x)
    above = _log1p(jax.nn.sigmoid(at_frame) * jnp.expm1(x), reached - jax.nn.softplus(at_frame))
    loss, gap = (jnp.sum(pairs.others * jnp.where(pairs.met, part, 0.0), axis=1) for part in (reached, above))
    if not with_gradient:
        return AnchorValues(loss, gap)
    gradient_scale = pairs.others * t * jax.nn.sigmoid(at_frame + x) * terms.weight[:, None]
    return AnchorValues(loss, gap, jnp.where(pairs.same, -gradient_scale, gradient_scale))


def supcon_in(pairs: Pairs, terms: AnchorTerms, problem: Problem, with_gradient: bool) -> AnchorValues:
    """SupCon-in, by the sums of e^{s G} over negatives and over positives, both divided by e^s p."""
    s, positives = 1.0 / problem.tau, terms.positives
    x = jnp.where(pairs.met, s * jnp.where(pairs.same, -pairs.deficit, pairs.cosine), 0.0)
    of_positives, of_negatives = (pairs.others * (pairs.met & of) for of in (pairs.same, ~pairs.same))
    below = jnp.sum(of_positives * jnp.expm1(x), axis=1) / positives
    y = jnp.sum(of_positives * jnp.exp(x), axis=1) / positives
    y = jnp.where(y > 0, y, 1.0)  # no positives: not active
    repelled = of_negatives * jnp.exp(x) * (terms.ratio / y)[:, None]
    crowding = jnp.sum(repelled, axis=1)
    above = jnp.sum(of_negatives * (jnp.expm1(x) - below[:, None]), axis=1) * terms.ratio / y
    loss = jnp.log(positives) + jnp.log1p(crowding / positives)
    gap = _log1p(above * jnp.exp(-terms.log_partition), loss - terms.log_partition)
    if not with_gradient:
        return AnchorValues(loss, gap)
    scale = (terms.weight * s / (positives + crowding))[:, None]
    return AnchorValues(
        loss, gap, scale * (repelled - (crowding / (positives * y))[:, None] * of_positives * jnp.exp(x))
    )


def custom(pairs: Pairs, terms: AnchorTerms, problem: Problem, with_gradient: bool) -> AnchorValues:
    """A custom loss; its values at anchors that are not active are left out."""
    row, tau, active = problem.loss.row, problem.tau, terms.weight > 0
    assert row is not None
    samples = jnp.where(pairs.met, pairs.others, 0.0)
    cosines = jnp.where(pairs.met, jnp.where(pairs.same, 1.0 - pairs.deficit, pairs.cosine), 0.0)

    def pays(cosines: Float[Array, " s"], samples: Float[Array, " s"], same: Bool[Array, " s"]) -> Float[Array, ""]:
        return row(cosines, samples, same, tau)

    loss, C = jax.vmap(jax.value_and_grad(pays))(cosines, samples, pairs.same)
    loss = jnp.where(active, loss, 0.0)
    gap = loss - terms.log_partition
    return AnchorValues(loss, gap, jnp.where(pairs.met, C, 0.0) * terms.weight[:, None] if with_gradient else None)


def _log1p(x: Float[Array, "*shape"], far: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """log(1 + x). far: the same by a formula that is accurate where x is not near 0."""
    near = x > -0.5
    return jnp.where(near, jnp.log1p(jnp.where(near, x, 0.0)), far)


AnchorLossFunction = Callable[[Pairs, AnchorTerms, Problem, bool], AnchorValues]
ANCHOR_LOSSES: dict[str, AnchorLossFunction] = {
    "log-sum-exp": log_sum_exp,
    "sigmoid": sigmoid,
    "supcon-in": supcon_in,
    "own": custom,
}
