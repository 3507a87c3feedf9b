"""Which values all minimisers of UFM+ share, and what a gap implies there (theory, 3.17, 6.7 to 6.10, 6.13)."""

import heapq
from collections import Counter, defaultdict
from decimal import ROUND_FLOOR
from functools import reduce
from typing import Any

from flint import arb

from ufm_check.bounds import INFINITY, Edges
from ufm_check.components import DisjointSets, components
from ufm_check.fields import doubles, items, prove, record, shown
from ufm_check.losses import rows
from ufm_check.points import Point, SparseRow
from ufm_check.reading import MOST_PRODUCTS, Statement, fits

Box = dict[int, tuple[arb, arb]]


def enclosed(rows: list[SparseRow]) -> Box:
    """The least and the largest entry of the rows in each coordinate; a coordinate that is absent is 0 in all."""
    entries = defaultdict(list)
    for j, x in (entry for row in rows for entry in row.items()):
        entries[j].append(x)
    whole = {j: reduce(arb.min, x) for j, x in entries.items() if len(x) == len(rows)}
    return {j: (whole.get(j, arb(0)), reduce(arb.max, x)) for j, x in entries.items()}


def product(A: Box, B: Box, end: int) -> arb:
    """A lower bound (end = 0) or upper bound (end = 1) of the inner products of rows, >= 0, in two boxes."""
    few, many = sorted((A, B), key=len)
    return sum((few[j][end] * many[j][end] for j in few if j in many), arb(0))


def most_missed(problem: Statement, point: Point) -> arb:
    """UFM+: the point misses no value that batches fix or tie, directly or in chains, by more than this (3.17)."""
    merged, unit, crossing, open_batches = components(problem)
    root, tied, values, sets = merged.root, DisjointSets(), defaultdict(list), defaultdict(list)
    for held in open_batches:
        pairs = [(a, b) for a in held for b in held if a < b or (a == b and held[a] > 1)]
        tied.join([tuple(sorted(map(root, pair))) for pair in pairs])
    for pair in list(tied):
        values[tied.root(pair)].append(pair)
    for a in range(len(problem.sizes)):
        sets[root(a)].append(a)
    box = {r: enclosed([point.rows[a] for a in orbits]) for r, orbits in sets.items()}
    across, missed = {(root(a), root(b)) for a, b in crossing}, [arb(0)]
    work = sum(min(len(box[a]), len(box[b])) for a, b in [*across, *tied])
    fits(work, problem.limit_factor * MOST_PRODUCTS, "entries of boxes")
    for r in set(map(root, unit)):
        shortest = reduce(arb.min, (point(a, a) for a in sets[r]))
        widths = [high - low for low, high in box[r].values()]
        missed.append(1 - shortest + sum((x * x for x in widths), arb(0)) / 2)  # x**2 is NaN for a ball around 0
    missed += [product(box[a], box[b], 1) for a, b in across]
    for equal in values.values():
        low, high = ([product(box[a], box[b], end) for a, b in equal] for end in (0, 1))
        missed.append(reduce(arb.max, high) - reduce(arb.min, low))
    return reduce(arb.max, missed)


def forced(problem: Statement) -> bool:
    """UFM+, d >= k: whether zero excess makes each class one unit vector, and all of them orthogonal."""
    merged, unit, crossing, _ = components(problem, problem.d == problem.k)
    crossing_classes = {(problem.classes[a], problem.classes[b]) for a, b in crossing}
    one_each = len(unit) == len(problem.sizes) and len(set(map(merged.root, unit))) == problem.k
    all_cross = len(crossing_classes) == problem.k * (problem.k - 1)
    return one_each and all_cross and (problem.d == problem.k or together(problem) == unit)


def together(problem: Statement) -> set[int]:
    """Orbits whose samples are one vector once they are unit vectors: those of one sample or image, and those where a
    batch that fixes or ties values also holds a second sample, or another orbit of the class."""
    classes, result = problem.classes, set()
    for (batch, count), composition in zip(problem.batches, problem.compositions, strict=True):
        orbits = Counter(classes[a] for a in batch)
        acting = (a for a in batch if len(count) > 1 or count[classes[a]] >= problem.loss.alone)
        result |= {a for a in acting if orbits[classes[a]] > 1 or composition.held[a] > composition.views}
        result |= {a for a in batch if problem.sizes[a] == composition.views}
    return result


