"""The report of a sweep: one self-contained HTML page, made from the files that the sweep left."""

from __future__ import annotations

import base64
import csv
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from experiments.harness.command_line import program
from experiments.harness.drawing import Drawing
from experiments.harness.store import Store
from solvers.certification.certificate import Certificate, Proof
from ufm.errors import InvalidInput

NAME = "report.html"
TABLES = {
    "summary.csv": "one line a cell",
    "inits.csv": "one line a start",
    "epochs.csv": "one line a recorded epoch",
    "thresholds.csv": "one line a loss and temperature",
    "exponents.csv": "one line a sampler, batch size and temperature",
}
SECONDS = {
    "compile": "compilation",
    "solve": "solving",
    "train": "training",
    "certify": "verifying and certifying",
}
# The columns of summary.csv that are shown, in words; those of parameters where their rows differ.
PARAMETERS = {
    "net": "network",
    "width": "width",
    "depth": "hidden layers",
    "batch_norm": "batch norm",
    "activation": "final activation",
    "loss": "loss",
    "relu": "ReLU",
    "R": "imbalance ratio R",
    "tau": "temperature tau",
    "batching": "batches drawn",
    "sampler": "sampler",
    "batch_size": "batch size",
    "seed": "seed",
    "family": "batch family",
    "bound": "bound",
    "k": "classes k",
    "d": "dimension d",
    "n": "samples n",
    "batches": "batches",
    "partitions": "families",
    "inits": "starts",
}
RESULTS = {
    "minimiser": "minimisers",
    "reached": "starts that descent led there",
    "lifted": "freed by the staircase",
    "certified": "starts certified",
    "max_cosine": "largest cosine of two classes",
    "orthogonal_frames": "orthogonal frames",
    "iterations_median": "median steps",
    "pool": "partitions",
    "unique": "frame unique",
    "not_unique": "frame not unique",
    "undetermined": "undetermined",
    "plain_claims": "claimed by the plain graph",
    "counterexamples": "other minimisers certified",
    "minority_cosine": "cosine of two minorities",
    "majority_cosine": "cosine of two majorities",
    "between_cosine": "cosine of one of each",
    "loss_bound": "loss of a frame",
    "lower_bound": "certified lower bound",
    "worst_excess": "largest excess",
    "worst_gap": "largest proved gap",
    "delta_gm_max": "largest distance from a frame",
    "beta_nc_max": "largest beta_NC",
    "trace_sw_max": "largest scatter within classes",
    "delta_gm": "distance from a frame",
    "beta_nc": "beta_NC",
    "mean_cosine": "mean cosine of two classes",
    "distance_max": "largest distance from the minimisers' Gram matrix",
    "steps_left": "further steps, extrapolated",
    "excess_upper": "proved upper bound of the excess",
    "gap": "proved upper bound of the suboptimality",
    "accuracy_balanced": "accuracy, mean over classes",
    "accuracy_majority": "accuracy, majorities",
    "accuracy_minority": "accuracy, minorities",
    "found_by_blame": "wrong labels found by attribution",
    "found_by_distance": "wrong labels found by distance",
    "best_by_blame": "by attribution, at best",
    "best_by_distance": "by distance, at best",
    "plain_gap": "gap, released to projected gradient",
    "plain_steps": "steps",
    "plain_verdict": "outcome of projected gradient",
    "staircase_gap": "gap, released to the staircase",
    "staircase_lifts": "lifts",
    "staircase_verdict": "outcome of the staircase",
    "share": "families with the frame unique, predicted",
    "pool_excess": "excess over the bound of the batches",
    "to_frame": "distance to the frame",
    "to_ufm": "distance to UFM's minimiser",
    "emerged": "frames emerged",
    "stuck": "stuck",
    "not_yet": "not there yet",
    "steps_median": "median steps until the frame",
    "steps_separate": "theory: steps to separate",
    "steps_collapse": "theory: steps to collapse",
}
_RAISED = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


@dataclass(frozen=True)
class Page:
    """What a page says beyond the files of its sweep.

    - good, verdict: whether theory is confirmed, and the answer in a sentence.
    - note: how the table is to be read, below it.
    - drawings: of figures/NAME.png, by name; those that were not drawn are left out.
    - certificates: files by group.
    """

    title: str
    question: str
    good: bool
    verdict: str
    note: str
    drawings: Mapping[str, Drawing]
    certificates: Mapping[str, Sequence[str]]


def write_report(store: Store, page_of: Callable[[Path], str]) -> Path:
    """Write report.html of a sweep from the files it left.

    Those are config.json, summary.csv, inits.csv, figures/*.png and certificates/*.json. A certificate that cannot
    be read is listed with the reason, never left out. page_of: makes the page of this kind of sweep.
    """
    return store.write_bytes(NAME, page_of(store.root).encode(errors="backslashreplace"))


