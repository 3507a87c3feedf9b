"""The proofs' surroundings, without Coq: `bash proofs/check`, which CI runs, needs it."""

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


def test_every_theorem_of_the_tables_is_in_its_file():
    tables = (PROOFS / "README.md").read_text() + (PROOFS.parent / "docs" / "theory.md").read_text()
    names = re.findall(r"`([A-Z][A-Za-z]*)\.([A-Za-z_0-9']+)`", tables)
    assert len(names) > 40
    for module, name in names:
        stated = re.search(rf"^(Theorem|Lemma) {name}\b", (PROOFS / f"{module}.v").read_text(), re.MULTILINE)
        assert stated is not None, f"{module}.{name}"


@pytest.mark.parametrize(
    "gap",
    [
        "Axiom easy : forall p, well_formed p.",
        "Parameter magic : False.",
        "Lemma open : 0 = 1. Proof. Admitted.",
        "Lemma open : 0 = 1. Proof. admit. Qed.",
        "Unset Guard Checking.",
    ],
)
def test_a_gap_is_refused(tmp_path, gap):
    shutil.copytree(PROOFS, tmp_path / "proofs")
    target = tmp_path / "proofs" / "Bound.v"
    target.write_text(f"{target.read_text()}\n{gap}\n")
    run = subprocess.run(["bash", str(tmp_path / "proofs" / "check")], capture_output=True, text=True)
    assert run.returncode == 1
    assert "unproved or switch a check off" in run.stderr
    assert gap in run.stdout


def test_a_file_left_out_is_refused(tmp_path):
    shutil.copytree(PROOFS, tmp_path / "proofs")
    (tmp_path / "proofs" / "Extra.v").write_text("")
    run = subprocess.run(["bash", str(tmp_path / "proofs" / "check")], capture_output=True, text=True)
    assert run.returncode == 1
    assert "_CoqProject" in run.stderr
