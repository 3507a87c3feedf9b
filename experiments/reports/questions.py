"""The pages of the questions to trained networks: what was asked, the figure, and the answer in a sentence."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from experiments.harness.drawing import Drawing, drawn_by
from experiments.measurements.networks import NONNEGATIVE
from experiments.reports.page import Page, in_words, read_csv, render

TableRows = Sequence[Mapping[str, Any]]
MINIMISER = "global minimiser"


class Question(NamedTuple):
    """One question.

    - ask: as the page puts it. note: how the table is to be read.
    - columns: of summary.csv beyond those of a trained network, with their headings in the closing table.
    - drawings: its figure. said: the answer, from the lines of summary.csv.
    """

    ask: str
    note: str
    columns: Mapping[str, str]
    drawings: Mapping[str, Drawing]
    said: Callable[[TableRows], str]


def value(cell: xr.Dataset, name: str) -> Any:
    """A column of a cell: an attribute, or the last record of its history."""
    return cell.attrs[name] if name in cell.attrs else float(cell[f"history_{name}"].values[-1])


def shown(cell: xr.Dataset, name: str) -> str:
    """The value for a narrow column."""
    result = value(cell, name)
    return str(result).removeprefix("stationary but ") if isinstance(result, str) else f"{float(result):.2g}"


def judged(question: str, rows: TableRows, failed: int = 0) -> tuple[bool, str]:
    """Whether every network was asked, with a finite answer, and the answer in a sentence."""
    said = [f"{failed} of {failed + len(rows)} networks failed."] if failed else []
    finite = all(math.isfinite(float(row["gap"])) for row in rows)
    return not failed and finite, " ".join([*said, QUESTIONS[question].said(rows)])


def rendered(root: Path) -> str:
    """The page of the question in a directory."""
    recorded = json.loads((root / "config.json").read_text())
    config, rows = recorded["config"], read_csv(root / "summary.csv")
    requested = QUESTIONS[config["question"]]
    good, verdict = judged(config["question"], rows, recorded.get("cells", len(rows)) - len(rows))
    return render(
        root,
        Page(
            title=f"{config['question'].capitalize()}: MLPs on {config['dataset']}, n_maj = {config['n_maj']}, "
            f"R = {in_words(config['R'])}, {config['epochs']} epochs, {config['seeds']} seeds",
            question=requested.ask,
            good=good,
            verdict=verdict,
            note=requested.note,
            drawings=requested.drawings,
            certificates={},
        ),
    )


def _landscape(rows: TableRows) -> str:
    said = []
    for nonneg, name in ((True, "nonnegative"), (False, "unconstrained")):
        of = [row for row in rows if (row["activation"] in NONNEGATIVE) is nonneg]
        if not of:
            continue
        plain, lifted = ([row for row in of if row[f"{way}_verdict"] == MINIMISER] for way in ("plain", "staircase"))
        steps = f" (median {np.median([float(row['plain_steps']) for row in plain]):g} steps)" if plain else ""
        said.append(
            f"Of {len(of)} networks with {name} features, {_range(of, 'gap')} above the minimum, "
            f"plain projected gradient from their features reaches a global minimiser in {len(plain)}{steps}, "
            f"the staircase in {len(lifted)}."
        )
    return " ".join(said)


def _autopsy(rows: TableRows) -> str:
    result = [
        f"{_median(rows, f'found_by_{judge}')} of the wrong labels by {judge} ({_range(rows, f'found_by_{judge}')}; at "
        f"its best epoch {_median(rows, f'best_by_{judge}')})"
        for judge in ("blame", "distance")
    ]
    return f"Found after training, median of {len(rows)} networks: {', '.join(result)}."


def _batches(rows: TableRows) -> str:
    said = []
    for unique, words in (("True", "force the frame"), ("False", "do not")):
        if of := [row for row in rows if str(row["unique"]) == unique]:
            said.append(f"{len(of)} networks whose batches {words} end at delta_gm {_median(of, 'delta_gm')} "
                        f"({_range(of, 'delta_gm')})")  # fmt: skip
    half = float(rows[0]["half"])
    return f"{'; '.join(said)}. Half of random families force it from {half:.3g} partitions on, as predicted."


def _activations(rows: TableRows) -> str:
    said = []
    for nonneg, nearer, farther in ((True, "to_frame", "to_ufm"), (False, "to_ufm", "to_frame")):
        if of := [row for row in rows if (row["activation"] in NONNEGATIVE) is nonneg]:
            names = ", ".join(dict.fromkeys(str(row["activation"]) for row in of))
            near = sum(float(row[nearer]) < float(row[farther]) for row in of)
            said.append(
                f"{names}: {near} of {len(of)} are nearer to their own certified geometry, at {_median(of, nearer)} "
                f"({_range(of, nearer)}), than to the other, at {_median(of, farther)}"
            )
    return "; ".join(said) + "."


def _median(rows: TableRows, name: str) -> str:
    return f"{np.median([float(row[name]) for row in rows]):.3g}"


def _range(rows: TableRows, name: str) -> str:
    values = [float(row[name]) for row in rows]
    return f"{min(values):.3g} to {max(values):.3g}"


QUESTIONS = {
    "landscape": Question(
        "Is it the loss or the network that keeps trained features from the optimum? The features of each network are "
        "released: every image keeps its feature as a free embedding, and these descend on the loss of all images.",
        "Gaps are proved: how far the features are, at most, above the minimum. Plain: projected gradient, no lift, "
        "until it is stationary. Staircase: class means, lifted out of spurious points.",
        {
            "gap": "gap", "plain_gap": "gap of plain descent", "plain_steps": "its steps", "plain_verdict": "its end",
            "staircase_gap": "gap of the staircase", "staircase_lifts": "its lifts",
            "staircase_verdict": "end of the staircase",
            "delta_gm": "delta_gm",
        },
        {
            "landscape": Drawing(
                "Where trained features end, and where they go when they are released",
                "Left: distance from the minimum, proved, of trained features and of the ends of two descents that "
                "begin there; a marker a seed; hollow: verified to be no global minimiser. Right: the way of plain "
                "projected gradient on all samples.",
                drawn_by("landscape"),
            )
        },
        _landscape,
    ),
    "autopsy": Question(
        "Are wrong labels found by their shares in the excess over a frame, and better than by the distance of a "
        "feature from the mean of its class?",
        "Precision at the true number: of as many samples as have wrong labels, the share that has one. Best: at the "
        "epoch at which it is highest, which who looks for wrong labels does not know.",
        {
            "found_by_blame": "found by blame", "found_by_distance": "found by distance",
            "best_by_blame": "best by blame", "best_by_distance": "best by distance",
        },
        {
            "autopsy": Drawing(
                "Wrong labels found by blame and by distance, over epochs",
                "Precision at the true number over epochs; median over seeds, band from the smallest to the largest. "
                "Grey: by chance.",
                drawn_by("autopsy"),
            )
        },
        _autopsy,
    ),
    "batches": Question(
        "If the epochs of training take turns among E random partitions, do features become a frame where theory says "
        "that E partitions force it?",
        "Frame unique: proved of the union of all batches that the network saw. The excess over the bound of these "
        "batches says how far the network is from minimising what it was given.",
        {
            "pool": "partitions", "unique": "unique", "share": "predicted share", "half": "half at",
            "delta_gm": "delta_gm", "excess_upper": "excess", "pool_excess": "excess of its batches",
            "pool_bound": "their bound",
        },
        {
            "recycled": Drawing(
                "Distance from a frame against the number of partitions",
                "A marker a seed. Left: distance from a frame after training. Right: excess over the bound of the "
                "training batches. Filled: the frame is proved to be the only minimiser over these; dashed: where half "
                "of random families force it, as predicted by ufm.theory.reshuffling.",
                drawn_by("recycled"),
            )
        },
        _batches,
    ),
    "activations": Question(
        "Is the geometry after each final activation the certified one of its model: the frame for activations that "
        "are never negative, the minimiser of UFM for those that reach all directions?",
        "Distances of Gram matrices of class means over their Frobenius norms. Proved: the minimiser of UFM at these "
        "class sizes and this temperature is certified.",
        {"to_frame": "distance to the frame", "to_ufm": "distance to UFM", "proved": "proved", "gap": "gap"},
        {
            "trained_geometry": Drawing(
                "Trained geometry against the certified one, by final activation",
                "Left: cosines of class means, all pairs and seeds; bars: certified minimiser of the activation's "
                "model. Right: distance from both certified geometries; filled: the model's own.",
                drawn_by("trained_geometry"),
            )
        },
        _activations,
    ),
}  # fmt: skip
