"""The questions to trained networks: each answer on features whose answer is known, and the command itself."""

import numpy as np
import pytest
import sweeps
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import ufm
from experiments import network_questions, train_network
from experiments.harness import command_line
from experiments.harness.store import Store
from experiments.measurements.networks import Recipe
from experiments.measurements.questions import ANSWERS, compared, recycled, released
from experiments.reports import questions as questions_report
from figures.settings import settings as labelled
from networks import Schedule
from solvers.certification.suboptimality import suboptimality

pytestmark = pytest.mark.thorough

TINY = [
    *("--n-maj", 12, "--R", 3, "--k", 4, "--epochs", 2, "--seeds", 1, "--record", 1, "--batch-size", 12),
    *("--width", 16, "--depth", 1, "--d", 8),
]


def recipe(**changes):
    inputs = {"net": "mlp", "width": 8, "activation": "relu", "tau": 0.5, "batching": "reshuffled", "batch_size": 6}
    inputs |= {"loss": "scl", "augment": "none", "views": 1, "schedule": Schedule(epochs=7), "seed": 1}
    return Recipe(**{**inputs, "record": 1, "checkpoint": 1, **changes})


def spread(H, size, seed=0):
    """Nonnegative rows near those of H, of norm 1."""
    rows = H + size * np.random.default_rng(seed).uniform(size=H.shape)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


LABELS = np.repeat(np.arange(4), [6, 6, 2, 2])


def test_features_near_a_frame_descend_to_it_without_a_lift():
    problem = ufm.Problem(LABELS, 6, 0.5)
    H = spread(np.eye(6)[LABELS], 0.1)
    variables, result = released(H, problem, recipe(), xr.Dataset())
    for way in ("plain", "staircase"):
        assert result[f"{way}_verdict"] == questions_report.MINIMISER
        assert result[f"{way}_gap"] < 1e-9
    assert result["plain_lifts"] == result["minimum"] == 0
    excess = variables["plain_excess"][1]
    assert excess[-1] < 1e-9 < float(ufm.excess(H, problem)) < result["residual"] * 1e3
    assert len(excess) == len(variables["plain_iteration"][1])
    assert variables["plain_iteration"][1][-1] == result["plain_steps"]


def test_where_the_landscape_is_the_obstacle_the_staircase_tells_it():
    """Two classes merged while coordinates that nobody uses are at hand: stationary, and spurious."""
    problem = ufm.Problem(LABELS, 6, 0.5)
    _, result = released(np.eye(6)[[0, 1, 2, 2]][LABELS], problem, recipe(), xr.Dataset())
    assert result["plain_verdict"] == "stationary but spurious"
    assert result["plain_gap"] > 0.1
    assert result["staircase_verdict"] == questions_report.MINIMISER
    assert result["staircase_gap"] < 1e-9
    assert result["staircase_lifts"] > 0


@pytest.mark.slow
def test_without_the_relu_gaps_are_above_the_certified_minimum():
    problem = ufm.Problem(LABELS, 6, 0.5, nonneg=False)
    H = np.random.default_rng(0).normal(size=(16, 6))
    variables, result = released(H / np.linalg.norm(H, axis=1, keepdims=True), problem, recipe(), xr.Dataset())
    assert result["minimum"] < -0.1
    assert 0 <= result["plain_gap"] < 1e-6
    assert variables["plain_excess"][1][-1] == pytest.approx(result["minimum"], abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.sampled_from([0.1, 0.5, 2.0]))
def test_a_network_that_sees_images_and_not_labels_shows_who_is_wrong(seed, wrong, tau):
    """Theory, 7.2: planted samples have half of the excess or more."""
    random = np.random.default_rng(seed)
    planted = random.permutation(len(LABELS))[:wrong]
    labels = LABELS.copy()
    labels[planted] = (labels[planted] + random.integers(1, 4, wrong)) % 4
    problem = ufm.Problem(labels, 5, tau, k=4)
    attribution = suboptimality(np.eye(5)[LABELS], problem).attribution
    share, others = float(attribution.samples[planted].sum()), np.setdiff1d(np.arange(len(labels)), planted)
    assert 0 < share >= (0.5 - 1e-12) * attribution.samples.sum()
    ratio = (len(labels) - wrong) / wrong
    assert attribution.samples[planted].mean() >= (1 - 1e-9) * ratio * attribution.samples[others].mean()


