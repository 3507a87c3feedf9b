"""The sweep over activations: tables, page, resumption, verdicts; and bad input leaves nothing."""

import math
from functools import partial

import numpy as np
import pytest
import sweeps
from page import Page
from sweeps import rows

from experiments import sweep_activations
from experiments.measurements import activations as activation_cells
from experiments.reports import activations as activations_report
from solvers.loop.method import Record

pytestmark = pytest.mark.thorough

SMALL = ["--activation", "relu", "elu", "--R", 2, "--k", 3, "--n-min", 2, "--d", 9, "--inits", 2]
SHORT = ["--steps", 1500, "--step", 0.02]

run = partial(sweeps.run, sweep_activations)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    out = tmp_path_factory.mktemp("sweep")
    assert run(*SMALL, *SHORT, "--out", out) == 0
    return out


def test_contract(swept):
    relu, elu = rows(swept / "summary.csv")
    assert (relu["activation"], relu["minimiser"], elu["minimiser"]) == ("relu", "frame", "UFM's")
    assert relu["certified"] == relu["inits"] == elu["reached"] == "2"
    assert float(relu["max_cosine"]) < 1e-6
    assert float(elu["distance_max"]) < 1e-3
    assert float(elu["steps_left"]) == 0
    assert float(elu["lower_bound"]) < float(elu["loss_bound"])
    starts = rows(swept / "inits.csv")
    assert len(starts) == 4
    assert {"reached", "lifted", "distance", "max_cosine_final", "gap"} <= set(starts[0])
    for start in starts[:2]:
        assert (start["reached"] == "True") != (start["lifted"] == "True")


def test_the_page_answers(swept):
    text = (swept / "report.html").read_text()
    page = Page(text)
    assert "2 of 2 starts are certified orthogonal frames" in text
    assert "2 of 2 starts are within 0.001 of UFM" in text
    assert len(page.images) == 1
    assert "not a readable" not in text
    assert "minimisers" in page.table[0]


def test_a_second_run_computes_nothing(swept, monkeypatch):
    before = (swept / "summary.csv").read_bytes()
    monkeypatch.setattr(sweep_activations, "measure_activation", lambda *a, **k: pytest.fail("computed again"))
    assert run(*SMALL, *SHORT, "--out", swept) == 0
    assert (swept / "summary.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--activation", "tanh"], "activation"),
        (["--activation", "leaky-relu:2"], "activation"),
        (["--activation"], "activation"),
        (["--R"], "R"),
        (["--R", 0.5], "R"),
        (["--k", 1], "k"),
        (["--d", 5, "--k", 6], "d"),
        (["--n-min", 1], "n_min"),
        (["--steps", 1], "steps"),
        (["--step", 0], "step"),
        (["--scale", 0], "scale"),
        (["--inits", 0], "inits"),
        (["--tau", 0], "tau"),
        (["--seed", -1], "seed"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(words, named, tmp_path, capsys):
    assert run(*words, "--out", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert named in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_help_teaches(capsys):
    assert run("--help") == 0
    said = " ".join(capsys.readouterr().out.split())
    for words in ("infimum", "orthogonal frame", "leaky-relu:SLOPE", "Exit status", "not yet there"):
        assert words in said


def row(minimiser="frame", **changed):
    whole = {"activation": "relu", "R": 10.0, "minimiser": minimiser, "inits": 4, "reached": 4, "certified": 4}
    return whole | {"max_cosine": 1e-12, "steps_left": 0.0} | changed


@pytest.mark.parametrize(
    ("table", "failed", "good", "said"),
    [
        ([row()], 0, True, "4 of 4 starts are certified orthogonal frames (4 by descent alone"),
        ([row(reached=1)], 0, True, "(1 by descent alone"),
        ([row(certified=3)], 0, False, "3 of 4 starts"),
        ([row(max_cosine=1e-3)], 0, False, "largest cosine 1.0e-03"),
        ([row(max_cosine=math.nan)], 0, False, "largest cosine nan"),
        ([row()], 1, False, "1 cells failed"),
        ([row("UFM's")], 0, True, "4 of 4 starts are within 0.001"),
        ([row("UFM's", reached=2, steps_left=3e5)], 0, False, "relu at R = 10 3.0e+05"),
        ([row("UFM's", reached=2, steps_left=math.inf)], 0, False, "without a trend"),
    ],
)
def test_verdicts(table, failed, good, said):
    result, sentence = activations_report.judged(table, failed)
    assert result is good
    assert said in sentence


def test_steps_left_are_those_of_a_loss_that_falls_at_one_speed():
    at = np.arange(0, 1001, 10)
    over = 3.0 * np.exp(-0.01 * at)
    line = np.zeros(len(at))
    history = Record(at, over - 7.0, line, line, line, line, line)
    assert activation_cells.steps_left(history, -7.0, 1e-2, 1000) == pytest.approx(2 * math.log(10) / 0.01)
    rising = Record(at, 1 / over, line, line, line, line, line)
    assert activation_cells.steps_left(rising, 0.0, 1e-2, 1000) == math.inf
    assert activation_cells.steps_left(history, 100.0, 1e-2, 1000) == math.inf


def test_a_mean_of_norm_0_is_no_frame():
    assert activation_cells.largest_cosine(np.diag([1.0, 0.0])) == 1.0
    assert activation_cells.largest_cosine(np.eye(3)) == 0.0
    assert activation_cells.largest_cosine(np.array([[1.0, -0.9], [-0.9, 1.0]])) == -0.9
    assert activation_cells.apart(np.zeros((2, 2)), np.eye(2)) == math.inf
