"""The batching sweep: what it writes, what it concludes, and that bad input leaves nothing behind."""

import dataclasses
import json
import os
import shlex
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import sweeps
import xarray as xr
from page import Page
from sweeps import rows

from experiments import sweep_batching
from experiments.harness import command_line
from solvers.certification.certificate import Certificate

SUMMARY = (
    "R,batch_size,family,bound,k,d,tau,n,batches,partitions,inits,unique,not_unique,undetermined,plain_claims,"
    "counterexamples,certified,orthogonal_frames,best_excess,worst_excess,worst_gap,delta_gm_max,beta_nc_max,"
    "trace_sw_max,max_cosine,iterations_median,seconds_compile,seconds_solve,seconds_certify"
)
SMALL = ["--R", 1, 3, "--k", 3, "--n", 36, "--d", 6, "--batch-size", 6, "--partitions", 3, "--inits", 2]


run = partial(sweeps.run, sweep_batching)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    out = tmp_path_factory.mktemp("sweep")
    assert run(*SMALL, "--out", out) == 0
    return out


def test_contract(swept):
    assert (swept / "summary.csv").read_text().splitlines()[0] == SUMMARY
    summary, inits = rows(swept / "summary.csv"), rows(swept / "inits.csv")
    assert [(row["R"], row["bound"]) for row in summary] == [(R, bound) for R in "13" for bound in ("False", "True")]
    assert len(inits) == 4 * 6
    for row in summary:
        assert row["n"] == "36"
        assert row["batches"] == "6"
        assert row["certified"] == "6"
        assert row["undetermined"] == "0"
        assert int(row["unique"]) + int(row["not_unique"]) == 3
        assert row["counterexamples"] == row["not_unique"]
        assert 0 <= float(row["best_excess"]) <= float(row["worst_excess"]) < 1e-10
        if row["bound"] == "True":
            assert row["unique"] == "3"
            assert row["orthogonal_frames"] == "6"
        else:
            assert row["not_unique"] == "3"
            assert row["orthogonal_frames"] == "0"
    for row in inits:
        assert row["unique"] == row["bound"] == row["orthogonal_frame"]
        assert row["certified"] == "True"
        assert row["reason"]
    assert len(list((swept / "cells").glob("*.nc"))) == 4
    assert len(list((swept / "certificates").glob("*.json"))) == 4 * 6 + 6  # every start, every counterexample
    assert (swept / "figures" / "batching.png").read_bytes()[:4] == b"\x89PNG"
    assert (swept / "figures" / "batching.pdf").read_bytes()[:4] == b"%PDF"
    config = json.loads((swept / "config.json").read_text())
    assert config["config"]["batch_size"] == [6]
    assert config["versions"]["jax"]


