"""Cells in this process and on workers: the same results; failures and lost workers stop nothing."""

import csv
import errno
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from experiments import sweep_imbalance
from experiments.harness import command_line, engine
from ufm import InvalidInput

SMALL = ["--k", "4", "--n-min", "2", "--d", "6", "--inits", "3"]


def doubled(number, progress):
    if number == 2:
        raise ArithmeticError("two")
    progress(1)
    return 2 * number


def jobs(progress):
    return [engine.Job(f"job {number}", doubled, {"number": number}, 1, progress) for number in range(4)]


def test_here():
    message = []
    ended = list(engine.run(jobs(message.append)))
    assert [end.value for end in ended] == [0, 2, None, 6]
    assert [str(end.error) for end in ended] == ["None", "None", "two", "None"]
    assert message == [1, 1, 1]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_ends_the_run(number):
    def full(progress):
        raise OSError(number, "full")

    job = engine.Job("full", full, {})
    with pytest.raises(OSError, match="full"):
        list(engine.run([job]))


@pytest.mark.parametrize("address", ["local", "local:0", "local:-1", "local:x", "", "nowhere", "host:port", "a b:1"])
def test_engines_that_do_not_exist(address):
    with pytest.raises(InvalidInput, match="dask = "):
        engine.check(address)


def test_without_dask_that_is_said_before_anything_is_done(monkeypatch):
    monkeypatch.setattr(engine.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InvalidInput, match="dask = 'local:2': dask is not installed"):
        engine.check("local:2")
    engine.check(None)


@pytest.mark.parametrize("address", [None, "local:4", "127.0.0.1:8786", "tcp://node-7:8786"])
def test_engines_that_may_exist(address):
    engine.check(address)


@pytest.mark.slow
def test_no_scheduler_is_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        command_line.run(
            lambda: sweep_imbalance.main(["--R", "1", *SMALL, "--dask", "127.0.0.1:9", "--out", str(tmp_path)])
        )
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "dask = '127.0.0.1:9'" in line


def rows(path):
    with path.open(newline="") as file:
        return [{name: row[name] for name in row if not name.startswith("seconds")} for row in csv.DictReader(file)]


@pytest.mark.slow
def test_two_workers_of_which_one_is_killed(tmp_path):
    """The summary of an undisturbed run here; without intervention."""
    sweep = [sys.executable, "-m", "experiments.sweep_imbalance", "--R", "1", "3", "5", "8", *SMALL]
    here, there = tmp_path / "here", tmp_path / "there"
    stored = {**os.environ, "UFM_SCL_COMPILE_CACHE": str(tmp_path / "compiled")}
    assert subprocess.run([*sweep, "--out", here], capture_output=True, check=False, env=stored).returncode == 0
    with subprocess.Popen([*sweep, "--dask", "local:2", "--out", there], stdout=subprocess.PIPE, env=stored) as process:
        workers = []
        while not list(there.glob("cells/*.sha256")):
            workers = _workers(process.pid) or workers
            assert process.poll() is None
            time.sleep(0.1)
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        said = process.stdout.read().decode()
        assert process.wait() == 0, said
    assert "Theorem 1 is reproduced" in said
    assert rows(there / "summary.csv") == rows(here / "summary.csv")
    assert (there / "inits.csv").read_bytes() == (here / "inits.csv").read_bytes()
    assert {path.name for path in there.rglob("*")} == {path.name for path in here.rglob("*")}


def _workers(parent):
    """Ids of the worker processes below a process, busy ones first."""
    result = []
    for child in psutil.Process(parent).children(recursive=True):
        try:
            line = child.cmdline()
            if any("spawn_main" in word for word in line):
                result.append((-sum(child.cpu_times()[:2]), child.pid))
        except psutil.Error:
            continue
    return [pid for _, pid in sorted(result)]
