"""The first-moment prediction of when reshuffled batches force the frame, against counted families."""

import math

import numpy as np
import pytest

import ufm
from ufm import batching
from ufm.reshuffling import epochs_until_unique, expected_obstructions


def share_unique(sizes, batch_size, epochs, families=40):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    problems = (
        ufm.Problem(labels, len(sizes) + 1, batches=batching.reshuffled(len(labels), batch_size, epochs, seed))
        for seed in range(families)
    )
    return np.mean([ufm.uniqueness(problem).unique is True for problem in problems])


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


def test_limits():
    assert expected_obstructions((3, 3), 6, 1) == 0  # the full batch
    assert epochs_until_unique((3, 3), 6) == 1
    assert epochs_until_unique((8, 8), 2) == math.inf  # a pair of two classes has no positive
    assert epochs_until_unique((8, 8), 1) == math.inf
    crowded = [expected_obstructions((9, 9, 9), 6, epochs) for epochs in (1, 2, 5, 20)]
    assert crowded == sorted(crowded, reverse=True)
