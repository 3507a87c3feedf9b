"""Every sentence that the sweeps and the checker print, beside what was computed: case -> sentence."""

import io
import re
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from rich.console import Console

import ufm
from experiments import sweep_batching, sweep_imbalance
from experiments.measurements.solutions import describe
from experiments.reports import batching as batching_report
from experiments.reports import imbalance as imbalance_report
from solvers.certification.certifier import Certifier
from solvers.certification.verification import Pair, Verdict, verify
from ufm_check import check

FRAME = {"relu": True, "k": 4, "d": 6, "n_min": 2, "inits": 4}
FREE = {**FRAME, "relu": False}

# The verdict of the imbalance sweep: what was asked; (certified, frames) of 4 starts; failed cells; batches of a file.
VERDICTS = {
    "all": (FRAME, (4, 4), 0, False, "Theorem 1 is reproduced: 4 of 4 starts are certified global minimisers, 4 are"),
    "one is no frame": (FRAME, (4, 3), 0, False, "Theorem 1 is not reproduced: 4 of 4"),
    "one is not certified": (FRAME, (3, 4), 0, False, "Theorem 1 is not reproduced: 3 of 4"),
    "a cell failed": (FRAME, (4, 4), 1, False, "1 of 2 cells failed. Of the others, 4 of 4 starts are certified"),
    "d < k": (
        {**FRAME, "d": 3},
        (0, 0),
        0,
        False,
        "Theorem 1 is not about this problem (d = 3 < k = 4: its bound need not be attained). 0 of 4 starts are",
    ),
    "a class of one sample": (
        {**FRAME, "n_min": 1},
        (4, 2),
        0,
        False,
        "Theorem 1 is not about this problem (the norm of a class of one sample is free). 4 of 4 starts are certified",
    ),
    "batches of a file": (
        FRAME,
        (4, 4),
        0,
        True,
        "Theorem 1 is not about this problem (the file gives batches, which may allow other minimisers). 4 of 4",
    ),
    "UFM": (FREE, (4, 0), 0, False, "4 of 4 starts are certified global minimisers of UFM."),
    "UFM, one is not certified": (FREE, (3, 0), 0, False, "3 of 4 starts are certified global minimisers of UFM."),
}


@pytest.mark.parametrize("case", VERDICTS)
def test_the_verdict_of_the_imbalance_sweep(case):
    config, (certified, frames), failed, batched, sentence = VERDICTS[case]
    excess = {"worst_excess": 1e-13, "best_excess": 1e-13}
    row = {"certified": certified, "orthogonal_frames": frames, "inits": 4, **excess}
    good, said = imbalance_report.judged(config, [row], failed, batched)
    assert said.startswith(sentence)
    assert good is (not failed and certified == 4 and (frames == 4 or not config["relu"]))
    assert ("reproduced" in said) is (config is FRAME and not failed and not batched)
    requested = imbalance_report.question(config, batched)
    assert ("Theorem 1" in requested) is config["relu"]
    assert ("not about this problem" in requested) is ("not about this problem" in said)


WARNINGS = {
    "usual": ({}, []),
    "d < k": ({"d": 3}, ["d = 3 < k = 4"]),
    "a class of one sample": ({"n_min": 1}, ["its norm is free"]),
    "both": ({"n_min": 1, "d": 3}, ["d = 3 < k = 4"]),  # where the bound is not attained no norm is known to be free
    "UFM": ({"relu": False}, ["is about UFM+; a start of UFM is certified if its own duality gap closes"]),
    "UFM, a class of one sample": ({"relu": False, "n_min": 1}, ["is about UFM+"]),  # its norm is not free there
}


@pytest.mark.parametrize("case", WARNINGS)
def test_notes_on_what_is_asked(case):
    changed, said = WARNINGS[case]
    notes = sweep_imbalance.warnings(replace(sweep_imbalance.Config(k=4, d=6, n_min=2), **changed))
    assert len(notes) == len(said)
    assert all(words in note for words, note in zip(said, notes, strict=True))
    assert not any("is not attained" in note for note in notes)  # it is, by classes of which at most d have two samples


@pytest.mark.parametrize(("certified", "open"), [((4, 4), False), ((4, 0), True), ((0, 0), True)])
def test_few_dimensions_leave_open_only_what_no_start_attains(certified, open):
    """Theory, 4.21 (c): for d < k too a start that attains the bound is a certified global minimiser."""
    config = {**FRAME, "d": 3, "n_min": 1}
    excess = {"worst_excess": 1.0, "best_excess": 0.5}
    rows = [{"certified": result, "orthogonal_frames": 0, "inits": 4, **excess} for result in certified]
    assert ("Not proved: that it is a global minimiser" in imbalance_report.judged(config, rows)[1]) is open


