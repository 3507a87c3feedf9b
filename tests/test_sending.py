"""Every public result can be pickled, copied and sent to another process, and arrives as it left."""

import copy
import dataclasses
import multiprocessing
import pickle

import numpy as np
import pytest
from public_calls import CALLS, TAU, plain, row_function, world

import solvers
import ufm
from experiments.harness.problem_file import InvalidFile
from solvers.certification.dual_bounds import LowerBound
from ufm import losses

# optax makes these of local functions, which no process can send; the methods that hold them can be sent.
OF_OPTAX = {"solvers.ProjectedGradient.transformation", "solvers.Activated.transformation"}
COPIES = {"pickle": lambda result: pickle.loads(pickle.dumps(result)), "deepcopy": copy.deepcopy}
CUSTOM = losses.custom(row_function, name="own")


def seen(result):
    """All that is compared, arrays bit for bit; bounds before rounding are left behind, see `LowerBound.ball`."""
    if isinstance(result, solvers.Certifier):
        return [seen(result.better), seen(result.lower_bound)]
    if isinstance(result, (list, tuple)):
        return [seen(part) for part in result]
    if isinstance(result, LowerBound):
        return plain(dataclasses.replace(result, ball=None))
    if isinstance(result, (solvers.Certificate, solvers.Suboptimality)):
        return [type(result).__name__, *(seen(getattr(result, one.name)) for one in dataclasses.fields(result))]
    return plain(result)


def results(folder):
    """Every public result but those of `OF_OPTAX`, by name."""
    made = world(folder)
    return {name: CALLS[name](made) for name in sorted(set(CALLS) - OF_OPTAX)}


def wrongly_copied(values):
    return [
        (name, how) for name, one in values.items() for how, copied in COPIES.items() if seen(copied(one)) != seen(one)
    ]


def test_a_problem_and_what_is_said_of_a_point_are_copied():
    problem = ufm.Problem([0, 0, 1, 1], 2, TAU, loss=losses.decoupled())
    H = np.eye(2)[[0, 0, 0, 1]]
    values = {
        "problem": problem,
        "own loss": ufm.Problem([0, 0, 1, 1], 2, TAU, loss=CUSTOM),
        "uniqueness": ufm.uniqueness(problem),
        "metrics": ufm.geometry_metrics(H, [0, 0, 1, 1]),
        "certificate": solvers.certify(H, problem, conic=False),
    }
    assert wrongly_copied(values) == []
    for copied in COPIES.values():
        assert copied(values["own loss"]).loss == CUSTOM


@pytest.mark.slow
def test_every_public_result_is_copied_and_sent_to_another_process_and_back(tmp_path):
    values = results(tmp_path)
    assert wrongly_copied(values) == []
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there, back = pool.apply(arrived, (values,))
    wrong = [name for name, one in values.items() if not seen(one) == there[name] == seen(back[name])]
    assert wrong == []


def arrived(values):
    """What another process sees, and what it was sent."""
    return {name: seen(one) for name, one in values.items()}, values


@pytest.mark.parametrize("how", COPIES)
def test_an_error_is_copied_with_its_argument(how, tmp_path):
    bad = ufm.InvalidInput("tau", 0.0, "give another")
    for error in (bad, InvalidFile(tmp_path / "a.json", bad)):
        copied = COPIES[how](error)
        assert (type(copied), str(copied), copied.argument) == (type(error), str(error), "tau")
