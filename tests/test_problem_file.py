"""Problems from files: read as documented; whatever else a file holds is one clear line."""

import csv
import io
import json
import random
from functools import partial

import numpy as np
import pytest
import sweeps

from experiments import sweep_imbalance
from experiments.harness.problem_file import FIELDS, read_problem
from ufm import InvalidInput, Problem

WHOLE = {"labels": [0, 0, 1, 1, 2, 2], "batches": [[0, 1, 2, 3], [2, 3, 4, 5]], "tau": 0.5, "d": 7}
CSV = "label,batches\n0,0\n0,0\n1,0 1\n1,0 1\n2,1\n2,1\n"


def written(path, content):
    if path.suffix == ".npz":
        np.savez(path, **content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def read(path):
    return read_problem(path, d=9, tau=2.0, nonneg=True)


def same(one, other):
    arrays = all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in ("labels", "batches", "multiplicity")
    )
    return arrays and (float(one.tau), one.d, one.k, one.nonneg) == (float(other.tau), other.d, other.k, other.nonneg)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.json", WHOLE, Problem(WHOLE["labels"], 7, 0.5, WHOLE["batches"])),
        ("a.npz", WHOLE, Problem(WHOLE["labels"], 7, 0.5, WHOLE["batches"])),
        ("a.csv", CSV, Problem(WHOLE["labels"], 9, 2.0, WHOLE["batches"])),
        ("A.JSON", {"class_counts": [3, 1, 2]}, Problem([0, 0, 0, 1, 2, 2], 9, 2.0)),
        ("a.npz", {"class_counts": [3, 1, 2], "d": 4}, Problem([0, 0, 0, 1, 2, 2], 4, 2.0)),
        ("a.csv", "\ufeffclass_count\r\n3\r\n1\r\n\r\n2\r\n", Problem([0, 0, 0, 1, 2, 2], 9, 2.0)),
        ("a.csv", "label\n1\n0\n", Problem([1, 0], 9, 2.0)),
    ],
)
def test_formats(tmp_path, name, content, expected):
    assert same(read(written(tmp_path / name, content)), expected)


def test_a_padded_matrix_of_batches(tmp_path):
    path = written(tmp_path / "a.npz", {"labels": [0, 0, 1, 1], "batches": [[0, 1, 2], [2, 3, -1]]})
    assert np.asarray(read(path).batches).tolist() == [[0, 1, 2], [2, 3, -1]]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.json", "{", "content"),
        ("a.json", "[1]", "content"),
        ("a.json", "[" * 100_000, "content"),
        ("a.json", {}, "class_counts"),
        ("a.json", {"class_counts": [1, 2], "labels": [0, 1]}, "class_counts"),
        ("a.json", {"class_counts": [5]}, "class_counts"),
        ("a.json", {"class_counts": [5, 0]}, "class_counts = 0"),
        ("a.json", {"class_counts": [5, 2.0]}, "class_counts = 2.0"),
        ("a.json", {"class_counts": [50_000_000, 1]}, "class_counts"),
        ("a.json", {"labels": [0, 2]}, "labels = 1"),
        ("a.json", {"labels": [0, 0, 3, 3], "loss": "class-weights"}, "labels = 1"),
        ("a.json", {"labels": [1, 50_000_000], "loss": "class-weights"}, "labels = 0"),
        ("a.json", {"labels": [0, True]}, "labels = True"),
        ("a.json", {"labels": "01"}, "labels = '01'"),
        ("a.json", {**WHOLE, "batches": [[0, 1], [2, 6]]}, "batches[1] = 6"),
        ("a.json", {**WHOLE, "batches": [[0, 0]]}, "batches[0] = "),
        ("a.json", {**WHOLE, "batches": [[]]}, "batches[0] = []"),
        ("a.json", {**WHOLE, "batches": 3}, "batches = 3"),
        ("a.json", {**WHOLE, "tau": 0}, "tau = 0"),
        ("a.json", {**WHOLE, "tau": float("nan")}, "tau = nan"),
        ("a.json", {**WHOLE, "tau": 10**400}, "tau = 1000"),
        ("a.json", {**WHOLE, "d": "20"}, "d = '20'"),
        ("a.json", {**WHOLE, "colour\nred": 1}, "field = 'colour\\nred'"),
        ("a.json", '{"class_counts": [5, 3], "class_counts": [1, 1]}', "field = 'class_counts'"),
        ("a.json", '{"class_counts": [5, 3], "loss": {"kind": "sigmoid", "bias": 1, "bias": 2}}', "field = 'bias'"),
        ("a.csv", "", "content"),
        ("a.csv", "classes\n1\n", "heading"),
        ("a.csv", "class_count\n1\nmany\n", "class_count, line 3 = 'many'"),
        ("a.csv", "class_count\n1_0\n5\n", "class_count, line 2 = '1_0'"),
        ("a.csv", "class_count\n\u0661\n5\n", "class_count, line 2 = "),
        ("a.csv", "class_count\n" + "9" * 5000 + "\n5\n", "class_count, line 2 = "),
        ("a.csv", "label,batches\n0,0_0\n1,0\n", "batches, line 2 = '0_0'"),
        ("a.csv", "label,batches\n0,0\n1\n", "line 3"),
        ("a.csv", "label,batches\n0,x\n1,0\n", "batches, line 2 = 'x'"),
        ("a.npz", {"class_counts": [[1, 2]]}, "class_counts = [1, 2]"),
        ("a.npz", {"labels": np.array([0, 1], object)}, "content"),
        ("a.txt", "1 2", "problem = 'a.txt'"),
    ],
)
def test_bad_files_name_the_field(tmp_path, name, content, said, untyped):
    with pytest.raises(InvalidInput) as refused:
        read(written(tmp_path / name, content))
    assert said in str(refused.value)
    assert name in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


