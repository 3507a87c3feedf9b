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
from solvers.certificate import Certificate, Status
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
    good, verdict = judged(config, rows, failed=recorded.get("cells", len(rows)) - len(rows))
    model = "UFM+" if config["relu"] else "UFM"
    return page(
        root,
        title=f"{model} under {config['imbalance']} imbalance: k = {config['k']}, d = {config['d']}, "
        f"tau = {config['tau']:g}",
        question=asked(config),
        good=good,
        verdict=verdict,
        captions=SWEEP_CAPTIONS,
        note=read_as(config),
        certificates={
            f"R = {row['R']}": [
                f"R{float(row['R']):g}-start{int(start['init']):03d}.json" for start in starts if start["R"] == row["R"]
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
        config={name: _shown(value) for name, value in recorded["config"].items()},
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


def asked(config: Mapping[str, Any]) -> str:
    """The question of the sweep, in words."""
    starts = f"{config['inits']} random starts at each imbalance ratio R"
    if config["relu"]:
        return (
            "With embeddings constrained to be nonnegative (the ReLU, UFM+), is every minimiser of the supervised "
            "contrastive loss an orthogonal frame, whatever the imbalance (Theorem 1 of arXiv 2306.07960)? "
            f"{starts}, each verified and certified."
        )
    return (
        "Without the ReLU (UFM), what are the minimisers of the supervised contrastive loss under imbalance? "
        f"{starts}, each certified by its own duality gap."
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


def judged(config: Mapping[str, Any], rows: Sequence[Mapping[str, str]], failed: int = 0) -> tuple[bool, str]:
    """Whether the claim holds in every cell, and the verdict in a sentence. failed: cells without a row."""
    certified = sum(int(row["certified"]) for row in rows)
    frames = sum(int(row["orthogonal_frames"]) for row in rows)
    starts = sum(int(row["inits"]) for row in rows)
    if failed:
        return False, f"{failed} cells failed. Of the others, {certified} of {starts} starts are certified."
    measured = all(math.isfinite(float(row["worst_excess"])) for row in rows)
    if config["relu"]:
        good = certified == frames == starts and measured
        counts = f"{certified} of {starts} starts are certified global minimisers, {frames} are orthogonal frames."
        return good, f"Theorem 1 is reproduced: {counts}" if good else f"Theorem 1 is not reproduced: {counts}"
    good = certified == starts and measured
    return good, f"{certified} of {starts} starts are certified global minimisers of UFM."


def lines(path: Path) -> list[dict[str, str]]:
    """The lines of a table, by column."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _shown(value: Any) -> str:
    return " ".join(f"{item:g}" for item in value) if isinstance(value, list) else str(value)


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
    certified = proof.status is Status.CERTIFIED
    status = str(proof.status) if certified else f"{proof.status}: {proof.reason}"
    bounds = {"gap": f"{proof.gap:.1e}", "upper": repr(proof.upper), "lower": repr(proof.lower)}
    return {**line, "certified": certified, "status": status, **bounds}
