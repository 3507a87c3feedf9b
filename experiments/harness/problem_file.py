"""A problem from a file: the class profile, and if need be the batches, of the user's own data.

JSON, one object with exactly one of the first two fields:

    {"class_counts": [500, 50, 5],               samples of class 0, 1, 2; samples are numbered class after class
     "labels": [0, 0, 1, 2, 2],                  or the class of each sample, 0..k-1
     "batches": [[0, 1, 2], [2, 3, 4]],          samples that meet, by number; the full batch if not given
     "tau": 0.5, "d": 20, "loss": "decoupled"}   if not given, those of the command line "
     "(`experiments.harness.loss_names`)

NPZ: the same fields as arrays; batches as a matrix, a row a batch, padded with -1.

CSV: a heading and one of
- class_count: a line a class;
- label: a line a sample; and, if wanted, batches: the numbers of the batches it is in, separated by spaces.
"""

from __future__ import annotations

import csv
import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from experiments.harness.loss_names import PLAIN, loss_of
from ufm import InvalidInput, Problem

FIELDS = ("class_counts", "labels", "batches", "tau", "d", "loss")
MOST_SAMPLES = 50_000_000
MOST_COORDINATES = 100_000
WHOLE = re.compile(r"\s*[+-]?[0-9]{1,20}\s*", re.ASCII)


class InvalidFile(InvalidInput):
    """A bad input within a file: one line, the file before the field."""

    def __init__(self, path: Path, bad: InvalidInput) -> None:
        self.argument = bad.argument
        ValueError.__init__(self, f"{path.name}: {bad}")


def read_problem(path: Path, *, d: int, tau: float, nonneg: bool, loss: str = PLAIN) -> Problem:
    """The problem of a file; d, tau and the loss are those of the file where it has them.

    Raises InvalidInput, one line that names the field, for anything that is not such a file.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise InvalidInput("problem", path.name, f"give a file ending in {', '.join(_READERS)}")
    try:
        fields = reader(path)
        unknown = [name for name in fields if name not in FIELDS]
        if unknown:
            raise InvalidInput("field", unknown[0], f"the fields are {', '.join(FIELDS)}")
        labels = _labels(fields)
        return Problem(
            labels,
            _dimension(fields.get("d", d)),
            _temperature(fields.get("tau", tau)),
            _batches(fields.get("batches")),
            nonneg,
            loss=loss_of(fields.get("loss", loss), np.bincount(labels)),
        )
    except OSError as error:
        raise InvalidInput("problem", str(path), f"cannot be read ({error.strerror or error})") from None
    except InvalidInput as bad:
        raise InvalidFile(path, bad) from None


def _from_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes(), object_pairs_hook=_each_once)
    except InvalidInput:
        raise
    except (ValueError, RecursionError) as error:
        raise InvalidInput("content", path.name, f"not JSON ({_one_line(error)})") from None
    if not isinstance(content, dict):
        raise InvalidInput("content", content, f"give one object with the fields {', '.join(FIELDS)}")
    return content


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object without repeated fields: of a repeated field, the parser would silently take the last."""
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise InvalidInput("field", next(name for name in names if names.count(name) > 1), "name every field once")
    return content


def _from_npz(path: Path) -> dict[str, Any]:
    try:
        # Damaged archives raise whatever the reader of the damaged layer raises, warnings among it.
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("error")
            with np.load(file, allow_pickle=False) as arrays:
                # One flipped bit can make the last entries the comment of the one before; NPZ has no comments.
                if any(entry.comment for entry in arrays.zip.filelist):
                    raise ValueError("an entry with a comment")
                return _each_once([(name, arrays[name].tolist()) for name in arrays.files])
    except (OSError, InvalidInput):
        raise
    except Exception as error:
        raise InvalidInput("content", path.name, f"not an NPZ archive of numbers ({_one_line(error)})") from None


def _from_csv(path: Path) -> dict[str, Any]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            heading, *lines = csv.reader(file, strict=True)
    except (ValueError, csv.Error) as error:
        raise InvalidInput("content", path.name, f"not CSV with a heading, in UTF-8 ({_one_line(error)})") from None
    heading = [name.strip() for name in heading]
    if heading not in (["class_count"], ["label"], ["label", "batches"]):
        raise InvalidInput("heading", ",".join(heading), "give class_count, or label, or label,batches")
    lines = [line for line in lines if line]
    for number, line in enumerate(lines):
        if len(line) != len(heading):
            raise InvalidInput(f"line {number + 2}", ",".join(line), f"give {len(heading)} values, as in the heading")
    first = [_parsed(f"{heading[0]}, line {number + 2}", line[0]) for number, line in enumerate(lines)]
    if heading == ["class_count"]:
        return {"class_counts": first}
    if heading == ["label"]:
        return {"labels": first}
    members: dict[int, list[int]] = {}
    for sample, line in enumerate(lines):
        for word in line[1].split():
            members.setdefault(_parsed(f"batches, line {sample + 2}", word), []).append(sample)
    return {"labels": first, "batches": [members[number] for number in sorted(members)]}


_READERS: dict[str, Callable[[Path], dict[str, Any]]] = {".json": _from_json, ".csv": _from_csv, ".npz": _from_npz}


def _labels(fields: dict[str, Any]) -> np.ndarray:
    if ("class_counts" in fields) == ("labels" in fields):
        raise InvalidInput("class_counts", fields.get("class_counts"), "give either class_counts or labels")
    if "labels" in fields:
        labels = _whole_numbers("labels", fields["labels"], 0)
        result = set(labels.tolist())
        if len(result) <= labels.max():
            absent = next(c for c in range(len(result)) if c not in result)
            raise InvalidInput("labels", absent, "no sample is of this class; number the classes 0..k-1")
        return labels
    counts = _whole_numbers("class_counts", fields["class_counts"], 1)
    if len(counts) < 2:
        raise InvalidInput("class_counts", counts.tolist(), "give at least 2 classes")
    if sum(counts.tolist()) > MOST_SAMPLES:
        raise InvalidInput("class_counts", counts.tolist(), f"more than {MOST_SAMPLES:,} samples in all; give fewer")
    return np.repeat(np.arange(len(counts)), counts)


def _batches(value: Any) -> list[np.ndarray] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise InvalidInput("batches", value, "give a list of lists of sample numbers")
    return [_whole_numbers(f"batches[{number}]", batch, -1) for number, batch in enumerate(value)]


def _whole_numbers(field: str, value: Any, least: int) -> np.ndarray:
    if not isinstance(value, list) or not value:
        raise InvalidInput(field, value, "give a list of whole numbers, not empty")
    for number in value:
        if type(number) is not int or not least <= number <= MOST_SAMPLES:
            raise InvalidInput(field, number, f"give whole numbers from {least} to {MOST_SAMPLES:,}")
    return np.array(value, np.int64)


def _dimension(value: Any) -> int:
    if type(value) is not int or not 1 <= value <= MOST_COORDINATES:
        raise InvalidInput("d", value, f"give a whole number from 1 to {MOST_COORDINATES:,}")
    return value


def _temperature(value: Any) -> float:
    fix = "give the temperature as a number"
    if type(value) not in (int, float):
        raise InvalidInput("tau", value, fix)
    try:
        return float(value)
    except OverflowError:
        raise InvalidInput("tau", value, fix) from None


def _parsed(field: str, word: str) -> int:
    if not WHOLE.fullmatch(word):  # `int` takes 1_0 too, and digits of any script
        raise InvalidInput(field, word, "give a whole number")
    return int(word)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
