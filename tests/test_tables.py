"""What commands print at the end: at any width every column is there and every word is whole."""

import io
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr
from rich.console import Console

from experiments import (
    benchmark,
    network_questions,
    sweep_activations,
    sweep_batching,
    sweep_dynamics,
    sweep_imbalance,
    sweep_losses,
    train_network,
)
from experiments.measurements.networks import AUTOPSY, RECORDED
from experiments.reports import questions as questions_report
from experiments.reports import tables
from solvers.certification.verification import Verdict

TAUS = (0.1, 0.5, 1.0)
COLUMNS = ("delta_gm", "beta_nc", "trace_sw", "residual", "gap", "max_cosine", "max_cosine_final", "distance")
COLUMNS += ("excess", "iterations", "steps_left", "steps", "reached", "lifted", "stuck", "plain_claim", "start")
NAMES = {"loss": "weights-and-averaging", "activation": "leaky-relu", "sampler": "class-balanced", "net": "densenet40"}
NAMES |= {"batching": "reshuffled", "family": "partition", "imbalance": "step", "dataset": "synthetic"}
NUMBERS = {"R": 1000.0, "k": 10, "d": 20, "n": 1_000_025, "inits": 1024, "nonneg": 1, "batch_size": 1024, "bound": 1}
NUMBERS |= {"partitions": 32, "batches": 20, "floor": 0.0, "seed": 0, "epochs": 100, "max_steps": 1, "parameters": 1}
NUMBERS |= {name: 12345.6 for name in ("loss_bound", "lower_bound", "rate", "steps_collapse", "steps_separate")}
NUMBERS |= {f"seconds_{name}": 1234.5 for name in ("compile", "solve", "certify", "train")}
NUMBERS |= {"width": 512, "depth": 2, "batch_norm": "off", "label_noise": 0.0}
NUMBERS |= {name: 0.0 for name in ("excess_lower", "excess_upper", "gap")}


def cell(tau):
    """One that has whatever any sweep prints; every number over its starts is exactly 0."""
    data = {name: ("init", np.zeros(2)) for name in COLUMNS}
    data |= {name: ("init", np.ones(2, bool)) for name in ("certified", "orthogonal_frame")}
    words = {"verdict": Verdict.GLOBAL_MINIMISER, "evidence": "", "unique": "True", "counterexample_certified": "None"}
    data |= {name: ("init", np.full(2, str(word))) for name, word in words.items()}
    data |= {"gram": (("init", "class", "class_"), np.broadcast_to(np.eye(10), (2, 10, 10)))}
    data |= {f"history_{name}": ("record", np.zeros(1)) for name in (*RECORDED, *AUTOPSY)}
    attrs = {**NAMES, **NUMBERS, "tau": tau}
    for question in questions_report.QUESTIONS.values():
        attrs |= {name: "stationary but spurious" if "verdict" in name else 0.0 for name in question.columns
                  if f"history_{name}" not in data}  # fmt: skip
    return xr.Dataset(data, attrs=attrs)


def of_sweep(sweep, **options):
    """How the module's closing table is printed, for its own configuration at some temperatures."""

    def shown(taus, console):
        config = sweep.Config(tau=taus, **options)
        cells = [cell(tau) for tau in taus]
        failed = () if sweep in (sweep_losses, sweep_dynamics, sweep_activations) else (0,)
        sweep.print_summary(config, cells, *failed, console)

    return shown


def of_activations(taus, console):
    sweep_activations.print_summary(sweep_activations.Config(tau=taus[0]), [cell(tau) for tau in taus], console)


def of_question(question):
    def shown(taus, console):
        config = network_questions.completed(network_questions.Config(question=question, tau=taus))
        rows = [cell(tau) for tau in taus]
        labels = {f"tau {tau:g}": [row] for tau, row in zip(taus, rows, strict=True)}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(network_questions, "settings", lambda cells: labels)
            patch.setattr(questions_report, "judged", lambda *args: (True, ""))
            network_questions.print_summary(config, rows, 0, SimpleNamespace(root=Path("out")), console)

    return shown


