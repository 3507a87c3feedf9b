"""The first-moment prediction of when reshuffled batches force the frame, against counted families."""

import itertools
import math

import numpy as np
import pytest

import ufm
from ufm import batching
from ufm.theory.reshuffling import epochs_until_unique, expected_obstructions, splits


def share_unique(sizes, batch_size, epochs, families=40):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    problems = (
        ufm.Problem(labels, len(sizes) + 1, batches=batching.reshuffled(len(labels), batch_size, epochs, seed))
        for seed in range(families)
    )
    return np.mean([ufm.uniqueness(problem).unique is True for problem in problems])


@pytest.mark.few(8)
@pytest.mark.parametrize("sizes", [(16, 16, 16, 4, 4), (8, 8, 8), (30, 5)])
@pytest.mark.parametrize("batch_size", [4, 7, 12])
@pytest.mark.parametrize("epochs", [1, 3, 6, 12])
def test_predicted_share_against_counted_families(sizes, batch_size, epochs):
    predicted = math.exp(-expected_obstructions(sizes, batch_size, epochs))
    assert abs(predicted - share_unique(sizes, batch_size, epochs)) < 0.25


@pytest.mark.parametrize(("sizes", "batch_size"), [((16, 16, 16, 4, 4), 8), ((8, 8, 8), 5)])
def test_the_threshold_lies_where_the_share_turns(sizes, batch_size):
    half = epochs_until_unique(sizes, batch_size)
    assert math.exp(-expected_obstructions(sizes, batch_size, half)) == pytest.approx(0.5, abs=1e-3)
    assert share_unique(sizes, batch_size, max(1, round(half / 2))) < 0.3
    assert share_unique(sizes, batch_size, round(2 * half)) > 0.7


@pytest.mark.parametrize("sizes", [(16, 16, 16, 4, 4), (8, 8, 8), (30, 5)])
def test_tiny_batches_are_not_taken_for_better_than_they_are(sizes):
    """Slots are drawn without replacement, else too much by 0.2 to 0.3 is predicted of batches of three."""
    epochs = math.ceil(epochs_until_unique(sizes, 3))
    predicted = math.exp(-expected_obstructions(sizes, 3, epochs))
    assert predicted - share_unique(sizes, 3, epochs) < 0.15


@pytest.mark.parametrize(("n_c", "n", "batch_size"), [(3, 8, 2), (4, 8, 4), (5, 9, 3), (4, 6, 3)])
def test_splits_against_all_partitions(n_c, n, batch_size):
    """No batch holds both sides of a split, counted over all orders of the samples of the class among the slots."""
    counts, apart = splits(n_c, n, [batch_size] * (n // batch_size))
    for j, (count, logarithm) in enumerate(zip(counts, apart, strict=True), 1):
        places = list(itertools.permutations(range(n), n_c))
        batches = [[slot // batch_size for slot in place] for place in places]
        share = np.mean([not set(batch_of[:j]) & set(batch_of[j:]) for batch_of in batches])
        assert math.exp(logarithm) == pytest.approx(share, rel=1e-12)
        assert math.exp(count) == pytest.approx(math.comb(n_c, j) / (2 if 2 * j == n_c else 1))


@pytest.mark.parametrize("sizes", [(100,) * 5 + (2,) * 5, (200,) * 5 + (4,) * 5])
def test_when_all_batches_are_full_rounding_leaves_no_nan(sizes):
    """Eleven batches of 510 / 11 samples are more than 510 by a rounding; a warning is an error here."""
    result = [expected_obstructions(sizes, size, 3) for size in (50, 100)]
    assert 0 < result[1] < result[0] < math.inf


def test_a_class_of_one_sample_is_never_forced():
    assert expected_obstructions((1, 20, 20), 8, 50) == math.inf
    assert epochs_until_unique((1, 20, 20), 8) == math.inf
    assert share_unique((1, 20, 20), 8, 50, families=5) == 0


def test_classes_of_thousands_do_not_overflow():
    assert 1 < epochs_until_unique((5000, 5000, 500), 50) < 10
    assert epochs_until_unique((3000,) * 4, 2000) == pytest.approx(1, abs=0.01)
    assert expected_obstructions((5000, 5000), 4, 1) == math.inf


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: expected_obstructions((0, 3), 2, 1), "class_sizes"),
        (lambda: expected_obstructions((3, 3), 0, 1), "batch_size"),
        (lambda: expected_obstructions((3, 3), 2, 0.5), "epochs"),
        (lambda: epochs_until_unique((3, 3), 2, share=1.0), "share"),
    ],
)
def test_bad_input(call, named, untyped):
    with pytest.raises(ufm.InvalidInput, match=named):
        call()


def test_limits():
    assert expected_obstructions((3, 3), 6, 1) == 0  # the full batch
    assert epochs_until_unique((3, 3), 6) == 1
    assert epochs_until_unique((8, 8), 2) == math.inf  # a pair of two classes has no positive
    assert epochs_until_unique((8, 8), 1) == math.inf
    obstructions = [expected_obstructions((9, 9, 9), 6, epochs) for epochs in (1, 2, 5, 20)]
    assert obstructions == sorted(obstructions, reverse=True)
