"""Certificates of the family: proved from the file alone; no file whose loss was tampered with proves what is false."""

import copy
import io
import json
from collections import Counter
from contextlib import redirect_stdout, suppress

import mpmath
import numpy as np
import pytest
from families import LOSSES
from problems import frame
from test_checker import NOT_PROVED, PROVED, UNREADABLE, outcome, sign
from test_mutants import DIGITS, FORGERIES, assert_true, consistent

import solvers
import ufm
from experiments.harness.loss_names import NAMES, loss_of
from solvers.certification.certificate import Certificate
from solvers.certification.certifier import Certifier
from ufm import losses
from ufm_check import check
from ufm_check.reading import Refusal

LABELS = [0] * 6 + [1] * 3 + [2] * 2
FAMILY = [[0, 1, 2, 6, 7], [2, 3, 4, 7, 8, 10], [0, 1, 2], [3, 4], [5, 6, 9, 10], [1, 3, 6, 8]]
BATCHES = {"full batch": None, "family": FAMILY}


def posed(name, batches=None, nonneg=True, d=4):
    return ufm.Problem(LABELS, d, 0.5, batches, nonneg, loss=LOSSES[name](np.random.default_rng(1), 3))


def content_of(certificate):
    return json.loads(certificate.serialised())


@pytest.mark.parametrize("batches", BATCHES)
@pytest.mark.parametrize("name", LOSSES)
def test_frames_are_certified_and_proved(name, batches, tmp_path):
    problem = posed(name, BATCHES[batches])
    certifier = Certifier(problem, conic=False)
    proof = certifier.certify(frame(problem))
    assert str(proof.status) == "certified"
    assert proof.gap < 1e-40 * (1 + abs(proof.lower))
    assert proof.theoretical == pytest.approx(float(ufm.loss_bound(problem)), rel=1e-12)
    assert proof.unique in (ufm.uniqueness(problem).unique, None)
    proof.save(tmp_path / "c.json")
    again = Certificate.load(tmp_path / "c.json")
    assert again.problem == proof.problem
    assert again.serialised() == proof.serialised()
    assert outcome((tmp_path / "c.json").read_bytes(), tmp_path) == PROVED
    merged = certifier.certify(np.eye(3, 4)[np.minimum(LABELS, 1)])
    assert str(merged.status) == "not certified"
    assert outcome(merged.serialised(), tmp_path) == NOT_PROVED


@pytest.mark.parametrize("batches", BATCHES)
@pytest.mark.parametrize("name", [name for name in LOSSES if name not in ("supcon-in", "extreme margins")])
def test_without_the_relu_bounds_meet(name, batches, tmp_path):
    """The dual is read off the best point; 1e-10 of the loss, whatever the weights."""
    certifier = Certifier(posed(name, BATCHES[batches], nonneg=False), conic=False)
    proof = certifier.certify(certifier.better.placed()[certifier.orbits.index])
    assert proof.gap <= 1e-10 * abs(proof.lower)
    assert proof.lower_bound.kind == "matrix"
    certified = str(proof.status) == "certified"
    assert outcome(proof.serialised(), tmp_path) == (PROVED if certified else NOT_PROVED)
    assert certified or name in (
        "class weights",
        "all at once",
    )  # weights that differ by 1e12: what a pair costs is less


def test_the_conic_solver_agrees(tmp_path):
    for name in ("logit adjustment", "decoupled", "class temperatures", "sigmoid"):
        certifier = Certifier(posed(name, nonneg=False))
        opinion = certifier.second_opinion
        assert opinion.value == pytest.approx(certifier.lower_bound.value, rel=1e-6)


