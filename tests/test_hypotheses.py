"""Hypotheses of the book's statements: a counterexample where one is left out, and the claim with it."""

import math
from itertools import product

import numpy as np
import pytest
from flint import arb
from hypothesis import given
from hypothesis import strategies as st

import solvers
import ufm
from solvers.certification.constraints import smallest_weight
from solvers.certification.orbit_problem import loss_and_gradient
from solvers.certification.verification import Verdict
from tests import families, oracles
from tests.problems import reduced

SEEDS = st.integers(0, 2**32 - 1)
# Three classes of two pairs each, one pair of each of two classes in a batch: all classes repel, and two colours do.
PAIRS = ufm.Problem(np.repeat([0, 1, 2], 4), 2, batches=[[0, 1, 4, 5], [6, 7, 8, 9], [2, 3, 10, 11]])
FEW_COORDINATES = {
    "a lone sample": (ufm.Problem.from_class_sizes([2, 1], d=1), [0, 0, -1]),
    "two colours of three classes": (PAIRS, [0, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 1]),
}


def loss(H, labels, batches, tau=1.0):
    """In doubles, from the definition."""
    return oracles.scl(H, labels, tau, batches, math)


def excess(H, labels, batches, tau=1.0):
    """The loss minus its bound, to rounding."""
    return loss(H, labels, batches, tau) - oracles.bound(labels, tau, batches, math)


@pytest.mark.parametrize("case", FEW_COORDINATES)
def test_the_bound_may_be_attained_for_d_below_k(case):
    """Theory, 4.21 (c); an axis of -1 is the zero vector."""
    problem, axes = FEW_COORDINATES[case]
    assert problem.d < problem.k
    H = np.concatenate([np.eye(problem.d), np.zeros((1, problem.d))])[axes]
    assert solvers.certify(H, problem).status is solvers.Proof.CERTIFIED
    assert solvers.verify(H, problem).verdict is Verdict.GLOBAL_MINIMISER


@given(SEEDS)
def test_it_is_attained_where_components_can_be_coloured(seed):
    """Theory, 4.21 (c), with components by `ufm.interaction` and the first proper colouring of all there are."""
    rng = np.random.default_rng(seed)
    problem, _ = families.random_problem(rng, 3, 2)
    graph = ufm.interaction(problem)
    units = np.flatnonzero(graph.is_unit)
    if graph.open_batches or len(units) > 9:
        return
    edges = np.argwhere(np.triu(graph.cross[units][:, units].toarray()))
    places = (np.array(p, int) for p in product(range(problem.d), repeat=len(units)))
    proper = next((p for p in places if (p[edges[:, 0]] != p[edges[:, 1]]).all()), None)
    if proper is None:
        return
    rows = np.zeros((len(graph.size), problem.d))
    rows[units] = np.eye(problem.d)[proper]
    labels, batches = np.asarray(problem.labels).tolist(), oracles.batch_lists(problem)
    assert abs(excess(rows[graph.component], labels, batches)) < 1e-12


@pytest.mark.parametrize(("sizes", "attained"), [((2, 1, 1), True), ((2, 2, 1), False), ((2, 2, 2), False)])
def test_in_the_full_batch_one_coordinate_holds_one_class_of_several_samples(sizes, attained):
    labels = np.repeat([0, 1, 2], sizes).tolist()
    grid = np.array(list(product(np.linspace(0, 1, 6), repeat=3)))[..., None]
    least = min(excess(H[labels], labels, [list(range(len(labels)))]) for H in grid)
    assert least == pytest.approx(0, abs=1e-12) if attained else least > 0.05


def two_orbits(norms):
    """Two orbits of ten samples on one axis in a batch of one class, and two samples of another class in no batch."""
    labels, batches = [0] * 20 + [1, 1], [list(range(20)), list(range(10))]
    problem = ufm.Problem(labels, 2, batches=batches)
    return problem, np.array(norms)[np.repeat([0, 1, 2], [10, 10, 2])][:, None] * np.eye(2)[0]


def test_tied_values_without_a_common_anchor_are_bounded_by_the_root_of_two():
    """Theory, 5.14 (a): the square root of eta bounds values of one anchor alone."""
    delta = 0.0066
    problem, H = two_orbits([0.5 + delta, 0.5 - delta, 1.0])
    labels, batches = np.asarray(problem.labels).tolist(), oracles.batch_lists(problem)
    eta = excess(H, labels, batches) / float(smallest_weight(reduced(problem)))
    aa, ab, bb = (0.5 + delta) ** 2, 0.25 - delta**2, (0.5 - delta) ** 2
    assert max(aa - ab, ab - bb) < eta**0.5 < aa - bb < (2 * eta) ** 0.5


@given(SEEDS)
def test_tied_values_of_orbits(seed):
    """Theory, 5.14 (a): any two values of a batch, at one row an orbit."""
    rng = np.random.default_rng(seed)
    sizes, tau = rng.integers(1, 5, int(rng.integers(3, 5))), float(rng.uniform(0.2, 2.0))
    orbit = np.repeat(np.arange(len(sizes)), sizes)
    n, alone = len(orbit), [np.flatnonzero(orbit == a).tolist() for a in range(len(sizes))]
    batches = [list(range(n)), *alone]  # a batch of one orbit makes it one, and costs nothing
    rows = np.abs(rng.normal(size=(len(sizes), 3)))
    rows *= rng.uniform(0, 1, (len(sizes), 1)) / np.linalg.norm(rows, axis=1, keepdims=True)
    rows = rows[:1] + float(10.0 ** rng.uniform(-3, 0)) * (rows - rows[:1])
    resolution = float(smallest_weight(reduced(ufm.Problem([0] * n + [1, 1], 3, tau, batches=batches))))
    eta = excess(rows[orbit], [0] * n, batches, tau) / resolution
    values = [float(rows[orbit[i]] @ rows[orbit[j]]) for i, j in oracles.pairs(n)]
    assert eta > 1 or max(values) - min(values) <= (2 * eta + 1e-13) ** 0.5 * (1 + 1e-9)


