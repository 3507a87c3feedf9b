"""Commands that are printed run as they are pasted into a shell of a user who has activated nothing."""

import html
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import sweeps

from experiments import sweep_batching, sweep_imbalance, train_network
from experiments.harness import cells, command_line

ROOT = Path(__file__).parents[1]
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]


def pasted(command, folder):
    """What a fresh shell in a folder prints, where packages and programs called as ours lie about."""
    for name in ("experiments", "solvers", "ufm"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "__init__.py").write_text("raise SystemExit('not this one')")
    clean = {"PATH": os.defpath, "HOME": str(folder), "UFM_SCL_COMPILE_CACHE": "off"}
    done = subprocess.run(["bash", "-c", command], cwd=folder, env=clean, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("name", [*SCRIPTS])
def test_the_name_of_a_console_command_follows_from_its_module(name):
    module = SCRIPTS[name].partition(":")[0]
    assert Path(command_line.program(module)[0]) == Path(sys.executable).with_name(name)


def test_where_it_is_not_installed_the_module_is_run(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "my python"))
    assert command_line.program("ufm_check.check") == [str(tmp_path / "my python"), "-m", "ufm_check.check"]


@pytest.mark.parametrize("variable", ["VIRTUAL_ENV", "CONDA_PREFIX", None])
def test_its_directory_is_left_out_where_every_shell_finds_it(tmp_path, monkeypatch, variable):
    """An activated environment is on the path of this shell, and of no other."""
    script = tmp_path / "ufm-check"
    script.touch(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(sys, "prefix", "/prefix")
    monkeypatch.setenv("PATH", str(tmp_path))
    for other in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        monkeypatch.delenv(other, raising=False)
    if variable:
        monkeypatch.setenv(variable, "/prefix")
    assert command_line.program("ufm_check.check") == [str(script) if variable else "ufm-check"]


def test_the_checker_is_found_from_any_folder(tmp_path):
    said = pasted(shlex.join(command_line.program("ufm_check.check")), tmp_path)
    assert said[0] == 2
    assert "usage: " in said[1]


@pytest.mark.thorough
@pytest.mark.parametrize("name", [name for name in SCRIPTS if name != "ufm-check"])
def test_every_command_is_found_from_any_folder(name, tmp_path):
    status, said = pasted(shlex.join([*command_line.program(SCRIPTS[name].partition(":")[0]), "--help"]), tmp_path)
    assert status == 0, said
    assert "--out" in said


TINY = {
    sweep_imbalance: ["--R", "1", "--k", "2", "--n-min", "2", "--d", "2", "--inits", "1"],
    sweep_batching: [
        "--R",
        "1",
        "--k",
        "2",
        "--n",
        "8",
        "--d",
        "4",
        "--batch-size",
        "4",
        "--partitions",
        "1",
        "--inits",
        "1",
    ],
    train_network: [
        "--n-maj",
        "8",
        "--epochs",
        "1",
        "--R",
        "2",
        "--width",
        "4",
        "--net",
        "mlp",
        "--activation",
        "relu",
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("sweep", TINY)
def test_what_a_sweep_prints_runs_with_spaces_in_its_path(sweep, tmp_path, monkeypatch, capsys):
    """The command of a cell that failed, the one to go on with, and the checks on the screen and on the page."""
    out = tmp_path / "my runs" / "it's one"
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)  # of pytest
    monkeypatch.setattr(sys, "argv", [command_line.program(sweep.MODULE)[0], *TINY[sweep], "--out", str(out)])
    assert sweeps.run(sweep, *TINY[sweep], "--out", out) in (0, 1)
    said = capsys.readouterr().out
    commands = re.findall(r"^Check a certificate .*?: (.*)$", said, re.MULTILINE)
    commands += [html.unescape(line) for line in re.findall(r"<code>(\S*ufm-check.*?)</code>", _page(out))]
    monkeypatch.setattr(cells.Cell, "compute", property(lambda cell: _failing, lambda cell, value: None), raising=False)
    assert sweeps.run(sweep, *TINY[sweep], "--out", out, "--fresh") == 1
    commands += re.findall(r"^        alone: (.*)$", capsys.readouterr().out, re.MULTILINE)[:1]
    commands.append(command_line.invocation())
    assert len(commands) >= (2 if sweep is train_network else 4)
    for command in commands:
        status, printed = pasted(command, tmp_path)
        assert status in (0, 1), (command, printed)
        assert "Traceback" not in printed
        assert "PROVED" in printed or f"are in {out}" in printed
    assert json.loads((out / "config.json").read_text())["config"]["out"] == str(out)


def _failing(**_):
    raise ArithmeticError("no cell")


def _page(out):
    return (out / "report.html").read_text()


def test_a_limit_of_memory_that_is_too_small_is_one_line():
    """XLA would end the process by an abort."""
    code = "import sys; from experiments.harness import command_line; command_line.run(lambda: 0)"
    done = subprocess.run(
        ["bash", "-c", f"ulimit -v 1500000; exec {shlex.quote(sys.executable)} -c {shlex.quote(code)}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "-c: ulimit -v = 1500000: give at least 3000000 (3.072 GB)\n"
