"""The digest that links a certificate to the user's data: no two problems share it."""

import hashlib
import json

import families
import numpy as np
import pytest

from solvers.certification.certifier import Certifier, serialised_samples
from ufm import Problem, losses

COLLIDED = [
    ([0, 1, 0, 1], [[0, 1], [2, 3]]),
    ([0, 1, 0, 1], [[0, 1, 2, 3]]),
    ([0, 1, 0, 1, 0, 1], [[2, 3]]),
]
BASE = {"labels": [0, 0, 1, 1], "d": 3, "tau": 0.5, "batches": [[0, 1, 2], [2, 3]], "nonneg": True}


def read_back(content):
    """The problem from its bytes, without knowing it."""
    head, _, rest = content.partition(b"\n")
    model, d, tau, loss, m, nb = head.decode().split(" ")
    numbers = np.frombuffer(rest, "<i8").tolist()
    labels, multiplicity, rest = numbers[: int(m)], numbers[int(m) : 2 * int(m)], numbers[2 * int(m) :]
    batches = []
    for _ in range(int(nb)):
        batches.append(rest[1 : 1 + rest[0]])
        rest = rest[1 + rest[0] :]
    assert rest == []
    return model == "UFM+", int(d), float.fromhex(tau), json.loads(loss), labels, multiplicity, batches


def canonical(problem):
    batches = [sorted(i for i in row if i >= 0) for row in np.asarray(problem.batches).tolist()]
    labels, multiplicity = np.asarray(problem.labels).tolist(), np.asarray(problem.multiplicity).tolist()
    return problem.nonneg, problem.d, float(problem.tau), problem.loss.to_dict(), labels, multiplicity, batches


def test_three_families_of_one_digest_are_told_apart():
    problems = [Problem(labels, 3, 1.0, batches) for labels, batches in COLLIDED]
    assert len({Certifier(problem, conic=False).samples_digest for problem in problems}) == 3


@pytest.mark.parametrize(
    "change",
    [
        {"labels": [0, 1, 0, 1]},
        {"labels": [0, 0, 1, 1, 1]},
        {"d": 4},
        {"tau": np.nextafter(0.5, 1)},
        {"batches": [[0, 1], [2, 2 + 1]]},
        {"batches": [[2, 3], [0, 1, 2]]},
        {"batches": [[0, 1, 2], [2, 3], [2, 3]]},
        {"nonneg": False},
        {"loss": losses.decoupled()},
        {"loss": losses.class_weighted([1.0, 2.0])},
        {"multiplicity": [1, 1, 1, 2]},
    ],
    ids=str,
)
def test_every_part_counts(change):
    assert serialised_samples(Problem(**{**BASE, **change})) != serialised_samples(Problem(**BASE))


@pytest.mark.parametrize("batches", [[[2, 1, 0, -1], [3, 2, -1, -1]], [[0, -1, 1, 2], [-1, 3, 2, -1]]])
def test_padding_and_order_within_a_batch_do_not(batches):
    assert serialised_samples(Problem(**{**BASE, "batches": np.array(batches)})) == serialised_samples(Problem(**BASE))


@pytest.mark.parametrize("count", [300, pytest.param(100_000, marks=pytest.mark.slow)])
def test_no_collision_and_every_problem_can_be_read_back(count):
    """Random problems small enough that many of them are equal: equal digests mean equal problems, and conversely."""
    rng = np.random.default_rng(4)
    seen = {}
    for _ in range(count):
        n, k = int(rng.integers(2, 7)), 2
        labels = families.random_labels(rng, n, k)
        batches = [rng.permutation(n)[: rng.integers(1, n + 1)] for _ in range(rng.integers(1, 4))]
        multiplicity = rng.integers(1, 3, n) if rng.random() < 0.3 else None
        tau, nonneg = [1.0, 0.5][rng.integers(2)], bool(rng.integers(2))
        problem = Problem(labels, int(rng.integers(1, 3)), tau, batches, nonneg, multiplicity=multiplicity)
        content, canonical_form = serialised_samples(problem), canonical(problem)
        assert read_back(content) == canonical_form
        assert seen.setdefault(hashlib.sha256(content).hexdigest(), canonical_form) == canonical_form
    assert len({str(canonical_form) for canonical_form in seen.values()}) == len(seen) > count / 10
