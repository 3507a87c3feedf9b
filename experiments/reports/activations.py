"""The page of the sweep over activations: its question, its figure, and its verdict in a sentence."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.harness.cells import cell_name, certificate_file
from experiments.harness.drawing import Drawing, drawn_by
from experiments.measurements.activations import ARRIVED, FRAME
from experiments.reports.page import Page, in_words, read_csv, render
from ufm.activations import UFM, UFM_PLUS

FRAMES, IMBALANCED, BETWEEN = "frame", "UFM's", "UFM's if d allows"

DRAWINGS = {
    "activation_ends": Drawing(
        "How far every start ends from the geometry of its constraint set",
        "Distance of the class means' Gram matrix from that of the minimisers, for every start and R: an orthogonal "
        "frame for activations that are never negative, UFM's certified geometry for the others. Crosses: starts "
        "that descent left in a spurious point; the staircase continued from there. Dotted: below it a "
        "start counts as arrived. "
        "Values below 1e-17 are drawn at 1e-17.",
        drawn_by("activation_ends"),
    )
}


def minimiser(entry_bound: float) -> str:
    """What the minimisers of a floor are, in a word."""
    return {UFM_PLUS: FRAMES, UFM: IMBALANCED}.get(entry_bound, BETWEEN)


def in_files(name: str) -> str:
    """An activation as it stands in names of files."""
    return name.replace(":", "")


def rendered(root: Path) -> str:
    """The page of the sweep in a directory."""
    recorded = json.loads((root / "config.json").read_text())
    config, rows, starts = recorded["config"], read_csv(root / "summary.csv"), read_csv(root / "inits.csv")
    good, verdict = judged(rows, recorded["cells"] - len(rows))
    tau = rows[0]["tau"]
    certificates: dict[str, list[str]] = {}
    for start in starts:
        name = cell_name(start["R"], tau, in_files(start["activation"]))
        label = f"{start['activation']}, R = {start['R']}"
        certificates.setdefault(label, []).append(certificate_file(name, int(start["init"])))
    form = "scaled to norm 1" if config["normalised"] else "cut to the unit ball"
    return render(
        root,
        Page(
            title=f"Activations, {form}: k = {config['k']}, d = {config['d']}, tau = {in_words(config['tau'])}",
            question="The features are sigma(z), z free. What can they be, what are the minimisers of the loss there, "
            f"and does descent get there? {config['inits']} random starts for each activation and imbalance "
            f"ratio R, {config['steps']:,} steps of Adam.",
            good=good,
            verdict=verdict,
            note="Reached: the starts that descent alone led there. Distances are between Gram matrices of class "
            "means, each over its norm; the largest cosine is that after the staircase where it was needed. Steps "
            "more: an estimate extrapolated from the speed at which the loss fell, not a bound.",
            drawings=DRAWINGS,
            certificates=certificates,
        ),
    )


def judged(rows: Sequence[Mapping[str, Any]], failed: int) -> tuple[bool, str]:
    """Whether every start ended where theory says, and the verdict in a sentence. rows: of summary.csv."""
    said, good = [f"{failed} cells failed."] if failed else [], not failed
    plus = [row for row in rows if row["minimiser"] == FRAMES]
    if plus:
        starts, alone, freed = (sum(int(row[name]) for row in plus) for name in ("inits", "reached", "certified"))
        largest = max(float(row["max_cosine"]) for row in plus)
        early_exit = freed == starts and largest < FRAME
        good = good and early_exit
        said.append(
            f"Never negative: {freed} of {starts} starts are certified orthogonal frames ({alone} by descent alone, "
            f"the others after the staircase), largest cosine {largest:.1e}."
        )
    others = [row for row in rows if row["minimiser"] != FRAMES]
    if others:
        starts, there = (sum(int(row[name]) for row in others) for name in ("inits", "reached"))
        good = good and there == starts
        said.append(f"Of both signs: {there} of {starts} starts are within {ARRIVED:g} of UFM's certified geometry.")
        late = [row for row in others if int(row["reached"]) < int(row["inits"])]
        if late:
            waits = "; ".join(f"{row['activation']} at R = {float(row['R']):g} {_wait(row)}" for row in late)
            said.append(f"Not yet there (steps more, extrapolated): {waits}.")
    return good, " ".join(said)


def _wait(row: Mapping[str, Any]) -> str:
    steps = float(row["steps_left"])
    return f"{steps:.1e}" if math.isfinite(steps) else "without a trend"