def test_supcon_in_without_the_relu_is_honestly_not_certifiable(tmp_path, capsys):
    certifier = Certifier(posed("supcon-in", nonneg=False))
    proof = certifier.certify(certifier.better.placed()[certifier.orbits.index])
    assert str(proof.status) == "inconclusive"
    assert "not convex" in proof.reason
    content = content_of(proof)
    assert outcome(json.dumps(content), tmp_path) == NOT_PROVED
    scl = Certifier(posed("scl", nonneg=False), conic=False)
    theirs = content_of(scl.certify(scl.better.placed()[scl.orbits.index]))
    content["lower_bound"], content["claims"] = theirs["lower_bound"], theirs["claims"]
    assert outcome(json.dumps(sign(content)), tmp_path) == NOT_PROVED
    assert "not convex" in capsys.readouterr().out


# k = 10, STEP, tau = 1, without the ReLU: cosine between minorities, between majorities. What reweighting does.
WITHOUT_RELU = {
    ("scl", 10): (0.161, -0.243),
    ("class-weights", 10): (0.674, 0.039),
    ("class-averaging", 10): (0.855, -0.072),
    ("logit-adjustment", 10): (1.000, -0.242),
    ("weights-and-averaging", 10): (-1 / 9, -1 / 9),
    ("scl", 100): (0.245, -0.250),
    ("class-weights", 100): (1.000, 0.198),
    ("class-averaging", 100): (1.000, -0.076),
    ("logit-adjustment", 100): (1.000, -0.250),
    ("weights-and-averaging", 100): (-1 / 9, -1 / 9),
}


@pytest.mark.parametrize(
    ("name", "R"), [pytest.param(*case, marks=[pytest.mark.slow] * (case[1] > 10)) for case in WITHOUT_RELU]
)
def test_without_the_relu_every_cure_has_its_geometry(name, R, tmp_path):
    sizes = ufm.step_imbalance(10, 5, R)
    problem = ufm.Problem.from_class_sizes(sizes, d=20, nonneg=False, loss=loss_of(name, sizes))
    certifier = Certifier(problem, conic=False)
    proof = certifier.certify(certifier.better.placed()[certifier.orbits.index])
    assert str(proof.status) == "certified"
    assert proof.gap < 1e-10 * abs(proof.lower)
    assert outcome(proof.serialised(), tmp_path) == PROVED
    H = proof.point.placed()
    minority, majority = float(H[9] @ H[8]), float(H[0] @ H[1])
    assert (minority, majority) == pytest.approx(WITHOUT_RELU[name, R], abs=6e-4)


CONVEX = [name for name in LOSSES if name not in ("supcon-in", "extreme margins")]


@pytest.mark.parametrize("name", CONVEX)
def test_intervals_of_every_loss_are_proved_and_no_sharper_ones(name, tmp_path, capsys):
    """Each end of each interval, a hundredth of its distance from the cosine nearer to it, is proved no more."""
    certifier = Certifier(posed(name, nonneg=False), conic=False)
    proof = certifier.certify(certifier.better.placed()[certifier.orbits.index])
    content, H = content_of(proof), proof.point.placed()
    outcome(json.dumps(content), tmp_path)
    assert "cosines in the file's intervals" in capsys.readouterr().out
    cosines = H @ H.T / np.outer(np.linalg.norm(H, axis=1), np.linalg.norm(H, axis=1))
    tried = 0
    for field in ("cosine", "least_cosine"):
        for c, e in ((1, 0), (0, 2), (2, 1)):
            forged = copy.deepcopy(content)
            table = forged["claims"]["implied"][field]
            said = float.fromhex(table[c][e])
            if abs(said) == 1 or abs(said - cosines[c, e]) < 1e-10:
                continue  # says nothing, or all that doubles can say
            sharper = (0.99 * said + 0.01 * cosines[c, e]).hex()
            table[c][e] = table[e][c] = sharper
            assert outcome(json.dumps(sign(forged)), tmp_path) == NOT_PROVED
            printed = capsys.readouterr().out
            assert "the cosine of" in printed
            tried += 1
    assert tried


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("class weights", "weights", [1.0, 1.0, 1.0]),
        ("margins", "margins", [[0.0] * 3] * 3),
        ("class temperatures", "taus", [1.0, 1.0, 1.0]),
        ("sigmoid", "bias", 0.5),
        ("decoupled", "positives_in_denominator", True),
        ("class averaging", "averaged", False),
    ],
)
def test_intervals_of_one_loss_are_not_those_of_another(name, field, value, tmp_path, capsys):
    """The loss is swapped, and bounds are computed anew: what is then claimed of cosines does not follow."""
    certifier = Certifier(posed(name, nonneg=False), conic=False)
    content = content_of(certifier.certify(certifier.better.placed()[certifier.orbits.index]))
    hexed = np.vectorize(float.hex, otypes=[object])(value).tolist() if not isinstance(value, bool) else value
    content["problem"]["loss"][field] = hexed
    with suppress(Refusal):
        consistent(content)
    assert outcome(json.dumps(sign(content)), tmp_path) == NOT_PROVED
    assert "PROVED" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["decoupled", "supcon-in"])
