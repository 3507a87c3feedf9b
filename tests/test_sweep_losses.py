"""The sweep over losses: what reweighting does, R* between two certificates; and bad input leaves nothing."""

import json
import math
from functools import partial

import numpy as np
import pytest
import sweeps
from page import Page
from scipy.optimize import minimize
from sweeps import rows
from test_checker import NOT_PROVED, PROVED, outcome, sign

import ufm
from experiments import sweep_losses
from experiments.measurements import thresholds
from experiments.reports import losses as losses_report
from solvers.certification.certificate import Certificate

pytestmark = pytest.mark.thorough

SMALL = ["--loss", "class-averaging", "--R", 20, "--k", 4, "--n-min", 2, "--d", 6, "--inits", 2]
FINE = ["--n-fine", 20, "--precision", 0.05, "--most-R", 100]

run = partial(sweeps.run, sweep_losses)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    out = tmp_path_factory.mktemp("sweep")
    assert run(*SMALL, *FINE, "--out", out) == 0
    return out


def test_contract(swept, tmp_path):
    plus, without = rows(swept / "summary.csv")
    assert (plus["loss"], plus["relu"], without["relu"]) == ("class-averaging", "True", "False")
    for row in (plus, without):
        assert row["certified"] == row["inits"] == "2"
    assert plus["orthogonal_frames"] == "2"
    assert all(abs(float(plus[f"{kind}_cosine"])) < 1e-6 for kind in ("minority", "majority", "between"))
    assert float(without["minority_cosine"]) > 1 - 1e-6
    assert -0.6 < float(without["majority_cosine"]) < -0.4
    assert len(rows(swept / "inits.csv")) == 4
    (star,) = rows(swept / "thresholds.csv")
    low, high = float(star["R_apart"]), float(star["R_merged"])
    assert 1 < low < high <= 1.05 * low
    assert float(star["angle_apart"]) > thresholds.ONE_VECTOR > 1e-4 > float(star["angle_merged"]) > 0
    ends = {which: swept / "certificates" / f"Rstar-tau1-class-averaging-{which}.json" for which in ("apart", "merged")}
    for which, R in (("apart", low), ("merged", high)):
        assert outcome(ends[which].read_bytes(), tmp_path) == PROVED
        sizes = Certificate.load(ends[which]).problem.sizes
        assert sizes[0] / sizes[-1] == R


def test_the_page_says_where_minorities_merge(swept):
    text = (swept / "report.html").read_text()
    page = Page(text)
    assert "certified on both sides: class-averaging between" in text
    assert "With the ReLU 2 of 2 are orthogonal frames" in text
    assert len(page.images) == 2
    assert page.files["thresholds.csv"] == (swept / "thresholds.csv").read_bytes()
    assert "Rstar-tau1-class-averaging-merged" in text
    assert "not a readable" not in text
    assert "ReLU" in page.table[0]


def test_a_second_run_computes_nothing(swept, monkeypatch):
    before = (swept / "thresholds.csv").read_bytes()
    for name in ("measure_problem", "threshold"):
        monkeypatch.setattr(sweep_losses, name, lambda *a, **k: pytest.fail("computed again"))
    assert run(*SMALL, *FINE, "--out", swept) == 0
    assert (swept / "thresholds.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--loss", "focal"], "loss"),
        (["--R"], "R"),
        (["--k", 3], "k"),
        (["--d", 5, "--k", 6], "d"),
        (["--n-min", 1], "n_min"),
        (["--precision", 0], "precision"),
        (["--most-R", 0.5], "most_R"),
        (["--n-fine", 1], "n_fine"),
        (["--inits", 0], "inits"),
        (["--tau", 0], "tau"),
        (["--relu", "maybe"], "relu"),
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
    for words in ("R*", "logit-adjustment:0.5", "Exit status", "simplex frame", "SupCon-in"):
        assert words in said


def summary_row(relu=True, certified=2, frames=2, **changed):
    row = {"loss": "scl", "relu": relu, "inits": 2, "certified": certified, "orthogonal_frames": frames}
    return row | {"worst_excess": 1e-12} | changed


def bracket_row(low, high, **changed):
    row = {"loss": "scl", "tau": 1.0, "n_min": 1000, "precision": 0.01, "most_R": 100.0}
    return row | {"R_apart": low, "R_merged": high} | changed


