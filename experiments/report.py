"""The report of a sweep: one self-contained HTML page, made from the files that the sweep left.

What any sweep needs, and the page of the imbalance sweep.
"""

from __future__ import annotations

import base64
import csv
import json
import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from experiments.store import Store
from figures.captions import SWEEP_CAPTIONS, Caption
from solvers.certification.certificate import Certificate, Proof
from ufm.errors import InvalidInput

NAME = "report.html"
SECONDS = {"compile": "compilation", "solve": "solving", "certify": "verifying and certifying"}


def write_report(store: Store, page_of: Callable[[Path], str]) -> Path:
    """Write report.html of a sweep from the files it left.

    Those are config.json, summary.csv, inits.csv, figures/*.png and certificates/*.json. Values are the strings
    of summary.csv. A certificate that cannot be read is said so, never left out.

    page_of: makes the page of this kind of sweep, such as `rendered`.
    """
    return store.write_bytes(NAME, page_of(store.root).encode())


def rendered(root: Path) -> str:
    """The page of the imbalance sweep in a directory."""
    recorded = json.loads((root / "config.json").read_text())
    config = recorded["config"]
    rows, starts = lines(root / "summary.csv"), lines(root / "inits.csv")
    batched = bool(recorded.get("batched"))
    good, verdict = judged(config, rows, recorded.get("cells", len(rows)) - len(rows), batched)
    model = "UFM+" if config["relu"] else "UFM"
    return page(
        root,
        title=f"{model} under {config['imbalance']} imbalance: k = {config['k']}, d = {config['d']}, "
        f"tau = {shown(config['tau'])}",
        question=asked(config, batched),
        good=good,
        verdict=verdict,
        captions=SWEEP_CAPTIONS,
        note=read_as(config),
        certificates={
            f"R = {row['R']}, tau = {row['tau']}": [
                f"{cell_name(row['R'], row['tau'])}-start{int(start['init']):03d}.json"
                for start in starts
                if (start["R"], start["tau"]) == (row["R"], row["tau"])
            ]
            for row in rows
        },
    )


def page(
    root: Path,
    *,
    title: str,
    question: str,
    good: bool,
    verdict: str,
    captions: Mapping[str, Caption],
    note: str,
    certificates: Mapping[str, Sequence[str]],
) -> str:
    """The report of any sweep that left config.json (config and versions) and summary.csv in a directory.

    - note: how the table is to be read, below it.
    - captions: of figures/NAME.png, by name; figures that were not drawn are left out.
    - certificates: the names of files in certificates/, by group.
    """
    recorded = json.loads((root / "config.json").read_text())
    rows = lines(root / "summary.csv")
    environment = Environment(
        loader=PackageLoader("experiments"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("report.html").render(
        title=title,
        question=question,
        good=good,
        verdict=verdict,
        config={name: shown(value) for name, value in recorded["config"].items()},
        columns=list(rows[0]),
        rows=rows,
        note=note,
        figures=_figures(root, captions),
        certificates=[_group(root, label, names) for label, names in certificates.items()],
        out=shlex.quote(str(root)),
        versions=recorded["versions"],
        seconds={
            words: f"{sum(float(row[f'seconds_{name}']) for row in rows):.1f}"
            for name, words in SECONDS.items()
            if f"seconds_{name}" in rows[0]
        },
    )


def asked(config: Mapping[str, Any], batched: bool = False) -> str:
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


def read_as(config: Mapping[str, Any]) -> str:
    """What the columns of summary.csv hold that a reader may take for something else."""
    bound = (
        "worst_gap is the largest proved upper minus lower bound of a start; beta_nc sees the spread of a class in "
        "the span of the class means only, trace_sw all of it."
    )
    if config["relu"]:
        return (
            f"Excesses are losses minus loss_bound, the loss of an orthogonal frame, which no point is below; {bound}"
        )
    return (
        "Without the ReLU the loss of an orthogonal frame, loss_bound, is no bound: best_excess and worst_excess, "
        f"losses minus it, may be negative. lower_bound is certified; {bound}"
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
    """What is proved, and what not, where fewer than k coordinates leave the bound unattained; empty elsewhere."""
    if "d" not in config or config["d"] >= config["k"]:
        return ""
    above = max(float(row["best_excess"]) for row in rows)
    return (
        f" Proved: no point has a loss below loss_bound; the best start of each cell is at most {above:.2g} above. Not "
        "proved: that it is a global minimiser, since the relaxation that the bound comes from knows no d."
    )


def outside_theorem(config: Mapping[str, Any], batched: bool) -> str:
    """Why Theorem 1 (UFM+, full batch, d >= k, two samples of every class) does not apply; empty if it does."""
    if "d" in config and config["d"] < config["k"]:
        return f"d = {config['d']} < k = {config['k']}: its bound need not be attained"
    if config.get("n_min", 2) < 2:
        return "the norm of a class of one sample is free"
    return "the file gives batches, which may allow other minimisers" if batched else ""


def lines(path: Path) -> list[dict[str, str]]:
    """The lines of a table, by column."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def shown(value: Any) -> str:
    """A value of a configuration, several of them separated by spaces."""
    return " ".join(f"{item:g}" for item in value) if isinstance(value, (list, tuple)) else str(value)


def cell_name(R: float | str, tau: float | str) -> str:
    """What the files of a cell of the imbalance sweep are called, from the numbers as they are in summary.csv."""
    return f"R{R}-tau{tau}"


def _figures(root: Path, captions: Mapping[str, Caption]) -> list[dict[str, str]]:
    shown = []
    for name, caption in captions.items():
        path = root / "figures" / f"{name}.png"
        if path.is_file():
            content = base64.b64encode(path.read_bytes()).decode()
            shown.append({"content": content, "alt": caption.title, "text": caption.text})
    return shown


def _group(root: Path, label: str, names: Sequence[str]) -> dict[str, Any]:
    proofs = [_proof(root / "certificates" / name) for name in names]
    return {"label": label, "proofs": proofs, "proved": sum(bool(proof["certified"]) for proof in proofs)}


def _proof(path: Path) -> dict[str, Any]:
    line = {"name": path.stem, "command": f"python -m solvers.check {shlex.quote(str(path))}"}
    try:
        proof = Certificate.load(path)
    except InvalidInput as bad:
        return {**line, "certified": False, "status": str(bad), "gap": "", "upper": "", "lower": ""}
    certified = proof.status is Proof.CERTIFIED
    status = str(proof.status) if certified else f"{proof.status}: {proof.reason}"
    bounds = {"gap": f"{proof.gap:.1e}", "upper": repr(proof.upper), "lower": repr(proof.lower)}
    return {**line, "certified": certified, "status": status, **bounds}
