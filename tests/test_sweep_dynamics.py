"""The sweep over dynamics: what its files say, what theory it sets beside them, and bad input leaves nothing."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sweeps
from page import Page
from sweeps import rows

import ufm
from experiments import sweep_dynamics
from experiments.measurements.emergence import emergence, predictions, sampler_of
from experiments.reports.dynamics import exponents
from ufm import samplers
from ufm.model.evaluation import evaluate
from ufm.theory.local_rate import slowest_contraction
from ufm.theory.separation import separation_time, start_angle
from ufm.theory.stochastic_rate import mean_square_rate

pytestmark = pytest.mark.thorough

SMALL = ["--R", 1, 4, "--k", 3, "--n-min", 4, "--d", 6, "--inits", 3, "--max-steps", 600, "--batch-size", 9]
SMALL += ["--sampler", "full", "class-balanced", "--tau", 0.5]

run = partial(sweeps.run, sweep_dynamics)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    out = tmp_path_factory.mktemp("sweep")
    assert run(*SMALL, "--out", out) == 0
    return out


def test_contract(swept):
    lines = rows(swept / "summary.csv")
    assert [(line["sampler"], line["R"], line["batch_size"]) for line in lines] == [
        ("full", "1", "0"),
        ("class-balanced", "1", "9"),
        ("full", "4", "0"),
        ("class-balanced", "4", "9"),
    ]
    for line in lines:
        counts = [int(line[name]) for name in ("emerged", "stuck", "not_yet")]
        assert sum(counts) == int(line["inits"]) == 3
        assert counts[0] >= 1
        assert 1 <= float(line["steps_quarter"]) <= float(line["steps_median"]) <= 600
        assert 0 < float(line["rate"]) < 1
        assert float(line["steps_collapse"]) > 1
        assert 1 < float(line["steps_separate"]) < 1000
    starts = rows(swept / "inits.csv")
    assert len(starts) == 12
    for start in starts:
        emerged = math.isfinite(float(start["steps"]))
        assert emerged == (float(start["delta_gm"]) < 1e-3)
        assert not (emerged and start["stuck"] == "True")


def test_the_page(swept):
    page = Page((swept / "report.html").read_text())
    assert len(page.images) == 1
    for name in ("summary.csv", "inits.csv", "exponents.csv"):
        assert page.files[name] == (swept / name).read_bytes()
    assert "theory: steps to separate" in page.table[0]


def test_a_second_run_computes_nothing(swept, monkeypatch):
    before = (swept / "summary.csv").read_bytes()
    monkeypatch.setattr(sweep_dynamics, "emergence", lambda **requested: pytest.fail("computed again"))
    assert run(*SMALL, "--out", swept) == 0
    assert (swept / "summary.csv").read_bytes() == before


def test_theory_beside_it_is_that_of_ufm(swept):
    line = rows(swept / "summary.csv")[-1]
    sizes = ufm.step_imbalance(3, 4, 4)
    problem, sampler = ufm.Problem.from_class_sizes(sizes, d=6, tau=0.5), samplers.class_balanced(9)
    rate = mean_square_rate(problem, sampler, 0.1).max()
    assert float(line["rate"]) == pytest.approx(rate)
    assert float(line["steps_collapse"]) == pytest.approx(2 * np.log(1e-3) / np.log(rate))
    full = predictions(sizes, 6, 0.5, None, 0.1)
    assert full["rate"] == pytest.approx(slowest_contraction(problem, 0.1) ** 2)
    assert math.isnan(predictions(sizes, 6, 0.5, samplers.reshuffled(9).bound(1), 0.1)["rate"])


def test_a_start_that_shares_a_coordinate_is_stuck():
    """k = d: from 12 starts of plain projected gradient some end in conflict, and none of these leads to a frame."""
    requested = {"d": 6, "tau": 1.0, "sampler": "full", "batch_size": 0, "eta": 0.1, "inits": 12, "seed": 0}
    cell, _ = emergence(sizes=(50, 50, 50, 5, 5, 5), max_steps=3000, **requested, progress=lambda ended: None)
    stuck = cell["stuck"].values
    assert stuck.any()
    assert np.isnan(cell["steps"].values[stuck]).all()
    assert (cell["history_delta_gm"].values[stuck, -1] > 0.01).all()


def test_two_classes_part_as_predicted():
    """Two minorities at a small angle, majorities far: the step itself, in class space, over and over."""
    sizes, tau, eta, k = np.array([400, 400, 4, 4]), 1.0, 0.02, 4
    problem = ufm.Problem(np.arange(k), 4, tau, multiplicity=sizes.astype(float))
    angle = 0.5
    H = np.eye(4)
    # About the diagonal between their axes, which no other class has.
    for row, turn in ((2, -0.5), (3, 0.5)):
        H[row] = 0.0
        H[row, 2:] = np.cos(np.pi / 4 + turn * angle), np.sin(np.pi / 4 + turn * angle)

    def step(carry):
        H, taken = carry
        gradient = evaluate(H, problem).gradient / sizes[:, None]
        return ufm.project(H - eta * gradient, True), taken + 1

    merged = jax.jit(lambda H: jax.lax.while_loop(lambda carry: carry[0][2] @ carry[0][3] > 1e-9, step, (H, 0)))
    steps = int(merged(jnp.asarray(H))[1])
    # To first order in the step: the pull along a row, which its length divides out, slows the turn by 2 eta w (n-1).
    assert steps == pytest.approx(separation_time(sizes, 2, 3, tau, eta, angle=angle), rel=0.1)


def test_separation_grows_like_R_in_the_full_batch_and_like_its_cube_under_uniform_batches():
    def times(R, sampler=None):
        return separation_time(ufm.step_imbalance(10, 5, R), 8, 9, 1.0, 0.1, sampler)

    assert np.log10(times(1000) / times(100)) == pytest.approx(1.0, abs=0.05)
    uniform = samplers.uniform(32)
    assert np.log10(times(1000, uniform) / times(100, uniform)) == pytest.approx(3.0, abs=0.1)
    balanced = samplers.class_balanced(30)
    assert times(1000, balanced) == pytest.approx(times(100, balanced))
    assert times(10, samplers.m_per_class(1, 5)) == math.inf
    assert start_angle(5) == pytest.approx(np.sqrt((np.pi - 2) / 5))


def test_the_angle_of_random_starts():
    rng = np.random.default_rng(0)
    rows = np.abs(rng.standard_normal((2, 100, 20, 400)))  # two classes of 20 rows, in 400 dimensions, many times
    means = (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).mean(axis=2)
    means /= np.linalg.norm(means, axis=-1, keepdims=True)
    angles = np.arccos((means[0] * means[1]).sum(axis=-1))
    assert np.median(angles) == pytest.approx(start_angle(20), rel=0.05)


def test_exponents_are_fitted_where_half_of_the_starts_got_there():
    def row(R, steps, emerged=4):
        columns = {"sampler": "full", "batch_size": 0, "tau": 1.0, "R": R, "inits": 4, "emerged": emerged}
        return {**columns, "steps_median": steps, "steps_separate": 5.0 * R, "steps_collapse": 7.0}

    (line,) = exponents([row(1, 3.0), row(10, 3e1 * 10**0.5), row(100, 3e3), row(1000, 1.0, emerged=1)])
    assert line["fitted_exponent"] == pytest.approx(1.5)
    assert (line["separate_exponent"], line["R_to"]) == (pytest.approx(1.0), pytest.approx(100))
    assert line["collapse_exponent"] == pytest.approx(0.0, abs=1e-12)
    assert exponents([row(1, 3.0), row(10, math.nan, emerged=0)]) == []


def test_m_per_class_by_name_fits_the_smallest_class():
    assert sampler_of("m-per-class", 32, np.array([50, 5])) == samplers.m_per_class(5, 2)
    assert sampler_of("m-per-class", 32, np.array([50] * 10)) == samplers.m_per_class(3, 10)
    assert sampler_of("uniform+bound", 8, np.array([5, 5])) == samplers.uniform(8).bound(1)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--sampler", "focal"], "sampler"),
        (["--sampler", "full+bound"], "sampler"),
        (["--sampler"], "sampler"),
        (["--batch-size", 1], "batch_size"),
        (["--batch-size", 1000, "--sampler", "uniform"], "batch_size"),
        (["--batch-size"], "batch_size"),
        (["--R"], "R"),
        (["--R", 0.5], "R"),
        (["--R", 1e8], "R"),
        (["--k", 1], "k"),
        (["--d", 2], "d"),
        (["--tau", 0], "tau"),
        (["--eta", 0], "eta"),
        (["--n-min", 1], "n_min"),
        (["--inits", 0], "inits"),
        (["--max-steps", 0], "max_steps"),
        (["--dask", "here"], "dask"),
    ],
)
def test_bad_input_leaves_nothing(words, named, tmp_path, capfd):
    assert run(*SMALL, *words, "--out", tmp_path / "out") == 2
    said = capfd.readouterr().err.strip()
    assert named in said.replace("-", "_")
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as stopped:
        sweep_dynamics.main(["--help"])
    assert stopped.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    for word in ("delta_gm", "stuck", "m-per-class", "Exit status", "ufm.theory.separation"):
        assert word in said