def shown(report_of, config, cells, failed=0, **options):
    console = Console(file=io.StringIO(), width=200)
    report_of(config, cells, failed, console, **options)
    return " ".join(console.file.getvalue().split())


def cell(*, certified=4, frames=4, nonneg=1, excess=1e-13, gap=1e-12, verdict=str(Verdict.GLOBAL_MINIMISER), **batches):
    columns = dict.fromkeys(("delta_gm", "beta_nc", "trace_sw", "max_cosine", "residual", "iterations"), 1.0)
    data = {name: ("init", np.full(4, value)) for name, value in {**columns, "gap": gap}.items()}
    data |= {"excess": ("init", np.full(4, excess)), "verdict": ("init", np.full(4, verdict))}
    data |= {"evidence": ("init", np.full(4, "")), "certified": ("init", np.arange(4) < certified)}
    data["orthogonal_frame"] = ("init", np.arange(4) < frames)
    attrs = {"R": 10.0, "k": 4, "d": 6, "tau": 1.0, "n": 44, "inits": 4, "nonneg": nonneg, "loss_bound": 100.0}
    attrs |= {"lower_bound": 90.0, **dict.fromkeys(("seconds_compile", "seconds_solve", "seconds_certify"), 1.0)}
    if batches:
        attrs |= {"batch_size": 8, "bound": 0, "family": "partition", "batches": 6, "partitions": 4}
        data["start"] = ("init", np.zeros(4, int))
        data["plain_claim"] = ("init", np.zeros(4, bool))
        data |= {name: ("init", np.array(values)) for name, values in batches.items()}
    return xr.Dataset(data, attrs=attrs)


def test_the_console_says_what_the_page_says():
    config = sweep_imbalance.Config(k=4, d=6, n_min=2, inits=4)
    said = shown(sweep_imbalance.print_summary, config, [cell(), cell(frames=3)])
    row = {"certified": 8, "orthogonal_frames": 7, "inits": 8, "worst_excess": 1e-13}
    assert imbalance_report.judged(vars(config), [row])[1] in said


@pytest.mark.parametrize(
    ("relu", "head", "number", "hidden"),
    [(True, "largest excess", "-8", "1e-12"), (False, "largest proved gap", "1e-12", "-8")],
)
def test_the_table_shows_losses_above_what_bounds_them(relu, head, number, hidden):
    """The loss of a frame is no bound of UFM: an excess of -8 over it is no distance from an optimum."""
    config = sweep_imbalance.Config(k=4, d=6, n_min=2, inits=4, relu=relu)
    said = shown(sweep_imbalance.print_summary, config, [cell(nonneg=int(relu), excess=-8.0)])
    assert all(word in said for word in head.split())
    assert number in said
    assert hidden not in said


PREDICTED = ["True", "False", "None", "True"]
REFUTED = ["None", "True", "None", "None"]
BATCHED = {
    "all as predicted": ({}, True),
    "no frame where none is predicted": ({"frames": [1, 0, 0, 1]}, True),
    "no frame where one is predicted": ({"frames": [0, 1, 1, 1]}, False),
    "a start is not certified": ({"certified": 3}, False),
    "another minimiser is not certified": ({"counterexample_certified": ["None", "False", "None", "None"]}, False),
}


@pytest.mark.parametrize("case", BATCHED)
def test_the_verdict_of_the_batching_sweep(case):
    changed, good = BATCHED[case]
    changed = dict(changed)
    frames = np.array(changed.pop("frames", [1, 1, 1, 1]), bool)
    families = {"unique": PREDICTED, "counterexample_certified": REFUTED}
    measured = cell(certified=changed.pop("certified", 4), **{**families, **changed})
    measured["orthogonal_frame"] = ("init", frames)
    said = shown(sweep_batching.print_summary, sweep_batching.Config(k=4, d=6, partitions=4), [measured])
    names = ("unique", "start", "certified", "orthogonal_frame", "counterexample_certified", "excess")
    starts = [{name: str(measured[name].values[i]) for name in names} for i in range(4)]
    judged, counts = batching_report.judged(starts)
    assert judged is good
    assert counts.startswith("Confirmed: 4 of 4" if good else "Not confirmed: ")
    assert f"{int(frames[[0, 3]].sum())} of 2 are frames" in counts
    assert counts in said
    assert sweep_batching.confirmed(measured) is good


def test_a_failed_cell_is_no_confirmation():
    cells = [cell(unique=PREDICTED, counterexample_certified=REFUTED)]
    said = shown(sweep_batching.print_summary, sweep_batching.Config(), cells, 2)
    assert "Not confirmed: 2 of 3 cells failed. Of the others, 4 of 4 starts are certified." in said


