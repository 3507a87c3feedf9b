"""Trained networks as cells: what they leave, that a kill changes no bit, and what cannot be trained."""

import errno
import html
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import sweeps
import xarray as xr

import networks
import ufm
from experiments import train_network
from experiments.harness import command_line, workers
from experiments.harness.store import Store
from experiments.measurements import networks as network_cells
from experiments.measurements.networks import (
    NONNEGATIVE,
    RECORDED,
    Recipe,
    accuracies,
    autopsy,
    class_sizes,
    train_cell,
)
from experiments.reports.training import judged
from networks import Samples, Schedule
from solvers.files import sealed

SMALL = ["--n-maj", 24, "--k", 4, "--width", 64, "--batch-size", 20, "--epochs", 6, "--record", 2, "--checkpoint", 2]
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("networks")
    requested = [*SMALL, "--R", 4, "--activation", "relu", "none", "--batching", "bound", "--out", out]
    assert sweeps.run(train_network, *requested) == 0
    return out, requested


def test_what_a_run_leaves(trained):
    out, _ = trained
    summary, epochs = sweeps.rows(out / "summary.csv"), sweeps.rows(out / "epochs.csv")
    assert [row["activation"] for row in summary] == ["relu", "none"]
    assert [float(row["epoch"]) for row in epochs] == [1, 2, 4, 6] * 2
    for row in summary:
        values = [float(row[name]) for name in row if name not in ("net", "activation", "batching", "loss")]
        assert np.isfinite(values).all()
        assert 0 <= float(row["accuracy_balanced"]) <= 1
    relu, none = summary
    assert 0 <= float(relu["excess_lower"]) <= float(relu["excess_upper"]) == float(relu["gap"])
    assert float(none["gap"]) > 0
    assert float(none["gap"]) > float(none["excess_upper"])
    assert {path.suffix for path in (out / "figures").iterdir()} == {".png", ".pdf"}
    assert len(list((out / "networks").glob("*.eqx"))) == 2
    assert not (out / "checkpoints").exists()
    page = (out / "report.html").read_text()
    assert "final activation" in page
    assert "networks with nonnegative features ended in an orthogonal frame" in page


def test_what_a_cell_holds_is_what_its_features_say(trained):
    out, _ = trained
    file = next(path for path in (out / "cells").glob("mlp-relu-*.nc"))
    cell = Store(out).read_cell(f"cells/{file.name}")
    H, labels = cell["features"].values, cell["labels"].values
    assert H.dtype == np.float32
    exact = H / np.linalg.norm(H.astype(float), axis=1, keepdims=True)
    excess = float(ufm.excess(exact, ufm.Problem(labels, H.shape[1], 0.2)))
    assert cell.attrs["excess_lower"] <= excess <= cell.attrs["excess_upper"]
    assert cell["history_excess"].values[-1] == pytest.approx(excess, rel=1e-9)
    assert cell["history_delta_gm"].values[-1] == pytest.approx(float(ufm.geometry_metrics(exact, labels).delta_gm))
    assert (np.diff(cell["blamed_sample_share"].values) <= 0).all()


def test_the_same_command_trains_nothing_again(trained, monkeypatch):
    out, requested = trained
    monkeypatch.setattr(train_network, "train_cell", lambda **_: 1 / 0)
    before = (out / "summary.csv").read_bytes()
    assert sweeps.run(train_network, *requested) == 0
    assert (out / "summary.csv").read_bytes() == before


def test_the_command_that_trains_one_network_alone(tmp_path):
    requested = ["--net", "mlp", "resnet18", "--R", "2", "4", "--seeds", "2", "--seed", "3", "--n-maj", "8"]
    config = command_line.parse(train_network.Config, requested)
    data = train_network.images_of(config)
    cells = train_network.cells_of(config, data, Store(tmp_path))
    assert len(cells) == len({cell.file for cell in cells}) == 8
    for cell in cells:
        config_of_cell = command_line.parse(train_network.Config, sweeps.arguments_of(cell.alone, train_network.MODULE))
        (again,) = train_network.cells_of(config_of_cell, train_network.images_of(config_of_cell), Store(tmp_path))
        assert again.file == cell.file


