"""Batch components and attraction components of a batch family, for the staircase."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int
from scipy.sparse.csgraph import connected_components

from ufm.model.problem import PADDING, Problem


@dataclass(frozen=True)
class BatchGraph:
    """The graph in which points of one batch are adjacent; points of one class in one batch attract each other.

    - components: the batch components (5.8), each as the array of its points. The loss is a sum over them, and does not
      compare the coordinates of one with those of another.
    - attracted: the label (m,) of each point's attraction component (5.7): equal iff a chain of attractions connects
      the points.
    """

    components: tuple[Int[np.ndarray, " _"], ...]
    attracted: Int[np.ndarray, " m"]

    @cached_property
    def attracts(self) -> bool:
        """Whether any two points attract each other."""
        return len(np.unique(self.attracted)) < len(self.attracted)

    @classmethod
    def of(cls, problem: Problem) -> BatchGraph:
        """The graph of a problem. Points of multiplicity 0 are in no batch component."""
        labels, batches = np.asarray(problem.labels), np.asarray(problem.batches)
        m = len(labels)
        if problem.is_full_batch:
            return cls((np.arange(m),), labels)
        batch, slot = np.nonzero(batches != PADDING)
        point = batches[batch, slot]
        component = _chained(point, batch, m)
        real = np.asarray(problem.multiplicity) > 0
        components = tuple(np.flatnonzero(real & (component == c)) for c in np.unique(component[real]))
        return cls(components, _chained(point, batch * problem.k + labels[point], m))


def _chained(point: Int[np.ndarray, " e"], group: Int[np.ndarray, " e"], m: int) -> Int[np.ndarray, " m"]:
    """A label for each of m points: equal iff a chain of shared groups connects them."""
    groups = np.unique(group, return_inverse=True)[1].reshape(-1)
    size = m + int(groups.max(initial=-1)) + 1
    graph = sp.coo_array((np.ones(len(point)), (point, m + groups)), shape=(size, size))
    return np.unique(connected_components(graph, directed=False)[1][:m], return_inverse=True)[1].reshape(-1)


def light_cover(edges: set[tuple[int, int]], weight: Float[np.ndarray, " g"]) -> set[int]:
    """A minimal vertex cover of the edges: vertices are dropped while it stays one, the heaviest first."""
    beside = defaultdict(set)
    for a, b in edges:
        beside[a].add(b)
        beside[b].add(a)
    cover = set(beside)
    for a in sorted(cover, key=lambda a: (-weight[a], a)):
        if beside[a] <= cover:
            cover.remove(a)
    return cover
