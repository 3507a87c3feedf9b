r"""Fewer dimensions than classes under the ReLU: a rigorous lower bound that depends on d (theory, 4.21).

The relaxation of theory, 4.2 does not depend on d. For d < k its value, the loss of a frame, is not attained in the
full batch if all classes have two samples or more, as here (theory, 4.21 c). But the Gram matrix of class means is
G = sum_{j <= d} x_j x_j^T with x_j in [0, 1]^k, one for each coordinate: for a convex F,

    F(G) >= F(G0) + <C, G - G0>,    <C, G> >= d min_x x^T (C + Diag v) x - sum_c v_c G_cc,

and where C_cc + v_c <= 0 for all c the form is concave in each entry of x alone, so that it is least at one of 2^k
corners. `bracket` splits the norms of the class means into boxes and bounds the loss in each of them. It returns this
bound and the best point. All bounds are proved in ball arithmetic.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from itertools import product

import numpy as np
from flint import arb, ctx
from jaxtyping import Float
from scipy.optimize import linprog, minimize

from solvers.certification.balls import downwards, upwards
from solvers.multistart import solve
from ufm.errors import InvalidInput, real_number, whole_number
from ufm.model.problem import Problem
from ufm.settings import in_fixed_settings

MOST_CLASSES = 6  # 2^k corners, and boxes in k norms
BITS = 128
# Subtracted from the largest v that concavity allows, so that balls prove concavity.
SLACK = 1e-9


@dataclass(frozen=True)
class Bracket:
    """Bounds on the minimum of UFM+ in d < k dimensions, for the full batch with two samples or more in every class.

    - lower: a rigorous lower bound on the loss. upper: the loss, rounded up, of `point` (k, d), the class means.
    - frame: the bound of Theorem 1, which does not depend on d. boxes: the number of boxes that cover all norms.
    """

    lower: float
    upper: float
    frame: float
    point: Float[np.ndarray, "k d"]
    boxes: int

    @property
    def gap(self) -> float:
        """upper - lower."""
        return self.upper - self.lower

    @property
    def closed(self) -> float:
        """The fraction of the distance from the frame's bound to the best point that the lower bound closes."""
        return (self.lower - self.frame) / (self.upper - self.frame)


@dataclass(frozen=True)
class _Box:
    """Norms between `least` and `most`, and the G0 and v that bound the loss there."""

    least: Float[np.ndarray, " k"]
    most: Float[np.ndarray, " k"]
    G0: Float[np.ndarray, "k k"]
    v: Float[np.ndarray, " k"]
    value: float


class _Loss:
    """F(G) = sum_c n_c log[(n_c - 1) + sum_b n_b e^{(G_cb - G_cc)/tau}] for class means (theory, 4.21 a)."""

    def __init__(self, problem: Problem) -> None:
        self.sizes, self.s, self.d = np.asarray(problem.class_sizes), 1 / float(problem.tau), problem.d
        self.tau, self.k = float(problem.tau), problem.k
        self.apart = ~np.eye(self.k, dtype=bool)

    def at(self, G: Float[np.ndarray, "k k"]) -> tuple[float, Float[np.ndarray, "k k"]]:
        """Value, and symmetric gradient."""
        n = self.sizes
        terms = np.where(self.apart, n * np.exp(self.s * (G - np.diagonal(G)[:, None])), 0.0)
        total = n - 1 + terms.sum(axis=1)
        C = self.s * n[:, None] * terms / total[:, None]
        C = (C + C.T) / 2 - np.diag(C.sum(axis=1))
        return float(n @ np.log(total)), C

    def in_balls(self, G: Float[np.ndarray, "k k"]) -> tuple[arb, list[list[arb]]]:
        """The same, in balls."""
        n, k, s = [arb(x) for x in self.sizes], self.k, 1 / arb(self.tau)
        value, rows = arb(0), [[arb(0)] * k for _ in range(k)]
        for c in range(k):
            terms = [arb(0) if b == c else n[b] * (s * (arb(G[c, b]) - arb(G[c, c]))).exp() for b in range(k)]
            total = n[c] - 1 + sum(terms, arb(0))
            value += n[c] * total.log()
            compositions = [s * n[c] * term / total for term in terms]
            rows[c] = [*compositions]
            rows[c][c] = -sum(compositions, arb(0))
        return value, [[(rows[a][b] + rows[b][a]) / 2 for b in range(k)] for a in range(k)]


