"""One spare coordinate suffices (theory, 5.7): what the lift of a class changes, from the definitions in 60 digits."""

import mpmath
import numpy as np
import pytest
from flint import arb, ctx
from hypothesis import given, settings
from hypothesis import strategies as st

import ufm
from solvers.certification.orbit_problem import OrbitProblem, loss_and_gradient
from solvers.staircase.batch_graph import BatchGraph
from tests import families, oracles

CONVEX = [name for name in families.LOSSES if name != "supcon-in"]
DIGITS = 60


def posed(seed, name, nonneg):
    """A random convex problem, and feasible rows that leave the last coordinate unused: no orbit need be collapsed."""
    rng = np.random.default_rng(seed)
    k = int(rng.integers(2, 5))
    shape, _ = families.random_problem(rng, k, 4, tau=float(rng.uniform(0.2, 2.0)))
    problem = ufm.Problem(
        shape.labels, 4, shape.tau, oracles.batch_lists(shape), nonneg, loss=families.LOSSES[name](rng, k)
    )
    kind = str(rng.choice(["ufm+", "zeros", "duplicates", "near"])) if nonneg else "ufm"
    H = oracles.random_rows(rng, kind, np.asarray(problem.labels).tolist(), 3)
    H /= np.maximum(1.0, np.linalg.norm(H, axis=1, keepdims=True) * (1 + 2.0**-50))
    return problem, [[*map(mpmath.mpf, row), mpmath.mpf(0)] for row in H.tolist()]


def lifted(rows, members, mass):
    """The rows of the members times sqrt(1 - mass^2), and the mass in the last coordinate."""
    stored = mpmath.sqrt(1 - mass**2)
    return [[*(stored * x for x in row[:-1]), mass] if i in members else row for i, row in enumerate(rows)]


def slopes(problem, G):
    """The symmetric gradient in the entries of G, by the package, every sample an orbit of its own."""
    with ctx.workprec(400):
        table = [[arb(mpmath.nstr(x, DIGITS)) for x in row] for row in G.tolist()]
        _, C = loss_and_gradient(OrbitProblem.of(problem), table)
        return [[mpmath.mpf(x.str(DIGITS, radius=False)) for x in row] for row in C]


def curvature(C, G, members):
    """q of a set of samples, and the sum over its pairs with others."""
    others = [i for i in range(G.rows) if i not in members]
    within = mpmath.fsum(C[i][j] * (1 - G[i, j]) for i in members for j in members if i != j)
    across = mpmath.fsum(C[i][j] * G[i, j] for i in members for j in others)
    return within - across, across


def bend(problem):
    """The sum over anchors of the bounds of their second derivatives: omega s^2, of the sigmoid t^2 / 4 a pair."""
    total, labels, loss = mpmath.mpf(0), np.asarray(problem.labels), problem.loss
    for batch in oracles.batch_lists(problem):
        for i in batch:
            c, positives = labels[i], sum(labels[j] == labels[i] for j in batch) - 1
            s = 1 / (mpmath.mpf(float(problem.tau)) * (1 if loss.taus is None else float(loss.taus[c])))
            if positives == 0:
                continue
            if loss.kind == "sigmoid":
                total += (len(batch) - 1) * (float(loss.scale) * s) ** 2 / 4
            else:
                total += (1 if loss.weights is None else float(loss.weights[c])) * s**2
    return total


@pytest.mark.parametrize("nonneg", [True, False])
@pytest.mark.parametrize("name", CONVEX)
@settings(max_examples=4)
@given(seed=st.integers(0, 2**32 - 1))
def test_some_class_goes_down(name, nonneg, seed):
    with mpmath.workdps(DIGITS):
        problem, rows = posed(seed, name, nonneg)
        labels, H = np.asarray(problem.labels), mpmath.matrix(rows)
        G = H * H.T
        C, (at, frame) = slopes(problem, G), oracles.family(rows, problem)
        rounding = mpmath.mpf("1e-45") * (1 + abs(at) + abs(frame) + mpmath.fsum(abs(x) for row in C for x in row))
        for parts in (labels, BatchGraph.of(problem).attracted):
            result = [curvature(C, G, np.flatnonzero(parts == part).tolist())[0] for part in np.unique(parts)]
            assert mpmath.fsum(result) <= frame - at + rounding
            assert min(result) <= (frame - at) / len(result) + rounding


@pytest.mark.parametrize("name", CONVEX)
@settings(max_examples=4)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_lift_changes_the_loss_by_its_curvature(name, seed):
    """Between both bounds at every mass, and so by q s^2 to within s^4."""
    with mpmath.workdps(DIGITS):
        problem, rows = posed(seed, name, nonneg=True)
        labels, H = np.asarray(problem.labels), mpmath.matrix(rows)
        G = H * H.T
        C, (at, _), most = slopes(problem, G), oracles.family(rows, problem), bend(problem)
        rounding = mpmath.mpf("1e-45") * (1 + abs(at) + mpmath.fsum(abs(x) for row in C for x in row))
        members = np.flatnonzero(labels == seed % problem.k).tolist()
        q, across = curvature(C, G, members)
        assert across >= -rounding
        for mass in map(mpmath.mpf, ("1e-8", "0.2", "1")):
            change = oracles.family(lifted(rows, members, mass), problem)[0] - at - q * mass**2
            assert -(mass**4) * across - rounding <= change <= mass**4 * most / 2 + rounding
