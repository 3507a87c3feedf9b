"""Files that a command did not write itself are never touched, however much they look like its own."""

import pytest
import sweeps

from experiments import benchmark, sweep_batching, sweep_imbalance, train_network

SWEEP = "--k 2 --d 4 --R"
COMMANDS = {
    sweep_imbalance: f"--n-min 2 --inits 1 {SWEEP}",
    sweep_batching: f"--n 8 --batch-size 4 --partitions 1 --inits 1 {SWEEP}",
    train_network: "--n-maj 8 --epochs 1 --checkpoint 1 --width 4 --net mlp --activation relu --R",
    benchmark: f"--n-min 2 --starts 1 --peers staircase --growth 1 --stochastic --limit 0.1 {SWEEP}",
}
ALIKE = [
    *(".photos.zip.part", ".a.nc.x7.part", "b.part", "child/.lock", "child/report.html", "child/.a.nc.01234567.part"),
    *("cells/.R1-tau1-0123456789abcdef.nc.01234567.part", "cells/R1-tau1-0123456789abcdef.nc", "cells/mine.nc.sha256"),
    *("certificates/R1-tau1-start999.json", "certificates/mine.json", "figures/mine.png", "report.html~", "mine.csv"),
    *("checkpoints/mine-0123456789abcdef.npz", "checkpoints/.mine.npz.01234567.part", "checkpoints/keep.npz.sha256"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
def test_nothing_of_strangers_is_touched(command, tmp_path):
    """By a first run, by one of another configuration, which removes what it wrote, and by one that begins anew."""
    out = tmp_path / "out"
    for name in ALIKE:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(name.encode())
    for last in ([2], [3], [3, "--fresh"]):
        assert sweeps.run(command, *COMMANDS[command].split(), *last, "--out", out) in (0, 1)
    assert {name: (out / name).read_bytes() for name in ALIKE} == {name: name.encode() for name in ALIKE}
