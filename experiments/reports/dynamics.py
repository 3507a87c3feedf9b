"""The page of the sweep over dynamics: its question, its figure, and what it found in sentences."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.harness.drawing import Drawing, drawn_by
from experiments.measurements.emergence import EMERGED
from experiments.reports.page import Page, in_words, read_csv, render

EXPONENTS = "exponents.csv"
DRAWINGS = {
    "emergence": Drawing(
        "Steps until the frame emerges, against R, temperature and batch size",
        f"Steps from random starts until delta_gm < {EMERGED:g}: medians over the starts whose frame emerged, bars the "
        "middle half; the share of starts that got there beside each marker where it is not all. Thin: what theory "
        "predicts, solid for two of the smallest classes to part, dotted for deviations within a class to fall by a "
        "thousand. Where no start got there nothing is drawn.",
        drawn_by("emergence"),
    ),
}


def rendered(root: Path) -> str:
    """The page of the sweep in a directory."""
    recorded = json.loads((root / "config.json").read_text())
    config, rows = recorded["config"], read_csv(root / "summary.csv")
    done, verdict = judged(rows, recorded.get("cells", len(rows)) - len(rows))
    return render(
        root,
        Page(
            title=f"Emergence of the frame: k = {config['k']}, d = {config['d']}, eta = {in_words(config['eta'])}",
            question="In how many steps does projected gradient, plain and with random batches, come from a random "
            f"start to class means that are an orthogonal frame (delta_gm below {EMERGED:g}), and does theory say how "
            f"many? {config['inits']} random starts of each cell, at most {config['max_steps']:,} steps. full: the "
            "full batch.",
            good=done,
            verdict=verdict,
            note="Medians are over the starts whose frame emerged; stuck: a descent from where they ended leads to no "
            "frame; theory's two numbers are steps too, of the last phases alone. Exponents of R are fitted.",
            drawings=DRAWINGS,
            certificates={},
        ),
    )


def exponents(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, object]]:
    """Fitted: median steps ~ R^exponent, by least squares of logarithms, for each sampler, batch size and temperature.

    Over ratios at which at least half of the starts got there; beside it the exponents, over the same ratios, of what
    theory predicts. None of what has fewer than two such ratios.
    """
    lines = []
    for key in dict.fromkeys((str(row["sampler"]), float(row["batch_size"]), float(row["tau"])) for row in rows):
        group = [
            row
            for row in rows
            if (str(row["sampler"]), float(row["batch_size"]), float(row["tau"])) == key
            and 2 * int(row["emerged"]) >= int(row["inits"])
        ]
        R = np.log([float(row["R"]) for row in group])
        if len(set(R)) < 2:
            continue
        slopes = {
            name: _slope(R, [float(row[column]) for row in group])
            for name, column in (
                ("fitted_exponent", "steps_median"),
                ("separate_exponent", "steps_separate"),
                ("collapse_exponent", "steps_collapse"),
            )
        }
        smallest, largest = (float(np.exp(end)) for end in (R.min(), R.max()))
        named = {"sampler": key[0], "batch_size": int(key[1]), "tau": key[2], "R_from": smallest, "R_to": largest}
        lines.append({**named, **slopes})
    return lines


def _slope(R: np.ndarray, steps: Sequence[float]) -> float:
    if not (np.isfinite(steps).all() and min(steps) > 0):
        return math.nan
    return float(np.polyfit(R, np.log(steps), 1)[0])


def judged(rows: Sequence[Mapping[str, Any]], failed: int = 0) -> tuple[bool, str]:
    """Whether every cell was computed, and what they found in sentences; rows: of summary.csv."""
    emerged, stuck, starts = (sum(int(row[name]) for row in rows) for name in ("emerged", "stuck", "inits"))
    said = [f"{failed} cells failed."] if failed else []
    said.append(
        f"The frame emerged from {emerged} of {starts} starts; {stuck} are stuck where no descent leads to a frame, "
        f"{starts - emerged - stuck} are not there yet."
    )
    fitted = [
        f"{line['sampler']} {line['fitted_exponent']:.2f} (parting of the smallest classes: "
        f"{line['separate_exponent']:.2f})"
        for line in exponents(rows)
        if math.isfinite(float(str(line["fitted_exponent"])))
    ]
    if fitted:
        said.append(f"Fitted exponents of R, theory's in brackets: {'; '.join(fitted[:6])}.")
    return not failed, " ".join(said)
