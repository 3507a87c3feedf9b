r"""Whether neural collapse onto an orthogonal frame is the only minimiser of UFM+ (theory, 3.12).

For d >= k the bound of Theorem 2 is attained, so the minimisers are the H with zero excess: those that
satisfy the constraints of `ufm.interaction`. Each rule below either proves that these force the orthogonal
frame's Gram matrix, or names another H on coordinate axes that satisfies them:

1. *Two classes without a cross edge.* One moves onto the other's axis. Any d.
2. *A component of one sample* may vanish, with all the single samples that open batches tie to it, if
   each of those batches has at most one unit vector: its values are then all 0. Any d. A class that has
   only single samples may vanish as a whole.
3. *Every class one unit component and every two classes adjacent*: all entries of the Gram matrix are forced.
4. *d > k*, a class in several components, not all tied by open batches: a tied part moves to a coordinate
   that no class uses, orthogonal to everything.
5. *Two classes whose components form several chains* (by cross edges and open batches): one chain
   exchanges the two axes. Any d.
6. *More than D equal-angled unit vectors in D dimensions coincide*: (1 - g) I + g J has full rank for g < 1.
   The supports of q pairwise adjacent unit components take q coordinates at least; unit vectors adjacent to all
   of them live in the D = d - q others. An open batch, or a set that open batches give one value through
   shared pairs, with more than D of these is merged, and all rules are applied again.
7. *d = k.* Adjacent unit components have disjoint supports (nonnegative and orthogonal), so any choice of
   one coordinate from each support is a proper k-colouring. If the classes are the only proper
   k-colouring, every choice gives them: components of one class cannot differ in support, nor have two
   coordinates if there are several, and the k classes have disjoint, nonempty supports among k
   coordinates, hence one each. So the unit components are the orthogonal frame: they are merged, class by
   class, and all rules are applied again. Conversely a second proper colouring is another minimiser,
   if the open batches allow it.

Where open batches remain after this, a search over all placements on axes may still find another
minimiser; if it does not, vectors off the axes might exist, and the answer is "undetermined".
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jaxtyping import Array, Float, Int
from scipy.sparse.csgraph import connected_components

from ufm.display import Readable, Summary, count
from ufm.errors import InvalidInput
from ufm.model.problem import Problem
from ufm.samplers import Sampler
from ufm.settings import in_fixed_settings
from ufm.theory.colouring import VANISHED, is_forced, search, swapped_chain
from ufm.theory.forcing import forcing_family
from ufm.theory.interaction import NO_LINKS, Interaction, Links, interaction

# Pairs in open batches up to which values are followed from batch to batch.
MOST_TIED = 100_000


@dataclass(frozen=True, repr=False)
class Uniqueness(Readable):
    """Whether the orthogonal frame is the only minimiser (as a Gram matrix), and why.

    - unique: True, False, or None for undetermined.
    - reason: one sentence.
    - counterexample: if not unique, an H (n, d) of zero excess whose geometry is not an orthogonal frame.
    - graph: the effective interaction graph, which also holds the plain one (`graph.plain_claims_unique`).
    """

    unique: bool | None
    reason: str
    counterexample: Float[Array, "n d"] | None
    graph: Interaction

    def summary(self) -> Summary:
        """The verdict, its reason, and the verdict of the plain graph."""
        verdict = {True: "the only minimiser", False: "not the only minimiser", None: "undetermined"}[self.unique]
        plain = "unique" if self.graph.plain_claims_unique else "not unique"
        lines = {
            "reason": self.reason,
            "paper": f"its interaction graph (Corollary 2.1) says {plain}",
            "another one": "none named" if self.counterexample is None else ".counterexample, (n, d), zero excess",
        }
        return Summary(f"Orthogonal frame: {verdict}", lines)


@dataclass(frozen=True)
class _Answer:
    """A verdict, with the coordinate of each component in another minimiser if one is known."""

    unique: bool | None
    reason: str
    colour: Int[np.ndarray, " q"] | None = None


@in_fixed_settings
def uniqueness(problem: Problem, sampler: Sampler | None = None) -> Uniqueness:
    """Decide whether the orthogonal frame, with collapsed classes, is the only minimiser of UFM+; tau does not matter.

    With a sampler the question is about its expected loss, over all batches that it can draw from the problem's samples
    (theory, 3.19). The problem must then have no batches, and the graph is that of a family that forces the same.
    The answer is undetermined for UFM (no ReLU) and for d < k, where the bound need not be attained, and where open
    equal-value batches or the size of a colouring problem leave the question open. Raises InvalidInput
    for points of multiplicity other than 1, and for a sampler that cannot draw from these classes. Rules and proofs:
    this module's docstring.
    """
    if sampler is not None:
        problem = _of_all_batches(problem, sampler)
    original = graph = interaction(problem)
    if not problem.nonneg:
        return Uniqueness(None, "without the ReLU the bound is not attained: no rule applies", None, original)
    if problem.d < problem.k:
        reason = f"d = {problem.d} is less than k = {problem.k}: the bound need not be attained, and no rule applies"
        return Uniqueness(None, reason, None, original)
    known = NO_LINKS
    while True:
        answer = _decide(graph, problem.d)
        if isinstance(answer, _Answer):
            break
        first = np.unique(graph.component, return_index=True)[1]  # a sample of each component
        known = np.concatenate([known, first[answer]], axis=1)
        graph = interaction(problem, known=known)
    H = None
    if answer.colour is not None:
        axes = np.concatenate([np.eye(problem.d), np.zeros((1, problem.d))])  # VANISHED is the last row
        H = jnp.asarray(axes[answer.colour[graph.component]])
    return Uniqueness(answer.unique, answer.reason, H, original)


def _of_all_batches(problem: Problem, sampler: Sampler) -> Problem:
    """The problem with batches that force the same as all batches of the sampler."""
    if not isinstance(sampler, Sampler):
        raise InvalidInput("sampler", sampler, "give a sampler of ufm.samplers, such as ufm.samplers.uniform(64)")
    if not problem.is_full_batch:
        raise InvalidInput("problem", "with batches", "with a sampler, give a problem without batches")
    batches = forcing_family(np.asarray(problem.labels), sampler, problem.loss)
    return Problem(problem.labels, problem.d, problem.tau, batches, problem.nonneg, loss=problem.loss)


def _decide(graph: Interaction, d: int) -> _Answer | Links:
    """The answer, or pairs of components that are proved to be equal unit vectors."""
    classes, k = graph.component_class, len(graph.plain_cross)
    apart = np.argwhere(np.triu(~graph.class_cross, 1))
    if len(apart):
        a, b = (int(c) for c in apart[0])
        reason = f"classes {a} and {b} never repel: no batch holds both with a second sample of either"
        return _Answer(False, reason, np.where(classes == b, a, classes))

    tied = _tied_by_open_batches(graph)
    lone = _may_vanish(graph, tied)
    if lone.any():
        c = int(classes[lone][0])
        reason = (
            f"class {c} has {count('sample', int((lone & (classes == c)).sum()))} without a second sample of the class "
            "in any mixed batch: their norms are free and may be 0"
        )
        return _Answer(False, reason, np.where(lone & (classes == c), VANISHED, classes))

    components = graph.components_of_class
    if (components == 1).all():
        reason = "every class is one component of merged samples, and every two classes share a cross edge"
        return _Answer(True, reason)

    several = int(np.argmax(components))
    fallen = f"class {several} consists of {int(components[several])} components that no mixed batch joins"
    loose = _loose_part(graph, tied) if d > k else None
    if loose is not None:
        return loose
    chain = swapped_chain(graph)
    if chain is not None:
        moved = chain != classes
        a, b = sorted({*classes[moved].tolist(), *chain[moved].tolist()})
        reason = f"{fallen}, and a chain of components of classes {a} and {b} can exchange their coordinates"
        return _Answer(False, reason, chain)

    short = _batches_short_of_dimensions(graph, d)
    if short.size:
        return short
    units = graph.is_unit
    if d == k and (is_forced(graph) or search(graph, k, units, use_open_batches=False).exhausted):
        if units.all():
            reason = f"{fallen}, but d = k and the classes are the only proper {k}-colouring of the components"
            return _Answer(True, reason)
        leader = np.full(k, -1)
        leader[classes[units]] = np.flatnonzero(units)
        return np.stack([leader[classes[units]], np.flatnonzero(units)])

    placement = search(graph, d, np.ones(len(classes), dtype=bool), use_open_batches=True)
    if placement.colouring is not None:
        where = "another proper colouring" if not graph.open_batches else "another placement that keeps values equal"
        return _Answer(False, f"{fallen}, and {where} of the components exists", np.array(placement.colouring))
    if graph.open_batches:
        tied_by = count("single-class batch", len(graph.open_batches))
        reason = f"undetermined: {fallen}, and equal values in {tied_by} tie them"
    else:
        reason = f"undetermined: {fallen}, and their colouring problem is too large to exhaust"
    return _Answer(None, reason)


def _loose_part(graph: Interaction, tied: Int[np.ndarray, " q"]) -> _Answer | None:
    """d > k: if a class has several tied parts, one of them can move to a coordinate that no class uses (3.7)."""
    classes, k = graph.component_class, len(graph.plain_cross)
    for c in np.flatnonzero(graph.components_of_class >= 2):
        parts, place = np.unique(tied[classes == c], return_inverse=True)
        if len(parts) >= 2:
            smallest = parts[np.bincount(place.reshape(-1)).argmin()]
            reason = (
                f"class {c} consists of {int(graph.components_of_class[c])} components that no mixed batch joins, "
                "and d > k leaves a coordinate for one of them"
            )
            return _Answer(False, reason, np.where(tied == smallest, k, classes))
    return None


def _tied_by_open_batches(graph: Interaction) -> Int[np.ndarray, " q"]:
    """A label for each component: equal iff a chain of open batches connects them."""
    q, ties = len(graph.size), graph.ties
    tied = sp.coo_array((np.ones(ties.shape[1]), (ties[0], ties[1])), shape=(q, q))
    return connected_components(tied, directed=False)[1]


def _may_vanish(graph: Interaction, tied: Int[np.ndarray, " q"]) -> np.ndarray:
    """Single samples that may vanish together with those tied to them: rule 2."""
    free = np.ones(len(graph.size), dtype=bool)
    of_class = np.bincount(graph.component_class, weights=graph.is_unit)
    for batch in graph.open_batches:
        if graph.is_unit[list(batch)].sum() >= 2:
            free[tied == tied[batch[0]]] = False
    return ~graph.is_unit & (free | (of_class == 0)[graph.component_class])


def _batches_short_of_dimensions(graph: Interaction, d: int) -> Links:
    """Pairs of components that open batches merge since dimensions do not suffice: rule 6."""
    short = (members for members in _of_one_value(graph) if _is_short_of_dimensions(graph, members, d))
    links = [np.stack([np.full(len(members), members[0]), members]) for members in short]
    return np.concatenate(links, axis=1) if links else NO_LINKS


def _of_one_value(graph: Interaction) -> list[Int[np.ndarray, " m"]]:
    """The open batches, each enlarged by the components that chains of shared pairs give its value with all members."""
    batches = graph.open_batches
    if sum(len(batch) ** 2 for batch in batches) > MOST_TIED:
        return [np.array(batch) for batch in batches]
    number: dict[tuple[int, int], int] = {}
    pairs = [[number.setdefault(pair, len(number)) for pair in combinations(batch, 2)] for batch in batches]
    links = np.array([(numbers[0], other) for numbers in pairs for other in numbers]).reshape(-1, 2).T
    tied = connected_components(sp.coo_array((np.ones(links.shape[1]), tuple(links)), shape=(len(number),) * 2))[1]
    met: dict[tuple[int, int], set[int]] = {}  # by component and tie
    for (x, y), at in number.items():
        met.setdefault((x, tied[at]), set()).add(y)
        met.setdefault((y, tied[at]), set()).add(x)
    grown = []
    for batch, numbers in zip(batches, pairs, strict=True):
        tie, members = tied[numbers[0]], list(batch)
        common = set.intersection(*(met[x, tie] for x in members))
        while common:
            members.append(min(common))
            common &= met[members[-1], tie]
        grown.append(np.array(members))
    return grown


def _is_short_of_dimensions(graph: Interaction, members: Int[np.ndarray, " m"], d: int) -> bool:
    """Whether unit members, adjacent to q pairwise adjacent unit components (chosen greedily), outnumber d - q."""
    dimensions, least = d, d - len(graph.plain_cross) + 1
    allowed = graph.is_unit
    confined = members[allowed[members]]
    while least < len(confined) <= dimensions:
        beside = np.bincount(graph.cross[confined].indices, minlength=len(allowed)) * allowed
        if not beside.any():
            return False
        most = np.flatnonzero(beside == beside.max())
        best = most[np.diff(graph.cross.indptr)[most].argmax()]
        adjacent = graph.cross[[best]].toarray()[0] > 0
        confined, allowed, dimensions = confined[adjacent[confined]], allowed & adjacent, dimensions - 1
    return len(confined) > dimensions