def is_other_minimiser(problem: Statement, point: Point) -> bool:
    """Whether a point attains the loss of the frame with another Gram matrix; entries of its Gram matrix are exact."""
    first = {c: a for a, c in reversed(list(enumerate(problem.classes)))}
    apart = any(point(a, first[c]) != 1 for a, c in enumerate(problem.classes))
    differs = apart or any(point(a, b) != 0 for a in first.values() for b in first.values() if a < b)
    return problem.nonneg and differs and bool(most_missed(problem, point) <= 0)


def norms_and_spreads(norms: list[arb], spreads: list[arb]) -> str:
    """What is claimed of norms and spreads under either model, in words."""
    least, widest = min(map(float, norms)), max(map(float, spreads))
    norm = shown(least, 9, ROUND_FLOOR)
    return f"norms of class means at least {norm}, rows of one class at most {shown(widest)} from each other"


def resistance(sizes: list[int], members: list[int], roads: dict[int, dict[int, arb]]) -> arb:
    """An upper bound of the effective resistance between any two samples of a class, by shortest paths from one."""
    hub, reached = members[0], {}
    queue = [(0.0, hub, arb(0))]
    while queue:
        _, a, R = heapq.heappop(queue)
        if a not in reached:
            reached[a] = R
            for b, A in roads[a].items():
                farther = R + (sizes[a] + sizes[b] - 1) / (sizes[a] * sizes[b] * A)
                heapq.heappush(queue, (float(farther), b, farther))
    detours = [2 / (sizes[b] * A) for b, A in roads[hub].items()]  # between two samples of the hub
    reached[hub] = min(detours, key=float, default=INFINITY) if sizes[hub] >= 2 else arb(0)
    farthest = INFINITY if len(reached) < len(members) else reduce(arb.max, reached.values())
    return farthest if len(members) == 1 else 2 * farthest


def check_implied(problem: Statement, within: Edges, across: Edges, eps: arb, claims: Any, unique: Any) -> str:
    """UFM+: prove the bounds on ties, spreads, norms and cosines again, and uniqueness; what they say."""
    k, sizes, classes = problem.k, problem.sizes, problem.classes
    cosine, spread, norm, tie = record(claims, "implied", "cosine", "spread", "norm", "tie")
    cosines = [doubles(row, "cosine", k, 0.0, 1.0) for row in items(cosine, "cosine", k)]
    spreads, norms = doubles(spread, "spread", k, 0.0, 2.0), doubles(norm, "norm", k, 0.0, 1.0)
    ties = doubles(tie, "tie", k, 0.0, 1.0)
    for count in (count for _, count in problem.batches if len(count) == 1 < max(count.values()) - 1):
        (c,) = count
        proved_tie = ties[c] >= 1
        if problem.loss.alone == 3 and not problem.expected:  # else no cost of a broken tie is known
            anchor = rows(problem, count)[c]
            cost = 2 * anchor.omega / anchor.positives * (ties[c] * anchor.s / 2).cosh().log()
            proved_tie = proved_tie or cost >= eps
        prove(proved_tie, f"the ties of class {c}")
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
        inner = eps / (2 * sizes[a] * sizes[b] * N) + loose
        proved |= {(low, high)} if inner <= cosines[high][low] * norms[low] * norms[high] else set()
    for c in range(k):
        prove((c, c) in proved and cosines[c][c] == 1, f"the norm of the mean of class {c}")
        for e in range(c):
            alike = cosines[e][c] == cosines[c][e]
            prove(alike and (cosines[c][e] >= 1 or (e, c) in proved), f"the cosine of classes {e} and {c}")
    prove(unique is not True or forced(problem), "uniqueness")
    largest = max(float(cosines[c][e]) for c in range(k) for e in range(c))
    tied = f"values that a batch of one class ties at most {shown(max(map(float, ties)))} from each other"
    return f"class means of cosine at most {shown(largest)}, {norms_and_spreads(norms, spreads)}, and {tied}"
