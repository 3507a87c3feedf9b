"""Orbits against grouping by brute force."""

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ufm


@st.composite
def arguments(draw):
    """Up to 9 points of 2 or 3 classes in up to 4 batches; points may be in no batch."""
    k = draw(st.integers(2, 3))
    labels = [*range(k), *draw(st.lists(st.integers(0, k - 1), max_size=9 - k))]
    batch = st.lists(st.integers(0, len(labels) - 1), min_size=1, unique=True)
    batches = draw(st.none() | st.lists(batch, min_size=1, max_size=4))
    multiplicity = draw(st.none() | st.lists(st.integers(1, 3), min_size=len(labels), max_size=len(labels)))
    return {"labels": labels, "batches": batches, "nonneg": draw(st.booleans()), "multiplicity": multiplicity}


@given(arguments())
def test_against_grouping_by_label_and_batches(fields):
    problem = ufm.Problem(d=2, **fields)
    batches = oracles.batch_lists(problem)
    labels, times = np.asarray(problem.labels), np.asarray(problem.multiplicity)
    groups = {}
    for i in range(problem.num_points):
        groups.setdefault((labels[i], tuple(b for b, batch in enumerate(batches) if i in batch)), []).append(i)

    result = ufm.orbits(problem)
    assert len(result) == len(groups)
    for members in groups.values():
        orbit = result.index[members[0]]
        assert np.flatnonzero(result.index == orbit).tolist() == members
        assert result.quotient.labels[orbit] == labels[members[0]]
        assert result.quotient.multiplicity[orbit] == times[members].sum()
    for batch, collapsed in zip(batches, oracles.batch_lists(result.quotient), strict=True):
        assert sorted({int(result.index[i]) for i in batch}) == collapsed
    quotient = result.quotient
    assert (quotient.k, quotient.d, quotient.nonneg) == (problem.k, problem.d, problem.nonneg)
    assert quotient.num_samples == problem.num_samples
    assert len(ufm.orbits(quotient)) == len(quotient.labels)


@given(arguments(), st.integers(0, 1000))
def test_means_of_orbits(fields, seed):
    problem = ufm.Problem(d=2, **fields)
    result = ufm.orbits(problem)
    H = np.random.default_rng(seed).uniform(0, 1, (problem.num_points, 2))
    times = np.asarray(problem.multiplicity)
    means = result.mean(H, times)
    for orbit in range(len(result)):
        members = np.flatnonzero(result.index == orbit)
        np.testing.assert_allclose(means[orbit], np.average(H[members], axis=0, weights=times[members]), rtol=1e-13)
    np.testing.assert_allclose(result.mean(means[result.index], times), means, rtol=1e-13)


def test_full_batch_has_an_orbit_a_class():
    result = ufm.orbits(ufm.Problem.from_class_sizes([5000, 3, 7], d=3))
    assert result.quotient.multiplicity.tolist() == [5000, 3, 7]
    assert result.quotient.is_full_batch


def test_padding_has_no_orbit():
    with pytest.raises(ufm.InvalidInput, match=r"^multiplicity = 0"):
        ufm.orbits(ufm.Problem([0, 1, 1], 2, multiplicity=[1, 1, 0]))