@pytest.mark.parametrize(
    ("summary", "brackets", "failed", "good", "said"),
    [
        ([summary_row()], [bracket_row(10.0, 10.1)], 0, True, "between 10 and 10.1"),
        ([summary_row()], [bracket_row(100.0, math.nan)], 0, True, "apart up to R = 100: scl"),
        ([summary_row()], [bracket_row(10.0, 10.2)], 0, False, "not bracketed to the requested precision"),
        ([summary_row()], [bracket_row(50.0, math.nan)], 0, False, "not bracketed to the requested precision"),
        ([summary_row()], [bracket_row(math.nan, 10.0)], 0, False, "not bracketed to the requested precision"),
        ([summary_row(certified=1)], [], 0, False, "1 of 2 starts"),
        ([summary_row(frames=1)], [], 0, False, "1 of 2 are orthogonal frames"),
        ([summary_row(relu=False, frames=0)], [], 0, True, "2 of 2 starts"),
        ([summary_row(worst_excess=math.nan)], [], 0, False, "2 of 2 starts"),
        ([summary_row()], [], 1, False, "1 cells failed"),
    ],
)
def test_verdicts(summary, brackets, failed, good, said):
    judged = losses_report.judged({"tau": (1.0,), "most_R": 100.0}, summary, brackets, failed)
    assert judged[0] is good
    assert said in judged[1]


# The bracket against an oracle that knows no dual: unit vectors of class means, their loss by numpy, many starts.


def plain_minimum(sizes, weights, averaged, strength):
    """The cosine of two minorities where the loss at tau = 1 is least over unit class means."""
    k, counts = len(sizes), np.array(sizes, float)
    margin = strength * np.log(counts)[None, :] + np.zeros((k, k))
    met = counts[None, :] - np.eye(k)
    margin -= np.log(met) if averaged else 0.0

    def paid(flat):
        U = flat.reshape(k, k)
        U = U / np.linalg.norm(U, axis=1, keepdims=True)
        G = U @ U.T
        return float(counts * weights @ (np.log((met * np.exp(margin + G)).sum(axis=1)) - 1.0)) / counts.sum()

    rng = np.random.default_rng(0)
    best = min((minimize(paid, rng.standard_normal(k * k), tol=1e-14) for _ in range(4)), key=lambda result: result.fun)
    U = best.x.reshape(k, k)
    U = U / np.linalg.norm(U, axis=1, keepdims=True)
    return float(U[-1] @ U[-2])


@pytest.mark.parametrize("loss", ["class-weights", "class-averaging", "logit-adjustment"])
def test_brackets_agree_with_plain_minimisation(loss):
    """A tenth below the bracket the minorities are apart, a tenth above they are one vector; within it the certificates
    say so."""
    result = thresholds.bracket(loss, k=4, n_min=20, d=4, tau=1.0, precision=0.02, most_R=100.0)
    assert max(result.apart.R + 1 / 20, 1.02 * result.apart.R) >= result.merged.R
    for end in result.evaluated:
        assert end.merged is (end.R >= result.merged.R)
        assert end.least <= end.most

    def cosine(R):
        sizes = ufm.step_imbalance(4, 20, R)
        weights = sizes.min() / sizes if loss == "class-weights" else np.ones(4)
        return plain_minimum(sizes, weights, loss == "class-averaging", float(loss == "logit-adjustment"))

    below, above = cosine(result.apart.R * 0.9), cosine(result.merged.R * 1.1)
    assert below < 0.995
    assert above > 1 - 1e-4
    at = math.acos(min(1.0, cosine(result.apart.R)))
    assert result.apart.least - 1e-2 < at < result.apart.most + 1e-2


def test_a_bracket_is_no_better_than_its_certificates(tmp_path):
    """An angle larger below, or smaller above, than what is proved does not pass the checker."""
    result = thresholds.bracket("logit-adjustment", k=4, n_min=20, d=4, tau=1.0, precision=0.05, most_R=100.0)
    for end, field in ((result.apart, "cosine"), (result.merged, "least_cosine")):
        content = json.loads(end.proof.serialised())
        assert outcome(json.dumps(content), tmp_path) == PROVED
        table = content["claims"]["implied"][field]
        true = math.cos((end.least + end.most) / 2) if field == "cosine" else 1.0
        said = float.fromhex(table[3][2])
        table[3][2] = table[2][3] = (0.5 * said + 0.5 * true).hex()
        assert outcome(json.dumps(sign(content)), tmp_path) == NOT_PROVED


def test_plain_scl_is_apart_up_to_the_largest_ratio_and_supcon_in_is_not_decided():
    stored = thresholds.bracket("scl", k=4, n_min=20, d=4, tau=1.0, precision=0.05, most_R=30.0)
    assert stored.merged is None
    assert stored.apart.R == 30
    none = thresholds.bracket("supcon-in", k=4, n_min=20, d=4, tau=1.0, precision=0.05, most_R=30.0)
    assert (none.apart, none.merged) == (None, None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "R"), [("class-weights", 16.8635), ("class-averaging", 11.5075), ("logit-adjustment", 6.9105)]
)
def test_thresholds_within_one_per_cent(loss, R):
    """k = 10, tau = 1: three losses, R* bracketed within 1%."""
    result = thresholds.bracket(loss, k=10, n_min=1000, d=20, tau=1.0, precision=0.005, most_R=100.0)
    print(loss, result.apart[:3], result.merged[:3])
    assert result.apart.R < R < result.merged.R < 1.01 * result.apart.R
    assert result.apart.least > 0.02
    assert result.merged.most < 0.002
