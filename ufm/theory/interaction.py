r"""The interaction graph of a batch family, plain and effective: which samples constrain each other.

The excess of UFM+ is a sum of terms >= 0, one for each batch B and active anchor i (theory, 2.4):

    log1p( [ sum_pos phi((delta_i - delta_ij)/tau) + e^{-1/tau} sum_neg expm1((G_il + delta_i)/tau) ] / Z ),

delta_ij = 1 - G_ij, delta_i their mean over positives. It is 0 iff all G_ij of i's positives are equal and,
if B has another class, G_il = 0 for its negatives and the G_ij are 1. So the minimisers that attain the
bound of Theorems 1 and 2 are exactly the feasible H with

- *merging*: h_i = h_j of norm 1, for i, j of one class in a batch that has another class as well (this is G_ij = 1,
  since norms are at most 1);
- *cross edges*: G_il = 0 for i, l of two classes in one batch that holds a second sample of either class;
- *equal values*: all G_ij of a single-class batch of three or more are one number (G_ij = g_i for all j,
  and G is symmetric). Single-class batches of two and batches of singletons constrain nothing.

The other losses of the family differ in batches of one class only (theory, 2.14). Log-sum-exp losses with positives in
the denominator tie values as SCL does; decoupled ones and SupCon-in constrain nothing there; the sigmoid merges, from
two samples on.

If one pair of an equal-value batch is merged, the number is 1 and the whole batch is merged; the components below are
closed under this. Between components of two samples or more (unit vectors) and single samples (any norm from 0 to 1)
there remain cross edges and *open* equal-value batches. The algorithm works by classes and batches, not by pairs of
samples. (Theory, 3.2 and 3.3; the plain graph is that of Corollary 2.1.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Int
from scipy.sparse.csgraph import connected_components

from ufm.errors import InvalidInput
from ufm.model.problem import PADDING, Problem

Links = Int[np.ndarray, "2 links"]
NO_LINKS = np.zeros((2, 0), dtype=np.int64)


@dataclass(frozen=True)
class Interaction:
    """The effective interaction graph of a problem, and the plain graph.

    - component: the component of merged samples that holds each sample, 0..q-1.
    - component_class: class of each component. size: its number of samples. A component of two samples or more is one
      unit vector; a single sample may have any norm.
    - cross: (q, q) symmetric pattern of the cross edges, between components that must be orthogonal.
    - open_batches: the components of each equal-value batch, all distinct, at least three.
    - plain_component: component of each sample if every shared batch merged samples of one class.
    - plain_cross: (k, k), whether two classes share a batch.
    """

    component: Int[np.ndarray, " n"]
    component_class: Int[np.ndarray, " q"]
    size: Int[np.ndarray, " q"]
    cross: sp.csr_array
    open_batches: tuple[tuple[int, ...], ...]
    plain_component: Int[np.ndarray, " n"]
    plain_cross: Bool[np.ndarray, "k k"]

    @property
    def is_unit(self) -> Bool[np.ndarray, " q"]:
        """Whether the vector of a component must have norm 1."""
        return self.size >= 2

    @property
    def components_of_class(self) -> Int[np.ndarray, " k"]:
        """The number of components of each class."""
        return np.bincount(self.component_class)

    @property
    def class_cross(self) -> Bool[np.ndarray, "k k"]:
        """Whether there is a cross edge between two classes."""
        k = len(self.plain_cross)
        edges = self.cross.tocoo()
        seen = np.zeros((k, k), dtype=bool)
        seen[self.component_class[edges.row], self.component_class[edges.col]] = True
        return seen

    @property
    def ties(self) -> Links:
        """Pairs of components: chains of them connect exactly the components that chains of open batches connect."""
        pairs = [(batch[0], other) for batch in self.open_batches for other in batch[1:]]
        return np.array(pairs, dtype=np.int64).reshape(-1, 2).T

    @property
    def plain_claims_unique(self) -> bool:
        """The claim of Corollary 2.1 from the plain graph: each class is connected, and every two classes are
        adjacent."""
        connected = self.plain_component.max() + 1 == len(self.plain_cross)
        return bool(connected and (self.plain_cross | np.eye(len(self.plain_cross), dtype=bool)).all())


def interaction(problem: Problem, *, known: Links = NO_LINKS) -> Interaction:
    """The interaction graph of a problem, in O(E log E), where E is the total size of its batches.

    It is that of UFM+ with the problem's loss; the numbers of the loss and tau do not matter. known: pairs of samples
    that are known to be equal unit vectors.
    Raises InvalidInput for points that stand for several samples or none and for expected losses, since components
    consist of samples; and for custom losses, since it is not known what zero excess forces.
    """
    _check(problem)
    labels, batches = np.asarray(problem.labels), np.asarray(problem.batches)
    n, k = len(labels), problem.k

    # One group for every class in every batch, represented by its first member.
    batch, slot = np.nonzero(batches != PADDING)
    sample = batches[batch, slot]
    keys, first, group, count = np.unique(
        batch.astype(np.int64) * k + labels[sample], return_index=True, return_inverse=True, return_counts=True
    )
    group = group.reshape(-1)
    group_batch, group_class, leader = keys // k, keys % k, sample[first]
    mixed = (np.bincount(group_batch, minlength=len(batches)) >= 2)[group_batch]

    def links_of(chosen: Bool[np.ndarray, " groups"]) -> Links:
        members = chosen[group]
        return np.stack([sample[members], leader[group[members]]])

    merged = (mixed | problem.loss.merges_alone) & (count >= 2)
    equal_value = ~mixed & (count >= 3) & problem.loss.ties_alone
    entries = np.flatnonzero(equal_value[group])
    while True:
        component = _components(n, np.concatenate([links_of(merged), known], axis=1))
        # Two members in one component: fewer distinct components than members.
        pairs = np.unique(np.stack([group[entries], component[sample[entries]]]), axis=1)
        newly = equal_value & ~merged & (np.bincount(pairs[0], minlength=len(keys)) < count)
        if not newly.any():
            break
        merged |= newly

    component_class = np.zeros(component.max() + 1, dtype=np.int64)
    component_class[component] = labels
    here = component[leader]
    shape = (len(batches), len(component_class))
    cross = _crossing(group_batch[mixed], here[mixed], count[mixed] >= 2, shape)

    still_open = equal_value & ~merged
    open_batches = {
        tuple(np.unique(component[sample[members]]).tolist())
        for members in _members_by_group(group, entries, still_open)
    }
    meets = sp.csr_array((np.ones(len(keys)), (group_batch, group_class)), shape=(len(batches), k))
    return Interaction(
        component,
        component_class,
        np.bincount(component),
        cross,
        tuple(sorted(open_batches)),
        _components(n, links_of(count >= 2)),
        (meets.T @ meets).toarray() > 0,
    )


def _check(problem: Problem) -> None:
    """Raises InvalidInput for a problem for which it is not known what zero excess forces."""
    if problem.loss.is_custom:
        raise InvalidInput(
            "loss",
            problem.loss.name,
            "it is not known what zero excess forces for a custom loss; give a loss of ufm.losses",
        )
    if problem.is_expected:
        fix = "give a problem over the samples, and the sampler: ufm.uniqueness(problem, sampler)"
        raise InvalidInput("problem", "an expected loss", fix)
    if (np.asarray(problem.multiplicity) != 1).any():
        raise InvalidInput("multiplicity", "not all 1", "give the problem over single samples, not over orbits")


def _crossing(
    batch: Int[np.ndarray, " g"],
    component: Int[np.ndarray, " g"],
    active: Bool[np.ndarray, " g"],
    shape: tuple[int, int],
) -> sp.csr_array:
    """Pairs of components that share a mixed batch where one of them is active; symmetric, with numbers of batches."""
    present = sp.csr_array((np.ones(len(batch)), (batch, component)), shape=shape)
    acting = sp.csr_array((np.ones(active.sum()), (batch[active], component[active])), shape=shape)
    cross = acting.T @ present
    cross = sp.csr_array(cross + cross.T)
    cross.setdiag(0)
    cross.eliminate_zeros()
    return cross


def _components(n: int, links: Links) -> Int[np.ndarray, " n"]:
    graph = sp.coo_array((np.ones(links.shape[1], dtype=bool), (links[0], links[1])), shape=(n, n))
    return connected_components(graph, directed=False)[1]


def _members_by_group(
    group: Int[np.ndarray, " entries"], entries: Int[np.ndarray, " chosen"], wanted: Bool[np.ndarray, " groups"]
) -> list[Int[np.ndarray, " members"]]:
    """The entries of every wanted group, group by group."""
    selected = entries[wanted[group[entries]]]
    selected = selected[np.argsort(group[selected], kind="stable")]
    cuts = np.flatnonzero(np.diff(group[selected])) + 1
    return np.split(selected, cuts) if len(selected) else []
