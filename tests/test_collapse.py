"""The collapse of starts onto orbits: what it descends on, how rows lie in memory, and how starts are drawn."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from problems import bound, step

import solvers
import ufm
from solvers.certification.certifier import Certifier
from solvers.compilation.compiled import Compiled
from solvers.loop.method import COLUMNS
from solvers.staircase import staircase
from solvers.staircase.staircase import measured_throughout
from solvers.starts import collapse as module
from solvers.starts import groups
from solvers.starts.collapse import COLLAPSE_TAU, EVERY, LENGTH, MOST_STEPS, arranged
from solvers.starts.groups import collapsed_starts
from solvers.starts.random_starts import random_start, random_starts
from ufm.model.evaluation import evaluate

SEED = 3
KEY = jax.random.key_data(jax.random.key(SEED))
LABELS = np.arange(60) % 3
CASES = {
    "unsorted labels": ufm.Problem(LABELS, 5),
    "imbalanced": ufm.Problem.from_class_sizes([200, 70, 3, 1], d=4, tau=0.2),
    "without ReLU": ufm.Problem.from_class_sizes([40, 30, 20], d=3, nonneg=False),
    "bound batches": bound(0, n=60, size=20, d=6),
    "points of several samples": ufm.Problem([0, 0, 1, 1, 1], 3, multiplicity=[3, 3, 5, 5, 5]),
}

_evaluate, _metrics = jax.jit(evaluate), jax.jit(ufm.geometry_metrics, static_argnames="k")


def in_double_precision(problem, orbits, threshold):
    """The same descent on all rows in a row, by plain formulas: what the blocks of stacks are to give.

    Means, steps, distance from the means, and beta_nc as often as it is measured.
    """
    order = np.argsort(orbits.index, kind="stable")
    H = np.empty((problem.num_points, problem.d))
    H[order] = random_start(KEY, 0, problem.num_points, problem.d, problem.nonneg)
    sizes = np.bincount(orbits.index)
    quotient = orbits.quotient
    warm = ufm.Problem(
        quotient.labels,
        problem.d,
        max(float(problem.tau), COLLAPSE_TAU),
        np.asarray(quotient.batches),
        problem.nonneg,
        multiplicity=quotient.multiplicity,
    )
    metrics = []
    for steps in range(MOST_STEPS):
        U = np.zeros((len(sizes), problem.d))
        np.add.at(U, orbits.index, H)
        U /= sizes[:, None]
        if steps % EVERY == 0:
            moved = np.linalg.norm(H - U[orbits.index], axis=1).max()
            if moved <= threshold:
                return U, steps, moved, metrics
            metrics.append(
                float(_metrics(jnp.asarray(H), problem.labels, k=problem.k, multiplicity=problem.multiplicity).beta_nc)
            )
        at = _evaluate(jnp.asarray(U), warm)
        weight = np.where(at.preconditioner > 0, at.preconditioner, 1.0)
        shift = LENGTH * np.asarray(at.gradient) / weight[:, None]
        H = np.asarray(ufm.project(jnp.asarray(H - shift[orbits.index]), problem.nonneg))
    raise AssertionError("has not collapsed")


def histories(collapsed, quotient):
    return measured_throughout(np.stack([start.points for start in collapsed]), collapsed, quotient)[1]


@pytest.mark.few(1)
@pytest.mark.parametrize("name", CASES)
def test_blocks_of_stacks_take_the_steps_of_all_rows(name):
    problem = CASES[name]
    orbits = ufm.orbits(problem)
    (result,) = collapsed_starts([orbits.quotient], [orbits], [SEED], 1)
    U, steps, moved, beta = in_double_precision(problem, orbits, 1e-2)
    assert result.steps == steps
    (history,) = histories([result], orbits.quotient)
    assert len(history.iteration) == len(beta) > 1
    np.testing.assert_allclose(result.points, U, atol=1e-5)  # single precision, after some ten steps
    np.testing.assert_allclose(result.moved, moved, rtol=1e-3)
    np.testing.assert_allclose(history.beta_nc, beta, rtol=2e-3, atol=1e-12)


def test_what_the_history_says_is_of_feasible_means():
    """The excess of the means, exactly: what the descent on orbits starts from, below the last line."""
    problem = step(4, 30, 1.0, d=6, n_min=3)
    orbits = ufm.orbits(problem)
    (result,) = collapsed_starts([orbits.quotient], [orbits], [SEED], 1)
    assert np.linalg.norm(result.points, axis=1).max() <= 1.0
    assert result.points.min() >= 0.0
    assert float(ufm.excess(result.points, orbits.quotient)) <= histories([result], orbits.quotient)[0].excess[-1]


@pytest.mark.parametrize("most", range(5))
def test_steps_are_limited_exactly_and_what_was_reached_is_measured(most):
    """As far as a longer collapse had come by then, with the same lines."""
    symmetry = ufm.orbits(CASES["imbalanced"])
    (limited,) = collapsed_starts([symmetry.quotient], [symmetry], [0], 1, most=most)
    (longer,) = collapsed_starts([symmetry.quotient], [symmetry], [0], 1)
    assert limited.steps == most < longer.steps
    of_limited, of_longer = histories([limited, longer], symmetry.quotient)
    assert list(of_limited.iteration) == list(range(0, most, EVERY))
    for name in COLUMNS:
        lines = getattr(of_longer, name)[: len(of_limited.iteration)]
        np.testing.assert_allclose(getattr(of_limited, name), lines, rtol=1e-12)
    assert longer.moved <= 1e-2 < limited.moved <= 2.0
    assert np.isfinite(limited.points).all()


@pytest.mark.thorough
def test_of_very_many_orbits_the_first_lines_and_the_end_are_told(monkeypatch):
    symmetry = ufm.orbits(CASES["imbalanced"])
    (whole,) = collapsed_starts([symmetry.quotient], [symmetry], [0], 1, threshold=1e-5)
    monkeypatch.setattr(module, "MOST_NOTED", 0)
    monkeypatch.setattr(module, "FEWEST_LINES", 3)
    monkeypatch.setattr(groups, "_collapse", Compiled(groups.collapse_group))
    (short,) = collapsed_starts([symmetry.quotient], [symmetry], [0], 1, threshold=1e-5)
    few, all_lines = histories([short, whole], symmetry.quotient)
    assert list(few.iteration) == [0, EVERY, whole.steps]
    assert np.array_equal(few.excess[:2], all_lines.excess[:2])
    assert few.excess[2] < all_lines.excess[-1]


@given(
    st.lists(st.integers(1, 300), min_size=2, max_size=12),
    st.integers(1, 4),
)
def test_every_point_has_one_place(sizes, devices):
    orbits = ufm.orbits(ufm.Problem.from_class_sizes(sizes, d=2))
    depth, (stacks,) = arranged([orbits], len(orbits), devices)
    assert len(stacks.orbit) % devices == 0
    assert stacks.filled.max() <= depth
    rows = np.concatenate([f + np.arange(n) for f, n in zip(stacks.first.ravel(), stacks.filled.ravel(), strict=True)])
    owner = np.repeat(stacks.orbit.ravel(), stacks.filled.ravel())
    assert np.array_equal(np.sort(rows), np.arange(sum(sizes)))
    assert np.array_equal(owner[np.argsort(rows)], np.repeat(np.arange(len(sizes)), sizes))
    assert depth * (stacks.filled > 0).sum() <= sum(sizes) + max(module.FEW, module.MOST_ADDED * sum(sizes))


def test_starts_are_uniform_on_the_sphere():
    H = np.asarray(random_start(KEY, 5, 40_000, 3, False))
    np.testing.assert_allclose(np.linalg.norm(H, axis=1), 1.0, rtol=1e-14)
    for column in H.T:  # Archimedes: a coordinate of a uniform point on the sphere in R^3 is uniform
        assert scipy.stats.kstest(column, scipy.stats.uniform(-1, 2).cdf).pvalue > 1e-3
    assert np.abs(H.T @ H / len(H) - np.eye(3) / 3).max() < 0.01
    other = np.asarray(random_start(KEY, 6, 40_000, 3, False))
    for lag in (0, 1, 7):  # neither starts nor rows have to do with each other
        assert abs(np.mean(np.sum(H[lag:] * other[: len(H) - lag], axis=1))) < 0.01
        if lag:
            assert abs(np.mean(np.sum(H[lag:] * H[:-lag], axis=1))) < 0.01
    folded = np.asarray(random_start(KEY, 5, 40_000, 3, True))
    assert np.array_equal(folded, np.abs(H))


def test_orbits_of_single_samples_are_drawn_and_do_not_collapse():
    """One row an orbit."""
    problem = ufm.Problem(LABELS[:12], 4, batches=[[i, (i + 1) % 12, (i + 3) % 12] for i in range(12)])
    assert len(ufm.orbits(problem)) == 12
    solution = solvers.solve(problem, 2, seed=SEED, max_steps=1)
    index = ufm.orbits(problem).index
    drawn = [float(ufm.excess(H[index], problem)) for H in random_starts(problem, 2, SEED)]
    np.testing.assert_allclose([history.excess[0] for history in solution.history], drawn, rtol=1e-12)
    assert list(solution.iterations) == [1, 1]
    assert not solution.moved.any()


def test_samples_in_no_batch_are_not_waited_for():
    """They never move, and would take a collapse to its last step."""
    problem = ufm.Problem(LABELS[:12], 4, batches=[[0, 3, 1], [2, 5, 4, 7]])
    symmetry = ufm.orbits(problem)
    (result,) = collapsed_starts([symmetry.quotient], [symmetry], [SEED], 1)
    assert result.steps < 30
    assert result.moved <= 1e-2


@pytest.mark.parametrize("n", [6, 60])
def test_with_few_dimensions_a_collapse_would_merge_classes(n):
    """k = 3 on a quarter circle, cold: from means of random rows, all much alike, 1 of 32 starts found the best."""
    problem = ufm.Problem(np.arange(n) % 3, d=2, tau=0.1)
    excess = solvers.solve(problem, 32).excess
    assert (excess <= excess.min() * 1.001).sum() >= 16
    alone = ufm.Problem([0, 1, 2], d=2, tau=0.1, multiplicity=[n // 3] * 3)
    np.testing.assert_allclose(excess.min(), solvers.solve(alone, 32).excess.min(), rtol=1e-9)


def test_few_samples_share_what_is_compiled_whatever_their_orbits_are():
    sizes = ([1] * 10 + [2] * 20, [1] * 30, [1] * 20 + [10], [5] * 8)
    shapes = set()
    for class_sizes in sizes:
        depth, (stacks,) = arranged([ufm.orbits(ufm.Problem.from_class_sizes(class_sizes, d=2))], 32)
        shapes.add((depth, stacks.orbit.shape))
    assert len(shapes) == 1


def test_starts_do_not_depend_on_how_many_are_drawn():
    one = partial(random_start, rows=30, d=4, nonneg=True)
    together = jax.vmap(lambda s: one(KEY, s))(jnp.arange(5))
    for s in range(5):
        assert np.array_equal(together[s], one(KEY, s))


@pytest.mark.thorough
@pytest.mark.parametrize(
    "problem",
    [
        step(4, 100, 1.0, d=6, n_min=3),
        bound(1, n=60, size=20, d=6),
        pytest.param(step(4, 1, 1.0, d=6, n_min=3), marks=pytest.mark.slow),
        pytest.param(ufm.Problem(LABELS, 6, 1.0, ufm.batching.reshuffled(60, 20, 3, 0)), marks=pytest.mark.slow),
        pytest.param(ufm.Problem.from_class_sizes([40, 30, 20], d=3, nonneg=False), marks=pytest.mark.slow),
    ],
    ids=["R = 100", "bound batches", "R = 1", "reshuffled batches", "without ReLU"],
)
def test_single_precision_does_the_descent_no_harm(problem, monkeypatch):
    """As many starts are certified, in as many steps, as if the rows of samples had been in double precision."""
    certified, steps = {}, {}
    for rows_in in ("float64", "float32"):
        monkeypatch.setattr(staircase, "collapsed_starts", partial(collapsed_starts, rows_in=rows_in))
        solution = solvers.solve(problem, 8, seed=0)
        certifier = Certifier(problem)
        statuses = [str(certifier.certify(solution.shared_rows(s)).status) for s in range(8)]
        certified[rows_in], steps[rows_in] = statuses.count("certified"), np.median(solution.iterations)
    assert certified["float32"] >= certified["float64"] > 0
    assert steps["float32"] <= 1.05 * steps["float64"] + 1
