"""2,000 single bits, truncations and zeroed blocks in what is kept: it says what it said, or is refused in one line."""

import io

import numpy as np
import pytest
from damage import damages

import solvers
import ufm
from experiments.harness.problem_file import read_problem
from ufm import InvalidInput
from ufm_check import check

pytestmark = pytest.mark.parametrize("times", [50, pytest.param(2000, marks=pytest.mark.thorough)])
PROBLEM = ufm.Problem.from_class_sizes([2, 2], d=2, tau=1.0)
FIELDS = {"labels": [0, 0, 1, 1, 2, 2], "batches": [[0, 1, 2, 3], [2, 3, 4, 5]], "tau": 0.5, "d": 7}


def read_in_file(read, path, content):
    """What is read of a content, or the lines in which it is refused."""
    path.write_bytes(content)
    try:
        return read(path), []
    except InvalidInput as error:
        return None, str(error).splitlines()


def never_another(read, path, content, times):
    """Every damaged copy reads as the whole, or is refused in one line; how many were refused."""
    whole, _ = read_in_file(read, path, content)
    assert whole is not None
    refused = 0
    for damaged in damages(content, times):
        result, lines = read_in_file(read, path, damaged)
        assert result == whole or len(lines) == 1, damaged
        refused += result is None
    return refused


def test_certificates_as_they_are_loaded(tmp_path, times):
    content = solvers.certify(np.eye(2)[[0, 0, 1, 1]], PROBLEM, conic=False).serialised()

    def read(path):
        return solvers.Certificate.load(path).serialised()

    assert never_another(read, tmp_path / "c.json", content, times) > 0.9 * times


def test_certificates_as_they_are_checked(tmp_path, times, capsys):
    content = solvers.certify(np.eye(2)[[0, 0, 1, 1]], PROBLEM, conic=False).serialised()
    path = tmp_path / "c.json"
    path.write_bytes(content)
    assert check.main([str(path)]) == 0
    proved, others = capsys.readouterr().out, 0
    for damaged in damages(content, times):
        path.write_bytes(damaged)
        status, said = check.main([str(path)]), capsys.readouterr().out
        assert said == proved if status == 0 else "PROVED\n" not in said.replace("NOT PROVED\n", "")
        others += status > 0
    assert others > 0.9 * times


def test_solutions(tmp_path, times):
    solvers.solve(PROBLEM, 1, method="accelerated").save(tmp_path / "whole.nc")

    def read(path):
        return solvers.Solution.load(path).points.tobytes()

    assert never_another(read, tmp_path / "s.nc", (tmp_path / "whole.nc").read_bytes(), times) == times


def test_problems_in_archives(tmp_path, times):
    """Text has no sum of its own: a digit that is another one there is another problem, which the report names."""

    def read(path):
        problem = read_problem(path, d=9, tau=2.0, nonneg=True)
        return problem.labels.tolist(), problem.batches.tolist(), float(problem.tau), problem.d, problem.loss.name

    archive = io.BytesIO()
    np.savez(archive, **FIELDS)
    assert never_another(read, tmp_path / "p.npz", archive.getvalue(), times) > times / 2
