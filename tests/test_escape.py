"""Which points are lifted out of a spurious point."""

from itertools import combinations

import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import ufm
from solvers.loop.stopping import relative_gap_contribution
from solvers.staircase.batch_graph import BatchGraph, light_cover
from solvers.staircase.lifts import lighter_side
from ufm.model.evaluation import evaluate

VERTICES = 7
EDGES = list(combinations(range(VERTICES), 2))


@given(st.sets(st.sampled_from(EDGES)), st.lists(st.integers(1, 9), min_size=VERTICES, max_size=VERTICES))
def test_a_light_cover(edges, weight):
    result = light_cover(edges, np.array(weight, dtype=float))

    def covers(vertices):
        return all(a in vertices or b in vertices for a, b in edges)

    met = {a for edge in edges for a in edge}
    assert covers(result)
    assert not any(covers(result - {a}) for a in result)
    assert all(a not in result for a in met if weight[a] > max(weight[b] for b in met - {a}))


def moving(problem, axes):
    """Which samples are lifted from where sample i lies on axis axes[i]."""
    H = np.eye(problem.d)[axes]
    gap_contribution = np.asarray(relative_gap_contribution(evaluate(jnp.asarray(H), problem)))
    assert (gap_contribution > 0).any()
    return np.flatnonzero(lighter_side(H, gap_contribution > 1e-10, BatchGraph.of(problem), problem)).tolist()


def test_a_stray_sample_is_lifted_not_the_class_that_it_meets():
    stray = ufm.Problem([0, 0, 0, 0, 1, 1, 1, 1], d=3, batches=[[0, 1, 2, 4, 5], [0, 1, 3, 6, 7], [2, 3, 4, 5]])
    assert moving(stray, [0, 0, 0, 0, 1, 1, 0, 0]) == [6, 7]
    assert moving(stray, [0, 0, 0, 0, 0, 0, 1, 1]) == [4, 5]


def test_of_merged_classes_all_but_the_largest_are_lifted():
    merged = ufm.Problem.from_class_sizes([5, 3, 3, 3], d=4)
    assert moving(merged, np.repeat([0, 0, 0, 1], [5, 3, 3, 3])) == list(range(5, 11))
    assert moving(merged, np.repeat([0, 1, 1, 2], [5, 3, 3, 3])) in (list(range(5, 8)), list(range(8, 11)))


def test_rows_of_a_class_that_lie_apart_are_lifted_together():
    torn = ufm.Problem([0, 0, 0, 1, 1], d=3)
    assert moving(torn, [0, 0, 1, 2, 2]) == [0, 1, 2]
