"""Which orbits zero excess merges or makes orthogonal, and which one-class batches it leaves open (3.2, 3.3, 3.17)."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from ufm_check.reading import MOST_PRODUCTS, Statement, fits


class DisjointSets(dict):
    """Disjoint sets: each member points to a parent in its set, and the root points to itself."""

    def root(self, x: Any) -> Any:
        """The member that stands for the set of x."""
        while self.setdefault(x, x) != x:
            self[x] = self[self[x]]
            x = self[x]
        return x

    def join(self, members: Sequence[Any]) -> None:
        """Join the sets of all members; the root of the first one stays."""
        for x in members:
            self[self.root(x)] = self.root(members[0])


class Components(NamedTuple):
    """The result: merged orbits, those that are a unit vector, pairs that cross, and samples held by open batches."""

    merged: DisjointSets
    unit: set[int]
    crossing: set[tuple[int, int]]
    open_batches: list[dict[int, int]]


class Merger:
    """Merges groups (the orbits of one class in a batch) that are mixed or hold two samples merged elsewhere."""

    def __init__(self, problem: Statement) -> None:
        self.problem = problem
        self.merged = DisjointSets()
        self.unit: set[int] = set()
        self.crossing: set[tuple[int, int]] = set()
        self.waiting: dict[int, tuple[list[int], dict[int, int]]] = {}  # by number: orbits, and samples in the batch
        self.due: list[int] = []  # numbers of groups that are to be merged
        self.groups_of: dict[int, set[int]] = defaultdict(set)  # by root: groups that hold an orbit of its set
        self.groups_twice: dict[int, list[int]] = defaultdict(list)  # by orbit: groups that hold two of its samples
        for (batch, count), composition in zip(problem.batches, problem.compositions, strict=True):
            mixed = len(count) > 1
            for c, samples in count.items():
                if samples >= (2 if mixed else problem.loss.alone):
                    orbits, number = [a for a in batch if problem.classes[a] == c], len(self.waiting)
                    self.waiting[number] = orbits, composition.held
                    self.due += [number] if mixed or problem.loss.kind == "sigmoid" else []
                    for a in orbits:
                        self.groups_of[a].add(number)
                        self.groups_twice[a] += [number] if composition.held[a] > 1 else []

    def join(self, orbits: Sequence[int]) -> None:
        """Join the sets of these orbits. Groups that hold orbits of two of the sets become due."""
        for a in orbits:
            x, y = self.merged.root(orbits[0]), self.merged.root(a)
            if x != y:
                few, many = sorted((self.groups_of[x], self.groups_of.pop(y)), key=len)
                self.due.extend(few & many)
                many |= few
                self.groups_of[x] = many
                self.merged.join([x, y])

    def merge_due(self) -> None:
        """Merge the groups that are due, and those that become so; record what they cross."""
        while self.due:
            number = self.due.pop()
            if number in self.waiting:
                orbits, held = self.waiting.pop(number)
                self.join(orbits)
                self.due += [other for a in set(orbits) - self.unit for other in self.groups_twice[a]]
                self.unit.update(orbits)
                for b in set(held) - set(orbits):
                    self.crossing.update(pair for a in orbits for pair in ((a, b), (b, a)))

    def state(self) -> tuple[int, Counter[int]]:
        """How many groups wait, and the number of unit orbits in each set: it changes whenever anything merges."""
        return len(self.waiting), Counter(self.merged.root(a) for a in sorted(self.unit))

    def largest_of_classes(self) -> dict[int, int]:
        """The root of the set with the most unit orbits of each class that has one."""
        _, size = self.state()
        return {self.problem.classes[root]: root for root, _ in reversed(size.most_common())}

    def merge_with_axes(self, axes: dict[int, int]) -> None:
        """d = k: if the axes of the k classes all cross, a set that crosses k - 1 of them is on the last."""
        crossed = {(self.merged.root(a), self.merged.root(b)) for a, b in self.crossing}

        def crosses_others(x: int, c: int) -> bool:
            return all((x, axis) in crossed for e, axis in axes.items() if e != c)

        if len(axes) == self.problem.k and all(crosses_others(axis, c) for c, axis in axes.items()):
            for a in self.unit:
                c = self.problem.classes[a]
                if crosses_others(self.merged.root(a), c):
                    self.join([axes[c], a])


def components(problem: Statement, d_equals_k: bool = False) -> Components:
    """What zero excess merges to one unit vector, makes orthogonal, or leaves open.

    d_equals_k: also use that k pairwise orthogonal components of the k classes are the coordinate axes."""
    merger, work, previous = Merger(problem), 0, None
    while previous != (state := merger.state()):
        previous = state
        merger.merge_due()
        if d_equals_k:
            axes = merger.largest_of_classes()
            work += len(merger.crossing) + len(merger.unit) * len(axes)
            fits(work, problem.limit_factor * MOST_PRODUCTS, "rounds of components")
            merger.merge_with_axes(axes)
    open_batches = [held for _, held in merger.waiting.values()]
    return Components(merger.merged, merger.unit, merger.crossing, open_batches)