@in_fixed_settings
def bracket(problem: Problem, *, inits: int = 32, boxes: int = 400, tolerance: float = 1e-3, seed: int = 0) -> Bracket:
    """A rigorous lower and an upper bound on the minimum of UFM+ with d < k. The upper bound is the best of `inits`
    starts of `solvers.solve` and of all points with every class on an axis or at 0.

    boxes: at most so many boxes are split. tolerance: relative to the distance from the frame's bound to the best
    point; no box within it is split. Raises InvalidInput unless the problem is plain SCL under the ReLU in the full
    batch, with at least two samples of every class and 2 <= d < k <= 6.
    """
    _check(problem)
    whole_number("boxes", boxes, 1, "give at least 1")
    real_number("tolerance", tolerance, 1e-9, 1.0)
    loss = _Loss(problem)
    of_classes = Problem(np.arange(problem.k), problem.d, loss.tau, multiplicity=loss.sizes)
    solution = solve(of_classes, inits, seed)
    point = np.asarray(solution.embedding(solution.best))
    point = np.maximum(point, 0.0) / np.maximum(1.0, np.linalg.norm(point, axis=1, keepdims=True) * (1 + 2.0**-50))
    point = min(point, _on_axes(loss), key=lambda rows: loss.at(rows @ rows.T)[0])
    with ctx.workprec(BITS):
        upper, frame = _upper(loss, point), _in_frame(loss)
        enough = upper - tolerance * (upper - frame)
        covering = _covered(loss, boxes, enough)
        lower = min(downwards(_proved(loss, box)) for box in covering)
    # The frame's bound holds in every dimension; a box with a worse bound adds nothing.
    return Bracket(max(lower, frame), upper, frame, point, len(covering))


def _on_axes(loss: _Loss) -> Float[np.ndarray, "k d"]:
    """The best of all (d + 1)^k points with every class on an axis or at 0; solvers rarely end with a class at 0."""
    places = np.concatenate([np.eye(loss.d), np.zeros((1, loss.d))])
    points = (places[list(chosen)] for chosen in product(range(loss.d + 1), repeat=loss.k))
    return min(points, key=lambda rows: loss.at(rows @ rows.T)[0])


def _covered(loss: _Loss, boxes: int, enough: float) -> list[_Box]:
    """Boxes that cover all norms. The box of the lowest bound is split until no bound is below `enough`."""
    waiting: list[tuple[float, int, _Box]] = []
    done: list[_Box] = []
    made = 0

    def add(least: np.ndarray, most: np.ndarray) -> None:
        nonlocal made
        box, made = _bounded(loss, least, most), made + 1
        if box.value >= enough:
            done.append(box)
        else:
            heapq.heappush(waiting, (box.value, made, box))

    add(np.zeros(loss.k), np.ones(loss.k))
    for _ in range(boxes):
        if not waiting:
            break
        _, _, box = heapq.heappop(waiting)
        widest = int((box.most**2 - box.least**2).argmax())
        middle = (box.least[widest] + box.most[widest]) / 2
        for end, to in (("most", middle), ("least", middle)):
            ends = {"least": box.least.copy(), "most": box.most.copy()}
            ends[end][widest] = to
            add(ends["least"], ends["most"])
    return done + [box for *_, box in waiting]


