"""Workers of dask: of other sources, without write access, none at all, and a scheduler that is killed."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from experiments.harness import command_line, engine, sweep, workers
from solvers.compilation import disk_cache
from ufm import InvalidInput

ROOT = Path(__file__).parents[1]


def doubled(number, progress, pause=0.0):
    time.sleep(pause)
    if number == 2:
        raise OSError(28, "No space left on device")
    return 2 * number, workers.is_worker(), disk_cache._directory is not None


def test_a_worker_says_what_it_computes_with():
    """The hash is that of what stands there: another function, another file and another version are others."""
    result = workers.surroundings()
    assert set(workers.LIBRARIES) | {"python", "machine", "system", "sources"} == set(result)
    assert result == workers.surroundings()
    assert {name: result[name] for name in result if name != "sources"} == sweep.versions()


def test_whatever_differs_is_refused_in_one_line_that_names_the_worker():
    expected = workers.surroundings()
    workers._check("a:1", "tcp://b:2", expected, expected)
    for name in expected:
        for other in ({**expected, name: "other"}, {key: expected[key] for key in expected if key != name}):
            with pytest.raises(InvalidInput, match="worker tcp://b:2 computes with ") as refused:
                workers._check("a:1", "tcp://b:2", other, expected)
            assert name in str(refused.value)
            assert "\n" not in str(refused.value)


@contextlib.contextmanager
def process(*words, **options):
    with subprocess.Popen([sys.executable, "-m", *map(str, words)], stderr=subprocess.DEVNULL, **options) as started:
        try:
            yield started
        finally:
            started.kill()


@contextlib.contextmanager
def scheduler():
    """The address, and the process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard", "--no-show")
    with process(*words) as started:
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.1)
        yield f"127.0.0.1:{port}", started


def worker(address, folder, path=ROOT):
    """One that is started by hand, with the package that lies in `path`."""
    surroundings = {**os.environ, "PYTHONPATH": os.pathsep.join([str(path), str(ROOT / "tests")])}
    surroundings["UFM_SCL_COMPILE_CACHE"] = str(folder / "compiled")
    words = ("distributed.cli.dask_worker", address, "--no-nanny", "--nthreads", 1, "--no-dashboard")
    return process(*words, "--local-directory", folder, env=surroundings, cwd=folder)


def jobs(count=4, **options):
    return [engine.Job(f"job {number}", doubled, {"number": number, **options}) for number in range(count)]


@pytest.mark.thorough
def test_a_worker_of_other_sources_is_refused_and_one_of_the_same_computes(tmp_path):
    other = tmp_path / "other"
    for name in workers.PACKAGES:
        shutil.copytree(ROOT / name, other / name, ignore=shutil.ignore_patterns("__pycache__"))
    with (other / "experiments" / "measurements" / "solutions.py").open("a") as file:
        file.write("\n\ndef describe(verification):\n    return ''\n")
    with scheduler() as (address, _):
        with worker(address, tmp_path, other), pytest.raises(InvalidInput) as refused:
            list(engine.run(jobs(), address))
        line = str(refused.value)
        assert line.startswith(f"dask = '{address}': worker tcp://127.0.0.1:")
        assert "computes with other sources; install the same there" in line
        (other / "experiments" / "harness" / "workers.py").unlink()  # as of an older version
        with worker(address, tmp_path, other), pytest.raises(InvalidInput, match="computes with other sources"):
            list(engine.run(jobs(), address))
        with worker(address, tmp_path):
            ended = {end.job.name: end for end in engine.run(jobs(), address)}
    assert [ended[f"job {number}"].value for number in (0, 1, 3)] == [(0, True, True), (2, True, True), (6, True, True)]
    assert str(ended["job 2"].error) == "[Errno 28] No space left on device"  # of a worker: it ends no command


@pytest.mark.thorough
def test_no_worker_is_said_and_given_up(capfd, monkeypatch):
    monkeypatch.setattr(workers, "PATIENCE", 5.0)
    monkeypatch.setattr(sys, "argv", ["sweep", "--fresh", "--R", "1"])
    with scheduler() as (address, _), pytest.raises(SystemExit) as stopped:
        command_line.run(lambda: len(list(engine.run(jobs(), address))))
    assert stopped.value.code == 2
    first, second = capfd.readouterr().err.splitlines()
    assert first == f"{address}: no worker there yet; start one, gives up after 5 s"
    end = f"finished cells are stored, and the same command continues from them: {command_line.invocation()}"
    assert end.endswith(" --R 1")
    assert second == f"sweep: {address}: no worker for 5 s; {end}"


@pytest.mark.thorough
def test_a_scheduler_that_is_killed_is_one_line(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["sweep", "--R", "1"])
    with scheduler() as (address, started), worker(address, tmp_path):
        threading.Thread(target=partial(_kill_later, started, 6.0)).start()
        with pytest.raises(SystemExit) as stopped:
            command_line.run(lambda: len(list(engine.run(jobs(400, pause=0.5), address))))
    assert stopped.value.code == 2
    (line,) = capfd.readouterr().err.splitlines()
    end = f"finished cells are stored, and the same command continues from them: {command_line.invocation()}"
    assert end.endswith(" --R 1")
    assert line == f"sweep: {address}: the scheduler is lost; {end}"


def _kill_later(started, seconds):
    time.sleep(seconds)
    started.send_signal(signal.SIGKILL)
