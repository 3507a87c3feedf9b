"""A certificate decides uniqueness wherever `ufm.uniqueness` does, the checker proves it, and no other claim passes."""

import json

import numpy as np
import pytest
from problems import frame, reduced
from test_checker import NOT_PROVED, PROVED, outcome, sign

import ufm
from solvers.certification.certifier import Certifier
from solvers.certification.constraints import forces_frame

pytestmark = pytest.mark.thorough

# labels, d, batches: what decides
CASES = {
    "mixed batches alone": ([0, 0, 1, 1], 3, None, True),
    "a batch of one class, glued since two of it are": (
        [0, 0, 0, 0, 1, 1],
        3,
        [[0, 1, 4, 5], [2, 3, 4], [0, 1, 2]],
        True,
    ),
    "the same without the glue": ([0, 0, 0, 0, 1, 1], 3, [[0, 1, 4, 5], [2, 3, 4]], False),
    "a chain of batches of one class": (
        [0, 0, 0, 0, 0, 1, 1],
        3,
        [[0, 1, 5, 6], [0, 1, 2], [1, 2, 3], [2, 3, 4]],
        True,
    ),
    "d = k: a piece across all other classes has the axis left": (
        [0, 0, 0, 0, 1, 1],
        2,
        [[0, 1, 4, 5], [2, 3, 4, 5]],
        True,
    ),
    "d > k: it may take another": ([0, 0, 0, 0, 1, 1, 2, 2], 4, [[0, 1, 4, 5, 6, 7], [2, 3, 4, 6]], False),
    "d = k, three classes": ([0, 0, 0, 0, 1, 1, 2, 2], 3, [[0, 1, 4, 5, 6, 7], [2, 3, 4, 6]], True),
    "d = k, across one of two others only": ([0, 0, 0, 0, 1, 1, 2, 2], 3, [[0, 1, 4, 5, 6, 7], [2, 3, 4]], False),
    "d = k, a single sample has no forced norm": ([0, 0, 0, 1, 1], 2, [[0, 1, 3, 4], [2, 3, 4]], False),
}


def judged(problem, folder):
    """unique of a certificate of the frame, and the checker's exit statuses for it as it is and for unique = True."""
    Certifier(problem, conic=False).certify(frame(problem)).save(folder / "c")
    content = json.loads((folder / "c").read_text())
    unique, proved = content["claims"]["unique"], outcome(json.dumps(content), folder)
    content["claims"]["unique"], content["other_minimiser"] = True, None
    return unique, proved, outcome(json.dumps(sign(content)), folder)


@pytest.mark.parametrize("case", CASES)
def test_uniqueness_is_decided_and_proved(case, tmp_path):
    labels, d, batches, unique = CASES[case]
    problem = ufm.Problem(labels, d, 1.0, batches)
    assert ufm.uniqueness(problem).unique is unique
    assert judged(problem, tmp_path) == (unique, PROVED, PROVED if unique else NOT_PROVED)


def one_family(seed, folder):
    """Small batches of few samples: single-class ones are frequent."""
    rng = np.random.default_rng(seed)
    k, n = int(rng.integers(2, 4)), int(rng.integers(5, 14))
    labels = np.concatenate([np.arange(k), rng.integers(0, k, n - k)])
    batches = [rng.permutation(n)[: rng.integers(2, 6)] for _ in range(rng.integers(2, 16))]
    problem = ufm.Problem(labels, k + int(rng.integers(0, 2)), 1.0, batches)
    decided = ufm.uniqueness(problem).unique
    unique, proved, forged = judged(problem, folder)
    assert unique is decided or unique is None
    assert (proved, forged) == (PROVED, PROVED if unique else NOT_PROVED)
    return unique is decided


def test_certificates_are_not_silent_where_uniqueness_decides(tmp_path):
    assert all([one_family(seed, tmp_path) for seed in range(100, 250)])


@pytest.mark.slow
def test_thousands_of_families(tmp_path):
    assert np.mean([one_family(seed, tmp_path) for seed in range(3000)]) > 0.999


def test_below_k_dimensions_nothing_is_forced():
    problem = ufm.Problem([0, 0, 1, 1, 2, 2], 2, 1.0)
    assert not forces_frame(reduced(problem))