@pytest.mark.parametrize(("batching", "pool"), [("fixed", 1), ("recycled:3", 3), ("recycled:99", 7), ("reshuffled", 7)])
def test_the_partitions_that_a_network_saw_are_counted_and_judged(batching, pool):
    problem = ufm.Problem(LABELS, 6, 0.5)
    H = np.eye(6)[LABELS]
    _, result = recycled(H, problem, recipe(batching=batching), xr.Dataset())
    assert result["pool"] == pool
    assert result["pool_excess"] == pytest.approx(0, abs=1e-9)
    assert result["pool_bound"] > 0
    assert 0 <= result["share"] <= 1


def test_more_of_nested_partitions_never_force_less():
    """Theory, 7.3."""
    problem = ufm.Problem(LABELS, 6, 0.5)
    unique = [
        recycled(np.eye(6)[LABELS], problem, recipe(batching=f"recycled:{E}", schedule=Schedule(epochs=40)), None)[1]
        for E in (1, 2, 4, 8, 16, 40)
    ]
    decided = [result["unique"] for result in unique]
    assert decided == sorted(decided)  # False, then True
    assert set(decided) == {"False", "True"}
    assert [result["share"] for result in unique] == sorted(result["share"] for result in unique)


def test_the_certified_geometries_are_at_distance_zero_from_themselves():
    balanced = np.repeat(np.arange(4), 5)
    simplex = np.eye(4) - 1 / 4
    simplex /= np.linalg.norm(simplex, axis=1, keepdims=True)
    H = np.hstack([simplex, np.zeros((4, 1))])[balanced]
    variables, result = compared(H, ufm.Problem(balanced, 5, 0.5, nonneg=False), recipe(), xr.Dataset())
    assert result["proved"] == 1
    assert result["to_ufm"] < 1e-6
    assert np.allclose(variables["predicted"][1], (4 * np.eye(4) - 1) / 3, atol=1e-6)
    assert result["to_frame"] == pytest.approx(float(ufm.geometry_metrics(H, balanced).delta_gm))
    _, frame = compared(np.eye(5)[balanced], ufm.Problem(balanced, 5, 0.5), recipe(), xr.Dataset())
    assert frame["to_frame"] == 0
    assert frame["to_ufm"] > 0.3


def test_each_value_is_tried_alone():
    config = network_questions.completed(network_questions.Config())
    trainings = network_questions.checked_trainings(config)
    message = [(t.width, t.depth, t.d, t.batch_norm, *t.activation) for t in trainings]
    base = (512, 2, 128, False, "relu")
    assert message[0] == base
    assert len(set(message)) == len(message) == 7
    assert all(sum(a != b for a, b in zip(one, base, strict=True)) == 1 for one in message[1:])
    assert all(t.tau == (0.2,) and t.batching == ("reshuffled",) for t in trainings)


@pytest.mark.parametrize("question", ANSWERS)
def test_every_question_has_its_page_and_defaults_that_can_be_asked(question):
    assert question in questions_report.QUESTIONS
    config = network_questions.completed(network_questions.Config(question=question))
    assert None not in [getattr(config, name) for name in network_questions.COMMON]
    assert network_questions.checked_trainings(config)


def cell(**changes):
    attrs = {"width": 8, "depth": 2, "d": 4, "batch_norm": "off", "activation": "relu", "tau": 0.2}
    return xr.Dataset(attrs={**attrs, "batching": "fixed", **changes})


def test_settings_are_called_after_what_is_not_the_bases():
    several = [cell(), cell(), cell(depth=0), cell(batch_norm="on"), cell(activation="none")]
    named = labelled(several)
    assert list(named) == ["base", "depth = 0", "batch norm on", "no final activation"]
    assert len(named["base"]) == 2
    assert list(labelled([cell(), cell(tau=np.float64(0.5))])) == [r"$\tau$ = 0.2", r"$\tau$ = 0.5"]
    assert list(labelled([cell()])) == ["base"]


@pytest.fixture(scope="module")
def batches_question(tmp_path_factory):
    """A question asked of two tiny networks, by the command itself."""
    out = tmp_path_factory.mktemp("questions")
    inputs = ["--question", "batches", "--batching", "recycled:1", "recycled:2", *TINY, "--out", out]
    assert sweeps.run(network_questions, *inputs) == 0
    return out / "batches", inputs


@pytest.mark.slow
def test_wrong_labels_by_the_command(tmp_path):
    inputs = ["--question", "autopsy", "--label-noise", 0.2, "--tau", 0.2, *TINY, "--out", tmp_path]
    assert sweeps.run(network_questions, *inputs) == 0
    (result,) = sweeps.rows(tmp_path / "autopsy" / "summary.csv")
    for judge in ("blame", "distance"):
        assert 0 <= float(result[f"found_by_{judge}"]) <= float(result[f"best_by_{judge}"]) <= 1


