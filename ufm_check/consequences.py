"""What a minimiser of UFM+ keeps, and what a gap implies there (theory, 3.17, 6.7 to 6.10, 6.13)."""

import heapq
from collections import Counter, defaultdict
from decimal import ROUND_FLOOR
from functools import reduce
from typing import Any

from flint import arb

from ufm_check.bounds import INFINITY, Edges
from ufm_check.components import Joined, components
from ufm_check.losses import rows
from ufm_check.points import Point, SparseRow
from ufm_check.reading import MOST_PRODUCTS, Statement, doubles, fits, items, prove, record, shown

Box = dict[int, tuple[arb, arb]]


def enclosed(rows: list[SparseRow]) -> Box:
    """The least and the largest entry of rows, by coordinate; 0 where none is named."""
    entries = defaultdict(list)
    for j, x in (entry for row in rows for entry in row.items()):
        entries[j].append(x)
    whole = {j: reduce(arb.min, x) for j, x in entries.items() if len(x) == len(rows)}
    return {j: (whole.get(j, arb(0)), reduce(arb.max, x)) for j, x in entries.items()}


def product(A: Box, B: Box, end: int) -> arb:
    """Of the least entries of two boxes, end = 0, or of the largest, end = 1: no inner product of rows is beyond it."""
    few, many = sorted((A, B), key=len)
    return sum((few[j][end] * many[j][end] for j in few if j in many), arb(0))


def most_missed(problem: Statement, point: Point) -> arb:
    """UFM+: no value that batches fix or tie, directly or in chains, is missed by more (theory, 3.17)."""
    merged, unit, crossing, waiting = components(problem)
    root, tied, values, sets = merged.root, Joined(), defaultdict(list), defaultdict(list)
    for own in waiting:
        pairs = [(a, b) for a in own for b in own if a < b or (a == b and own[a] > 1)]
        tied.join([tuple(sorted(map(root, pair))) for pair in pairs])
    for pair in list(tied):
        values[tied.root(pair)].append(pair)
    for a in range(len(problem.sizes)):
        sets[root(a)].append(a)
    box = {r: enclosed([point.rows[a] for a in own]) for r, own in sets.items()}
    across, off = {(root(a), root(b)) for a, b in crossing}, [arb(0)]
    work = sum(min(len(box[a]), len(box[b])) for a, b in [*across, *tied])
    fits(work, problem.limit_factor * MOST_PRODUCTS, "entries of boxes")
    for r in set(map(root, unit)):
        shortest, wide = reduce(arb.min, (point(a, a) for a in sets[r])), [high - low for low, high in box[r].values()]
        off.append(1 - shortest + sum((x * x for x in wide), arb(0)) / 2)  # x**2 is NaN of a ball around 0
    off += [product(box[a], box[b], 1) for a, b in across]
    for equal in values.values():
        low, high = ([product(box[a], box[b], end) for a, b in equal] for end in (0, 1))
        off.append(reduce(arb.max, high) - reduce(arb.min, low))
    return reduce(arb.max, off)


def forced(problem: Statement) -> bool:
    """UFM+, d >= k: whether zero excess makes each class one unit vector, and all of them orthogonal."""
    merged, unit, crossing, _ = components(problem, problem.d == problem.k)
    met = {(problem.classes[a], problem.classes[b]) for a, b in crossing}
    one = len(unit) == len(problem.sizes) and len(set(map(merged.root, unit))) == problem.k
    return one and len(met) == problem.k * (problem.k - 1) and (problem.d == problem.k or together(problem) == unit)


def together(problem: Statement) -> set[int]:
    """Orbits whose samples are one vector once they are unit: those of one sample or image, and those of which a batch
    that fixes or ties values holds a second one, or another orbit of the class."""
    classes, found = problem.classes, set()
    for (batch, count), share in zip(problem.batches, problem.compositions, strict=True):
        orbits = Counter(classes[a] for a in batch)
        acting = (a for a in batch if len(count) > 1 or count[classes[a]] >= problem.loss.alone)
        found |= {a for a in acting if orbits[classes[a]] > 1 or share.held[a] > share.views}
        found |= {a for a in batch if problem.sizes[a] == share.views}
    return found


def is_other_minimiser(problem: Statement, point: Point) -> bool:
    """Whether a point, entries of its Gram matrix exact, attains the loss of the frame and has another Gram matrix."""
    first = {c: a for a, c in reversed(list(enumerate(problem.classes)))}
    apart = any(point(a, first[c]) != 1 for a, c in enumerate(problem.classes))
    differs = apart or any(point(a, b) != 0 for a in first.values() for b in first.values() if a < b)
    return problem.nonneg and differs and bool(most_missed(problem, point) <= 0)