@given(SEEDS)
def test_tied_values_of_samples(seed):
    """Theory, 5.14 (b): any two values of a batch, by 2.12 (a) for one anchor."""
    rng = np.random.default_rng(seed)
    n, d, tau = int(rng.integers(3, 7)), 3, float(rng.uniform(0.2, 2.0))
    H = np.abs(rng.normal(size=(n, d)))
    H *= rng.uniform(0, 1, (n, 1)) / np.linalg.norm(H, axis=1, keepdims=True)
    H = H[:1] + float(10.0 ** rng.uniform(-3, 0)) * (H - H[:1])
    eta = excess(H, [0] * n, [list(range(n))], tau) / (2 / (n - 1) * np.log(np.cosh(1 / (2 * tau))))
    values = [float(H[i] @ H[j]) for i, j in oracles.pairs(n)]
    assert max(values) - min(values) <= (eta + 1e-13) ** 0.5 * (1 + 1e-9)


def test_a_lone_sample_keeps_the_sphere_above_the_ball():
    """Theory, 1.6 (c): active classes of norm 1 are not enough, every row has to be."""
    labels, full = [0, 0, 1, 1, 2], [list(range(5))]
    sphere = min(loss(np.array(signs)[:, None], labels, full) for signs in product([1.0, -1.0], repeat=5))
    ball = loss(np.array([1.0, 1.0, -1.0, -1.0, 0.0])[:, None], labels, full)
    assert sphere == pytest.approx(2.32, abs=5e-3)
    assert ball == pytest.approx(1.98, abs=6e-3)


@given(SEEDS, st.booleans())
def test_rows_pushed_inwards_descend_along_the_projected_path(seed, led_out):
    """Theory, 5.15 (b): the straight path may leave the ball; the projected one falls at least as fast as promised."""
    rng = np.random.default_rng(seed)
    h = np.abs(rng.normal(size=4))
    h /= np.linalg.norm(h)
    g = rng.normal(size=4)
    if led_out:  # a small entry that is pushed hard inwards, another one that is pulled out
        h = np.array([0.05, 0.0, 0.0, (1 - 0.05**2) ** 0.5])
        g = np.array([100.0, *rng.normal(size=2), -rng.uniform(0.1, 1)])
    if g @ h <= 0:
        g = -g
    D = np.maximum(h - g, 0) - h
    assert (h @ D > 0) or not led_out
    step = 1e-7
    there = np.maximum(h + step * D, 0)
    there /= max(1.0, np.linalg.norm(there))
    assert g @ (there - h) / step <= g @ D + 1e-5 * (1 + abs(g @ D))
    assert g @ D <= -(D @ D) + 1e-12


@given(SEEDS, st.floats(-4, -0.3), st.floats(0.1, 3))
def test_the_gradient_of_a_batch_of_one_class_is_of_third_order(seed, size, tau):
    """Theory, 5.9 (a), along the sphere; the excess is of the fourth."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(3, 7))
    H = np.abs(rng.normal(size=4)) + 10.0**size * rng.normal(size=(n, 4))
    H = np.abs(H) / np.linalg.norm(H, axis=1, keepdims=True)
    apart = max(float(np.linalg.norm(H[i] - H[j])) for i, j in oracles.pairs(n))
    g = oracles.gradient(H, [0] * n, tau, [list(range(n))])
    tangential = np.linalg.norm(g - (g * H).sum(axis=1, keepdims=True) * H, axis=1)
    assert tangential.max() <= 2 / tau * np.expm1(apart**2 / (2 * tau)) * apart * (1 + 1e-6) + 1e-15 / tau
    if apart**2 <= 2 * tau:
        assert tangential.max() <= 2 / tau**2 * apart**3 * (1 + 1e-6) + 1e-15 / tau


@given(SEEDS)
def test_no_orbit_at_zero_repels_itself(seed):
    """Theory, 4.22 (b): where u_a = 0 the derivative within the orbit is at most 0, so that its multiplier is 0."""
    rng = np.random.default_rng(seed)
    k = int(rng.integers(2, 4))
    shape, _ = families.random_problem(rng, k, 4, tau=float(rng.uniform(0.1, 2.0)))
    problem = reduced(ufm.Problem(shape.labels, 4, shape.tau, oracles.batch_lists(shape), nonneg=False))
    a = int(rng.integers(len(problem)))
    if problem.sizes[a] < 2:
        return
    U = rng.normal(size=(len(problem), 4))
    U /= np.linalg.norm(U, axis=1, keepdims=True)
    U[a] = 0
    G = U @ U.T
    G[a, a] = -rng.uniform() / (problem.sizes[a] - 1)
    _, C = loss_and_gradient(problem, [[arb(x) for x in row] for row in G.tolist()])
    assert not C[a][a] > arb(1e-30)
