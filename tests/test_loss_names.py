"""Losses by name: on command lines, in files of problems, in the names of cells and certificates."""

import json
from functools import partial

import numpy as np
import pytest
import sweeps
import xarray as xr

from experiments import sweep_batching, sweep_imbalance
from experiments.harness.loss_names import NAMES, in_names, loss_of
from experiments.harness.problem_file import read_problem
from solvers.certification.certificate import Certificate
from ufm import InvalidInput, losses

pytestmark = pytest.mark.thorough

SIZES = np.array([20, 20, 5, 5])
SMALL = ["--k", "4", "--n-min", "2", "--d", "6", "--inits", "2", "--R", "20"]


@pytest.mark.parametrize(
    ("text", "loss"),
    [
        ("scl", losses.scl()),
        ("class-weights", losses.class_weighted([0.25, 0.25, 1, 1])),
        ("class-weights:0.5", losses.class_weighted([0.5, 0.5, 1, 1])),
        ("logit-adjustment:-0.5", losses.logit_adjusted(-0.5)),
        ("weights-and-averaging", losses.log_sum_exp(weights=[0.25, 0.25, 1, 1], averaged=True)),
        ("class-temperatures:4", losses.class_temperatures([1, 2, 3, 4])),
        ("sigmoid:2,-1", losses.sigmoid(2.0, -1.0)),
        ("supcon-in", losses.supcon_in()),
    ],
)
def test_names(text, loss):
    assert loss_of(text, SIZES) == loss


def test_every_name_has_its_numbers():
    made = {name: loss_of(name, SIZES) for name in NAMES}
    assert len(set(made.values())) == len(NAMES) >= 9
    assert in_names("scl") == ()
    assert in_names("sigmoid:2,-1") == ("sigmoid2_-1",)


BAD = [
    "",
    "SCL",
    "sigmoid:1",
    "sigmoid:1,2,3",
    "scl:1",
    "logit-adjustment:a",
    "logit-adjustment:inf",
    "sigmoid:-1,0",
    3,
]


@pytest.mark.parametrize("text", BAD)
def test_bad_names_are_one_line(text, tmp_path, capsys, untyped):
    with pytest.raises(InvalidInput, match=r"^loss = ") as caught:
        loss_of(text, SIZES)
    assert "\n" not in str(caught.value)
    path = tmp_path / "problem.json"
    path.write_text(json.dumps({"class_counts": [3, 2], "loss": text}))
    with pytest.raises(InvalidInput, match="loss = "):
        read_problem(path, d=4, tau=1.0, nonneg=True)
    for sweep in (sweep_imbalance, sweep_batching):
        assert sweeps.run(sweep, "--loss", text, "--out", tmp_path / "out") == 2
    assert not (tmp_path / "out").exists()
    assert "loss" in capsys.readouterr().err


def test_the_loss_of_a_file_goes_before_that_of_the_flag(tmp_path):
    path = tmp_path / "problem.json"
    read = partial(read_problem, path, d=4, tau=1.0, nonneg=True, loss="sigmoid")
    path.write_text(json.dumps({"class_counts": [3, 2], "loss": "decoupled"}))
    assert read().loss == losses.decoupled()
    path.write_text(json.dumps({"class_counts": [3, 2]}))
    assert read().loss == losses.sigmoid()


def test_a_sweep_of_another_loss_names_its_cells_and_proves_its_starts(tmp_path):
    assert sweeps.run(sweep_imbalance, *SMALL, "--loss", "decoupled", "--out", tmp_path) == 0
    (row,) = sweeps.rows(tmp_path / "summary.csv")
    assert row["certified"] == row["orthogonal_frames"] == "2"
    certificates = sorted(path.name for path in (tmp_path / "certificates").glob("*.json"))
    assert certificates == ["R20-tau1-decoupled-start000.json", "R20-tau1-decoupled-start001.json"]
    proof = Certificate.load(tmp_path / "certificates" / certificates[0])
    assert proof.problem.loss == losses.decoupled()
    page = (tmp_path / "report.html").read_text()
    assert "decoupled" in page
    assert certificates[0] in page
    (cell,) = (tmp_path / "cells").glob("*.nc")
    with xr.open_dataset(cell, engine="h5netcdf") as result:
        assert result.attrs["loss"] == "decoupled"
        assert float(row["loss_bound"]) == pytest.approx(result.attrs["loss_bound"])
