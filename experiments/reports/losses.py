"""The page of the sweep over losses: its question, its figures, and its verdict in a sentence."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from experiments.harness.cells import cell_name, certificate_file
from experiments.harness.drawing import Drawing, drawn_by
from experiments.harness.loss_names import in_names
from experiments.measurements.solutions import KINDS, cosines_by_kind
from experiments.measurements.thresholds import APART, MERGED
from experiments.reports.page import Page, in_words, read_as, read_csv, render

if TYPE_CHECKING:
    from matplotlib.figure import Figure

THRESHOLDS = "thresholds.csv"


def curves(cells: Sequence[xr.Dataset]) -> xr.Dataset:
    """The cells of the sweep at their first temperature as cosines over (loss, R, kind), NaN where not certified."""
    first = float(cells[0].attrs["tau"])
    at = [cell for cell in cells if float(cell.attrs["tau"]) == first]
    losses = list(dict.fromkeys(str(cell.attrs["loss"]) for cell in at))
    ratios = sorted({float(cell.attrs["R"]) for cell in at})
    tables = {nonneg: np.full((len(losses), len(ratios), len(KINDS)), np.nan) for nonneg in (0, 1)}
    for cell in at:
        start = int(cell["gap"].values.argmin())
        if cell["certified"].values[start]:
            place = losses.index(str(cell.attrs["loss"])), ratios.index(float(cell.attrs["R"]))
            tables[int(cell.attrs["nonneg"])][place] = cosines_by_kind(cell["gram"].values[start])
    return xr.Dataset(
        {"ufm": (("loss", "R", "kind"), tables[0]), "ufm_plus": (("loss", "R_plus", "kind"), tables[1])},
        coords={"loss": losses, "R": ratios, "R_plus": ratios, "kind": list(KINDS)},
        attrs={name: at[0].attrs[name] for name in ("k", "d", "tau")},
    )


def _cosines(cells: Sequence[xr.Dataset]) -> Figure:
    return drawn_by("loss_cosines")([curves(cells)])


DRAWINGS = {
    "cosines": Drawing(
        "Cosines of class means against R for every loss, with and without the ReLU",
        "Cosines between class means against R at the first temperature, of the certified start with the smallest "
        "gap: without the ReLU a line for each loss, with it (grey) all losses on zero. A line is interrupted where no "
        "start is certified.",
        _cosines,
    ),
    "thresholds": Drawing(
        "The ratio R* at which minorities become one vector, against the temperature",
        "Without the ReLU: below R* every minimiser keeps all minorities apart, above it has them within a hundredth "
        "of a radian, both by certificate; the two ends of each bracket are closer than the marker is large. Arrows: "
        "still apart at the largest ratio asked.",
        drawn_by("thresholds"),
    ),
}


def rendered(root: Path) -> str:
    """The page of the sweep in a directory."""
    recorded = json.loads((root / "config.json").read_text())
    config, rows, starts = recorded["config"], read_csv(root / "summary.csv"), read_csv(root / "inits.csv")
    brackets = read_csv(root / THRESHOLDS) if recorded["brackets"] else []
    failed = recorded["cells"] + recorded["brackets"] - len(rows) - len(brackets)
    good, verdict = judged(config, rows, brackets, failed)
    certificates: dict[str, list[str]] = {}
    for start in starts:
        name = name_of(start["R"], start["tau"], model(start["relu"] == "True"), start["loss"])
        label = f"{start['loss']}, {model(start['relu'] == 'True')}, R = {start['R']}, tau = {start['tau']}"
        certificates.setdefault(label, []).append(certificate_file(name, int(start["init"])))
    for row in brackets:
        ends = [which for which in (APART, MERGED) if math.isfinite(float(row[f"R_{which}"]))]
        files = [certificate_file(star_of(row["tau"], row["loss"]), which) for which in ends]
        certificates[f"R* of {row['loss']}, tau = {row['tau']}"] = files
    return render(
        root,
        Page(
            title=f"Every loss of the family, {config['relu']} the ReLU: k = {config['k']}, d = {config['d']}, "
            f"tau = {in_words(config['tau'])}",
            question=question_of(config),
            good=good,
            verdict=verdict,
            note=read_as(config["relu"] == "with"),
            drawings=DRAWINGS,
            certificates=certificates,
        ),
    )


def question_of(config: Mapping[str, Any]) -> str:
    """The question of the sweep, in words."""
    starts = f"{config['inits']} random starts at each imbalance ratio R, each verified and certified."
    with_it = (
        "With the ReLU (UFM+) one theorem says that every loss of the family has the minimisers of plain SCL, "
        "orthogonal frames: does every start end in one? "
    )
    without = (
        "Without the ReLU (UFM), what do class weights, averaging over classes, logit adjustment and the others do to "
        "the geometry, and from which ratio R* on are all minorities one vector? "
    )
    return {"with": with_it, "without": without, "both": with_it + without}[config["relu"]] + starts


def judged(
    config: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], brackets: Sequence[Mapping[str, Any]], failed: int
) -> tuple[bool, str]:
    """Whether everything asked is certified, and the verdict in a sentence; rows: of summary.csv and thresholds.csv."""
    certified, starts = (sum(int(row[name]) for row in rows) for name in ("certified", "inits"))
    plus = [row for row in rows if str(row["relu"]) == "True"]
    frames, of_plus = (sum(int(row[name]) for row in plus) for name in ("orthogonal_frames", "inits"))
    measured = all(math.isfinite(float(row["worst_excess"])) for row in rows)
    said = [f"{failed} cells failed."] if failed else []
    said.append(f"{certified} of {starts} starts are certified global minimisers.")
    if plus:
        said.append(f"With the ReLU {frames} of {of_plus} are orthogonal frames, whatever the loss.")
    several = len(config["tau"]) > 1
    result, never, open_ = [], [], []
    for row in brackets:
        name = str(row["loss"]) + (f" (tau = {float(row['tau']):g})" if several else "")
        low, high = float(row[f"R_{APART}"]), float(row[f"R_{MERGED}"])
        if high - low <= max(1 / float(row["n_min"]), float(row["precision"]) * low) * (1 + 1e-9):
            result.append(f"{name} between {low:.5g} and {high:.5g}")
        elif low == float(row["most_R"]):
            never.append(name)
        else:
            open_.append(name)
    if result:
        said.append(f"Without it minorities become one vector at R*, certified on both sides: {'; '.join(result)}.")
    if never:
        said.append(f"Certified apart up to R = {float(config['most_R']):g}: {', '.join(never)}.")
    if open_:
        said.append(f"R* is not bracketed as closely as asked: {', '.join(open_)}.")
    return certified == starts and frames == of_plus and measured and not failed and not open_, " ".join(said)


def model(relu: bool) -> str:
    """UFM+ or UFM, as it stands in the names of files."""
    return "relu" if relu else "no-relu"


def name_of(R: float | str, tau: float | str, model: str, loss: str) -> str:
    """The name of a cell, from the numbers as they stand in summary.csv."""
    return cell_name(R, tau, model, *in_names(loss))


def star_of(tau: float | str, loss: str) -> str:
    """The name of the cell of an R*."""
    return cell_name("star", tau, *in_names(loss))
