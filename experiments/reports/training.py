"""The page of trained networks: the question, the paper's panels, and the answer in a sentence."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.harness.command_line import program, worded
from experiments.harness.drawing import Drawing, drawn_by
from experiments.measurements.networks import NONNEGATIVE
from experiments.reports.page import Page, in_words, read_csv, render

# A trained network is said to end in a frame below this distance (an exact frame has 0, two merged classes of ten 0.4).
FRAME = 0.1
DRAWINGS = {
    "training": Drawing(
        "Distance from a frame, collapse, cosines, excess and accuracy over epochs",
        "Over the epochs of training: distance delta_gm of the class means from an orthogonal frame, neural collapse "
        "beta_NC, the largest cosine of two class means, the excess of the training features over the loss of a frame, "
        "and the accuracy of the nearest training class mean on test images, of all classes and of the minorities. "
        "Median over seeds, band from the smallest to the largest.",
        drawn_by("training"),
    ),
    "training_gram": Drawing(
        "Heat maps of the class-mean Gram matrix after training, one for each setting",
        "Gram matrix of the class means of the training features after the last epoch; of several seeds the one with "
        "the largest distance delta_gm from a frame.",
        drawn_by("training_gram"),
    ),
}


def rendered(root: Path) -> str:
    """The page of the networks in a directory."""
    recorded = json.loads((root / "config.json").read_text())
    config, rows = recorded["config"], read_csv(root / "summary.csv")
    good, verdict = judged(rows, recorded.get("cells", len(rows)) - len(rows))
    return render(
        root,
        Page(
            title=f"Networks trained on {config['dataset']} under {config['imbalance']} imbalance: n_maj = "
            f"{config['n_maj']}, tau = {in_words(config['tau'])}",
            question="Do the features of a trained network become the orthogonal frame that is the only minimiser of "
            "the supervised contrastive loss over free nonnegative features, and how far, provably, are they from it? "
            f"{in_words(config['net'])} with final activation {in_words(config['activation'])}, trained by "
            f"{config['loss']}, R = {in_words(config['R'])}.",
            good=good,
            verdict=verdict,
            note="Excesses are those of the training features over the loss of an orthogonal frame, with all rounding "
            "bounded. After a final activation that is never negative no features have less; otherwise they may, and "
            "the distance from the minimum is measured from a certified lower bound. The same at the paper's size, "
            f"which this is not: {at_papers_size(config)}",
            drawings=DRAWINGS,
            certificates={},
        ),
    )


def at_papers_size(config: Mapping[str, Any]) -> str:
    """The command that asks the same of the paper's networks in the paper's setting."""
    words = ["--net", "resnet18", "densenet40", "--dataset", "cifar10", "--data", "DIR", "--n-maj", "5000"]
    words += ["--tau", "0.1", "--epochs", "350", "--augment", "crop-flip", "--views", "2", "--seeds", "5"]
    for name in ("activation", "R", "batching"):
        words += [f"--{name}", *map(worded, config[name])]
    return shlex.join([*program("experiments.train_network"), *words, "--imbalance", str(config["imbalance"])])


def judged(rows: Sequence[Mapping[str, Any]], failed: int = 0) -> tuple[bool, str]:
    """Whether every network whose features are nonnegative ended in a frame, and the answer in a sentence."""
    apart = {True: [], False: []}
    for row in rows:
        apart[row["activation"] in NONNEGATIVE].append(float(row["delta_gm"]))
    said = [f"{failed} of {failed + len(rows)} networks failed."] if failed else []
    ends = sum(x <= FRAME for x in apart[True])
    for nonneg, name in ((True, "nonnegative"), (False, "unconstrained")):
        if result := apart[nonneg]:
            near = sum(x <= FRAME for x in result)
            said.append(
                f"{near} of {len(result)} networks with {name} features ended in an orthogonal frame "
                f"(delta_gm at most {FRAME:g}; median {np.median(result):.3g}, largest {max(result):.3g})."
            )
    sound = not failed and all(map(math.isfinite, apart[True]))
    return sound and ends == len(apart[True]), " ".join(said)