@pytest.mark.slow
def test_released_by_the_command(tmp_path):
    settings_of_networks = ["--activation", "relu", "--batch-norm", "off", "on", "--depth", 1, "--width", 16, "--d", 8]
    assert sweeps.run(network_questions, *TINY, *settings_of_networks, "--out", tmp_path) == 0
    rows = sweeps.rows(tmp_path / "landscape" / "summary.csv")
    assert [row["batch_norm"] for row in rows] == ["off", "on"]
    for row in rows:
        assert float(row["gap"]) > float(row["staircase_gap"]) >= 0
        assert row["staircase_verdict"] == questions_report.MINIMISER
        assert (int(row["depth"]), int(row["d"]), int(row["width"])) == (1, 8, 16)


def test_what_the_command_leaves(batches_question):
    out, _ = batches_question
    rows = sweeps.rows(out / "summary.csv")
    assert [row["batching"] for row in rows] == ["recycled:1", "recycled:2"]
    assert [int(row["pool"]) for row in rows] == [1, 2]
    assert all(0 < float(row["pool_excess"]) < np.inf for row in rows)
    assert questions_report.QUESTIONS["batches"].ask[:40] in (out / "report.html").read_text()
    assert (out / "figures" / "recycled.png").is_file()
    assert not [*(out / "checkpoints").glob("*")]


def test_the_same_command_trains_nothing_again(batches_question, monkeypatch):
    out, inputs = batches_question
    monkeypatch.setattr(network_questions, "question_cell", lambda **_: 1 / 0)
    before = (out / "summary.csv").read_bytes()
    assert sweeps.run(network_questions, *inputs) == 0
    assert (out / "summary.csv").read_bytes() == before


@pytest.mark.parametrize("question", ANSWERS)
def test_the_command_that_asks_one_network_alone(question, tmp_path):
    def cells(arguments):
        config = network_questions.completed(command_line.parse(network_questions.Config, arguments))
        trainings = network_questions.checked_trainings(config)
        data = train_network.images_of(trainings[0])
        return network_questions.cells_of(config, trainings, data, Store(tmp_path))

    several = cells(["--question", question, "--n-maj", "20", "--seeds", "2", "--seed", "3"])
    assert len({one.file for one in several}) == len({one.name for one in several}) == len(several)
    for one in several:
        (again,) = cells(sweeps.arguments_of(one.alone, network_questions.MODULE))
        assert again.file == one.file


ROW = {"activation": "relu", "gap": 3.0, "plain_gap": 0.0, "plain_verdict": "global minimiser", "plain_steps": 70}
ROW |= {"staircase_verdict": "global minimiser", "unique": "True", "delta_gm": 0.1, "half": 5.0}
ROW |= {f"{when}_by_{judge}": 0.5 for when in ("found", "best") for judge in ("blame", "distance")}
ROW |= {"to_frame": 0.1, "to_ufm": 0.5}
STOPPED = {**ROW, "plain_verdict": "stationary but spurious", "unique": "False", "delta_gm": 0.7}
SAID = {
    "landscape": "from their features reaches a global minimiser in 1 (median 70 steps), the staircase in 2.",
    "autopsy": "median of 2 networks: 0.5 of the wrong labels by blame",
    "batches": "1 networks whose batches force the frame end at delta_gm 0.1 (0.1 to 0.1); 1 networks whose",
    "activations": "relu: 2 of 2 are nearer to their own certified geometry, at 0.1",
}


@pytest.mark.parametrize("question", SAID)
def test_the_verdict(question):
    good, said = questions_report.judged(question, [ROW, STOPPED])
    assert good
    assert SAID[question] in said
    assert questions_report.judged(question, [ROW, {**STOPPED, "gap": "nan"}])[0] is False
    good, said = questions_report.judged(question, [ROW], failed=1)
    assert not good
    assert said.startswith("1 of 2 networks failed.")


BAD = {
    "question": ["--question", "meaning"],
    "width": ["--width", "1"],
    "depth": ["--depth", "-1"],
    "d below k": ["--d", "4"],
    "batch norm": ["--batch-norm", "maybe"],
    "activation": ["--activation", "tanh"],
    "batching": ["--batching", "recycled:0"],
    "no noise": ["--question", "autopsy", "--label-noise", "0"],
    "noise without shares": ["--question", "autopsy", "--activation", "gelu"],
    "too many": ["--n-maj", "3000"],
    "R": ["--R", "0.5"],
    "nothing": ["--tau"],
    "no data": ["--dataset", "mnist"],
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_writes_nothing(case, tmp_path, capsys):
    out = tmp_path / "out"
    assert sweeps.run(network_questions, *BAD[case], "--out", out) == command_line.BAD_INPUT
    assert capsys.readouterr().err.count("\n") == 1
    assert not out.exists()
