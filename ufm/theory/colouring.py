"""Assigning coordinates to components: a proper colouring other than the classes, or a proof that there is none.

Components on coordinate axes satisfy a cross edge iff their two colours differ. They satisfy an open equal-value batch
iff its colours are all the same or all different (a vanished vector differs from every other).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Int
from scipy.sparse.csgraph import connected_components

from ufm.theory.interaction import Interaction

VANISHED = -1
UNDECIDED = -2
# Exhaustive search is exponential in the worst case; beyond these limits it stops, and the result says so.
LARGEST_SEARCH = 100
MOST_STEPS = 3_000


def is_forced(graph: Interaction) -> bool:
    """Whether propagation from a clique proves that the classes are the only proper k-colouring.

    It looks at the components that cannot vanish. Pairwise adjacent components of the k classes (chosen greedily, most
    neighbours first) have k different colours, and a component adjacent to k - 1 colours has the last one. True is a
    proof; False is not a refutation.
    """
    k = len(graph.components_of_class)
    degree = np.diff(graph.cross.indptr)
    pool, coloured = graph.is_unit.copy(), np.zeros(len(graph.size), dtype=bool)
    for c in range(k):
        candidates = np.flatnonzero(pool & (graph.component_class == c))
        if not len(candidates):
            return False
        chosen = candidates[degree[candidates].argmax()]
        coloured[chosen] = True
        adjacent = np.zeros(len(pool), dtype=bool)
        adjacent[graph.cross.indices[graph.cross.indptr[chosen] : graph.cross.indptr[chosen + 1]]] = True
        pool &= adjacent
    edges = graph.cross.tocoo()
    while not coloured[graph.is_unit].all():
        known = coloured[edges.row]
        seen = sp.csr_array(
            (np.ones(known.sum(), dtype=bool), (edges.col[known], graph.component_class[edges.row[known]])),
            shape=(len(coloured), k),
        )
        seen.sum_duplicates()
        forced = graph.is_unit & ~coloured & (np.diff(seen.indptr) >= k - 1)
        if not forced.any():
            return False
        coloured |= forced
    return True


def swapped_chain(graph: Interaction) -> Int[np.ndarray, " q"] | None:
    """Another proper colouring, by an exchange of two classes on a Kempe chain that does not hold all of them; or None.

    Cross edges and open batches connect components of classes a and b to chains. A chain that does not hold all of
    them can exchange its colours a and b: every cross edge stays satisfied, and every open batch as well.
    """
    k = len(graph.components_of_class)
    edges = graph.cross.tocoo()
    rows, columns = np.concatenate([np.stack([edges.row, edges.col]), graph.ties], axis=1)
    linked = sp.csr_array((np.ones(len(rows)), (rows, columns)), shape=graph.cross.shape)
    by_class = [np.flatnonzero(graph.component_class == c) for c in range(k)]
    for a in range(k):
        for b in range(a + 1, k):
            members = np.concatenate([by_class[a], by_class[b]])
            chains, chain = connected_components(linked[members][:, members], directed=False)
            if chains > 1:
                moved = members[chain == np.bincount(chain).argmin()]
                colour = graph.component_class.copy()
                colour[moved] = a + b - colour[moved]
                return colour
    return None


@dataclass
class Search:
    """Exhaustive search for an assignment of colours other than the classes; the component with fewest choices first.

    - colouring: colours 0..colours-1 or VANISHED, or None.
    - exhausted: every assignment was ruled out (only then is None a proof).
    """

    classes: Sequence[int]
    neighbours: Sequence[set[int]]
    colours: int
    may_vanish: Sequence[bool]
    open_batches: Sequence[Sequence[int]]
    colouring: list[int] | None = None
    exhausted: bool = False
    steps: int = 0
    _colour: list[int] = field(default_factory=list)

    def run(self) -> Search:
        """Search; returns itself."""
        self._colour = [UNDECIDED] * len(self.classes)
        finished = self._extend(0)
        self.exhausted = finished and self.colouring is None
        return self

    def _extend(self, used: int) -> bool:
        """Try everything below the current partial assignment. False when out of steps, or when a colouring was
        found."""
        self.steps += 1
        if self.steps > MOST_STEPS:
            return False
        undecided = [v for v, c in enumerate(self._colour) if c == UNDECIDED]
        if not undecided:
            if self._is_class_partition():
                return True
            self.colouring = list(self._colour)
            return False
        choices = {v: self._choices(v, used) for v in undecided}
        v = min(undecided, key=lambda u: (len(choices[u]), -len(self.neighbours[u])))
        for colour in choices[v]:
            self._colour[v] = colour
            if self._batches_hold(v) and not self._extend(max(used, colour + 1)):
                return False
        self._colour[v] = UNDECIDED
        return True

    def _choices(self, v: int, used: int) -> list[int]:
        """Colours in use and one new colour (other new ones differ by name only); colours of the same class come
        last."""
        taken = {self._colour[u] for u in self.neighbours[v]}
        of_class = {c for u, c in enumerate(self._colour) if c >= 0 and self.classes[u] == self.classes[v]}
        free = [c for c in range(min(used + 1, self.colours)) if c not in taken]
        free.sort(key=lambda c: c in of_class)
        return ([VANISHED] if self.may_vanish[v] else []) + free

    def _batches_hold(self, v: int) -> bool:
        for batch in self.open_batches:
            if v in batch:
                colours = [self._colour[u] for u in batch if self._colour[u] != UNDECIDED]
                present = [c for c in colours if c != VANISHED]
                one = len(present) == len(colours) and len(set(present)) == 1
                if len(colours) >= 3 and not one and len(set(present)) < len(present):
                    return False
        return True

    def _is_class_partition(self) -> bool:
        pairs = set(zip(self.classes, self._colour, strict=True))
        classes = set(self.classes)
        return VANISHED not in self._colour and len(pairs) == len(classes) == len({c for _, c in pairs})


def search(graph: Interaction, colours: int, chosen: Bool[np.ndarray, " q"], *, use_open_batches: bool) -> Search:
    """Search over the chosen components, with or without the open batches."""
    selected = np.flatnonzero(chosen)
    if len(selected) > LARGEST_SEARCH:
        return Search([], [], colours, [], [])
    cross = graph.cross[selected][:, selected].tocsr()
    neighbours = [set(cross.indices[cross.indptr[v] : cross.indptr[v + 1]].tolist()) for v in range(len(selected))]
    place = {int(v): p for p, v in enumerate(selected)}
    batches = [[place[v] for v in batch] for batch in graph.open_batches] if use_open_batches else []
    classes = graph.component_class[selected].tolist()
    may_vanish = (~graph.is_unit[selected]).tolist()
    return Search(classes, neighbours, colours, may_vanish, batches).run()
