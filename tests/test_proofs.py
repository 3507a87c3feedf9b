"""The proofs' surroundings, without Coq: `bash proofs/check`, which CI runs, needs it."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import mpmath
import pytest

from tests import formal

PROOFS = Path(__file__).parents[1] / "proofs"


def test_examples_hold_the_oracles_values():
    assert formal.PATH.read_text() == formal.text()


def test_examples_are_not_trivial():
    cases = formal.cases()
    plain = [case for case in cases if case.loss.kind == "scl"]
    assert len(plain) >= 20
    assert {case.loss.kind for case in cases} == {"scl", "log-sum-exp", "sigmoid", "supcon-in"}
    assert all(abs(formal.value(case)) > mpmath.mpf("1e-3") for case in cases)
    assert any(len(case.batches) > 1 for case in plain)
    assert any(x < 0 for case in plain for row in case.rows for x in row)


def test_values_of_the_general_loss_agree_with_plain_scl():
    """The formula for the other losses, at weights 1 and margins 0, against the oracle for SCL."""
    ones, nothing = (formal.Fraction(1),) * 3, ((formal.Fraction(0),) * 3,) * 3
    for case in formal.cases()[: formal.SCL_CASES]:
        general = formal.Loss("log-sum-exp", ones, nothing, case.loss.taus * 3)
        same = formal.Case(case.labels, case.rows, case.batches, general)
        assert abs(formal.value(same) - formal.value(case)) < mpmath.mpf("1e-30")


BOOK = PROOFS.parent / "docs" / "theory.md"
TABLE = "## What is machine-checked"
NAME = re.compile(r"`([A-Z][A-Za-z]*\.[A-Za-z_0-9']+)`")


def tables() -> tuple[set[str], set[str]]:
    """The formal names in the book's table, and in the README's."""
    section = BOOK.read_text().split(f"\n{TABLE}\n")[1].split("\n## ")[0]
    return set(NAME.findall(section)), set(NAME.findall((PROOFS / "README.md").read_text()))


def theorems() -> set[str]:
    stated = re.compile(r"^Theorem ([\w']+)", re.MULTILINE)
    return {f"{path.stem}.{name}" for path in PROOFS.glob("*.v") for name in stated.findall(path.read_text())}


@pytest.fixture
def copied(tmp_path):
    """The proofs and the book, to be spoiled: their folder."""
    shutil.copytree(PROOFS, tmp_path / "proofs")
    (tmp_path / "docs").mkdir()
    shutil.copy(BOOK, tmp_path / "docs")
    return tmp_path


def check(folder: Path, *options: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ if path is None else {**os.environ, "PATH": path}
    command = ["bash", str(folder / "proofs" / "check"), *options]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_the_tables_name_theorems_and_the_check_knows_how_many():
    book, readme = tables()
    assert book | readme <= theorems()
    counted = dict(re.findall(r"^(in_\w+)=(\d+)$", (PROOFS / "check").read_text(), re.MULTILINE))
    assert counted == {"in_book": str(len(book)), "in_readme": str(len(readme))}
    assert len(book | readme) >= 49


def test_the_check_says_how_much_it_reads(copied):
    run = check(copied, "--text")
    assert run.returncode == 0, run.stderr
    book, readme = tables()
    said = f"{len(theorems())} theorems, {len(book)} of them named in the book's table, {len(readme)} in README.md"
    assert said in run.stdout


UNPROVED = "unproved : forall p H, feasible p H -> objective p H = loss_bound p"


@pytest.mark.parametrize(
    ("gap", "answer"),
    [
        ("Axiom easy : forall p, well_formed p.", "unproved or switch a check off"),
        ("Parameter magic : False.", "unproved or switch a check off"),
        (f"Conjecture {UNPROVED}.", "unproved or switch a check off"),
        ("Lemma open : 0 = 1. Proof. Admitted.", "unproved or switch a check off"),
        ("Lemma open : 0 = 1. Proof. admit. Qed.", "unproved or switch a check off"),
        ("Admit Obligations.", "unproved or switch a check off"),
        ("Unset Guard Checking.", "unproved or switch a check off"),
        (f"Hypothesis {UNPROVED}.", "outside a section"),
        (f"Local Hypothesis {UNPROVED}.", "outside a section"),
        ("Hypotheses magic wand : False.", "outside a section"),
        ("Variable magic : False.", "outside a section"),
        ("Variables (magic : False) (wand : 0 = 1).", "outside a section"),
        (f"Context ({UNPROVED}).", "outside a section"),
        ("Section Shut. Variable x : R. End Shut. (* Section *) Variable magic : False.", "outside a section"),
        ('Notation "Section" := 0. Variable magic : False.', "outside a section"),
        ("Module Inner. Section Open. End Open. End Inner.", "outside a section"),
    ],
)
def test_a_gap_is_refused(copied, gap, answer):
    target = copied / "proofs" / "Bound.v"
    target.write_text(f"{target.read_text()}\n{gap}\n")
    run = check(copied)
    assert run.returncode == 1
    assert answer in run.stderr
    assert gap in run.stdout


def test_a_hypothesis_of_a_section_or_of_a_comment_is_none(copied):
    target = copied / "proofs" / "Bound.v"
    premise = "Section Open.\nContext (x : R).\nHypothesis P : 0 < x.\nEnd Open.\n"
    target.write_text(f"{target.read_text()}\n(* Variable magic : False. (* nested *) *)\n{premise}")
    run = check(copied, "--text")
    assert run.returncode == 0, run.stdout + run.stderr


def test_a_file_left_out_is_refused(copied):
    (copied / "proofs" / "Extra.v").write_text("")
    run = check(copied)
    assert run.returncode == 1
    assert "_CoqProject" in run.stderr


@pytest.mark.parametrize("file", ["docs/theory.md", "proofs/README.md"])
@pytest.mark.parametrize("left", ["nothing", "half", "all but one"])
def test_a_table_that_shrinks_is_refused(copied, file, left):
    text = (copied / file).read_text()
    start = text.index(TABLE) if file == "docs/theory.md" else 0
    rows = [line for line in text[start:].splitlines() if line.startswith("|") and NAME.search(line)]
    stored = {"nothing": 0, "half": len(rows) // 2, "all but one": len(rows) - 1}[left]
    for row in rows[stored:]:
        text = text.replace(f"{row}\n", "")
    (copied / file).write_text(text)
    run = check(copied)
    assert run.returncode == 1
    assert f"{Path(file).name} should name at least" in run.stderr


def test_a_name_that_is_no_theorem_is_refused(copied):
    readme = copied / "proofs" / "README.md"
    readme.write_text(readme.read_text() + "\n`Bound.invented`\n")
    run = check(copied)
    assert run.returncode == 1
    assert "no theorem: Bound.invented" in run.stderr


# In Coq's place: it compiles anything, and answers every question with the axioms of its second argument.
STAND_IN = """#!/usr/bin/env bash
if [[ "${{@: -1}}" == Audit.v ]]; then
    cp Audit.v {audit}
    grep -c '^Print Assumptions' Audit.v | xargs seq | while read -r _; do printf '%s\\n' {answer}; done
fi
"""


@pytest.mark.parametrize(
    ("answer", "end"),
    [
        ("'Closed under the global context'", None),
        ("Axioms: 'Classical_Prop.classic : forall P : Prop, P \\/ ~ P'", None),
        ("Axioms: 'Bound.unproved' '  : forall p, objective p = loss_bound p'", "rests on Bound.unproved"),
    ],
)
def test_the_axioms_of_every_theorem_are_asked_for_and_judged(copied, answer, end):
    stand_in = copied / "coqc"
    stand_in.write_text(STAND_IN.format(audit=copied / "audit.v", answer=answer))
    stand_in.chmod(0o755)
    run = check(copied, path=f"{copied}:{os.environ['PATH']}")
    assert set(re.findall(r"@([\w.']+)", (copied / "audit.v").read_text())) == theorems()
    if end is None:
        assert run.returncode == 0, run.stderr
        assert theorems() <= set(run.stdout.splitlines())
    else:
        assert run.returncode == 1
        assert end in run.stderr
