"""Which orbits batches make one vector, which orthogonal, which values stay open (theory, 3.2, 3.3, 3.17)."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from ufm_check.reading import MOST_PRODUCTS, Statement, fits


class Joined(dict):
    """Disjoint sets, by a parent of each member."""

    def root(self, x: Any) -> Any:
        """One member of the set of x."""
        while self.setdefault(x, x) != x:
            self[x] = x = self[self[x]]
        return x

    def join(self, members: Sequence[Any]) -> None:
        """Join the sets of all members; the root of the first stays."""
        self.update({self.root(x): self.root(members[0]) for x in members})


def components(
    problem: Statement, d_equals_k: bool = False
) -> tuple[Joined, set[int], set[tuple[int, int]], list[dict[int, int]]]:
    """What zero excess glues to one unit vector, the orbits glued, those that cross, and one-class batches left open.

    crowded (d = k): k components of the k classes that all cross are the axes; what crosses k - 1 is on the last."""
    classes, merged, unit, crossing, before, work = problem.classes, Joined(), set(), set(), None, 0
    waiting: dict[int, tuple[list[int], dict[int, int]]] = {}
    asked, near, several = [], defaultdict(set), defaultdict(list)
    for (batch, count), share in zip(problem.batches, problem.compositions, strict=True):
        for c in (c for c, n in count.items() if n >= (2 if len(count) > 1 else problem.loss.alone)):
            own, number = [a for a in batch if classes[a] == c], len(waiting)
            waiting[number] = own, share.held
            asked += [number] if len(count) > 1 or problem.loss.kind == "sigmoid" else []
            for a in own:
                near[a].add(number)
                several[a] += [number] if share.held[a] > 1 else []

    def join(members: Sequence[int]) -> None:
        """Join their sets, and ask those batches that hold orbits of two of them: they hold a glued pair."""
        for x, y in ((merged.root(members[0]), merged.root(a)) for a in members):
            if x != y:
                few, many = sorted((near[x], near.pop(y)), key=len)
                asked.extend(few & many)
                many |= few
                near[x] = many
                merged.join([x, y])

    while before != (before := (len(waiting), Counter(map(merged.root, sorted(unit))))):
        while asked:  # a mixed batch glues its orbits, another does if it holds a glued pair
            own, batch = waiting.pop(asked.pop(), ([], {}))
            join(own)
            asked += [number for a in own if a not in unit for number in several[a]]
            unit.update(own)
            crossing.update(pair for a in own for b in set(batch) - set(own) for pair in ((a, b), (b, a)))
        size = Counter(map(merged.root, sorted(unit)))
        met = {(merged.root(a), merged.root(b)) for a, b in crossing} if d_equals_k else set()
        main = {classes[a]: a for a, _ in reversed(size.most_common())}
        work += len(crossing) + len(unit) * len(main) if d_equals_k else 0
        fits(work, problem.limit_factor * MOST_PRODUCTS, "rounds of components")
        if len(main) == problem.k and all((x, y) in met for x in main.values() for y in main.values() if x != y):
            for a in unit:
                if all((merged.root(a), axis) in met for c, axis in main.items() if c != classes[a]):
                    join([main[classes[a]], a])
    return merged, unit, crossing, [batch for _, batch in waiting.values()]
