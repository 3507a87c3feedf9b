r"""Check certificates without trusting their maker: `python -m solvers.check [--large] FILE.json [FILE.json ...]`.

Needs the standard library and python-flint (ball arithmetic), and no code of the solver; redoes every inequality from
the raw numbers, in balls, and prints what it proved. Exit status: 0 proved (a global minimiser within the stated gap,
and all that is printed holds), 1 not proved (less is claimed, or some claim does not follow), 2 unreadable, or so
large that it takes more than seconds and 300 MiB: with --large a file of an origin you trust may take a hundred times.

**The problem.** Samples i have labels and unit-ball embeddings h_i (UFM+: also h_i >= 0), G_ij = h_i.h_j. In a
batch B with n_B samples, n_{B,c} of class c, every sample i of a class with n_{B,c} >= 2 contributes

    f_{B,i} = log sum_{l in B, l != i} e^{G_il/tau} - (1/(n_{B,c}-1)) sum_{j in B, same class, j != i} G_ij/tau

and L is the sum. Samples of one class in the same batches form an orbit; the file has one row per orbit a,
n_a samples each. The point is h_a = norms[a] rows[a] / ||rows[a]||, feasible by construction.

**Upper bound.** L at the point. **Lower bound**, by the file's "kind":

- laplacian (UFM+): at the orthogonal frame the gradient of the convex function L(G) is -A within classes and N
  across, A, N >= 0; S = Diag(A 1) - A is a graph Laplacian, so <-A, G> >= -sum_i (A 1)_i for PSD G with
  diag <= 1, and L(G) >= L(frame) = sum_B sum_{c: n_{B,c} >= 2} n_{B,c} log(n_{B,c}-1 + (n_B-n_{B,c}) e^{-1/tau}).
- matrix: with C the gradient at any G0, v >= 0, N >= 0 (0 for UFM) and S = C + Diag(v) - N PSD,
  L(G) >= L(G0) - <C, G0> - sum_a n_a v_a. S is PSD over the samples iff v_a >= s_aa where n_a >= 2, and T is
  PSD, T_ab = s_ab, T_aa = (v_a + (n_a-1) s_aa)/n_a; elimination without a pivot <= 0 proves the latter.
- elementary: Jensen over the positives and G_il - g_i >= -2, so e^{-2/tau} in place of e^{-1/tau} above; where the k
  classes of a batch are equally many, Jensen over the anchors and 1^T G 1 >= 0 allow the simplex's e^{-(k/(k-1))/tau}.

**What the gap implies** (UFM+): eps = L - L(frame) >= sum A_ij (1 - G_ij) + sum N_ij G_ij over ordered pairs.
So the mean of G over orbits a, b of two classes is at most eps / (2 n_a n_b N_ab); ||h_i - h_j||^2 <= eps R_ij
within a class, R the effective resistance in the network of conductances A (a metric, <= (n_a+n_b-1)/(n_a n_b A_ab)
between orbits, 2/(n_a A_aa) within one, 2/(n_b A_ab) through another); and some ||h_i|| >= 1 - eps / (pairs A_ab).
A point attains L(frame) exactly iff all these terms vanish and the values within each batch of one class are equal.
UFM, full batch: eps = L - bound >= sum D_i + <S, G> + sum v_i (1 - G_ii), D_i the Bregman divergence of an anchor's
log-sum-exp; with p its softmax at G0, (e^D_i - 1) / p_b >= y^2 / (2 + |y|), y = (G_ib - G0_ib) / tau less its mean.
Two values of an anchor there that differ by r cost 2 p log cosh(r / 2 tau), p the lesser softmax weight (the least over
the others: where e^y = cosh(r / 2 tau)). `tolerance` times the least that a pair or tie (r = 1) costs is the margin;
what pairs and ties imply in chains is looked up at the point.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from functools import cache, partial, reduce
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from flint import arb, ctx

# What a file of unknown origin may take: seconds, and 300 MiB. MOST_WORK: pairs in batches times bits of precision.
MOST_BYTES, MOST_ENTRIES, MOST_WORK, MOST_PRODUCTS, MOST_IN_A_MATRIX, LARGE = 2**22, 2**22, 15 * 10**7, 2**22, 256, 100
FORMAT, FINEST_TOLERANCE, COARSEST_TOLERANCE, FARTHEST_MOVE = "ufm-scl certificate 2", 1e-30, 1e-2, 1e-6
HEX_DOUBLE, HEX_DIGEST = re.compile(r"-?0x[01]\.[0-9a-f]{1,13}p[+-][0-9]{1,4}"), re.compile("[0-9a-f]{64}")
Edges = dict[tuple[int, int], arb]


class Refusal(Exception):
    """The exit status, 1 for a claim that does not follow or 2 for a file that is no certificate, and what is wrong."""


class Problem(NamedTuple):
    """The problem over orbits, with the samples of each class in each batch counted."""

    nonneg: bool
    d: int
    k: int
    tau: arb
    classes: list[int]
    sizes: list[int]
    batches: list[list[int]]
    counts: list[Counter[int]]
    room: int


def need(condition: bool, what: str, status: int = 2) -> None:
    """Refuse the file unless the condition holds."""
    if not condition:
        raise Refusal(status, what)


prove = partial(need, status=1)  # of a claim, by a comparison of balls


def record(value: Any, name: str, *fields: str) -> list[Any]:
    """The values of an object that has exactly these fields."""
    need(isinstance(value, dict) and set(value) == set(fields), f"{name} should have the fields {', '.join(fields)}")
    return [value[field] for field in fields]


def items(value: Any, name: str, length: int | None = None) -> list[Any]:
    """A list, of the given length."""
    need(isinstance(value, list) and length in (None, len(value)), f"{name} should be a list ({length})")
    return value


def wholes(value: Any, name: str, low: int, high: int, length: int | None = None) -> list[int]:
    """A list of whole numbers in low..high."""
    for entry in items(value, name, length):
        need(type(entry) is int and low <= entry <= high, f"{name} should hold whole numbers from {low} to {high}")
    return value


def doubles(value: Any, name: str, length: int, low: float = -1e300, high: float = 1e300) -> list[arb]:
    """A list of exact doubles in [low, high], written in hexadecimal."""
    for x in items(value, name, length):
        fit = isinstance(x, str) and HEX_DOUBLE.fullmatch(x) is not None and low <= float.fromhex(x) <= high
        need(fit, f"{name} should be hexadecimal, from {low} to {high}")
    return [arb(float.fromhex(x)) for x in value]


def shown(value: Any, digits: int = 3, rounding: str = ROUND_CEILING) -> str:
    """A double in decimal, rounded so that the sentence stays true."""
    return str(Context(prec=digits, rounding=rounding).create_decimal(Decimal(float(value))))


def digest(value: Any) -> str:
    """sha256 of a value as compact JSON with sorted keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def precision(tau: float) -> int:
    """Working precision in bits: e^{-1/tau} stays far above the last one."""
    return 256 + int(6 / tau) + 1