@pytest.mark.parametrize("kind", ["bound-family002-start001", "drawn-family001-counterexample"])
def test_certificates_load_and_convince_the_independent_checker(swept, kind):
    (path,) = (swept / "certificates").glob(f"R3-*-{kind}.json")
    assert str(Certificate.load(path).status) == "certified"
    checked = subprocess.run([sys.executable, "-m", "ufm_check", path], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_second_run_takes_the_cells_it_finds_and_runs_damaged_ones_again(swept, monkeypatch, capsys):
    before = (swept / "inits.csv").read_bytes()
    ran = []
    original = sweep_batching.measure_families
    monkeypatch.setattr(sweep_batching, "measure_families", lambda **a: ran.append(a["name"]) or original(**a))
    assert run(*SMALL, "--out", swept) == 0
    assert not ran
    (cell,) = (swept / "cells").glob("R3-tau1-b6-bound-*.nc")
    content = bytearray(cell.read_bytes())
    content[len(content) // 2] ^= 1
    cell.write_bytes(bytes(content))
    assert run(*SMALL, "--out", swept) == 0
    assert ran == ["R3-tau1-b6-bound"]
    assert (swept / "inits.csv").read_bytes() == before
    assert "Confirmed" in capsys.readouterr().out


def test_a_cell_that_fails_is_said_with_its_command_and_the_others_go_on(swept, monkeypatch, capsys):
    def failing(**others):
        raise ArithmeticError("no\ncell")

    monkeypatch.setattr(sweep_batching, "measure_families", failing)
    (path,) = (swept / "cells").glob("R1-tau1-b6-drawn-*.nc.sha256")
    seal = path.read_bytes()
    path.unlink()
    before = {name: (swept / name).read_bytes() for name in ("summary.csv", "inits.csv", "report.html", "config.json")}
    assert run(*SMALL, "--out", swept) == 1
    said = capsys.readouterr().out
    assert "failed  R1-tau1-b6-drawn: ArithmeticError: no cell\n" in said
    program = shlex.join(command_line.program("experiments.sweep_batching"))
    command = "--batch-size 6 --no-bind --R 1 --k 3 --n 36 --d 6 --partitions 3 --inits 2"
    assert f"alone: {program} {command} --out {swept}\n" in said
    assert "1 of 4 cells failed" in said
    assert "1 of 4 cells failed" in (swept / "report.html").read_text()
    assert len(rows(swept / "summary.csv")) == 3
    path.write_bytes(seal)
    for name, content in before.items():
        (swept / name).write_bytes(content)


def test_the_report_shows_the_summary_the_figure_and_every_certificate(swept):
    page = Page((swept / "report.html").read_text())
    assert page.shows(swept / "summary.csv")
    assert page.table[0][:5] == [
        "imbalance ratio R",
        "bound",
        "starts certified",
        "largest cosine of two classes",
        "orthogonal frames",
    ]
    assert [row[1] for row in page.table[1:]] == ["no", "yes"] * 2
    assert len(page.images) == 1
    assert all(load.startswith("data:") for load in page.loads)
    words = " ".join(page.words)
    assert "Confirmed: 24 of 24 starts" in words
    assert "12 of 12 are frames" in words
    assert "for 6 of 6 families" in words
    assert words.count(shlex.join(command_line.program("ufm_check.check"))) == 1 + len(
        list((swept / "certificates").glob("*.json"))
    )
    assert "not a readable certificate" not in words


@pytest.mark.slow
def test_dask_workers_give_what_one_process_gives(swept, tmp_path):
    sweep = [sys.executable, "-m", "experiments.sweep_batching", *map(str, SMALL)]
    stored = {**os.environ, "UFM_SCL_COMPILE_CACHE": str(tmp_path / "compiled")}
    there = tmp_path / "there"
    done = subprocess.run([*sweep, "--dask", "local:2", "--out", there], capture_output=True, check=False, env=stored)
    assert done.returncode == 0, done.stderr.decode()
    assert b"Confirmed" in done.stdout
    assert (there / "inits.csv").read_bytes() == (swept / "inits.csv").read_bytes()
    assert {path.name for path in there.rglob("*")} == {path.name for path in swept.rglob("*")}


def test_cells_hold_the_histories_of_all_starts(swept):
    (path,) = (swept / "cells").glob("R1-tau1-b6-drawn-*.nc")
    with xr.open_dataset(path, engine="h5netcdf") as cell:
        cell.load()
    assert cell["partition"].values.tolist() == [0, 0, 1, 1, 2, 2]
    assert cell["start"].values.tolist() == [0, 1] * 3
    assert cell["history_delta_gm"].shape == cell["history_iteration"].shape
    assert (cell["history_iteration"].values[:, -1] == cell["iterations"].values).all()
    assert cell.attrs["batch_size"] == 6


def test_an_unconfirmed_prediction_is_exit_status_1(swept, monkeypatch):
    original = sweep_batching.measure_families

    def without_frames(**arguments):
        cell, certificates = original(**arguments)
        return cell.assign(orthogonal_frame=("init", np.zeros(cell.sizes["init"], bool))), certificates

    monkeypatch.setattr(sweep_batching, "measure_families", without_frames)
    assert run(*SMALL, "--out", swept.parent / "unconfirmed") == 1


@pytest.mark.thorough
@pytest.mark.parametrize("has_batches", [True, False], ids=["a file's batches", "random ones over a file's classes"])
def test_a_problem_of_your_own_at_several_temperatures(has_batches, tmp_path):
    content = {"labels": [0, 0, 0, 0, 1, 1, 1, 1, 2, 2], "d": 5}
    content |= {"batches": [[0, 1, 4, 5, 8], [2, 3, 6, 7, 9], [0, 4, 8, 9]]} if has_batches else {}
    (tmp_path / "mine.json").write_text(json.dumps(content))
    out = tmp_path / "runs"
    options = ["--problem", tmp_path / "mine.json", "--tau", 0.5, 1, "--inits", 1, "--out", out]
    assert run(*options, "--partitions", 2, "--batch-size", 4) == 0
    summary, inits = rows(out / "summary.csv"), rows(out / "inits.csv")
    assert [(row["tau"], row["bound"]) for row in summary] == [(t, b) for t in ("0.5", "1") for b in ("False", "True")]
    assert {(row["R"], row["k"], row["d"], row["n"]) for row in summary} == {("2", "3", "5", "10")}
    said = {(row["family"], row["batch_size"], row["batches"], row["partitions"]) for row in summary}
    assert said == {("given", "5", "3", "1") if has_batches else ("partition", "4", "3", "2")}
    assert len(inits) == (4 if has_batches else 8)
    assert all(row["unique"] == "True" for row in inits if row["bound"] == "True")
    paths = sorted((out / "certificates").glob("R2-tau0.5-b*-bound-family000-start000.json"))
    assert [Certificate.load(path).problem.tau for path in paths] == [0.5]
    cells = set((out / "cells").iterdir())
    (tmp_path / "mine.json").rename(tmp_path / "moved.json")
    assert run("--problem", tmp_path / "moved.json", *options[2:], "--partitions", 2, "--batch-size", 4) == 0
    assert set((out / "cells").iterdir()) == cells
    page = (out / "report.html").read_text()
    assert "tau = 0.5 1" in page
    assert "R = 2, tau = 0.5, batches of" in page


@pytest.mark.thorough
def test_without_relu(tmp_path, capsys):
    small = ["--R", 3, "--k", 3, "--n", 12, "--d", 6, "--batch-size", 6, "--partitions", 1, "--inits", 2, "--no-bind"]
    assert run(*small, "--no-relu", "--out", tmp_path) == 0
    (row,) = rows(tmp_path / "summary.csv")
    assert (row["certified"], row["orthogonal_frames"], row["undetermined"]) == ("2", "0", "1")
    assert float(row["worst_gap"]) < 1e-10
    said = " ".join(capsys.readouterr().out.split())
    assert "note --no-relu: Theorem 2 is about UFM+" in said
    assert "2 of 2 starts are certified global minimisers of UFM." in said
    assert "no theorem says which geometry a batch family forces" in (tmp_path / "report.html").read_text()


@pytest.mark.thorough
def test_a_file_without_relu_at_several_temperatures(tmp_path, capsys):
    """What is written, and what the page says: the model, where its classes and batches come from, no prediction."""
    mine = tmp_path / "mine.json"
    mine.write_text(json.dumps({"labels": [0, 0, 0, 1, 1, 2, 2, 2], "batches": [[0, 1, 3, 5, 6], [2, 4, 6, 7]]}))
    out = tmp_path / "runs"
    options = ["--problem", mine, "--no-relu", "--no-bind", "--tau", 1, 0.5, "--d", 4, "--inits", 2, "--out", out]
    assert run(*options) == 0
    summary, inits = rows(out / "summary.csv"), rows(out / "inits.csv")
    assert [(row["tau"], row["family"], row["bound"], row["n"]) for row in summary] == [
        ("1", "given", "False", "8"),
        ("0.5", "given", "False", "8"),
    ]
    assert [row["tau"] for row in inits] == ["1", "1", "0.5", "0.5"]
    assert all(row["certified"] == "True" and float(row["gap"]) < 1e-9 for row in inits)
    assert all(row["unique"] == "None" and row["counterexample_certified"] == "None" for row in inits)
    names = {path.name for path in (out / "certificates").iterdir()}
    assert names == {f"R1.5-tau{tau}-b5-drawn-family000-start00{s}.json" for tau in ("1", "0.5") for s in (0, 1)}
    assert not Certificate.load(out / "certificates" / sorted(names)[0]).problem.nonneg
    config = json.loads((out / "config.json").read_text())["config"]
    assert (config["relu"], config["tau"], config["family"], config["imbalance"]) == (False, [1, 0.5], "given", "given")
    page = Page((out / "report.html").read_text())
    words = " ".join(page.words)
    assert "UFM over given batches, given imbalance: k = 3, d = 4, tau = 1 0.5" in words
    assert "4 of 4 starts are certified global minimisers of UFM." in words
    assert "Confirmed" not in words
    assert page.shows(out / "summary.csv")
    assert len(page.images) == 1
    assert "tau" in " ".join(capsys.readouterr().out.split())


def test_a_temperature_in_the_file_goes_before_the_flags(tmp_path):
    mine = tmp_path / "mine.json"
    mine.write_text(json.dumps({"class_counts": [4, 4, 4], "tau": 0.7, "d": 3}))
    options = ["--tau", 1, 0.5, "--batch-size", 4, "--partitions", 1, "--no-bind"]
    config = command_line.parse(sweep_batching.Config, [str(one) for one in ["--problem", mine, *options]])
    config, (cell,) = sweep_batching.checked_cells(config)
    assert (config.tau, config.d, config.k, config.family, config.imbalance) == ((0.7,), 3, 3, "partition", "given")
    assert float(cell.problems[0].tau) == 0.7


@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        ({"class_counts": [2, 2, 2], "d": 2}, [], "d = 2: give at least k = 3"),
        ({"class_counts": [2, 2, 2], "d": 2}, ["--no-relu"], "d = 2: give at least k = 3"),
        ({"class_counts": [2, 2, 2]}, ["--tau", 1, 0], "tau = 0"),
        ({"class_counts": [2, 2, 2]}, ["--tau"], "tau = "),
        ({"class_counts": [2, 2, 2]}, ["--batch-size", 0], "batch_size = 0"),
        ({"class_counts": [2, 2, 2]}, ["--family", "given"], "family = 'given': choose one of"),
        ({"class_counts": [2, 2, 2]}, ["--family", "shuffled"], "family = 'shuffled': choose one of"),
        ({"class_counts": [2, 2, 2], "batches": [[0, 0]]}, [], "batches"),
        ({"labels": [0, 0, 1], "batches": [[0, 1, 7]]}, [], "give sample indices from 0 to 2"),
        ({"labels": [0, 0, 1], "batches": [[]]}, [], "batches"),
        ({"labels": [0, 0, 1], "tau": "warm"}, [], "tau"),
        ({"sizes": [2, 2]}, [], "mine.json"),
        ([2, 2], [], "mine.json"),
        (None, [], "cannot be read"),
        (None, ["--no-relu", "--tau", 1, 0.5], "cannot be read"),
    ],
)
def test_a_bad_problem_of_your_own_is_one_line_and_writes_nothing(content, options, said, tmp_path, capsys):
    path = tmp_path / ("mine.json" if content is not None else "none.json")
    if content is not None:
        path.write_text(json.dumps(content))
    assert_refused(["--problem", path, *options], said, tmp_path, capsys)


