"""The page of the imbalance sweep: its question, its figures, and its verdict in a sentence."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.harness.cells import cell_name, certificate_file
from experiments.harness.drawing import Drawing, drawn_by
from experiments.harness.loss_names import PLAIN, in_names
from experiments.reports.page import Page, in_words, read_as, read_csv, render

DRAWINGS = {
    "class_mean_gram": Drawing(
        "Heat maps of the class-mean Gram matrix, one for each R",
        "Gram matrix of the class means for each R, at the start with the largest distance delta_gm from an "
        "orthogonal frame. No other start is further from one.",
        drawn_by("class_mean_gram"),
    ),
    "convergence": Drawing(
        "Excess, delta_gm and beta_nc against iterations, one line for each R",
        "Excess over the bound (without the ReLU: loss minus the certified lower bound), distance from an orthogonal "
        "frame and neural collapse against iterations: median over starts, band of the middle half. Values below "
        "1e-17, exact zeros included, are drawn at 1e-17.",
        drawn_by("convergence"),
    ),
}


def rendered(root: Path) -> str:
    """The page of the imbalance sweep in a directory."""
    recorded = json.loads((root / "config.json").read_text())
    config, batched = recorded["config"], bool(recorded.get("batched"))
    rows, starts = read_csv(root / "summary.csv"), read_csv(root / "inits.csv")
    good, verdict = judged(config, rows, recorded.get("cells", len(rows)) - len(rows), batched)
    model, named = "UFM+" if config["relu"] else "UFM", in_names(config.get("loss", PLAIN))
    certificates: dict[str, list[str]] = {f"R = {row['R']}, tau = {row['tau']}": [] for row in rows}
    for start in starts:
        file = certificate_file(cell_name(start["R"], start["tau"], *named), int(start["init"]))
        certificates[f"R = {start['R']}, tau = {start['tau']}"].append(file)
    return render(
        root,
        Page(
            title=f"{model} under {' '.join((*named, config['imbalance']))} imbalance: k = {config['k']}, "
            f"d = {config['d']}, tau = {in_words(config['tau'])}",
            question=question(config, batched),
            good=good,
            verdict=verdict,
            note=read_as(config["relu"]),
            drawings=DRAWINGS,
            certificates=certificates,
        ),
    )


def question(config: Mapping[str, Any], batched: bool = False) -> str:
    """The question of the sweep, in words."""
    starts = f"{config['inits']} random starts at each imbalance ratio R"
    if not config["relu"]:
        return (
            "Without the ReLU (UFM), what are the minimisers of the supervised contrastive loss under imbalance? "
            f"{starts}, each certified if its own duality gap closes."
        )
    outside = outside_theorem(config, batched)
    return (
        "Theorem 1 of arXiv 2306.07960: with embeddings constrained to be nonnegative (the ReLU, UFM+), every "
        "minimiser of the supervised contrastive loss is an orthogonal frame, whatever the imbalance"
        f"{f' (not about this problem: {outside})' if outside else ''}. Does every start end in one? "
        f"{starts}, each verified and certified."
    )


def judged(
    config: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], failed: int = 0, batched: bool = False
) -> tuple[bool, str]:
    """Whether every start of every cell is what the sweep asks for, and the verdict in a sentence.

    rows: lines of summary.csv. failed: cells without a row. batched: whether a file gave batches.
    """
    certified, frames, starts = (
        sum(int(row[name]) for row in rows) for name in ("certified", "orthogonal_frames", "inits")
    )
    counts = f"{certified} of {starts} starts are certified global minimisers"
    if failed:
        return False, f"{failed} of {failed + len(rows)} cells failed. Of the others, {counts}."
    measured = all(math.isfinite(float(row["worst_excess"])) for row in rows)
    if not config["relu"]:
        return certified == starts and measured, f"{counts} of UFM."
    good, outside = certified == frames == starts and measured, outside_theorem(config, batched)
    counts = f"{counts}, {frames} are orthogonal frames."
    if outside:
        return good, f"Theorem 1 is not about this problem ({outside}). {counts}{unattained(config, rows)}"
    return good, f"Theorem 1 is {'' if good else 'not '}reproduced: {counts}"


def unattained(config: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """What is proved, and what is not, of cells with d < k in which no start attains the bound; empty without any."""
    if "d" not in config or config["d"] >= config["k"]:
        return ""
    above = [float(row["best_excess"]) for row in rows if int(row["certified"]) == 0]
    if not above:
        return ""
    return (
        " Proved: no point has a loss below the bound; where no start is certified, the best one is at most "
        f"{max(above):.2g} above. Not proved: that it is a global minimiser, since the relaxation that the bound comes "
        "from does not depend on d."
    )


def outside_theorem(config: Mapping[str, Any], batched: bool) -> str:
    """Why Theorem 1 (UFM+, full batch, d >= k, two samples of every class) does not apply; empty if it does."""
    if "d" in config and config["d"] < config["k"]:
        return f"d = {config['d']} < k = {config['k']}: its bound need not be attained"
    if config.get("n_min", 2) < 2:
        return "the norm of a class of one sample is free"
    return "the file gives batches, which may allow other minimisers" if batched else ""