def test_batches_of_one_class_are_free_where_the_loss_says_so(name, tmp_path):
    """Samples that no mixed batch glues may lie anywhere: certified, whatever their values."""
    problem = ufm.Problem(
        [0] * 5 + [1] * 2, 3, 0.5, [[0, 1, 5, 6], [2, 3, 4], [2, 3], [3, 4]], loss=LOSSES[name](None, 2)
    )
    H = frame(problem)
    H[2:5] = [[1, 0, 0], [0.6, 0, 0.8], [0, 0, 0.5]]
    proof = Certifier(problem, conic=False).certify(H)
    assert str(proof.status) == "certified"
    assert outcome(proof.serialised(), tmp_path) == PROVED
    content = content_of(proof)
    content["problem"]["loss"] = losses.scl().to_dict()
    assert outcome(json.dumps(sign(content)), tmp_path) == NOT_PROVED


def test_the_sigmoid_glues_pairs_of_one_class(tmp_path):
    problem = ufm.Problem([0] * 4 + [1] * 2, 3, 0.5, [[0, 1, 4, 5], [1, 2], [2, 3]], loss=losses.sigmoid(2.0, -1.0))
    proof = Certifier(problem, conic=False).certify(frame(problem))
    assert proof.unique is True
    assert max(proof.implied.spread) < 1e-20
    assert outcome(proof.serialised(), tmp_path) == PROVED
    content = content_of(proof)
    for other in (losses.scl(), losses.decoupled(), losses.supcon_in()):
        content["problem"]["loss"] = other.to_dict()
        assert outcome(json.dumps(sign(content)), tmp_path) == NOT_PROVED


def test_files_of_another_format_are_refused(tmp_path):
    content = content_of(Certifier(posed("scl"), conic=False).certify(frame(posed("scl"))))
    old = copy.deepcopy(content)
    old["format"] = "ufm-scl certificate 2"
    del old["problem"]["loss"]
    assert outcome(json.dumps(old), tmp_path) == UNREADABLE
    (tmp_path / "old.json").write_text(json.dumps(old))
    with pytest.raises(ufm.InvalidInput, match="path"):
        Certificate.load(tmp_path / "old.json")


# Adversaries: the loss of a true certificate is changed, and what depends on it computed anew where it can be.

ODD = ["0x0p+0", "-0x1p+0", "nan", "inf", "-inf", "0x1p+40", "0x1.0000000000000p+1000", 1.0, None, True, [], "1"]


@pytest.fixture(scope="module")
def originals():
    contents = {}
    for name in LOSSES:
        for which, batches in BATCHES.items():
            for nonneg in (True, False):
                certifier = Certifier(posed(name, batches, nonneg), conic=False)
                H = frame(certifier.samples_problem) if nonneg else certifier.better.placed()[certifier.orbits.index]
                contents[name, which, nonneg] = content_of(certifier.certify(H))
    return contents