def assert_refused(arguments, said, folder, capsys):
    assert run(*arguments, "--out", folder / "out") == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.strip().splitlines()) == 1
    assert said in printed.err
    assert not (folder / "out").exists()


def test_a_family_is_known_by_its_name_alone(tmp_path, monkeypatch):
    whole = {"whole": lambda labels, batch_size, epochs, seed: np.arange(len(labels), dtype=np.int32)[None]}
    monkeypatch.setattr(sweep_batching.batching, "FAMILIES", whole)
    config = sweep_batching.Config(family="whole", k=3, n=12, d=3, R=(1.0,), partitions=1, bind=False)
    _, (cell,) = sweep_batching.checked_cells(config)
    assert cell.problems[0].batches.shape == (1, 12)


@pytest.mark.parametrize("family", ["partition", "stratified", "reshuffled"])
@pytest.mark.parametrize("imbalance", ["step", "long-tail"])
def test_families_have_the_samples_and_shapes_they_say(family, imbalance):
    config = sweep_batching.Config(family=family, imbalance=imbalance, k=4, n=100, d=8, R=(1.0, 7.0), partitions=2)
    config = dataclasses.replace(config, batch_size=(10, 25), epochs=3)
    _, cells = sweep_batching.checked_cells(config)
    assert len(cells) == 2 * 2 * 2
    for cell in cells:
        for problem in cell.problems:
            assert problem.num_samples == 100
            assert problem.batches.shape == cell.problems[0].batches.shape
            width = cell.batch_size + (4 if cell.bound else 0)
            assert problem.batches.shape == ((3 if family == "reshuffled" else 1) * (100 // cell.batch_size), width)
        sizes = np.asarray(cell.problems[0].class_sizes)
        assert cell.R * 0.8 <= sizes.max() / sizes.min() <= cell.R * 1.3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--family", "shuffled"], "family = 'shuffled': choose one of partition, stratified, reshuffled"),
        (["--batch-size", 0], "batch_size = 0"),
        (["--batch-size"], "batch_size = "),
        (["--batch-size", "half"], "--batch-size"),
        (["--epochs", 0, "--family", "reshuffled"], "epochs = 0"),
        (["--R", 0], "R = 0"),
        (["--R", 1000], "n = 1000: R = 1000"),
        (["--k", 1], "k = 1"),
        (["--n", 10, "--n-min", 2], "n = 10: give n or n-min"),
        (["--n", 4], "n = 4"),
        (["--d", 9], "d = 9: give at least k = 10"),
        (["--tau", -1], "tau = -1"),
        (["--tau", 1, "nan"], "tau = nan"),
        (["--tau"], "tau = "),
        (["--imbalance", "given"], "imbalance = 'given': give its file as well, with --problem"),
        (["--family", "given", "--no-relu"], "family = 'given': choose one of"),
        (["--inits", 0], "inits = 0"),
        (["--partitions", 0], "partitions = 0"),
        (["--seed", -1], "seed = -1"),
        (["--dask", "nowhere"], "dask = 'nowhere'"),
        (["--colour", "red"], "--colour"),
    ],
)
def test_bad_input_is_one_line_and_status_2_and_writes_nothing(arguments, said, tmp_path, capsys):
    assert_refused(arguments, said, tmp_path, capsys)