def of_benchmark(name):
    def shown(taus, console):
        config = benchmark.Config(R=(1000.0,), starts=2)
        row = {
            "R": 1000.0,
            "n": 1_000_025,
            "peer": "staircase",
            "reached": True,
            "seconds": 1.5,
            "certified": "certified",
        }
        rows = [row, {**row, "peer": "projected-gradient", "reached": False}]
        seconds = {"seconds_solve": 1.0, "seconds_certify": 1.0, "seconds_copy": 1.0, "peak_GiB": 1.5}
        rows = [{**row, **seconds, "orthogonal_frame": True} for row in rows] if name == "growth" else rows
        benchmark.print_rows(name, config, rows, console)

    return shown


PRINTED = {
    "imbalance": of_sweep(sweep_imbalance),
    "imbalance, UFM": of_sweep(sweep_imbalance, relu=False),
    "batching": of_sweep(sweep_batching),
    "losses": of_sweep(sweep_losses),
    "dynamics": of_sweep(sweep_dynamics),
    "activations": of_activations,
    "networks": of_sweep(train_network),
    **{f"question, {question}": of_question(question) for question in questions_report.QUESTIONS},
    **{f"benchmark, {name}": of_benchmark(name) for name in benchmark.TABLES},
}


@pytest.fixture
def rows(monkeypatch):
    """What was given to be printed, by heading."""
    printed, original = [], tables.print_table

    def noted(title, rows, console, **options):
        printed.extend(rows)
        original(title, rows, console, **options)

    monkeypatch.setattr(tables, "print_table", noted)
    monkeypatch.setattr(benchmark, "print_table", noted)
    return printed


@pytest.mark.parametrize("taus", [TAUS[2:], TAUS], ids=["one temperature", "three temperatures"])
@pytest.mark.parametrize("width", [80, 100, 140])
@pytest.mark.parametrize("name", PRINTED)
def test_no_column_is_cut_and_no_word_is_broken(name, width, taus, rows):
    console = Console(file=io.StringIO(), width=width)
    PRINTED[name](taus, console)
    text = console.file.getvalue()
    lines = [line.rstrip() for line in text.splitlines() if "/" not in line]  # commands and paths are not broken
    assert max(map(len, lines)) <= width
    assert "…" not in text
    assert not re.search(r"[a-z]-$", text, re.MULTILINE)
    assert "e+00" not in text
    printed = text.split()
    for heading in rows[0]:
        words = heading.split()
        assert printed.count(words[-1]) >= 1, heading
        assert all(word in printed for word in words), heading
    for row in rows:
        for heading, value in row.items():
            assert re.sub(r"\[.*?\]", "", value) in text, heading


def test_the_main_result_comes_first():
    """At the narrowest width the first table holds how many starts are certified, and their largest cosine."""
    console = Console(file=io.StringIO(), width=80)
    of_sweep(sweep_imbalance)(TAUS, console)
    _, first, *_ = re.split(r"\n\s*\n", console.file.getvalue().strip())
    rule = next(line for line in first.splitlines() if "─" in line)
    below = first.splitlines()[first.splitlines().index(rule) + 1].split()
    assert first.split().index("certified") < first.split().index("k-OF")
    assert below[:5] == ["1000", "0.1", "1,000,025", "2/2", "0"]  # R, tau, n, certified, largest cosine
    assert "k-OF: starts that ended in an orthogonal frame; spurious:" in " ".join(console.file.getvalue().split())


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (-0.0, "0"), (4e-20, "4e-20"), (-8.2, "-8.2"), (0.35, "0.35"), (1234.5, "1.2e+03")]
)
def test_small_numbers(value, text):
    assert tables.small(value) == text