def recipe(**changes):
    inputs = {"net": "mlp", "width": 32, "activation": "relu", "tau": 0.2, "batching": "bound", "batch_size": 16}
    inputs |= {"loss": "scl", "augment": "crop", "views": 2, "schedule": Schedule(epochs=13), "seed": 1}
    return Recipe(**{**inputs, "record": 2, "checkpoint": 3, **changes})


def same(one, other):
    """Whether two cells agree in every number but seconds, to the last bit."""
    apart = {name: one.attrs[name] for name in one.attrs if not name.startswith("seconds")}
    assert apart == {name: other.attrs[name] for name in other.attrs if not name.startswith("seconds")}
    assert set(one.variables) == set(other.variables)
    return all(one[name].values.tobytes() == other[name].values.tobytes() for name in one.variables)


def test_a_run_that_is_stopped_at_ten_moments_changes_no_bit(tmp_path):
    data = networks.synthetic([12, 12, 4])
    whole, files = train_cell(recipe(), data, "whole", None, lambda ended: None)
    moments = [1, 2, 3, 4, 4, 6, 8, 10, 11, 12]
    stored = str(tmp_path / "state.npz")
    started = []
    for moment in moments:
        ended = []

        def stop(epochs, ended=ended, moment=moment):
            ended.append(epochs)
            if sum(ended) >= moment:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train_cell(recipe(), data, "whole", stored, stop)
        started.append(ended[0])
    assert started == [0, 0, 0, 3, 3, 3, 6, 6, 9, 9]
    result, again = train_cell(recipe(), data, "whole", stored, lambda ended: None)
    assert same(result, whole)
    assert again == files


SHORT = {"schedule": Schedule(epochs=4), "checkpoint": 2}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """What is kept of a network, its state and the images."""
    stored, data = tmp_path_factory.mktemp("kept") / "state.npz", networks.synthetic([8, 8, 4])
    train_cell(recipe(**SHORT), data, "one", str(stored), lambda ended: None)
    network, running = networks.build("mlp", data.train.shape, "relu", 32, 1)
    options = {"tau": 0.2, "schedule": Schedule(epochs=4), "seed": 1, "loss": "scl"}
    return stored.read_bytes(), networks.Training(
        network, running, data.train, **options, augment="crop", views=2
    ).start


@pytest.mark.parametrize("times", [200, pytest.param(2000, marks=pytest.mark.slow)])
def test_every_damage_of_a_checkpoint_is_said_and_training_begins_anew(tmp_path, checkpoint, times, capsys):
    content, start = checkpoint
    path, generator = tmp_path / "state.npz", np.random.default_rng(5)
    path.write_bytes(content)
    assert network_cells._read_checkpoint(path, start)[0] == 4
    path.rename(tmp_path / "other.npz")  # of another network of the same shape
    assert network_cells._read_checkpoint(tmp_path / "other.npz", start) == (0, start, {})
    for number in range(times):
        damaged, place = bytearray(content), int(generator.integers(len(content)))
        if number % 3 == 0:
            damaged[place] ^= 1 << int(generator.integers(8))
        elif number % 3 == 1:
            del damaged[place:]
        else:
            damaged[place] ^= 1
            damaged[place : place + 1000] = bytes(len(damaged[place : place + 1000]))
        path.write_bytes(damaged)
        assert network_cells._read_checkpoint(path, start) == (0, start, {}) or damaged == content
    said = capsys.readouterr().err.splitlines()
    assert len(said) == times + 1
    assert all(line.endswith((": its checksum does not hold", ": it belongs to another network")) for line in said)


@pytest.mark.parametrize("content", ["of another network", "no archive", "a directory"])
def test_a_sealed_checkpoint_that_is_none_begins_anew(tmp_path, checkpoint, content, capsys):
    (whole, start), path = checkpoint, tmp_path / "state.npz"
    if content == "of another network":
        train_cell(recipe(width=8, **SHORT), networks.synthetic([8, 8, 4]), "one", str(path), lambda ended: None)
    elif content == "no archive":
        path.write_bytes(sealed(whole[:-90]))
    else:
        path.mkdir()
    assert network_cells._read_checkpoint(path, start) == (0, start, {})
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EIO])
def test_a_network_is_trained_where_nothing_can_be_kept(tmp_path, monkeypatch, number, capsys):
    def fails(*_):
        raise OSError(number, "cannot")

    data = networks.synthetic([8, 8, 4])
    run = partial(train_cell, recipe(**SHORT), data, "one", progress=lambda ended: None)
    whole, _ = run(str(tmp_path / "nowhere" / "state.npz"))  # another machine's path is not made on this one
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(network_cells, "write_atomically", fails)
    if number == errno.ENOSPC:
        with pytest.raises(OSError, match="cannot"):
            run(str(tmp_path / "state.npz"))
        monkeypatch.setattr(workers, "_serving", True)
    capsys.readouterr()
    assert same(run(str(tmp_path / "state.npz"))[0], whole)
    assert capsys.readouterr().err == f"{tmp_path / 'state.npz'}: cannot; training continues without checkpoints\n"


