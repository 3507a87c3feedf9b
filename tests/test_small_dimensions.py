"""Fewer dimensions than classes: bounds that know d, against points that are there; and what is said of the rest."""

import itertools
import math

import numpy as np
import pytest
from flint import ctx
from hypothesis import given
from hypothesis import strategies as st

import solvers
import ufm
from solvers.certification import small_dimensions
from solvers.certification.small_dimensions import bracket

pytestmark = pytest.mark.thorough


def loss_of(sizes, d, tau=1.0):
    return small_dimensions._Loss(ufm.Problem(range(len(sizes)), d, tau, multiplicity=sizes))


def points(rng, count, k, d):
    """Nonnegative vectors of the ball: some on axes, some short."""
    H = np.abs(rng.standard_normal((count, k, d))) ** rng.choice([1, 4], (count, 1, 1))
    H /= np.linalg.norm(H, axis=2, keepdims=True)
    return H * rng.uniform(0, 1, (count, k, 1)) ** rng.choice([0, 1], (count, k, 1))


@given(st.integers(0, 2**32 - 1))
def test_classes_collapse_in_every_dimension(seed):
    """Theory, 4.21 (a): no samples pay less than their class means, and those pay what the form says."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 5, 3)
    d = 2
    problem = ufm.Problem(np.repeat(np.arange(3), sizes), d, 0.3)
    H = points(rng, 1, int(sizes.sum()), d)[0] * rng.choice([-1, 1])
    means = np.stack([H[np.asarray(problem.labels) == c].mean(axis=0) for c in range(3)])
    value, _ = loss_of(sizes, d, 0.3).at(means @ means.T)
    assert float(ufm.scl_loss(H, problem)) >= value - 1e-9
    assert float(ufm.scl_loss(means[np.asarray(problem.labels)], problem)) == pytest.approx(value, rel=1e-12)


def test_gradient_of_the_form():
    loss, rng = loss_of([4, 2, 3], 2, 0.7), np.random.default_rng(0)
    G = np.eye(3) + 0.1 * rng.standard_normal((3, 3))
    G, change = (G + G.T) / 2, rng.standard_normal((3, 3))
    change = change + change.T
    value, C = loss.at(G)
    ahead, back = (loss.at(G + step * change)[0] for step in (1e-6, -1e-6))
    assert (ahead - back) / 2e-6 == pytest.approx(float((C * change).sum()), rel=1e-7)
    with ctx.workprec(128):
        in_balls, rows = loss.in_balls(G)
    assert float(in_balls) == pytest.approx(value, rel=1e-14)
    np.testing.assert_allclose([[float(x) for x in row] for row in rows], C, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("sizes", "d", "tau"), [([5, 5, 5], 2, 1.0), ([9, 4, 2], 2, 0.2), ([4, 4, 4, 2], 3, 0.5)])
def test_a_proved_box_is_below_every_point_in_it(sizes, d, tau):
    loss, rng, k = loss_of(sizes, d, tau), np.random.default_rng(1), len(sizes)
    for _ in range(6):
        least = rng.uniform(0, 0.8, k) * rng.choice([0, 1], k)
        most = np.minimum(1.0, least + rng.uniform(0.1, 0.6, k))
        with ctx.workprec(128):
            box = small_dimensions._bounded(loss, least, most)
            proved = small_dimensions.downwards(small_dimensions._proved(loss, box))
        assert proved == pytest.approx(box.value, rel=1e-9)
        inside = points(rng, 300, k, d)
        inside *= (rng.uniform(least, most, (300, k)) / np.linalg.norm(inside, axis=2))[..., None]
        assert proved <= min(loss.at(H @ H.T)[0] for H in inside)


def test_a_form_that_is_not_concave_proves_nothing():
    loss = loss_of([5, 5, 5], 2)
    with ctx.workprec(128):
        box = small_dimensions._bounded(loss, np.zeros(3), np.ones(3))
        wrong = small_dimensions._Box(box.least, box.most, box.G0, box.v + 100.0, box.value)
        assert small_dimensions.downwards(small_dimensions._proved(loss, wrong)) == -math.inf


def test_boxes_cover_all_norms():
    boxes = small_dimensions._covered(loss_of([5, 5, 5], 2), 12, math.inf)
    assert len(boxes) == 13
    assert sum(float(np.prod(box.most - box.least)) for box in boxes) == pytest.approx(1)
    for one, other in itertools.combinations(boxes, 2):
        assert (np.minimum(one.most, other.most) <= np.maximum(one.least, other.least)).any()


def test_merging_is_proved_and_dying_nearly():
    """Under imbalance the bound meets the best point: a minority merges. Of equal classes one dies."""
    merged = bracket(ufm.Problem.from_class_sizes([50, 5, 5], 2), inits=8, boxes=1)
    assert merged.closed > 0.999
    cosines = merged.point @ merged.point.T
    assert cosines[1, 2] > 1 - 1e-6
    assert cosines[0, 1] < 1e-6
    equal = bracket(ufm.Problem.from_class_sizes([5, 5, 5], 2), inits=8, boxes=30)
    assert equal.frame < equal.lower < equal.upper
    assert equal.closed > 0.7
    assert np.linalg.norm(equal.point, axis=1).min() < 1e-6
    # The loss of two classes on the axes and one at 0, by hand.
    assert equal.upper == pytest.approx(10 * math.log(4 + 10 * math.exp(-1)) + 5 * math.log(14), abs=1e-6)


@pytest.mark.parametrize(
    ("problem", "named"),
    [
        (ufm.Problem.from_class_sizes([3, 3], 2), "d"),
        (ufm.Problem.from_class_sizes([3, 3, 3], 1), "d"),
        (ufm.Problem.from_class_sizes([3] * 7, 2), "d"),
        (ufm.Problem.from_class_sizes([3, 3, 1], 2), "problem"),
        (ufm.Problem.from_class_sizes([3, 3, 3], 2, nonneg=False), "problem"),
        (ufm.Problem.from_class_sizes([3, 3, 3], 2, loss=ufm.losses.decoupled()), "problem"),
        (ufm.Problem([0, 0, 1, 1, 2, 2], 2, batches=[[0, 1, 2, 3], [4, 5]]), "problem"),
    ],
)
def test_bad_input_is_one_line(problem, named):
    with pytest.raises(ufm.InvalidInput, match=f"^{named} = ") as bad:
        bracket(problem)
    assert "\n" not in str(bad.value)


def test_verify_says_what_is_proved_and_what_is_not():
    problem = ufm.Problem.from_class_sizes([4, 4, 4], 2)
    merged = np.eye(2)[[0] * 4 + [1] * 4 + [1] * 4]
    result = solvers.certify(merged, problem)
    assert result.status is solvers.Proof.INCONCLUSIVE
    for words in ("the lower bound is proved for every dimension", "not known whether any point in d = 2"):
        assert words in result.reason
    said = solvers.verify(solvers.solve(problem, 4).H[0], problem)
    if said.verdict is solvers.Verdict.STATIONARY:
        assert "for every dimension" in said.reason
    else:
        assert said.verdict in (solvers.Verdict.NOT_CONVERGED, solvers.Verdict.SPURIOUS)


def test_in_the_cold_the_class_too_many_spreads_between_the_axes():
    """A warm descent first would merge two classes for good: loss 28.9 in place of 22.07."""
    problem = ufm.Problem(range(3), 2, 0.1, multiplicity=[5, 5, 5])
    between = np.array([[1.0, 0.0], [0.0, 1.0], [0.5**0.5, 0.5**0.5]])
    solution = solvers.solve(problem, inits=8, seed=0)
    assert solution.excess.min() == pytest.approx(float(ufm.excess(between, problem)), rel=1e-9)
