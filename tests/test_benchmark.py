"""The benchmark: a cell is one peer at one R, what is measured is kept, and the limit is that of a cell."""

import collections
import time

import numpy as np
import pytest
import sweeps

from experiments import benchmark
from experiments.harness import command_line
from experiments.harness.store import Store
from experiments.measurements import peers

ARGUMENTS = ["--R", "2", "3", "--k", "3", "--n-min", "2", "--d", "4", "--growth", "2", "3", "--stochastic", "2", "3"]


@pytest.fixture
def measured(monkeypatch):
    """Names of the cells that were begun; the function in `stop` is called with each."""
    begun, stop = [], {}

    def stub(table):
        def measure(R, peer="", **_):
            begun.append((table, peer, R))
            stop.get("call", lambda: None)()
            row = {"peer": peer, "R": R, "n": 4, "start": 0, "reached": peer != "adam", "seconds": R, "iterations": 3}
            grown = {"R": R, "n": 4, "seconds_solve": 1.0}
            return benchmark._cell([grown if table == "growth" else row])

        return measure

    for table in benchmark.TABLES:
        monkeypatch.setitem(benchmark.MEASURED, table, stub(table))
    return begun, stop


@pytest.mark.thorough
def test_stopped_at_twenty_moments_and_resumed_nothing_is_measured_twice(tmp_path, measured, capsys):
    begun, stop = measured

    def interrupt():
        if len(begun) == at:
            raise KeyboardInterrupt

    stop["call"] = interrupt
    cells = 2 * len(peers.PEERS) + 4
    interrupted = collections.Counter()
    for moment in range(20):  # every run goes one cell further
        before, at = len(begun), 2 * moment + 1
        status = sweeps.run(benchmark, *ARGUMENTS, "--out", tmp_path)
        assert status == 130
        assert len(begun) - before == min(moment + 1, 2)
        interrupted[begun[-1]] += 1
    at = None
    assert sweeps.run(benchmark, *ARGUMENTS, "--out", tmp_path) == 0
    counted = collections.Counter(begun)
    assert len(counted) == cells
    assert counted == {name: 1 + interrupted[name] for name in counted}
    assert len(sweeps.rows(tmp_path / "benchmark.csv")) == 2 * len(peers.PEERS)
    assert len(sweeps.rows(tmp_path / "growth.csv")) == 2
    assert Store(tmp_path).read_cell(benchmark.benchmark_cell().file) is not None
    before = len(begun)
    assert sweeps.run(benchmark, *ARGUMENTS, "--out", tmp_path) == 0
    assert len(begun) == before
    assert "never, in 3" in capsys.readouterr().out


def test_a_peer_that_fails_is_said_with_its_command_and_the_others_are_measured(tmp_path, measured, capsys):
    begun, stop = measured

    def fails():
        if begun[-1] == ("benchmark", "adam", 3.0):
            raise ImportError("no [module]")

    stop["call"] = fails
    assert sweeps.run(benchmark, *ARGUMENTS, "--out", tmp_path) == 0
    said = capsys.readouterr().out
    assert "failed  R = 3: adam: ImportError: no [module]" in said
    alone = next(line for line in said.splitlines() if "alone: " in line).split("alone: ")[1]
    stop.clear()
    begun.clear()
    assert sweeps.run(benchmark, *sweeps.arguments_of(alone, benchmark.MODULE)) == 0
    assert begun == [("benchmark", "adam", 3.0)]


def test_every_cell_has_a_command_of_its_own():
    config = command_line.parse(benchmark.Config, ARGUMENTS)
    cells = benchmark.cells_of(config)
    assert len({cell.file for cell in cells}) == len(cells)
    for cell in cells:
        alone = sweeps.arguments_of(cell.alone, benchmark.MODULE)
        (stand_alone,) = benchmark.cells_of(command_line.parse(benchmark.Config, alone))
        assert stand_alone.file == cell.file


def test_the_limit_is_that_of_all_starts_together(monkeypatch):
    inputs = []
    monkeypatch.setitem(peers.PEERS, "adam", lambda problem, starts, reached, limit: inputs.append(limit) or [
        peers.Run(s, False, limit, 1) for s in range(len(starts))
    ])  # fmt: skip
    monkeypatch.setattr(benchmark, "_tested", lambda **sizes: (benchmark._problem(**sizes), lambda H: False))
    sizes = {"k": 2, "n_min": 2, "d": 2, "tau": 1.0, "R": 1.0}
    cell, _ = benchmark.compare(**sizes, peer="adam", starts=4, limit=8.0, progress=lambda ended: None)
    assert inputs == [2.0]
    assert np.array_equal(cell["seconds"], [2.0] * 4)
    assert benchmark._rows([cell.assign_attrs(table="benchmark")], "benchmark")[3] == {
        "peer": "adam", "R": 1.0, "n": 4, "start": 3, "reached": False, "seconds": 2.0, "iterations": 1
    }  # fmt: skip


def test_a_start_ends_also_where_its_tests_take_long():
    """The limits of all cells, with tests, leave three of eight minutes to compiling and to the other tables."""

    def slow(H):
        time.sleep(0.05)
        return False

    config = benchmark.Config()
    peers_with_limit = len(config.R) * (len(config.peers) - 1)
    assert peers.WITH_TESTS * config.limit * peers_with_limit <= 300
    problem = benchmark._problem(2, 2, 2, 1.0, 1.0)
    (run,) = peers.PEERS["reference"](problem, benchmark._starts(problem, 1), slow, 0.1)
    assert not run.reached
    assert run.seconds < 0.1
    assert run.iterations <= 4 * peers.CHUNK


@pytest.mark.slow
def test_the_default_ends_within_eight_minutes(tmp_path):
    began = time.monotonic()
    assert sweeps.run(benchmark, "--out", tmp_path) == 0
    assert time.monotonic() - began < 480