@pytest.mark.slow
def test_kill_9_at_ten_moments_and_resume(tmp_path):
    """The command itself: ten times started and killed at a random moment, then left alone."""
    requested = [*map(str, SMALL), "--epochs", "5000", "--record", "1000", "--checkpoint", "20", "--R", "4"]
    command = [sys.executable, "-m", "experiments.train_network", *requested]
    stored = {**os.environ, "UFM_SCL_COMPILE_CACHE": str(tmp_path / "compiled")}
    run = {"cwd": ROOT, "env": stored, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([*command, "--out", str(tmp_path / "whole")], check=True, **run)
    random, known, reached = np.random.default_rng(0), 0.0, []
    for _ in range(10):
        with subprocess.Popen([*command, "--out", str(tmp_path / "killed")], **run) as process:
            while process.poll() is None:  # until it has gone on, so that the kill takes something away
                (path,) = [*(tmp_path / "killed").glob("checkpoints/*.npz")] or [None]
                if path is not None and path.stat().st_mtime > known:
                    break
                time.sleep(0.01)
            time.sleep(random.uniform(0, 0.5))
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
        known = path.stat().st_mtime
        with np.load(path) as checkpoint:
            reached.append(int(checkpoint["epoch"]))
    assert reached[0] > 0
    assert (np.diff(reached) > 0).all()
    assert reached[-1] < 5000
    subprocess.run([*command, "--out", str(tmp_path / "killed")], check=True, **run)
    cells = [next((tmp_path / name / "cells").glob("*.nc")).name for name in ("whole", "killed")]
    assert cells[0] == cells[1]
    assert same(*(Store(tmp_path / name).read_cell(f"cells/{cells[0]}") for name in ("whole", "killed")))


def test_accuracy_is_of_the_nearest_training_class_mean_averaged_over_classes():
    train = Samples(np.zeros((7, 1, 1, 1), np.uint8), np.array([0, 0, 0, 0, 1, 2, 2]))
    test = Samples(np.zeros((6, 1, 1, 1), np.uint8), np.array([0, 0, 0, 1, 2, 2]))
    H = np.eye(3)[train.labels]
    tested = np.eye(3)[[0, 0, 1, 1, 2, 0]]
    result = accuracies((H, tested), train, test)
    assert result["balanced"] == pytest.approx((2 / 3 + 1 + 1 / 2) / 3)
    assert result["majority"] == pytest.approx(2 / 3)
    assert result["minority"] == pytest.approx((1 + 1 / 2) / 2)


def test_class_sizes_count_from_the_largest_class():
    assert class_sizes("step", 4, 400, 10.0).tolist() == [400, 400, 40, 40]
    assert class_sizes("long-tail", 3, 100, 25.0).tolist() == [100, 20, 4]
    assert class_sizes("step", 2, 50, 50.0).tolist() == [50, 1]
    for R in (0.5, 51.0):
        with pytest.raises(ufm.InvalidInput, match="R = "):
            class_sizes("step", 2, 50, R)


BAD = {
    "net": ["--net", "vgg"],
    "activation": ["--activation", "relu", "tanh"],
    "batching": ["--batching", "random"],
    "R": ["--R", "1000"],
    "tau": ["--tau", "0"],
    "epochs": ["--epochs", "0"],
    "batch_size": ["--batch-size", "1"],
    "m-per-class": ["--batching", "m-per-class", "--batch-size", "9"],
    "k": ["--k", "11"],
    "rate": ["--rate", "nan"],
    "momentum": ["--momentum", "1.5"],
    "width": ["--width", "1"],
    "seed": ["--seed", "-1"],
    "seeds": ["--seeds", "0"],
    "no data": ["--dataset", "cifar10"],
    "no such data": ["--dataset", "mnist", "--data", "nowhere"],
    "data of nothing": ["--data", "."],
    "dask": ["--dask", "local:0"],
    "dataset": ["--dataset", "imagenet"],
    "views": ["--views", "3"],
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_writes_nothing(case, tmp_path, capsys):
    out = tmp_path / "out"
    assert sweeps.run(train_network, *BAD[case], "--out", out) == command_line.BAD_INPUT
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert not out.exists()


def row(activation, delta_gm):
    return {"activation": activation, "delta_gm": str(delta_gm)}


VERDICTS = {
    "all": ([row("relu", 0.02), row("relu", 0.05)], 0, True, "2 of 2 networks with nonnegative features ended in an"),
    "one is none": ([row("relu", 0.02), row("relu", 0.5)], 0, False, "1 of 2 networks with nonnegative features"),
    "NaN": ([row("relu", "nan")], 0, False, "0 of 1"),
    "one failed": ([row("relu", 0.02)], 1, False, "1 of 2 networks failed. 1 of 1"),
    "unconstrained": ([row("gelu", 0.7)], 0, True, "0 of 1 networks with unconstrained features"),
}


@pytest.mark.parametrize("case", VERDICTS)
def test_the_verdict(case):
    rows, failed, good, said = VERDICTS[case]
    result = judged(rows, failed)
    assert result[0] is good
    assert result[1].startswith(said)


def test_the_page_says_how_the_same_is_asked_at_the_papers_size(trained):
    out, _ = trained
    page = html.unescape((out / "report.html").read_text())
    said = page.split("are not known. Its command: ")[1].split("The full tables:")[0]
    config = command_line.parse(train_network.Config, sweeps.arguments_of(said, train_network.MODULE))
    assert (config.net, config.n_maj, config.epochs) == (("resnet18", "densenet40"), 5000, 350)
    assert set(config.activation) == {"relu", "none"}


def test_figures_tell_settings_apart_and_take_seeds_together(trained):
    from figures import style, training, training_gram

    out, _ = trained
    cells = [xr.load_dataset(path, engine="h5netcdf") for path in sorted((out / "cells").glob("*.nc"))]
    cells = [cell.assign_attrs(seed=seed) for cell in cells for seed in (0, 1)]
    assert [*training.settings(cells)] == ["none", "relu"]
    for module in (training, training_gram):
        assert style.rendered(module.draw(cells))["png"].startswith(b"\x89PNG")
    assert set(RECORDED) >= {name for name, _ in training.PANELS}


def test_wrong_labels_are_planted_as_asked_and_looked_for(tmp_path):
    requested = [*SMALL, "--R", 4, "--label-noise", 0.1, "--out", tmp_path]
    sweeps.run(train_network, *requested)
    (summary,) = sweeps.rows(tmp_path / "summary.csv")
    for name in ("found_by_blame", "found_by_distance"):
        assert 0 <= float(summary[name]) <= 1
        assert float(summary[name]) * 6 == pytest.approx(round(float(summary[name]) * 6))  # 10% of 60 images
    assert sweeps.run(train_network, *requested, "--activation", "gelu") == command_line.BAD_INPUT


def test_what_is_looked_for_is_found_where_it_stands_out():
    labels = np.repeat([0, 1, 2], [20, 20, 10])
    inputs, planted = networks.mislabelled(Samples(np.zeros((50, 2, 2, 1), np.uint8), labels), 0.06, 4)
    assert len(planted) == 3
    assert (inputs.labels != labels).nonzero()[0].tolist() == planted.tolist()
    H = np.eye(4)[labels]  # a network that sees the images and not the labels
    result = autopsy(H, ufm.Problem(inputs.labels, 4, 0.2), planted)
    assert result == {"found_by_blame": 1.0, "found_by_distance": 1.0}
    other = autopsy(H, ufm.Problem(inputs.labels, 4, 0.2), np.array([0, 1, 2]))
    assert other["found_by_blame"] < 1


def test_activations_that_are_never_negative_exist():
    x = jnp.linspace(-50, 50, 2001)
    signs = {name: bool(np.asarray(f(x)).min() >= 0) for name, f in networks.ACTIVATIONS.items()}
    assert {name for name, nonneg in signs.items() if nonneg} == NONNEGATIVE
