"""Compiled functions survive the process, where the user wants them to."""

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest
from damage import damages

from experiments.harness import compile_cache

PROGRAM = """
from experiments.harness import compile_cache
path = compile_cache.enable()
from solvers.compilation.compiled import Compiled, compile_seconds
from solvers.loop.method import begin_slots
from solvers.methods.accelerated import Accelerated
from ufm import Problem
import numpy as np
problem = Problem([0, 0, 1, 1], 2)
Compiled(begin_slots)(np.ones((2, 4, 2)) / 2, np.ones(2), np.ones(2, np.int32), problem, method=Accelerated())
files = 0 if path is None else len(list(path.iterdir()))
print(files, compile_seconds())
"""


def started(**environment):
    """Files in the cache and seconds of compiling, of a process that compiles one function."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    files, seconds = done.stdout.split()
    return int(files), float(seconds)


def test_a_second_start_compiles_nothing_again(tmp_path):
    cold, seconds = started(UFM_SCL_COMPILE_CACHE=str(tmp_path))
    assert cold > 0
    warm, again = started(UFM_SCL_COMPILE_CACHE=str(tmp_path))
    assert warm == cold
    assert again < seconds


@pytest.mark.parametrize("times", [50, pytest.param(2000, marks=pytest.mark.thorough)])
def test_no_damage_of_a_compiled_function_is_read(tmp_path, times, caplog):
    store, value = compile_cache.SealedCache(tmp_path), bytes(range(256)) * 16
    assert store.get("key") is None
    store.put("key", value)
    (file,) = tmp_path.iterdir()
    for damaged in damages(file.read_bytes(), times):
        file.write_bytes(damaged)
        assert store.get("key") is None
    assert len(caplog.records) == times
    store.put("key", value)
    assert store.get("key") == value
    file.unlink()
    file.mkdir()
    assert store.get("key") is None
    store.put("key", value)


def test_a_damaged_compiled_function_is_said_in_one_line_and_made_anew(tmp_path):
    """Under jax's own cache it warned in two lines at every start, and stayed as it was."""
    started(UFM_SCL_COMPILE_CACHE=str(tmp_path))
    files = list(tmp_path.glob("jax-*/*-sealed"))
    whole = {file: file.read_bytes() for file in files}
    assert files
    assert not list(tmp_path.glob("jax-*/*-cache"))
    for number, (file, content) in enumerate(whole.items()):
        file.write_bytes(list(damages(content, number + 1))[-1])
    environment = {**os.environ, "UFM_SCL_COMPILE_CACHE": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, env=environment)
    lines = done.stderr.splitlines()
    assert sorted(lines) == sorted(f"{file}: a compiled function, made anew (damaged)" for file in files)
    started(UFM_SCL_COMPILE_CACHE=str(tmp_path))


def test_off_and_unwritable(tmp_path):
    assert started(UFM_SCL_COMPILE_CACHE="off")[0] == 0
    (tmp_path / "file").write_text("")
    assert started(UFM_SCL_COMPILE_CACHE=str(tmp_path / "file"))[0] == 0


def test_a_user_without_a_home_has_no_cache(monkeypatch):
    """As in containers, whose users have a number and neither a name nor HOME."""
    for name in ("HOME", "XDG_CACHE_HOME", "UFM_SCL_COMPILE_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", lambda number: {}[number])
    with pytest.raises(RuntimeError):
        Path.home()
    assert compile_cache.directory() is None
    assert compile_cache.enable() is None


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"UFM_SCL_COMPILE_CACHE": "/a"}, "/a"),
        ({"UFM_SCL_COMPILE_CACHE": "", "XDG_CACHE_HOME": "/b"}, "/b/ufm-scl"),
        ({"UFM_SCL_COMPILE_CACHE": "", "XDG_CACHE_HOME": "", "HOME": "/c"}, "/c/.cache/ufm-scl"),
    ],
)
def test_where(monkeypatch, environment, expected):
    monkeypatch.setattr(sys, "platform", "linux")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert str(compile_cache.directory().parent) == expected
