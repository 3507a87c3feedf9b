"""The main command: what it writes, what it says, and that bad input leaves nothing behind."""

import json
import subprocess
import sys
from functools import partial

import pytest
import sweeps
import xarray as xr
from sweeps import rows

from experiments import sweep_imbalance
from experiments.harness.store import Store
from solvers.certification.certificate import Certificate

SUMMARY = (
    "R,k,d,tau,n,inits,certified,orthogonal_frames,loss_bound,lower_bound,best_excess,worst_excess,worst_gap,"
    "delta_gm_max,beta_nc_max,trace_sw_max,max_cosine,iterations_median,seconds_compile,seconds_solve,seconds_certify"
)
INITS = "R,tau,init,status,certified,orthogonal_frame,excess,gap,delta_gm,beta_nc,trace_sw,max_cosine,iterations"
SMALL = ["--k", "4", "--n-min", "2", "--d", "6", "--inits", "3"]


run = partial(sweeps.run, sweep_imbalance)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    out = tmp_path_factory.mktemp("sweep")
    assert run("--R", 1, 20, *SMALL, "--out", out) == 0
    return out


def test_contract(swept):
    assert (swept / "summary.csv").read_text().splitlines()[0] == SUMMARY
    assert (swept / "inits.csv").read_text().splitlines()[0] == INITS
    summary, inits = rows(swept / "summary.csv"), rows(swept / "inits.csv")
    assert [row["R"] for row in summary] == ["1", "20"]
    assert [row["n"] for row in summary] == ["8", "84"]
    assert len(inits) == 6
    for row in summary:
        assert row["certified"] == row["orthogonal_frames"] == row["inits"] == "3"
        assert float(row["lower_bound"]) <= float(row["loss_bound"]) * (1 + 1e-15)
        assert 0 <= float(row["best_excess"]) <= float(row["worst_excess"]) < 1e-10
    assert len(list((swept / "cells").glob("*.nc"))) == 2
    assert len(list((swept / "certificates").glob("*.json"))) == 6
    for name in ("class_mean_gram", "convergence"):
        assert (swept / "figures" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
        assert (swept / "figures" / f"{name}.pdf").read_bytes()[:4] == b"%PDF"
    config = json.loads((swept / "config.json").read_text())
    assert config["config"]["R"] == [1, 20]
    assert config["versions"]["jax"]


def test_certificates_load_and_convince_the_independent_checker(swept):
    path = sorted((swept / "certificates").glob("R20-*.json"))[0]
    assert str(Certificate.load(path).status) == "certified"
    checked = subprocess.run([sys.executable, "-m", "ufm_check", path], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_cells_hold_what_the_tables_say(swept):
    (path,) = (swept / "cells").glob("R20-*.nc")
    with xr.open_dataset(path, engine="h5netcdf") as cell:
        cell.load()
    inits = [row for row in rows(swept / "inits.csv") if row["R"] == "20"]
    assert [float(row["excess"]) for row in inits] == cell["excess"].values.tolist()
    assert cell.attrs["n"] == 84
    assert cell["history_excess"].shape == cell["history_iteration"].shape
    assert bool(cell["certified"].all())


def test_a_second_run_takes_the_cells_it_finds_and_runs_damaged_ones_again(swept, monkeypatch):
    before = (swept / "inits.csv").read_bytes()
    ran = []
    original = sweep_imbalance.measure_problem
    monkeypatch.setattr(sweep_imbalance, "measure_problem", lambda *a, **k: ran.append(1) or original(*a, **k))
    assert run("--R", 1, 20, *SMALL, "--out", swept) == 0
    assert not ran
    (cell,) = (swept / "cells").glob("R20-*.nc")
    content = bytearray(cell.read_bytes())
    content[len(content) // 2] ^= 1
    cell.write_bytes(bytes(content))
    assert run("--R", 1, 20, *SMALL, "--out", swept) == 0
    assert len(ran) == 1
    assert run("--R", 1, *SMALL, "--out", swept, "--fresh") == 0
    assert len(ran) == 2
    assert run("--R", 1, 20, *SMALL, "--out", swept) == 0
    assert (swept / "inits.csv").read_bytes() == before  # same seeds, same numbers


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--R", "0"], "R = 0"),
        (["--R", "-5"], "R = -5"),
        (["--R", "nan"], "R = nan"),
        (["--R", "ten"], "--R"),
        (["--R"], "R = "),
        (["--R", "1e12"], "R = 1"),
        (["--k", "1"], "k = 1"),
        (["--n-min", "0"], "n_min = 0"),
        (["--d", "0"], "d = 0"),
        (["--tau", "0"], "tau = 0"),
        (["--tau", "-1"], "tau = -1"),
        (["--inits", "0"], "inits = 0"),
        (["--seed", "-1"], "seed = -1"),
        (["--method", "newton"], "method = 'newton'"),
        (["--imbalance", "cliff"], "--imbalance"),
        (["--inits", "few"], "--inits"),
        (["--colour", "red"], "--colour"),
    ],
)
def test_bad_input_is_one_line_and_status_2_and_leaves_nothing(arguments, said, tmp_path, capsys, untyped):
    out = tmp_path / "runs"
    assert run(*arguments, "--out", out) == 2
    captured = capsys.readouterr()
    assert len(captured.err.splitlines()) == 1
    assert said in captured.err
    assert captured.out == ""
    assert not out.exists()


@pytest.mark.thorough
def test_several_temperatures_are_a_dimension_of_the_sweep(tmp_path, capsys):
    assert run("--R", 1, 3, "--tau", 0.1, 0.5, *SMALL, "--out", tmp_path) == 0
    summary, inits = rows(tmp_path / "summary.csv"), rows(tmp_path / "inits.csv")
    assert [(row["R"], row["tau"]) for row in summary] == [("1", "0.1"), ("1", "0.5"), ("3", "0.1"), ("3", "0.5")]
    assert len(inits) == 12
    for row in summary:
        starts = [start for start in inits if (start["R"], start["tau"]) == (row["R"], row["tau"])]
        assert float(row["worst_excess"]) == max(float(start["excess"]) for start in starts)
        paths = list((tmp_path / "certificates").glob(f"R{row['R']}-tau{row['tau']}-start*.json"))
        assert len(paths) == 3
        assert {Certificate.load(path).problem.tau for path in paths} == {float(row["tau"])}
    page = (tmp_path / "report.html").read_text()
    assert "tau = 0.1 0.5" in page
    assert "R = 3, tau = 0.5" in page
    assert page.count("certificates/R3-tau0.1-start") == 3
    capsys.readouterr()
    assert run("--R", 3, "--tau", 0.5, *SMALL, "--out", tmp_path) == 0  # the cell of the larger sweep
    assert rows(tmp_path / "summary.csv") == [summary[-1]]


@pytest.mark.thorough
def test_temperatures_and_a_file(tmp_path):
    (tmp_path / "open.json").write_text('{"class_counts": [4, 2]}')
    (tmp_path / "fixed.json").write_text('{"class_counts": [4, 2], "tau": 3}')
    few = ["--d", 3, "--inits", 1, "--tau", 0.5, 2]
    for name, expected in (("open", ["0.5", "2"]), ("fixed", ["3"])):
        assert run("--problem", tmp_path / f"{name}.json", *few, "--out", tmp_path / name) == 0
        assert [row["tau"] for row in rows(tmp_path / name / "summary.csv")] == expected
        assert json.loads((tmp_path / name / "config.json").read_text())["config"]["tau"] == list(map(float, expected))


def test_out_that_cannot_be_written(tmp_path, capsys):
    occupied = tmp_path / "file"
    occupied.write_text("mine")
    assert run("--R", 1, *SMALL, "--out", occupied / "below") == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert "out = " in error
    assert occupied.read_text() == "mine"


@pytest.mark.thorough
def test_too_few_dimensions_are_said_and_not_certified(tmp_path, capsys):
    assert run("--R", 4, "--k", 4, "--n-min", 2, "--d", 3, "--inits", 2, "--out", tmp_path) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "d = 3 < k = 4" in printed
    assert "Not proved: that it is a global minimiser" in printed
    assert "Not reproduced" not in printed
    (row,) = rows(tmp_path / "summary.csv")
    assert row["certified"] == row["orthogonal_frames"] == "0"
    assert float(row["best_excess"]) > 0


@pytest.mark.thorough
def test_single_samples_are_said(tmp_path, capsys):
    status = run("--R", 3, "--k", 4, "--n-min", 1, "--d", 6, "--inits", 2, "--out", tmp_path)
    assert "n-min = 1" in " ".join(capsys.readouterr().out.split())
    (row,) = rows(tmp_path / "summary.csv")
    assert row["certified"] == "2"
    assert status == (0 if row["orthogonal_frames"] == "2" else 1)


@pytest.mark.thorough
def test_without_relu(tmp_path, capsys):
    assert run("--R", 5, *SMALL, "--no-relu", "--out", tmp_path) == 0
    (row,) = rows(tmp_path / "summary.csv")
    assert row["certified"] == "3"
    assert row["orthogonal_frames"] == "0"
    assert "UFM" in capsys.readouterr().out


@pytest.mark.thorough
def test_reference_method_says_what_got_stuck(tmp_path, capsys):
    arguments = ("--R", 30, "--k", 5, "--n-min", 2, "--d", 5, "--inits", 4, "--method", "accelerated")
    assert run(*arguments, "--out", tmp_path) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "Theorem 1 is not reproduced" in out
    assert "have cosine" in out
    (row,) = rows(tmp_path / "summary.csv")
    assert int(row["certified"]) < 4


def test_help_teaches(capsys):
    assert run("--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "arXiv 2306.07960" in text
    assert "--no-relu" in text


def test_store_never_shows_half_a_file(tmp_path):
    store = Store(tmp_path)
    cell = xr.Dataset({"x": ("init", [1.0, 2.0])}, {"init": [0, 1]})
    path = store.write_cell("cells/a.nc", cell)
    assert store.read_cell("cells/a.nc").identical(cell)
    assert store.read_cell("cells/b.nc") is None
    path.write_bytes(path.read_bytes()[:-1])
    assert store.read_cell("cells/a.nc") is None
    store.write_cell("cells/a.nc", cell)
    (tmp_path / "cells/a.nc.sha256").unlink()
    assert store.read_cell("cells/a.nc") is None
    with pytest.raises(TypeError):
        store.write_bytes("c", "text, not bytes")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cells"]
