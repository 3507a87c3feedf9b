"""The report of the batching sweep; see `experiments.report`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.report import lines, page, read_as
from figures.captions import SWEEP_CAPTIONS


def rendered(root: Path) -> str:
    """The page of the batching sweep in a directory."""
    recorded = json.loads((root / "config.json").read_text())
    config = recorded["config"]
    rows, starts = lines(root / "summary.csv"), lines(root / "inits.csv")
    good, verdict = judged(starts, failed=recorded["cells"] - len(rows))
    certificates: dict[str, list[str]] = {}
    for start in starts:
        certificates.setdefault(_label(start), []).extend(_certificates(start))
    return page(
        root,
        title=f"UFM+ over {config['family']} batches, {config['imbalance']} imbalance: k = {config['k']}, "
        f"d = {config['d']}, tau = {config['tau']:g}",
        question=asked(config),
        good=good,
        verdict=verdict,
        captions=SWEEP_CAPTIONS,
        note=read_as({"relu": True}),
        certificates=certificates,
    )


def asked(config: Mapping[str, Any]) -> str:
    """The question of the sweep, in words."""
    bound = ", as drawn and with one sample of each class bound to every batch" if config["bind"] else ""
    return (
        "Does the batch family decide which geometry is learned: does every start end in an orthogonal frame wherever "
        "theory predicts that the frame is the only minimiser (Theorem 2 and Corollary 2.1 of arXiv 2306.07960, "
        f"sharpened)? {config['partitions']} random families for each R and batch size{bound}, starts of each: "
        f"{config['inits']}, verified and certified. Where another minimiser is predicted, it is certified as well."
    )


def judged(starts: Sequence[Mapping[str, str]], failed: int = 0) -> tuple[bool, str]:
    """Whether theory is confirmed by every start, and the verdict in a sentence. failed: cells without a row."""
    certified = sum(start["certified"] == "True" for start in starts)
    if failed:
        return False, f"{failed} cells failed. Of the others, {certified} of {len(starts)} starts are certified."
    unique = [start for start in starts if start["unique"] == "True"]
    frames = sum(start["orthogonal_frame"] == "True" for start in unique)
    refutable = [start for start in starts if start["unique"] == "False" and start["start"] == "0"]
    refuted = sum(start["counterexample_certified"] == "True" for start in refutable)
    measured = all(math.isfinite(float(start["excess"])) for start in starts)
    good = certified == len(starts) and frames == len(unique) and refuted == len(refutable) and measured
    counts = (
        f"{certified} of {len(starts)} starts are certified global minimisers; where the frame is predicted to be the "
        f"only one, {frames} of {len(unique)} are frames; where it is not, another one is certified for {refuted} of "
        f"{len(refutable)} families."
    )
    return good, f"{'Confirmed' if good else 'Not confirmed'}: {counts}"


def _label(start: Mapping[str, str]) -> str:
    return f"R = {start['R']}, batches of {start['batch_size']}{', bound' if start['bound'] == 'True' else ''}"


def _certificates(start: Mapping[str, str]) -> list[str]:
    """Names of the start's certificate, and after the first start of a family that of the other minimiser."""
    kind = "bound" if start["bound"] == "True" else "drawn"
    family = f"R{float(start['R']):g}-b{start['batch_size']}-{kind}-family{int(start['partition']):03d}"
    names = [f"{family}-start{int(start['start']):03d}.json"]
    if start["unique"] == "False" and start["start"] == "0":
        names.append(f"{family}-counterexample.json")
    return names