def render(root: Path, page: Page) -> str:
    """The page in HTML. Its table shows numbers as a person reads them; the files they come from are within it."""
    recorded = json.loads((root / "config.json").read_text())
    rows = read_csv(root / "summary.csv")
    environment = Environment(
        loader=PackageLoader("experiments.reports"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["in_words"] = in_words
    return environment.get_template("report.html").render(
        page=page,
        config={name: value for name, value in recorded["config"].items() if value is not None},
        columns=_columns(rows),
        rows=rows,
        tables=[
            {"name": name, "holds": holds, "content": _base64(root / name)}
            for name, holds in TABLES.items()
            if (root / name).is_file()
        ],
        figures=[
            {"title": drawing.title, "caption": drawing.caption, "content": _base64(root / "figures" / f"{name}.png")}
            for name, drawing in page.drawings.items()
            if (root / "figures" / f"{name}.png").is_file()
        ],
        certificates={label: [_proof(root / name) for name in names] for label, names in page.certificates.items()},
        check=check_all(root),
        versions=recorded["versions"],
        seconds={
            words: f"{sum(float(row[f'seconds_{name}']) for row in rows):.1f}"
            for name, words in SECONDS.items()
            if f"seconds_{name}" in rows[0]
        },
    )


def check_command(path: Path) -> str:
    """The command that checks a certificate."""
    return f"{_checker()} {_word(path)}"


def check_all(out: Path) -> str:
    """The command that checks every certificate of a directory of results."""
    return f"{_checker()} {_word(out / 'certificates')}/*.json"


def _checker() -> str:
    return shlex.join(program("ufm_check.check"))


def _word(path: Path) -> str:
    """A path as a word of a command: no flag, whatever it begins with."""
    return shlex.quote(f"./{path}" if str(path).startswith("-") else str(path))


def in_words(value: Any) -> str:
    """A value as a person reads it: 25,025; 0.4167; 2.3 x 10^-13 with a raised exponent; yes; several with spaces."""
    if isinstance(value, (list, tuple)):
        return " ".join(map(in_words, value))
    if str(value) in ("True", "False"):
        return "yes" if str(value) == "True" else "no"
    try:
        return f"{int(str(value)):,}"
    except ValueError:
        pass
    try:
        number = float(value)
    except ValueError:
        return str(value)
    if number == 0 or 1e-3 <= abs(number) < 1e6:
        return f"{number:,.0f}" if number.is_integer() or abs(number) >= 1e4 else f"{number:,.4g}"
    if not abs(number) < float("inf"):
        return str(value)
    mantissa, exponent = f"{number:.1e}".split("e")
    return f"{mantissa} × 10{str(int(exponent)).translate(_RAISED)}"


def read_as(relu: bool) -> str:
    """How columns of summary.csv are to be read that could be misread."""
    bound = (
        "The proved gap of a start is its upper minus its lower bound. beta_NC measures the spread of a class within "
        "the span of the class means; the scatter within classes measures all of it. An excess and a gap belong to "
        "different points, so the excess may be the larger: the excess is measured in floating point, with its "
        "rounding, at the end point as computed; the gap is proved for the certified point, in which each orbit "
        f"has one row, its mean, {'without negative or tiny entries and ' if relu else ''}with norms near 1 made exact."
    )
    if relu:
        return f"An excess is a loss minus that of an orthogonal frame, which no point is below. {bound}"
    return (
        "Without the ReLU the loss of an orthogonal frame is no lower bound, so an excess (a loss minus it) may be "
        f"negative. The lower bound is certified. {bound}"
    )


def read_csv(path: Path) -> list[dict[str, str]]:
    """The lines of a table, by column."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _columns(rows: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """The columns to show, in words: R, parameters that differ from row to row, and results."""
    differ = [name for name in PARAMETERS if name in rows[0] and (name == "R" or len({row[name] for row in rows}) > 1)]
    return {name: PARAMETERS[name] for name in differ} | {name: RESULTS[name] for name in RESULTS if name in rows[0]}


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _proof(path: Path) -> dict[str, Any]:
    line = {"name": path.stem, "command": check_command(path)}
    try:
        proof = Certificate.load(path)
    except InvalidInput as bad:
        return {**line, "certified": False, "status": str(bad), "gap": "", "upper": "", "lower": ""}
    certified = proof.status is Proof.CERTIFIED
    status = str(proof.status) if certified else f"{proof.status}: {proof.reason}"
    bounds = {"gap": proof.gap, "upper": f"{proof.upper:,.10g}", "lower": f"{proof.lower:,.10g}"}
    return {**line, "certified": certified, "status": status, **bounds}