def tampered(rng, loss):
    """The description of a loss with one thing changed."""
    loss = copy.deepcopy(loss)
    kind = rng.integers(6)
    numbers = [name for name in loss if name in losses.SHAPES]
    if kind == 0:
        loss["kind"] = str(rng.choice(["log-sum-exp", "sigmoid", "supcon-in", "scl"]))
    elif kind == 1:
        flag = str(rng.choice(["positives_in_denominator", "averaged"]))
        loss[flag] = [not loss[flag], 1, None][rng.integers(4) % 3]
    elif kind == 2 and numbers:
        name = str(rng.choice(numbers))
        place = loss[name]
        if isinstance(place, list):
            place = place[rng.integers(3)] if losses.SHAPES[name] == 2 else place
            place[rng.integers(3)] = ODD[rng.integers(len(ODD))]
        else:
            loss[name] = ODD[rng.integers(len(ODD))]
    elif kind == 3 and numbers:
        del loss[str(rng.choice(numbers))]
    elif kind == 4:
        other = LOSSES[list(LOSSES)[rng.integers(len(LOSSES))]](rng, 3).to_dict()
        loss |= {name: value for name, value in other.items() if rng.random() < 0.7}
    else:
        loss = LOSSES[list(LOSSES)[rng.integers(len(LOSSES))]](rng, 3).to_dict()
    return loss


def adversary(originals, seed, folder):
    """Exit status of one forged file; asserts that all that is proved of it is true."""
    rng = np.random.default_rng([13, seed])
    content = copy.deepcopy(originals[sorted(originals)[rng.integers(len(originals))]])
    content["problem"]["loss"] = tampered(rng, content["problem"]["loss"])
    if rng.random() < 0.3:
        FORGERIES[rng.integers(len(FORGERIES))](rng, content)
    if rng.random() < 0.7:
        with suppress(Refusal, TypeError, ValueError):
            consistent(content)
    (folder / "forged.json").write_text(json.dumps(sign(content)))
    with redirect_stdout(io.StringIO()) as printed:
        status = check.main([str(folder / "forged.json")])
    if status == PROVED:
        with mpmath.workdps(DIGITS):
            assert_true(content, printed.getvalue(), seed)
    return status


def test_what_is_proved_under_a_tampered_loss_is_true(originals, tmp_path):
    seen = Counter(adversary(originals, seed, tmp_path) for seed in range(10**6, 10**6 + 150))
    assert min(seen[status] for status in (PROVED, NOT_PROVED, UNREADABLE)) > 5, seen


@pytest.mark.slow
def test_five_thousand_tampered_losses_without_a_false_sentence(originals, tmp_path):
    seen = Counter(adversary(originals, seed, tmp_path) for seed in range(5000))
    print(seen)
    assert seen.total() == 5000
    assert seen[PROVED] > 200


# Random starts: the solver is told nothing of the theorem.


def starts_proved(name, R, tau, inits, k, d):
    """How many random starts end certified, in frames, and proved from their files."""
    sizes = ufm.step_imbalance(k, 5, R)
    problem = ufm.Problem.from_class_sizes(sizes, d=d, tau=tau, loss=loss_of(name, sizes))
    solution, certifier = solvers.solve(problem, inits=inits, seed=0), Certifier(problem, conic=False)
    proofs = [certifier.certify(solution.shared_rows(start)) for start in range(inits)]
    frames = [np.abs(solution.gram(start) - np.eye(k)).max() < 1e-6 for start in range(inits)]
    for proof in proofs:
        assert str(proof.status) == "certified"
        assert "global minimiser" in check.check(json.loads(proof.serialised()))[-2]
    return sum(frames)


@pytest.mark.thorough
def test_every_start_of_the_sigmoid_ends_in_a_proved_frame():
    assert starts_proved("sigmoid", 10, 1.0, 4, k=4, d=6) == 4


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_start_of_every_loss_ends_in_a_proved_frame(name):
    for R in (1, 10, 100, 1000):
        for tau in (0.1, 1.0):
            assert starts_proved(name, R, tau, 16, k=10, d=20) == 16, (R, tau)
