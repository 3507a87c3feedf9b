"""The page of the batching sweep: its question, its figure, and its verdict in a sentence."""

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
    "batching": Drawing(
        "Distance from an orthogonal frame against iterations, and shares of unique families and of frames reached",
        "Left: distance of the class means from an orthogonal frame against iterations at the smallest batch size, "
        "median over all starts of all families and band of the middle half; values below 1e-17, exact zeros included, "
        "are drawn there. Right: share of families whose only minimiser is proved to be the frame (lines), and share "
        "of starts that end in one (markers), over the batch size before binding, or over R if there is one size. "
        "Without the ReLU, left: the loss minus the certified lower bound; right: the distance that starts end at.",
        drawn_by("batch_sweep"),
    ),
}
DRAWN, BOUND = "drawn", "bound"


def rendered(root: Path) -> str:
    """The page of the batching sweep in a directory."""
    recorded = json.loads((root / "config.json").read_text())
    config, starts = recorded["config"], read_csv(root / "inits.csv")
    requested = recorded["cells"]
    good, verdict = judged(starts, config["relu"], requested - len(read_csv(root / "summary.csv")), requested)
    certificates: dict[str, list[str]] = {}
    for start in starts:
        bound = ", bound" if start["bound"] == "True" else ""
        label = f"R = {start['R']}, tau = {start['tau']}, batches of {start['batch_size']}{bound}"
        certificates.setdefault(label, []).extend(_certificates(start, config.get("loss", PLAIN)))
    return render(
        root,
        Page(
            title=f"{'UFM+' if config['relu'] else 'UFM'} over {config['family']} batches, {config['imbalance']} "
            f"imbalance: k = {config['k']}, d = {config['d']}, tau = {in_words(config['tau'])}",
            question=question_of(config),
            good=good,
            verdict=verdict,
            note=read_as(config["relu"]),
            drawings=DRAWINGS,
            certificates=certificates,
        ),
    )


def question_of(config: Mapping[str, Any]) -> str:
    """The question of the sweep, in words."""
    bound = ", as drawn and with one sample of each class bound to every batch" if config["bind"] else ""
    families = f"{config['partitions']} for each R, tau and batch size{bound}"
    starts = f"{families}; {config['inits']} random starts of each, verified and certified."
    if not config["relu"]:
        return (
            "Without the ReLU (UFM) no theorem says which geometry a batch family forces. Is every start a global "
            f"minimiser, by a duality gap of its own? Families: {starts}"
        )
    return (
        "Does the batch family decide which geometry is learned: does every start end in an orthogonal frame wherever "
        "theory predicts that the frame is the only minimiser (Theorem 2 and Corollary 2.1 of arXiv 2306.07960, "
        f"sharpened)? Families: {starts} Where another minimiser is predicted, it is certified as well."
    )


def judged(starts: Sequence[Mapping[str, Any]], relu: bool = True, failed: int = 0, cells: int = 0) -> tuple[bool, str]:
    """Whether theory is confirmed by every start, and the verdict in a sentence.

    starts: lines of inits.csv. failed: how many of the `cells` asked have none.
    """
    said = [{name: str(value) for name, value in start.items()} for start in starts]
    certified = sum(start["certified"] == "True" for start in said)
    if failed:
        counts = f"{certified} of {len(said)} starts are certified."
        return False, f"Not confirmed: {failed} of {cells} cells failed. Of the others, {counts}"
    measured = all(math.isfinite(float(start["excess"])) for start in said)
    if not relu:
        good = certified == len(said) and measured
        return good, f"{certified} of {len(said)} starts are certified global minimisers of UFM."
    unique = [start for start in said if start["unique"] == "True"]
    frames = sum(start["orthogonal_frame"] == "True" for start in unique)
    refutable = [start for start in said if start["unique"] == "False" and start["start"] == "0"]
    refuted = sum(start["counterexample_certified"] == "True" for start in refutable)
    good = certified == len(said) and frames == len(unique) and refuted == len(refutable) and measured
    counts = (
        f"{certified} of {len(said)} starts are certified global minimisers; where the frame is predicted to be the "
        f"only one, {frames} of {len(unique)} are frames; where it is not, another one is certified for {refuted} of "
        f"{len(refutable)} families."
    )
    return good, f"{'Confirmed' if good else 'Not confirmed'}: {counts}"


def name_of(R: float | str, tau: float | str, batch_size: int | str, bound: bool, loss: str) -> str:
    """The name of a cell, from the numbers as they stand in summary.csv."""
    return cell_name(R, tau, f"b{batch_size}", BOUND if bound else DRAWN, *in_names(loss))


def _certificates(start: Mapping[str, str], loss: str) -> list[str]:
    """The start's certificate, and after the first start of a family that of the other minimiser."""
    cell = name_of(start["R"], start["tau"], start["batch_size"], start["bound"] == "True", loss)
    others = ["counterexample"] if start["unique"] == "False" and start["start"] == "0" else []
    return [certificate_file(cell, which, int(start["partition"])) for which in (int(start["start"]), *others)]
