"""What a process computes on its devices. As a program: computes the cases named after the file to write them to."""

import os
import re
import sys

import numpy as np
from problems import bound, step

import ufm
from solvers.loop import slots
from solvers.loop.method import COLUMNS
from solvers.multistart import solve, solve_each
from solvers.parallel import devices
from solvers.staircase import staircase
from solvers.starts import groups

FULL = step(8, 100, 1.0, d=10, n_min=10)


def solved(solutions):
    return {
        f"{what} {number}": np.asarray(value)
        for number, solution in enumerate(solutions)
        for what, value in (
            # Of columns of one norm rounding decides which comes first: a point is what its inner products are.
            ("gram", solution.points @ solution.points.swapaxes(1, 2)),
            ("excess", solution.excess),
            ("moved", solution.moved),
            ("status", [str(status) for status in solution.status]),
            ("iterations", solution.iterations),
            ("lifts", solution.lifts),
            ("first record", [start.excess[0] for start in solution.history]),
        )
    }


def of_full_batch():
    """Six starts, of which some are lifted and others not: unequal work. Then three with their samples dealt out."""
    solution = solve(FULL, 6, seed=3)
    assert len(set(solution.lifts)) > 1
    for function in (slots._advance, groups._collapse):
        for executable in function.executables.values():
            assert not exchanges(executable)  # a device waits for no other
    single = answers(sharded(lambda: solve(FULL, 3, seed=3)))
    if devices.count() > 1:
        (together,), (share,) = groups._collapse.executables.values(), groups._collapse_sharded.executables.values()
        assert exchanges(share) == {"all-reduce"}  # sums, and never the rows of another device
        # A quarter at a million samples; at four thousand some of it is not of samples.
        assert temporary(share) < 1.6 * temporary(together) / devices.count(), (temporary(share), temporary(together))
    return {**solved([solution]), **single, **of_samples(FULL)}


def sharded(compute):
    """With the samples of every start on all devices, if there are several."""
    os.environ[devices.VARIABLE] = "0"
    try:
        return compute()
    finally:
        del os.environ[devices.VARIABLE]


def answers(solution):
    """What must not depend on how rows in single precision were added up: the excess reached, and the status."""
    return {"dealt out, excess": solution.excess, "dealt out, status": np.array([str(s) for s in solution.status])}


def temporary(executable):
    """Bytes on one device."""
    return executable.memory_analysis().temp_size_in_bytes


def of_families():
    return solved(solve_each([bound(seed) for seed in range(2)], 3))


def of_other_numbers_of_starts():
    problem = bound(0)
    return {
        f"{what}, {inits} starts": value
        for inits in (1, 2, 5, 9)
        for what, value in solved([solve(problem, inits)]).items()
    }


def of_all_samples():
    return solved([solve(FULL, 5, method="accelerated")])


def of_samples(problem, count=3):
    """Collapsed starts, their samples on all devices if there are several: every number, so rows in double precision.

    Sums of rows in single precision differ from 1e-7 on with the number of devices, as all sums over them do.
    """
    symmetry = ufm.orbits(problem)
    ended = sharded(lambda: groups.collapsed_starts([symmetry.quotient], [symmetry], [1], count, rows_in="float64"))
    points = np.stack([start.points for start in ended])
    message = staircase.measured_throughout(points, ended, symmetry.quotient)[1]
    columns = [(f"samples, history {name}", [getattr(history, name) for history in message]) for name in COLUMNS]
    columns += [
        (f"samples, {name}", [getattr(start, name) for start in ended]) for name in ("points", "steps", "moved")
    ]
    return {name: np.concatenate([np.ravel(value) for value in values]) for name, values in columns}


def of_samples_of_families():
    """Also a class whose samples lie on one device alone, a lone sample, and the UFM without the ReLU."""
    lone = ufm.Problem(np.r_[np.zeros(9, int), np.ones(4, int), 2], 5, 0.3, nonneg=False)
    both = of_samples(bound(0)), of_samples(lone)
    return {f"{name}, problem {number}": value for number, of in enumerate(both) for name, value in of.items()}


def exchanges(executable):
    return set(
        re.findall(r"\b(all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)\(", executable.as_text())
    )


def computed(names):
    return {f"{name}: {what}": value for name in names for what, value in globals()[f"of_{name}"]().items()}


if __name__ == "__main__":
    np.savez(sys.argv[1], **computed(sys.argv[2:]))