# What a start looks like: a change of a frame, and the phrase.
LOOKS = {
    "frame": (lambda H: H, ""),
    "merged": (lambda H: np.where((H[:, 2] > 0)[:, None], H[0], H), "samples of classes 0 and 2 have cosine 1"),
    "short": (lambda H: H * (1 - 0.3 * (H[:, [1]] > 0)), "a sample of class 1 has norm 0.7"),
    "vanished": (lambda H: H * (H[:, [1]] == 0), "a sample of class 1 has norm 0"),
}


@pytest.mark.parametrize("case", LOOKS)
def test_what_a_start_looks_like(case):
    """Whatever the verdict, the phrase is about what is measured, never "overlap (cosine 0)"."""
    change, phrase = LOOKS[case]
    problem = ufm.Problem.from_class_sizes([4, 3, 3], d=4)
    result = verify(change(np.eye(3, 4)[np.asarray(problem.labels)]), problem)
    stationary = result.verdict if phrase == "" else Verdict.STATIONARY
    assert describe(replace(result, verdict=stationary)) == phrase
    apart = replace(result, verdict=Verdict.STATIONARY, collapsed=False, within=Pair((0, 1), (0, 0), 1.4))
    assert describe(apart) == "two samples of class 0 are 1.4 apart"


def checked(name, folder, capsys):
    """Exit status and sentences of the checker for one case."""
    labels, d, nonneg, batches, rows = POINTS[name]
    problem = ufm.Problem(labels, d, 0.5, batches, nonneg)
    certifier = Certifier(problem, conic=False)
    H = certifier.better.rows[certifier.orbits.index] if rows is None else np.asarray(rows, float)[labels]
    H = H / np.maximum(np.linalg.norm(H, axis=1, keepdims=True), 1)
    certifier.certify(H).save(folder / "c.json")
    status = check.main([str(folder / "c.json")])
    return status, capsys.readouterr().out


SIX, PAIRS = [0, 0, 1, 1, 2, 2], [0, 0, 1, 1]
PIECES = [0, 0, 1, 1, 0, 0, 1, 1]
POINTS = {
    "frame": (SIX, 4, True, None, np.eye(3, 4)),
    "merged": (SIX, 4, True, None, np.eye(3, 4)[[0, 1, 1]]),
    "d < k": (SIX, 2, True, None, np.eye(2)[[0, 1, 1]]),
    "pieces": (PIECES, 2, True, [[0, 1, 2, 3], [4, 5, 6, 7]], np.eye(2)),
    "UFM": (SIX, 3, False, None, None),
    "UFM, frame": (SIX, 3, False, None, np.eye(3)),
    "UFM, simplex in d < k": (SIX, 2, False, None, None),
    "UFM, batches": (PAIRS, 2, False, [[0, 1, 2], [1, 2, 3]], None),
}
MINIMISER = "So the point is a global minimiser within the gap: no feasible point has a loss lower by more than"
FRAME_ONLY = "All minimisers have one Gram matrix, the orthogonal frame's."
ONE_GRAM = "All minimisers have one Gram matrix."
ANOTHER = "The orthogonal frame is not the only minimiser: the file holds one with another Gram matrix."
WORSE = "The point is no global minimiser: the file holds a better one."
COSINES, INTERVALS = "class means of cosine at most", "class means of cosines in the file's intervals"
SENTENCES = (MINIMISER, FRAME_ONLY, ONE_GRAM, ANOTHER, WORSE, COSINES, INTERVALS)
SAID = {
    "frame": {MINIMISER, FRAME_ONLY, COSINES},
    "merged": {WORSE, FRAME_ONLY, COSINES},
    "d < k": {COSINES},
    "pieces": {MINIMISER, ANOTHER, COSINES},
    "UFM": {MINIMISER, ONE_GRAM, INTERVALS},
    "UFM, frame": {WORSE, ONE_GRAM, INTERVALS},
    "UFM, simplex in d < k": {MINIMISER, INTERVALS},
    "UFM, batches": {MINIMISER},
}


@pytest.mark.parametrize("name", SAID)
def test_what_the_checker_says(name, tmp_path, capsys):
    """Each sentence where it was proved and nowhere else; "proved" and exit status 0 with the minimiser only."""
    status, said = checked(name, tmp_path, capsys)
    assert {sentence for sentence in SENTENCES if sentence in said} == SAID[name], said
    assert status == (0 if MINIMISER in SAID[name] else 1)
    assert re.search(r": (NOT )?PROVED", said).group(0) == (": PROVED" if status == 0 else ": NOT PROVED")
    assert ("Not checked: second opinion" in said) is (status == 0)