def fits(load: int, room: int, what: str) -> None:
    """Refuse what takes longer than a file of unknown origin may."""
    need(load <= room, f"too many {what} to check in seconds; if you trust its origin, check it with --large")


def read(path: str, room: int = 1) -> dict[str, Any]:
    """The JSON object in a file, without repeated fields; room: how many times the usual limits it may take."""
    need(Path(path).is_file(), "not a file")
    fits(Path(path).stat().st_size, room * MOST_BYTES, "bytes")
    text = Path(path).read_bytes().decode("utf-8")
    content = json.loads(text, object_pairs_hook=lambda p: need(len(dict(p)) == len(p), "a field twice") or dict(p))
    need(isinstance(content, dict) and content.get("format") == FORMAT, f"format should be {FORMAT}")
    return content


def read_problem(value: Any, room: int) -> Problem:
    """The problem; its own digest must hold."""
    fields = ("model", "d", "tau", "classes", "sizes", "batches")
    model, d, tau, classes, sizes, batches, own, _ = record(value, "problem", *fields, "digest", "samples_digest")
    m = len(items(classes, "classes"))
    need(model == "UFM+" or (model == "UFM" and m * m <= MOST_ENTRIES), "model should be UFM+, or UFM of few orbits")
    k = len(set(wholes(classes, "classes", 0, m - 1)))
    need(k == max(classes, default=0) + 1 >= 2, "every class 0..k-1 should have an orbit, k >= 2")
    wholes([d], "d", 1, room * MOST_ENTRIES // m)
    (temperature,) = doubles([tau], "tau", 1, 0.01, 1e4)
    wholes(sizes, "sizes", 1, 2**53, m)
    for batch in items(batches, "batches"):
        need(batch != [] and all(a < b for a, b in pairwise(wholes(batch, "a batch", 0, m - 1))), "batches increase")
    pairs = sum((len(batch) + 5) ** 2 for batch in batches)
    fits(pairs * precision(float(temperature)), room * MOST_WORK, "pairs in batches")
    prove(own == digest({field: value[field] for field in fields}), "the digest of the problem")
    counts = [sum((Counter({classes[a]: sizes[a]}) for a in batch), Counter()) for batch in batches]
    return Problem(model == "UFM+", d, k, temperature, classes, sizes, batches, counts, room)


def read_point(problem: Problem, rows: Any, norms: Any) -> Callable[[int, int], arb]:
    """The Gram matrix over orbits of a point; a norm other than 0 needs a row other than 0."""
    m, low = len(problem.sizes), 0.0 if problem.nonneg else -1e100
    entries = (doubles(row, "rows", problem.d, low, 1e100) for row in items(rows, "rows", m))
    sparse = [{j: x for j, x in enumerate(row) if not x.is_zero()} for row in entries]
    radii = doubles(norms, "norms", m, 0.0, 1.0)
    need(all(row or r.is_zero() for row, r in zip(sparse, radii, strict=True)), "a norm above 0 with a row of zeros")
    met = sum(len(batch) * sum(len(sparse[a]) for a in batch) for batch in problem.batches)
    fits(min(met, m * sum(map(len, sparse))), problem.room * MOST_PRODUCTS, "entries")
    square = [sum((x * x for x in row.values()), arb(0)) for row in sparse]
    scale = [r if s.is_zero() else r / s.sqrt() for s, r in zip(square, radii, strict=True)]

    def gram(a: int, b: int) -> arb:
        products = (x * sparse[b][j] for j, x in sparse[a].items() if j in sparse[b])
        return radii[a] ** 2 if a == b else sum(products, arb(0)) * scale[a] * scale[b]

    return cache(gram)


def loss(problem: Problem, gram: Callable[[int, int], arb], gradient: Sequence[list[arb]] = ()) -> arb:
    """L, and, added to `gradient`, its derivative: C_ab for one pair of samples of orbits a and b."""
    total, memo = arb(0), {}
    for batch, count in zip(problem.batches, problem.counts, strict=True):
        for a in batch:
            c, positives = problem.classes[a], count[problem.classes[a]] - 1
            if positives < 1:
                continue
            partition, pull, row = arb(0), arb(0), []
            for b in batch:
                key, others = (min(a, b), max(a, b)), problem.sizes[b] - (a == b)
                if key not in memo:
                    memo[key] = (gram(*key) / problem.tau).exp()
                partition += others * memo[key]
                pull += others * gram(*key) if problem.classes[b] == c else 0
                row.append((b, memo[key], arb(problem.classes[b] == c) / positives) if gradient else ())
            total += problem.sizes[a] * (partition.log() - pull / (positives * problem.tau))
            for b, exponential, positive in row if gradient else ():
                share = (exponential / partition - positive) / (2 * problem.tau)
                gradient[a][b] += share
                gradient[b][a] += share
    return total


def counted(problem: Problem, free: bool = False) -> arb:
    """sum_B sum_{c: n_{B,c} >= 2} n_{B,c} log(n_{B,c} - 1 + (n_B - n_{B,c}) e^{-x/tau}), x = 1; or `free` of H >= 0."""
    total = arb(0)
    for count in problem.counts:
        alike, everyone = len(set(count.values())) == 1 < len(count), sum(count.values())
        x = (arb(len(count)) / (len(count) - 1) if alike else arb(2)) if free else arb(1)
        decay = (-x / problem.tau).exp()
        total += sum((n * (n - 1 + (everyone - n) * decay).log() for n in count.values() if n >= 2), arb(0))
    return total


def matrix_bound(problem: Problem, gram: Any, v: Any, N: Any) -> tuple[arb, list[Any]]:
    """The lower bound of a dual given by matrices, once S is proved PSD; and G0 (its lower triangle), v and C."""
    m, sizes = len(problem.sizes), problem.sizes
    need(m <= MOST_IN_A_MATRIX, f"more than {MOST_IN_A_MATRIX} orbits in a matrix")
    lower = [doubles(row, "gram", a + 1, -4.0, 4.0) for a, row in enumerate(items(gram, "gram", m))]
    held = [doubles(row, "N", a + 1, 0.0, 1e300 * problem.nonneg) for a, row in enumerate(items(N, "N", m))]
    raised, C = doubles(v, "v", m, 0.0), [[arb(0)] * m for _ in range(m)]
    bound = loss(problem, lambda a, b: lower[max(a, b)][min(a, b)], C)
    T = [[C[a][b] - held[a][b] for b in range(a + 1)] for a in range(m)]
    for a, n in enumerate(sizes):
        prove(n == 1 or raised[a] >= T[a][a], "S is PSD within an orbit")
        T[a][a] = (raised[a] + (n - 1) * T[a][a]) / n
        pairs = (n * (n - 1) if a == b else 2 * n * sizes[b] for b in range(a + 1))
        bound -= n * raised[a] + sum((w * C[a][b] * lower[a][b] for b, w in enumerate(pairs)), arb(0))
    for p in range(m):
        prove(T[p][p] > 0, "S is PSD across orbits")
        for a in range(p + 1, m):
            factor = T[a][p] / T[p][p]
            for b in range(p + 1, a + 1):
                T[a][b] -= factor * T[b][p]
    return bound, [lower, raised, C]


def pair_weights(problem: Problem) -> tuple[Edges, Edges, arb | None]:
    """A and N at the frame on pairs a <= b of orbits, and the least weight a batch gives to all samples of a pair."""
    decay, weakest = (-1 / problem.tau).exp(), None
    within, across = defaultdict(arb), defaultdict(arb)
    for batch, count in zip(problem.batches, problem.counts, strict=True):
        everyone = sum(count.values())
        inverse = {c: 1 / (n - 1 + (everyone - n) * decay) if n >= 2 else arb(0) for c, n in count.items()}
        for position, a in enumerate(batch):
            c, n, size = problem.classes[a], count[problem.classes[a]], problem.sizes[a]
            for b in batch[position:]:
                other, pairs = problem.classes[b], size * (size - 1) if a == b else 2 * size * problem.sizes[b]
                if c != other and (n >= 2 or count[other] >= 2):
                    weight, edges = decay * (inverse[c] + inverse[other]) / (2 * problem.tau), across
                elif c == other and 2 <= n < everyone and pairs:
                    weight, edges = (everyone - n) * decay * inverse[c] / ((n - 1) * problem.tau), within
                else:
                    continue
                edges[a, b] += weight
                weakest = pairs * weight if weakest is None else weakest.min(pairs * weight)
    return within, across, weakest


def weakest_tie(problem: Problem, gram: Callable[[int, int], arb]) -> arb | None:
    """The least that all anchors of an orbit pay if their values with two orbits of a one-class batch differ by 1."""
    masses, sizes = [], problem.sizes
    for batch in (batch for batch, count in zip(problem.batches, problem.counts, strict=True) if len(count) == 1):
        for a in batch:
            each = [(sizes[b] - (a == b)) * (gram(a, b) / problem.tau).exp() for b in batch if sizes[b] > (a == b)]
            masses += [sizes[a] * reduce(arb.min, each) / sum(each, arb(0))] if len(each) > 1 else []
    return 2 * reduce(arb.min, masses) * (1 / (2 * problem.tau)).cosh().log() if masses else None


def weakest_force(problem: Problem, C: list[list[arb]]) -> arb | None:
    """UFM: the least first-order change of L as two orbits of a mixed batch turn by min(tau, 1); None if none act."""
    mixed = (batch for batch, count in zip(problem.batches, problem.counts, strict=True) if len(count) > 1)
    pairs = {(a, b, problem.classes[a] == problem.classes[b]) for batch in mixed for a in batch for b in batch if a < b}
    acting = ((a, b) for a, b, alike in pairs if (C[a][b] < 0 if alike else C[a][b] > 0))
    forces = [2 * problem.sizes[a] * problem.sizes[b] * abs(C[a][b]) for a, b in acting]
    return reduce(arb.min, forces) * problem.tau.min(arb(1)) if forces else None


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


def pieces(problem: Problem, crowded: bool = False) -> tuple[Joined, set[int], set[tuple[int, int]], list[Any]]:
    """What zero excess glues to one unit vector, the orbits glued, those that cross, and one-class batches left open.

    crowded (d = k): k glued pieces of the k classes that all cross are the axes; what crosses k - 1 is on the last."""
    glued, unit, crossing, waiting, before = Joined(), set(), set(), [], None
    for batch, count in zip(problem.batches, problem.counts, strict=True):
        for c in (c for c, n in count.items() if n > 1 + (len(count) == 1)):
            waiting.append(([a for a in batch if problem.classes[a] == c], batch))
    while before != (before := (len(waiting), Counter(map(glued.root, sorted(unit))))):
        asked, waiting = waiting, []
        for own, batch in asked:  # a mixed batch glues its orbits, another does if it holds a glued pair
            within = any(a in unit and problem.sizes[a] > 1 for a in own)
            if own != batch or within or len(set(map(glued.root, own))) < len(own):
                glued.join(own)
                unit.update(own)
                crossing.update(pair for a in own for b in set(batch) - set(own) for pair in ((a, b), (b, a)))
            else:
                waiting.append((own, batch))
        size = Counter(map(glued.root, sorted(unit)))
        met = {(glued.root(a), glued.root(b)) for a, b in crossing} if crowded and before[1] == size else set()
        main = {problem.classes[a]: a for a, _ in reversed(size.most_common())}
        if len(main) == problem.k and all((x, y) in met for x in main.values() for y in main.values() if x != y):
            for a, c in ((a, problem.classes[a]) for a in unit):
                if all((glued.root(a), axis) in met for e, axis in main.items() if e != c):
                    glued.join([main[c], a])
    return glued, unit, crossing, waiting


def forced(problem: Problem) -> bool:
    """UFM+, d >= k: whether zero excess makes each class one unit vector, and all of them orthogonal."""
    glued, unit, crossing, _ = pieces(problem, problem.d == problem.k)
    met = {(problem.classes[a], problem.classes[b]) for a, b in crossing}
    one = len(unit) == len(problem.sizes) and len(set(map(glued.root, unit))) == problem.k
    return one and len(met) == problem.k * (problem.k - 1)


def keeps(problem: Problem, gram: Callable[[int, int], arb], slack: arb) -> bool:
    """UFM+: whether a point has within `slack` all values that batches fix or tie, directly or in chains."""
    glued, unit, crossing, waiting = pieces(problem)
    root, parent = glued.root, Joined()  # of orbits, and of pairs
    off = [1 - gram(a, root(a)) for a in unit] + [gram(a, b) for a, b in {(root(a), root(b)) for a, b in crossing}]
    pairs = [[(a, b) for a in own for b in own if a < b or (a == b and problem.sizes[a] > 1)] for own, _ in waiting]
    tied, values = [[tuple(sorted(map(root, pair))) for pair in each] for each in pairs], defaultdict(list)
    for each in tied:
        parent.join(each)
    for pair in list(parent):
        values[parent.root(pair)].append(gram(*pair))
    return all(x <= slack for x in [*off, *(reduce(arb.max, v) - reduce(arb.min, v) for v in values.values())])


def resistance(sizes: list[int], members: list[int], roads: dict[int, dict[int, arb]]) -> arb | None:
    """At least the effective resistance between any two samples of a class, by shortest paths; None if unconnected."""
    hub, reached = members[0], {}
    queue = [(0.0, hub, arb(0))]
    while queue:
        _, a, R = heapq.heappop(queue)
        if a not in reached:
            reached[a] = R
            for b, A in roads[a].items():
                farther = R + (sizes[a] + sizes[b] - 1) / (sizes[a] * sizes[b] * A)
                heapq.heappush(queue, (float(farther), b, farther))
    ways = [2 / (sizes[b] * A) for b, A in roads[hub].items()]
    if len(reached) < len(members) or (sizes[hub] >= 2 and not ways):
        return None
    reached[hub] = min(ways, key=float) if sizes[hub] >= 2 else arb(0)
    return reached[hub] if len(members) == 1 else 2 * reduce(arb.max, reached.values())


def is_other_minimiser(problem: Problem, gram: Callable[[int, int], arb]) -> bool:
    """Whether a point, entries of its Gram matrix exact, attains the loss of the frame and has another Gram matrix."""
    first = {c: a for a, c in reversed(list(enumerate(problem.classes)))}
    apart = any(gram(a, first[c]) != 1 for a, c in enumerate(problem.classes))
    differs = apart or any(gram(a, b) != 0 for a in first.values() for b in first.values() if a < b)
    return problem.nonneg and differs and keeps(problem, gram, arb(0))


def check_implied(problem: Problem, within: Edges, across: Edges, eps: arb, claims: Any, unique: Any) -> list[str]:
    """Redo the bounds on spreads, norms and cosines, and uniqueness; sentences on what they say."""
    k, sizes, classes = problem.k, problem.sizes, problem.classes
    cosine, spread, norm, tie = record(claims, "implied", "cosine", "spread", "norm", "tie")
    cosines = [doubles(row, "cosine", k, 0.0, 1.0) for row in items(cosine, "cosine", k)]
    spreads, norms = doubles(spread, "spread", k, 0.0, 2.0), doubles(norm, "norm", k, 0.0, 1.0)
    ties = doubles(tie, "tie", k, 0.0, 1.0)
    for c, n in ((c, n) for count in problem.counts for c, n in count.items() if len(count) == 1 and n > 2):
        paid = (arb(2) / (n - 1)) * (ties[c] / (2 * problem.tau)).cosh().log()
        prove(ties[c] >= 1 or paid >= eps, f"the ties of class {c}")
    members = [[a for a, label in enumerate(classes) if label == c] for c in range(k)]
    roads = defaultdict(dict)
    for (a, b), A in within.items():
        roads[a][b] = roads[b][a] = A
    R = [resistance(sizes, own, roads) for own in members]
    for c, (bound, r) in enumerate(zip(spreads, R, strict=True)):
        prove(bound >= 2 or (r is not None and bound**2 >= eps * r), f"the spread of class {c}")
    proved = {(c, c) for c in range(k) if norms[c] <= 0}
    for (a, b), A in within.items():
        pairs = sizes[a] * (sizes[a] - 1) if a == b else 2 * sizes[a] * sizes[b]
        if 1 - eps / (pairs * A) - spreads[classes[a]] >= norms[classes[a]]:
            proved.add((classes[a], classes[a]))
    for (a, b), N in across.items():
        c, other = pair = (min(classes[a], classes[b]), max(classes[a], classes[b]))
        loose = sum((spreads[label] for label in pair if len(members[label]) > 1), arb(0))
        if eps / (2 * sizes[a] * sizes[b] * N) + loose <= cosines[c][other] * norms[c] * norms[other]:
            proved.add(pair)
    for c in range(k):
        prove((c, c) in proved and cosines[c][c] == 1, f"the norm of the mean of class {c}")
        for other in range(c):
            alike = cosines[other][c] == cosines[c][other]
            prove(alike and (cosines[c][other] >= 1 or (other, c) in proved), f"the cosine of classes {other} and {c}")
    prove(unique is not True or forced(problem), "uniqueness")
    largest, least = max(float(cosines[c][e]) for c in range(k) for e in range(c)), min(map(float, norms))
    said = [
        f"Every feasible point of no larger loss than it has class means of cosine at most {shown(largest)}, of norm "
        f"at least {shown(least, 9, ROUND_FLOOR)}, classes at most {shown(max(map(float, spreads)))} wide, and values "
        f"that a batch of one class ties at most {shown(max(map(float, ties)))} apart."
    ]
    return [*said, "All minimisers have one Gram matrix, the orthogonal frame's."] if unique else said


def check_intervals(problem: Problem, dual: list[Any], eps: arb, claims: Any, unique: Any) -> list[str]:
    """UFM: redo the bounds on spreads, norms and cosines, and uniqueness; sentences on what they say."""
    k, n, tau, (lower, v, C) = problem.k, problem.sizes, problem.tau, dual
    cosine, spread, norm, least = record(claims, "implied", "cosine", "spread", "norm", "least_cosine")
    most, least = ([doubles(row, "cosine", k, -1.0, 1.0) for row in items(t, "cosine", k)] for t in (cosine, least))
    spreads, norms = doubles(spread, "spread", k, 0.0, 2.0), doubles(norm, "norm", k, 0.0, 1.0)
    prove(problem.classes == list(range(k)) and all(len(batch) == k for batch in problem.batches), "a full batch")
    s, products, unit = [v[a] - C[a][a] for a in range(k)], defaultdict(list), arb(-1).union(arb(1))
    prove(all(x > 0 for x in (*v, *s)), "the multipliers are positive")
    short = [eps / v[a] if m == 1 else (eps / (m * v[a])).max(eps / ((m - 1) * s[a])) for a, m in enumerate(n)]
    several, lone = [a for a in range(k) if n[a] > 1], [a for a in range(k) if n[a] == 1]
    for a in several:
        row = [lower[max(a, b)][min(a, b)] for b in range(k)]
        w = [(n[b] - (a == b)) * (x / tau).exp() for b, x in enumerate(row)]
        q = [(eps / n[a]).expm1() * sum(w, arb(0)) / x for x in w]
        reach = [tau * (x + (x * x + 8 * x).sqrt()) / 2 for x in q]
        for b in range(k):
            ball = row[b] + 1 - row[a] + (-short[a] - reach[a] - reach[b]).union(reach[a] + reach[b])
            for pair in ((a, b), (b, a)):
                products[pair].append(ball)
    for a, b in ((a, b) for a in lone for b in lone):
        drawn = sum((n[c] * C[a][c] * products[c, b][0] for c in several), arb(0))
        products[a, b].append(((v[a] * eps).sqrt() * unit - drawn) / v[a])
    for c in range(k):
        prove(most[c][c] == 1 and least[c][c] == 1, f"the cosine of {c} with itself")
        prove(norms[c] ** 2 <= 1 - short[c] or norms[c] <= 0, f"the norm of the mean of class {c}")
        prove(n[c] == 1 or spreads[c] >= 2 or spreads[c] ** 2 * s[c] >= 2 * eps, f"the spread of class {c}")
        for e in (e for e in range(k) if e != c):
            scale = norms[c] * norms[e]
            found = [x.union(x / scale) for x in products[c, e] if scale > 0]
            below = least[c][e] <= -1 or any(x >= least[c][e] for x in found)
            prove(below and (most[c][e] >= 1 or any(x <= most[c][e] for x in found)), f"the cosine of {c} and {e}")
    prove(unique is not True or (several != [] and all(most[a][b] < 0 for a in lone for b in several)), "uniqueness")
    widest = max(float(most[c][e] - least[c][e]) for c in range(k) for e in range(c))
    said = [
        f"Every feasible point of no larger loss than it has class means of cosines in the file's intervals, at most "
        f"{shown(widest)} wide, of norm at least {shown(min(map(float, norms)), 9, ROUND_FLOOR)}, and classes at most "
        f"{shown(max(map(float, spreads)))} wide."
    ]
    return [*said, "All minimisers have one Gram matrix."] if unique else said


def check(content: dict[str, Any], room: int = 1) -> list[str]:
    """Redo everything; sentences on what was proved. Raises Refusal. room: as in `read`."""
    parts = ("problem", "point", "lower_bound", "witness", "other_minimiser", "claims", "second_opinion", "checksum")
    given, point, dual, witness, other, claims, _, checksum = record(content, "the certificate", "format", *parts)[1:]
    problem = read_problem(given, room)
    rows, norms, embedding, moved = record(point, "point", "rows", "norms", "embedding_digest", "moved")
    need(all(type(x) is str and HEX_DIGEST.fullmatch(x) for x in (embedding, given["samples_digest"])), "digests")
    names = ("status", "reason", "upper", "lower", "gap", "theoretical", "tolerance", "unique", "implied")
    status, _, upper, lower, gap, theoretical, tolerance, unique, implied = record(claims, "claims", *names)
    need(status in ("certified", "not certified", "inconclusive"), "status is unknown")
    upper, lower = doubles([upper, lower], "upper and lower", 2)
    gap, moved = doubles([gap, moved], "gap and moved", 2, 0.0)
    (tolerance,) = doubles([tolerance], "tolerance", 1, FINEST_TOLERANCE, COARSEST_TOLERANCE)
    need((witness is None) == (status != "not certified"), "a witness goes with not certified, and only with that")
    prove(checksum == digest({name: value for name, value in content.items() if name != "checksum"}), "the checksum")

    with ctx.workprec(precision(float(problem.tau))):
        C = [] if problem.nonneg else [[arb(0)] * len(problem.sizes) for _ in problem.sizes]
        gram = read_point(problem, rows, norms)
        at_point, frame = loss(problem, gram, C), counted(problem)
        kind = dual.get("kind") if isinstance(dual, dict) else None
        matrices = ("gram", "v", "N") if kind == "matrix" else ()
        _, _, value, *matrix = record(dual, "lower_bound", "kind", "source", "value", *matrices)
        need(kind in ("matrix", "elementary") or (kind == "laplacian" and problem.nonneg), "kind of bound is unknown")
        closed = frame if kind == "laplacian" else counted(problem, free=True)
        bound, numbers = matrix_bound(problem, *matrix) if matrix else (closed, [])
        prove(at_point <= upper, "the upper bound")
        prove(bound >= lower and bound >= doubles([value], "value", 1)[0], "the lower bound")
        prove(at_point - bound <= gap, "the gap")
        if theoretical is not None or problem.nonneg:
            prove(
                abs(doubles([theoretical], "theoretical", 1)[0] - frame) <= abs(frame) * arb(2) ** -52,
                "the frame's loss",
            )
        within, across, pair = pair_weights(problem) if problem.nonneg else ({}, {}, weakest_force(problem, C))
        tie = weakest_tie(problem, (lambda a, b: arb(0)) if problem.nonneg else gram)
        margin = tolerance * reduce(arb.min, [x for x in (pair, tie) if x is not None] or [arb(1e-8) * (1 + frame)])
        slack = tolerance.sqrt() if problem.nonneg else None
        said = [
            f"{given['model']}, {problem.k} classes, {sum(problem.sizes)} samples, d = {problem.d}, tau = "
            f"{float(problem.tau)!r}, {len(problem.batches)} batch(es): the point's loss and the least of all feasible "
            f"points lie between {shown(lower, 17, ROUND_FLOOR)} and {shown(upper, 17)}, at most {shown(gap)} apart."
        ]
        need(type(unique) in (bool, type(None)) and (other is None) == (unique is not False), "uniqueness is unclear")
        need(problem.nonneg or implied is None or numbers != [], "implications of UFM need a dual")
        prove(unique is None or (implied is not None and problem.d >= problem.k), "uniqueness")
        if implied is not None:
            said += (
                check_implied(problem, within, across, at_point - frame, implied, unique)
                if problem.nonneg
                else check_intervals(problem, numbers, at_point - bound, implied, unique)
            )
        if other is not None:
            exact = read_point(problem, *record(other, "other_minimiser", "rows", "norms"))
            prove(is_other_minimiser(problem, exact), "another minimiser")
            said.append("The orthogonal frame is not the only minimiser: the file holds one with another Gram matrix.")
        if status == "not certified":
            better = loss(problem, read_point(problem, *record(witness, "witness", "rows", "norms")))
            least = margin if slack is None or keeps(problem, gram, slack) else arb(0)
            prove(at_point - better > least, "the better point is better")
            said.append("The point is no global minimiser: the file holds a better one.")
        prove(status == "certified", f"optimality (the file says: {status}). What holds: " + " ".join(said))
        prove(gap <= margin, "the gap is small enough for the status")
        prove(slack is None or keeps(problem, gram, slack), "what follows in chains of batches")
        prove(moved <= FARTHEST_MOVE, "H is near the certified point")
    chains = f"; it has all values that batches fix or tie, in chains too, within {shown(slack)}" if slack else ""
    return [
        *said,
        f"So the point is a global minimiser within the gap: no feasible point has a loss lower by more than "
        f"{shown(gap)}, a share of {shown(tolerance)} of what one broken pair or tie costs{chains}.",
        f"Not checked: second opinion, reasons, sources; that labels {given['samples_digest'][:16]} reduce to this "
        f"problem; and that embedding {embedding[:16]} lies within {shown(moved)} of the point.",
    ]


def main(paths: list[str]) -> int:
    """Check files, whatever they hold, and say what was proved; the worst exit status."""
    room, paths = LARGE if "--large" in paths else 1, [path for path in paths if path != "--large"]
    worst = 0 if paths else print("usage: python -m solvers.check [--large] FILE.json [FILE.json ...]") or 2
    for path in paths:
        try:
            code, sentences = 0, check(read(path, room), room)
        except Refusal as refusal:
            code, *sentences = refusal.args
        except (OSError, ValueError, ArithmeticError, RecursionError, MemoryError) as failure:
            code, sentences = 2, [type(failure).__name__]
        worst = max(worst, code)
        print(f"{path!a}: {('PROVED', 'NOT PROVED', 'UNREADABLE')[code]}")
        for sentence in sentences:
            print("  " + ascii(sentence)[1:-1])
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
