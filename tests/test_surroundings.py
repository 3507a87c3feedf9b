"""Commands wherever --out lies and whatever the environment holds: the same files, the path as it is, no traceback."""

import dataclasses
import html
import os
import shlex
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import sweeps
import xarray as xr
from rich.console import Console
from stub_sweep import stub

from experiments import sweep_imbalance
from experiments.harness import cells, command_line, sweep
from experiments.harness.store import Store
from experiments.reports import page as report

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
    program = shlex.join(command_line.program("ufm_check.check"))
    page = html.unescape((tmp_path / path / "report.html").read_text())
    assert command in page
    for line in (command, next(code for code in page.split("<code>") if "start000" in code).split("</code>")[0]):
        line = line.replace(program, "ls", 1)
        listed = subprocess.run(["bash", "-c", line], capture_output=True, check=False)
        assert listed.returncode == 0, listed.stderr
        assert b"start000.json" in listed.stdout
    assert command.startswith(f"{program} ")


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
from experiments import sweep_imbalance; from experiments.harness import command_line
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


@pytest.mark.thorough
def test_an_output_that_nobody_reads_ends_the_command_without_a_word(tmp_path):
    """As `--help | head` does: neither a traceback nor a file that is called broken."""
    for arguments in (["--help"], [*SMALL, "--out", tmp_path / "out"]):
        read, write = os.pipe()
        os.close(read)
        command = [sys.executable, "-c", PROGRAM, tmp_path / "log", *arguments]
        path = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, check=False, env=path)
        os.close(write)
        assert (done.returncode, done.stderr) == (141, b"")
    assert sorted(path.suffix for path in (tmp_path / "out" / "cells").iterdir()) == [".nc", ".sha256"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "not enough memory; finished"),
        (BrokenPipeError(32, "Broken pipe", "a:1"), "a:1: Broken pipe; fin"),
    ],
)
def test_other_errors_of_the_system_are_one_line(error, said, capsys):
    def main():
        raise error

    with pytest.raises(SystemExit) as stopped:
        command_line.run(main)
    assert stopped.value.code == command_line.BAD_INPUT
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_nothing_of_another_configuration_stays_beside_the_new_one(stubbed, tmp_path, monkeypatch):
    out = tmp_path / "out"
    assert sweeps.run(sweep_imbalance, *SMALL, "--out", out) == 0
    (out / "notes.txt").write_text("mine")
    before = {path.name for path in out.iterdir()}
    report_of_one = (out / "report.html").read_bytes()
    assert sweeps.run(sweep_imbalance, *SMALL, "--out", out) == 0
    assert (out / "report.html").read_bytes() == report_of_one

    def fails(*_, **__):
        raise ArithmeticError

    with monkeypatch.context() as patched:
        patched.setattr(sweep_imbalance, "measure_problem", fails)
        assert sweeps.run(sweep_imbalance, *SMALL, "--tau", "2", "--out", out) == 1
    assert before - {path.name for path in out.iterdir()} == {"report.html", "summary.csv", "inits.csv"}
    assert (out / "notes.txt").read_text() == "mine"


def counted(*, parts, progress):
    for _ in range(parts):
        progress(1)
    return xr.Dataset({"parts": parts}), {}


def test_what_is_found_and_progress_are_lines_of_a_log(tmp_path, monkeypatch, capsys):
    asked = [cells.Cell(f"c{parts}", counted, {"parts": parts}, parts=parts) for parts in (2, 3)]

    def run(which):
        console = Console(width=200, force_terminal=False)
        cells.run_cells(which, Store(tmp_path), console, "starts", fresh=False, dask=None)
        return capsys.readouterr().out

    monkeypatch.setattr(cells, "EVERY", 1000.0)
    assert "cells found" not in run(asked[:1])
    monkeypatch.setattr(cells, "EVERY", 0.0)
    said = run(asked)
    assert "1 of 2 cells found, 1 to run\n" in said
    for ended in (3, 4, 5):
        assert f"{ended} of 5 starts, 0 s: c3\n" in said
    assert "2 of 2 cells found, 0 to run\n" in run(asked)


def test_numbers_of_many_digits_are_short_in_names_and_distinct():
    near = np.nextafter(500 / 3, np.inf, dtype=float)
    assert cells.cell_name(10, 0.01, "x") == "R10-tau0.01-x"
    assert cells.cell_name(123456789012, 1234.5678) == "R123456789012-tau1234.5678"
    names = {cells.cell_name(R, 1) for R in (500 / 3, float(near), 166.667, 1e-5 / 3)}
    assert len(names) == 4
    assert all(len(name) < 26 for name in names)
    assert cells.cell_name(str(500 / 3), "1") == cells.cell_name(500 / 3, 1)  # from a table