run = partial(sweeps.run, sweep_imbalance)


def _odd(generator):
    numbers = [-1, 0, 0.5, True, None, 10**20, 1e300, float("inf"), -0.0, 2**31]
    return generator.choice([*numbers, "", "zero", "\x00", [], [[]], {}, [1, [2]], {"a": 1}, ["0"], [None], [1e9]])


def _without_something(generator, content):
    """A well-formed object of which one value, at any depth, is not what it should be."""
    content = json.loads(json.dumps(content))
    field = generator.choice([*content, "Labels"])
    inner = content.get(field)
    if isinstance(inner, list) and generator.random() < 0.5:
        place = generator.randrange(len(inner))
        if isinstance(inner[place], list) and generator.random() < 0.5:
            inner, place = inner[place], generator.randrange(len(inner[place]))
        inner[place] = generator.choice([value for value in (_odd(generator) for _ in range(9)) if value != 0])
    else:
        content[field] = _odd(generator)
    return content


def _damaged(generator, content):
    content = bytearray(content)
    for _ in range(generator.randrange(1, 4)):
        content[generator.randrange(len(content))] = generator.randrange(256)
    return bytes(content[: generator.randrange(len(content))] if generator.random() < 0.3 else content)


def _fuzzed(generator, folder):
    kind = generator.choice(["json", "object", "csv", "npz"])
    if kind == "object":
        return written(folder / "fuzzed.json", _without_something(generator, WHOLE))
    archive = io.BytesIO()
    np.savez(archive, **WHOLE)
    whole = {"json": json.dumps(WHOLE).encode(), "csv": CSV.encode(), "npz": archive.getvalue()}[kind]
    path = folder / f"fuzzed.{kind}"
    path.write_bytes(_damaged(generator, whole))
    return path


@pytest.mark.parametrize("times", [50, pytest.param(500, marks=pytest.mark.slow)])
def test_fuzzed_files_are_read_or_refused_in_one_line(tmp_path, times, capsys, untyped):
    """Files that happen to stay problems are read; so many of the others are made."""
    generator = random.Random(5)
    refused = 0
    while refused < times:
        path = _fuzzed(generator, tmp_path)
        try:
            assert read(path).k >= 2
            continue
        except InvalidInput:
            refused += 1
        out = tmp_path / "runs"
        assert run("--problem", path, "--out", out) == 2
        said = capsys.readouterr()
        (line,) = said.err.splitlines()
        assert path.name in line
        assert said.out == ""
        assert not out.exists()


@pytest.mark.thorough
def test_a_sweep_of_a_file(tmp_path, capsys):
    path = written(tmp_path / "mine.json", {"class_counts": [6, 3, 2], "d": 5, "tau": 0.5})
    out = tmp_path / "runs"
    assert run("--problem", path, "--inits", 2, "--out", out) == 0
    with (out / "summary.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert [row[name] for name in ("R", "k", "d", "tau", "n", "certified")] == ["3", "3", "5", "0.5", "11", "2"]
    assert "given imbalance" in " ".join(capsys.readouterr().out.split())
    cells = set((out / "cells").iterdir())
    moved = path.rename(tmp_path / "moved.json")
    assert run("--problem", moved, "--inits", 2, "--out", out) == 0
    assert set((out / "cells").iterdir()) == cells
    written(moved, {"class_counts": [6, 2, 2], "d": 5, "tau": 0.5})
    assert run("--problem", moved, "--inits", 2, "--out", out) == 0
    assert len(set((out / "cells").iterdir())) == 4


def test_files_that_are_not_there(tmp_path, capsys):
    for path in (tmp_path / "none.json", tmp_path):
        assert run("--problem", path, "--out", tmp_path / "runs") == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert run("--imbalance", "given", "--out", tmp_path / "runs") == 2
    assert "--problem" in capsys.readouterr().err


def test_help_states_every_field(capsys):
    assert run("--help") == 0
    text = capsys.readouterr().out
    assert all(f'"{field}"' in text for field in FIELDS)
