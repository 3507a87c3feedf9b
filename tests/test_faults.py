"""Sweeps that are killed, stopped, or have a cell that raises: what is done is kept, and is done once."""

import collections
import csv
import os
import random
import shlex
import shutil
import signal
import time

import pytest
from stub_sweep import Sweeps

from experiments.harness import command_line
from experiments.harness.store import Store

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory):
    with Sweeps(tmp_path_factory.mktemp("said")) as sweeps:
        yield sweeps


def arguments(cells, out):
    return ["--R", *range(1, cells + 1), "--k", 3, "--n-min", 2, "--d", 4, "--inits", 2, "--out", out]


def without_seconds(path):
    with path.open(newline="") as file:
        return [{name: row[name] for name in row if not name.startswith("seconds")} for row in csv.DictReader(file)]


def stored(out):
    """R of every complete cell."""
    cells = [Store(out).read_cell(f"cells/{path.name}") for path in (out / "cells").glob("*.nc")]
    return {float(cell.attrs["R"]) for cell in cells if cell is not None}


@pytest.mark.parametrize(
    ("directories", "kills", "cells"), [(1, 5, 6), pytest.param(100, 1, 40, marks=pytest.mark.slow)]
)
def test_killed_at_random_moments(sweeps, tmp_path, directories, kills, cells):
    generator = random.Random(11)
    for _ in range(2):  # the second compiles nothing, as those that follow
        began = time.perf_counter()
        assert sweeps.run(*arguments(cells, tmp_path / "undisturbed"), "--fresh") == 0
        lasts = time.perf_counter() - began
        assert sweeps.computed() == list(range(1, cells + 1))
    expected = without_seconds(tmp_path / "undisturbed" / "summary.csv")
    cells_stored = collections.Counter()
    for number in range(directories):
        out = tmp_path / str(number)
        done, killed = set(), 0
        while killed < kills:
            process = sweeps.start(*arguments(cells, out))
            time.sleep(generator.uniform(0, lasts))
            os.kill(process, signal.SIGKILL)
            if sweeps.end() == 0:  # too late
                sweeps.computed()
                shutil.rmtree(out)
                done = set()
                continue
            killed += 1
            computed = sweeps.computed()
            assert not done & set(computed)
            assert len(set(computed)) == len(computed)
            saved = stored(out)
            assert done <= saved
            assert len(set(computed) - saved) <= 1  # the cell that was being computed or written
            done = saved
            cells_stored[len(saved)] += 1
        assert sweeps.run(*arguments(cells, out)) == 0
        assert sorted(sweeps.computed()) == sorted(set(range(1, cells + 1)) - done)
        assert without_seconds(out / "summary.csv") == expected
        inits = (tmp_path / "undisturbed" / "inits.csv").read_bytes()
        assert (out / "inits.csv").read_bytes() == inits
        assert not list(out.rglob("*.part"))
        assert not (out / ".lock").exists()
        shutil.rmtree(out)
    print(f"kills by cells stored, of {cells}: {sorted(cells_stored.items())}; undisturbed: {lasts:.1f} s")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_stopped(sweeps, tmp_path, number, status):
    process = sweeps.start(*arguments(3, tmp_path), "--fresh", pause=0.5)
    while len(list(tmp_path.glob("cells/*.sha256"))) < 1:
        time.sleep(0.02)
    os.kill(process, number)
    assert sweeps.end() == status
    last = sweeps.said.read_text().splitlines()[-1]
    assert last.startswith("stopped; finished cells are stored, and the same command continues from them: ")
    assert last.endswith(f"--inits 2 --out {tmp_path}")  # without --fresh
    assert not (tmp_path / ".lock").exists()
    done = stored(tmp_path)
    assert done
    sweeps.computed()
    assert sweeps.run(*arguments(3, tmp_path)) == 0
    assert set(sweeps.computed()) == {1, 2, 3} - done


def test_a_cell_that_raises_is_reported_and_the_others_go_on(sweeps, tmp_path):
    assert sweeps.run(*arguments(3, tmp_path), failing=[2.0]) == 1
    assert sweeps.computed() == [1, 2, 3]
    said = sweeps.said.read_text()
    assert "failed  R = 2, n = 10: ArithmeticError: no cell for R = 2.0\n" in said
    program = shlex.join(command_line.program("experiments.sweep_imbalance"))
    command = f"{program} --R 2 --k 3 --n-min 2 --d 4 --inits 2 --out {tmp_path}"
    assert f"alone: {command}\n" in said
    assert "1 of 3 cells failed" in said
    assert f"all on one page in {tmp_path}/report.html\n" in said
    assert [row["R"] for row in without_seconds(tmp_path / "summary.csv")] == ["1", "3"]
    assert "1 of 3 cells failed" in (tmp_path / "report.html").read_text()
    assert sweeps.run(*command.removeprefix(program).split()[:-1], tmp_path / "alone", failing=[2.0]) == 1
    assert sweeps.computed() == [2]
    assert not (tmp_path / "alone" / "summary.csv").exists()


def test_a_second_process_is_refused_in_one_line(sweeps, tmp_path):
    with Store(tmp_path).alone():
        assert sweeps.run(*arguments(1, tmp_path)) == 2
    assert sweeps.computed() == []
    (line,) = sweeps.said.read_text().splitlines()
    assert f": process {os.getpid()} on " in line
    assert ": out = '" in line