def norms_and_spreads(norms: list[arb], spreads: list[arb]) -> str:
    """The same of both models."""
    least, widest = min(map(float, norms)), max(map(float, spreads))
    return f"of norm at least {shown(least, 9, ROUND_FLOOR)}, classes at most {shown(widest)} wide"


def resistance(sizes: list[int], members: list[int], roads: dict[int, dict[int, arb]]) -> arb:
    """At least the effective resistance between any two samples of a class, by shortest paths from one to the rest."""
    hub, reached = members[0], {}
    queue = [(0.0, hub, arb(0))]
    while queue:
        _, a, R = heapq.heappop(queue)
        if a not in reached:
            reached[a] = R
            for b, A in roads[a].items():
                farther = R + (sizes[a] + sizes[b] - 1) / (sizes[a] * sizes[b] * A)
                heapq.heappush(queue, (float(farther), b, farther))
    ways = [2 / (sizes[b] * A) for b, A in roads[hub].items()]  # between two samples of the hub
    reached[hub] = min(ways, key=float, default=INFINITY) if sizes[hub] >= 2 else arb(0)
    farthest = INFINITY if len(reached) < len(members) else reduce(arb.max, reached.values())
    return farthest if len(members) == 1 else 2 * farthest


def check_implied(problem: Statement, within: Edges, across: Edges, eps: arb, claims: Any, unique: Any) -> str:
    """UFM+: redo the bounds on ties, spreads, norms and cosines, and uniqueness; what they say."""
    k, sizes, classes = problem.k, problem.sizes, problem.classes
    cosine, spread, norm, tie = record(claims, "implied", "cosine", "spread", "norm", "tie")
    cosines = [doubles(row, "cosine", k, 0.0, 1.0) for row in items(cosine, "cosine", k)]
    spreads, norms = doubles(spread, "spread", k, 0.0, 2.0), doubles(norm, "norm", k, 0.0, 1.0)
    ties = doubles(tie, "tie", k, 0.0, 1.0)
    for count in (count for _, count in problem.batches if len(count) == 1 < max(count.values()) - 1):
        ties_some = problem.loss.alone == 3 and not problem.expected  # one of very many batches
        row = next(iter(rows(problem, count).values())) if ties_some else None
        for c in count:  # a loss that ties nothing says nothing
            paid = row and 2 * row.omega / row.positives * (ties[c] * row.s / 2).cosh().log()
            prove(ties[c] >= 1 or (paid is not None and paid >= eps), f"the ties of class {c}")
    members, roads = [[a for a, label in enumerate(classes) if label == c] for c in range(k)], defaultdict(dict)
    for (a, b), A in within.items():
        roads[a][b] = roads[b][a] = A
    for c, bound in enumerate(spreads):
        prove(bound >= 2 or bound**2 >= eps * resistance(sizes, members[c], roads), f"the spread of class {c}")
    proved = {(c, c) for c in range(k) if norms[c] <= 0}
    for (a, b), A in within.items():
        c, pairs = classes[a], sizes[a] * (sizes[a] - 1) if a == b else 2 * sizes[a] * sizes[b]
        proved |= {(c, c)} if 1 - eps / (pairs * A) - spreads[c] >= norms[c] else set()
    for (a, b), N in across.items():
        low, high = sorted((classes[a], classes[b]))
        loose = sum((spreads[c] for c in (low, high) if len(members[c]) > 1), arb(0))
        met = eps / (2 * sizes[a] * sizes[b] * N) + loose <= cosines[high][low] * norms[low] * norms[high]
        proved |= {(low, high)} if met else set()
    for c in range(k):
        prove((c, c) in proved and cosines[c][c] == 1, f"the norm of the mean of class {c}")
        for e in range(c):
            alike = cosines[e][c] == cosines[c][e]
            prove(alike and (cosines[c][e] >= 1 or (e, c) in proved), f"the cosine of classes {e} and {c}")
    prove(unique is not True or forced(problem), "uniqueness")
    largest = max(float(cosines[c][e]) for c in range(k) for e in range(c))
    tied = f"values that a batch of one class ties at most {shown(max(map(float, ties)))} apart"
    return f"class means of cosine at most {shown(largest)}, {norms_and_spreads(norms, spreads)}, and {tied}"