def _bounded(loss: _Loss, least: np.ndarray, most: np.ndarray) -> _Box:
    """G0 near the minimum of F over the hull of the box, and the best v there. Their bound is proved later."""
    corners = np.array(list(product((0.0, 1.0), repeat=loss.k)))[1:] * most
    outer = np.einsum("sa,sb->sab", corners, corners)
    diagonals = np.einsum("saa->as", outer)

    def value(t: np.ndarray) -> tuple[float, np.ndarray]:
        loss_at_t, C = loss.at(np.tensordot(t, outer, 1))
        scale = loss.sizes.sum()
        return loss_at_t / scale, np.einsum("sab,ab->s", outer, C) / scale

    constraints = [
        {"type": "ineq", "fun": lambda t: loss.d - t.sum(), "jac": lambda t: -np.ones(len(t))},
        {"type": "ineq", "fun": lambda t: most**2 - diagonals @ t, "jac": lambda t: -diagonals},
        {"type": "ineq", "fun": lambda t: diagonals @ t - least**2, "jac": lambda t: diagonals},
    ]
    start = np.full(len(corners), loss.d / len(corners) / 2)
    result = minimize(value, start, jac=True, bounds=[(0, None)] * len(start), constraints=constraints, method="SLSQP")
    t = np.maximum(result.x, 0) if np.isfinite(result.x).all() else start
    G0 = np.tensordot(t, outer, 1)
    at, C = loss.at(G0)
    # Maximise d m - sum z over (v, m, z): z_c >= v_c least_c^2, v_c most_c^2; m <= corner forms and 0; v_c <= -C_cc.
    k, forms = loss.k, np.einsum("sab,ab->s", outer, C)
    eye = np.eye(k)
    above = np.block(
        [
            [-(corners**2), np.ones((len(corners), 1)), np.zeros((len(corners), k))],
            [np.diag(least**2), np.zeros((k, 1)), -eye],
            [np.diag(most**2), np.zeros((k, 1)), -eye],
        ]
    )
    right = np.concatenate([forms, np.zeros(2 * k)])
    ends = [(None, bound) for bound in -np.diagonal(C) - SLACK] + [(None, 0.0)] + [(None, None)] * k
    best = linprog(np.concatenate([np.zeros(k), [-loss.d], np.ones(k)]), A_ub=above, b_ub=right, bounds=ends)
    v = best.x[:k] if best.success else np.minimum(0.0, -np.diagonal(C) - SLACK)
    box = _Box(least, most, G0, v, 0.0)
    lowest = min(0.0, float((forms + (corners**2) @ v).min()))
    bound = at - float((C * G0).sum()) + loss.d * lowest - float(np.maximum(v * least**2, v * most**2).sum())
    return _Box(box.least, box.most, box.G0, box.v, bound)


def _proved(loss: _Loss, box: _Box) -> arb:
    """The bound of a box in ball arithmetic, from its G0 and v (theory, 4.21 b); -infinity without concavity."""
    k = loss.k
    value, C = loss.in_balls(box.G0)
    v, most, least = ([arb(x) for x in row] for row in (box.v, box.most, box.least))
    if not all(C[c][c] + v[c] <= 0 for c in range(k)):
        return arb("-inf")
    for a in range(k):
        for b in range(k):
            value -= C[a][b] * arb(box.G0[a, b])
    lowest = arb(0)
    for held in product((False, True), repeat=k):
        inside = [c for c in range(k) if held[c]]
        form = sum((C[a][b] * most[a] * most[b] for a in inside for b in inside), arb(0))
        form += sum((v[c] * most[c] ** 2 for c in inside), arb(0))
        lowest = lowest.min(form)
    value += loss.d * lowest
    for c in range(k):
        value -= (v[c] * least[c] ** 2).max(v[c] * most[c] ** 2)
    return value


def _upper(loss: _Loss, point: Float[np.ndarray, "k d"]) -> float:
    """The loss at class means, rounded up. Norms are checked in balls."""
    rows = [[arb(x) for x in row] for row in point]
    gram = [[sum((x * y for x, y in zip(a, b, strict=True)), arb(0)) for b in rows] for a in rows]
    if not all(gram[c][c] <= 1 for c in range(loss.k)):
        raise ArithmeticError("a row lies outside the unit ball")
    n, s, value = [arb(x) for x in loss.sizes], 1 / arb(loss.tau), arb(0)
    for c in range(loss.k):
        terms = [n[b] * (s * (gram[c][b] - gram[c][c])).exp() for b in range(loss.k) if b != c]
        value += n[c] * (n[c] - 1 + sum(terms, arb(0))).log()
    return upwards(value)


def _in_frame(loss: _Loss) -> float:
    return downwards(loss.in_balls(np.eye(loss.k))[0])


def _check(problem: Problem) -> None:
    if not isinstance(problem, Problem):
        raise InvalidInput("problem", type(problem).__name__, "give a ufm.Problem")
    if not problem.nonneg or not problem.loss.is_plain or not problem.is_full_batch:
        raise InvalidInput("problem", problem.summary().title, "give plain SCL under the ReLU, in the full batch")
    if not 2 <= problem.d < problem.k <= MOST_CLASSES:
        raise InvalidInput("d", problem.d, f"give 2 <= d < k <= {MOST_CLASSES}, here k = {problem.k}")
    if np.asarray(problem.class_sizes).min() < 2:
        raise InvalidInput("problem", problem.summary().title, "give at least 2 samples of every class")
