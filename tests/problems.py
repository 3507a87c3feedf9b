"""Problems that several tests pose: one table by name, and makers of those that come in kinds."""

from functools import partial

import numpy as np

import ufm
from solvers.certification.orbit_problem import OrbitProblem


def step(k, R, tau, *, d=None, nonneg=True, n_min=5):
    """The full batch of STEP imbalance; d = k unless given."""
    return ufm.Problem.from_class_sizes(ufm.step_imbalance(k, n_min, R), d=d or k, tau=tau, nonneg=nonneg)


def family(seed, *, nonneg=True, k=4, n=40, d=6, tau=0.5):
    """A random batch family; odd seeds partition, even ones overlap."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(k), rng.integers(0, k, n - k)])
    batches = np.split(rng.permutation(n), 4) if seed % 2 else [rng.choice(n, 12, replace=False) for _ in range(8)]
    return ufm.Problem(labels, d, tau, batches, nonneg)


def bound(seed, *, n=24, size=8, d=4, tau=0.5, **model):
    """Three classes in turn, a random partition, and one sample of each class bound to every batch."""
    labels = np.arange(n) % 3
    return ufm.Problem(labels, d, tau, ufm.batching.bind(ufm.batching.partition(n, size, seed), labels), **model)


def reduced(problem):
    """Its orbit problem, as certificates hold it."""
    return OrbitProblem.of(ufm.orbits(problem).quotient)


def frame(problem):
    """The orthogonal frame of the first k axes, a row a point."""
    return np.eye(problem.k, problem.d)[np.asarray(problem.labels)]


def _of_sizes(*sizes, **arguments):
    return partial(ufm.Problem.from_class_sizes, sizes, **arguments)


def _of_batches(labels, batches, **arguments):
    return partial(ufm.Problem, labels, batches=batches, **{"tau": 1.0, **arguments})


# Makers: keywords replace what a name stands for, as in PROBLEMS["four classes"](nonneg=False).
PROBLEMS = {
    "balanced": _of_sizes(4, 4, 4, d=5),
    "imbalanced": _of_sizes(20, 10, 4, d=6),
    "cold": _of_sizes(8, 4, 4, d=6, tau=0.2),
    "bound batches": partial(bound, 1),
    "four classes": _of_sizes(6, 4, 3, 2, d=5, tau=0.5),
    "five equal classes": _of_sizes(4, 4, 4, 4, 4, d=6),
    "two pairs": _of_batches([0, 0, 1, 1], None, d=2),
    "two pieces": _of_batches([0, 0, 1, 1, 0, 0, 1, 1], [[0, 1, 2, 3], [4, 5, 6, 7]], d=2),
    "a class in two pieces": _of_batches([0, 0, 0, 0, 1, 1], [[0, 1, 4, 5], [2, 3, 4, 5]], d=2),
    "a class in two pieces, one beside a lone anchor": _of_batches([0, 0, 0, 0, 1, 1], [[0, 1, 4, 5], [2, 3, 4]], d=2),
    "classes that never meet": _of_batches([0, 0, 0, 1, 1, 1], [[0, 1, 2], [3, 4, 5]], d=2),
}
