"""Commands wherever --out lies and whatever the environment holds: the same files, the path as it is, no traceback."""

import dataclasses
import html
import os
import shlex
import subprocess
import sys
from functools import partial

import pytest
import sweeps
from rich.console import Console
from stub_sweep import stub

from experiments import cells, report, sweep, sweep_imbalance

SMALL = ["--R", "1", "--k", "3", "--n-min", "2", "--d", "4", "--inits", "2"]
PATHS = ["[tau=0.1]", "a[/b]", "[red]", "my runs", "it's [@click=x] \\[bold]", ":smile:", "-x", "http:"]


@pytest.fixture
def stubbed(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep_imbalance, "measure_problem", partial(stub, log=tmp_path / "log", pause=0, failing=()))
    monkeypatch.setattr(sweep_imbalance, "KIND", dataclasses.replace(sweep_imbalance.KIND, drawings={}))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("path", PATHS)
def test_a_path_is_printed_as_it_is_and_its_commands_can_be_run(stubbed, tmp_path, capsys, path):
    assert sweeps.run(sweep_imbalance, *SMALL, f"--out={path}") == 0
    said = capsys.readouterr().out.splitlines()
    page = os.path.join(path, "report.html")
    assert said[-2] == f"Tables, cells, certificates and figures are in {path}, all on one page in {page}"
    command = said[-1].split(": ", 1)[1]
    page = html.unescape((tmp_path / path / "report.html").read_text())
    assert command in page
    for asked in (command, next(line for line in page.split("<code>") if "start000" in line).split("</code>")[0]):
        listed = subprocess.run(
            ["bash", "-c", f'ufm-check() {{ ls "$@"; }}; {asked}'], capture_output=True, check=False
        )
        assert listed.returncode == 0, listed.stderr
        assert b"start000.json" in listed.stdout
    assert shlex.split(command)[0] == "ufm-check"


def test_messages_are_no_markup(capsys):
    console = Console(width=200, force_terminal=False)
    cell = cells.Cell("a", stub, {}, title="[b]", alone="run --out '[/c]'")
    cells.print_failure(cell, ValueError("no [red] [/d]"), console)
    sweep.print_verdict("all [e] [/f]", report.Path("[g]"), console, certificates=False)
    said = capsys.readouterr().out
    for word in ("[b]: ValueError: no [red] [/d]", "alone: run --out '[/c]'", "all [e] [/f]", "are in [g]"):
        assert word in said


PROGRAM = """
import sys; from functools import partial
from stub_sweep import stub
from experiments import command_line, sweep_imbalance
sweep_imbalance.measure_problem = partial(stub, log=sys.argv[1], pause=0, failing=())
command_line.run(partial(sweep_imbalance.main, sys.argv[2:]))
"""


def test_an_environment_that_fits_nothing(tmp_path):
    """A backend of matplotlib's that does not exist, an output in ASCII, and a path that is neither that nor UTF-8."""
    out = os.path.join(os.fsencode(tmp_path), b"\xff \xc3\xa9")
    surroundings = {"MPLBACKEND": "nonsense", "PYTHONIOENCODING": "ascii", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", PROGRAM, tmp_path / "log", *SMALL, "--out", out]
    done = subprocess.run(command, capture_output=True, check=False, env={**os.environ, **surroundings})
    assert done.returncode == 0, done.stderr.decode()
    assert done.stderr == b""
    assert b"\\udcff \\xe9/report.html" in done.stdout
    assert {b"report.html", b"config.json", b"summary.csv", b"inits.csv", b"cells", b"certificates", b"figures"} == set(
        os.listdir(out)
    )
