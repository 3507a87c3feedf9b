"""The independent checker: true certificates are proved, nothing else is, and no file makes it fall over."""

import copy
import hashlib
import json
import math
import shutil
import subprocess
import sys
from decimal import ROUND_FLOOR
from pathlib import Path
from time import perf_counter

import flint
import hypothesis.strategies as st
import numpy as np
import pytest
from flint import arb, ctx
from hypothesis import HealthCheck, example, given, settings
from problems import PROBLEMS

import ufm
from solvers.certification.certifier import Certifier, certify
from ufm_check import check, reading

PROVED, NOT_PROVED, UNREADABLE = 0, 1, 2
SOURCE = Path(check.__file__)


def sign(content):
    """Digests as a forger would make them."""
    content.pop("checksum", None)
    fields = ("model", "d", "tau", "loss", "classes", "sizes", "batches")
    content["problem"]["digest"] = digest({field: content["problem"][field] for field in fields})
    content["checksum"] = digest(content)
    return content


def digest(value):
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Contents of real certificates, by name."""
    folder = tmp_path_factory.mktemp("certificates")
    contents = {}

    def add(name, problem, H):
        Certifier(problem).certify(H).save(folder / name)
        contents[name] = json.loads((folder / name).read_text())

    full = PROBLEMS["four classes"]()
    labels = np.asarray(full.labels)
    add("frame", full, np.eye(4, 5)[labels])
    add("merged", full, np.eye(4, 5)[np.minimum(labels, 2)])
    free = PROBLEMS["four classes"](nonneg=False)
    best = Certifier(free).better.rows
    add("free", free, (best / np.linalg.norm(best, axis=1, keepdims=True))[labels])
    single = ufm.Problem.from_class_sizes([4, 3, 1, 1], d=5, tau=0.5, nonneg=False)
    best = Certifier(single).better.rows
    add("free, singles", single, (best / np.linalg.norm(best, axis=1, keepdims=True))[np.asarray(single.labels)])
    add("free frame", free, np.eye(4, 5)[labels])
    add("flat", PROBLEMS["four classes"](d=2), np.eye(2)[labels % 2])
    batches = [[0, 1, 2, 5, 6], [3, 4, 7, 8, 0], [1, 5, 9], [2, 6, 3, 9]]
    family = ufm.Problem([0] * 5 + [1] * 4 + [2], 4, 1.0, batches)
    add("family", family, np.eye(3, 4)[np.asarray(family.labels)])
    pieces = PROBLEMS["two pieces"]()
    add("pieces", pieces, np.eye(2)[np.asarray(pieces.labels)])
    return contents


def outcome(text, folder):
    path = folder / "certificate.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return check.main([str(path)])


def hexed(value, change):
    """A hexadecimal double, changed as a number."""
    return change(float.fromhex(value)).hex()


# What is true is proved.


@pytest.mark.parametrize("name", ["frame", "free", "free, singles", "family", "pieces"])
def test_true_certificates_are_proved(files, name, tmp_path, capsys):
    assert outcome(json.dumps(files[name]), tmp_path) == PROVED
    printed = capsys.readouterr().out
    assert "PROVED" in printed
    assert "global minimiser" in printed
    assert ("one Gram matrix" in printed) == (files[name]["claims"]["unique"] is True)


@pytest.mark.parametrize("name", ["merged", "free frame", "flat"])
def test_other_statuses_are_not_proofs_of_optimality(files, name, tmp_path, capsys):
    assert outcome(json.dumps(files[name]), tmp_path) == NOT_PROVED
    printed = capsys.readouterr().out
    assert "What holds" in printed
    assert ("no global minimiser" in printed) == (name != "flat")


def test_signing_changes_nothing(files, tmp_path):
    for name in files:
        assert sign(copy.deepcopy(files[name])) == files[name]


def test_weaker_claims_are_still_true(files, tmp_path, capsys):
    content = copy.deepcopy(files["frame"])
    claims = content["claims"]
    claims["upper"], claims["gap"] = hexed(claims["upper"], lambda x: x + 1), (1e-9).hex()
    claims["implied"] |= {"spread": [(0.25).hex()] * 4, "norm": [(0.5).hex()] * 4}
    assert outcome(json.dumps(sign(content)), tmp_path) == PROVED
    printed = capsys.readouterr().out
    assert "at most 0.25 from each other" in printed
    assert "at most 1.01E-9 apart" in printed
    claims["gap"] = (1.0).hex()  # true, but no proof of optimality
    assert outcome(json.dumps(sign(content)), tmp_path) == NOT_PROVED


@pytest.mark.parametrize("place", ["problem samples_digest", "point embedding_digest"])
def test_a_number_is_no_digest(files, place, tmp_path):
    content = copy.deepcopy(files["frame"])
    part, field = place.split()
    content[part][field] = 10**63
    assert outcome(json.dumps(sign(content)), tmp_path) == UNREADABLE


def test_tables_and_batches_that_would_exhaust_memory_are_refused(files, tmp_path):
    m = 3000
    content = copy.deepcopy(files["free"])
    content["problem"] |= {"classes": [0, 1] + [0] * (m - 2), "sizes": [1] * m, "batches": [[0, 2]], "d": 1}
    content["point"] |= {"rows": [[(0.0).hex()]] * m, "norms": [(0.0).hex()] * m}
    assert outcome(json.dumps(sign(content)), tmp_path) == UNREADABLE
    content = copy.deepcopy(files["frame"])
    content["problem"]["batches"] += [[]] * 1000
    assert outcome(json.dumps(sign(content)), tmp_path) == UNREADABLE


def test_entries_met_in_many_batches_are_computed_once(tmp_path):
    """A wide second minimiser whose rows are long, and one pair in thousands of batches."""
    problem = ufm.Problem([0, 0, 1], 4**6, 1.0, [[0, 1]] * 3000 + [[2]])
    Certifier(problem, conic=False).certify(np.eye(2, 4**6)[[0, 0, 1]]).save(tmp_path / "wide.json")
    content = json.loads((tmp_path / "wide.json").read_text())
    ones = [(1.0).hex()] * 4**6
    m = len(content["problem"]["sizes"])
    last = content["problem"]["classes"].index(1)
    rows = [content["point"]["rows"][a] if a == last else ones for a in range(m)]
    content["other_minimiser"] = {"rows": rows, "norms": [(0.0 if a == last else 1.0).hex() for a in range(m)]}
    began = perf_counter()
    assert outcome(json.dumps(sign(content)), tmp_path) == PROVED
    assert perf_counter() - began < 20


def test_printed_decimals_are_rounded_outward():
    assert check.shown(0.1, 3) == "0.101"
    assert check.shown(0.1, 3, ROUND_FLOOR) == "0.1000"[:5]
    assert check.shown(0.25) == "0.25"


# What is false is not.


def spoil(content, kind, a, size):
    """Make a certificate claim something false, or be no certificate. a picks an orbit, size a strength."""
    claims, point, problem, bound = content["claims"], content["point"], content["problem"], content["lower_bound"]
    m = len(problem["sizes"])
    a %= m
    b = next((x for x in range(m) if problem["classes"][x] != problem["classes"][a]), 0)
    row = point["rows"][a]
    j = max(range(len(row)), key=lambda index: abs(float.fromhex(row[index])))
    theirs = point["rows"][b]
    elsewhere = max(range(len(theirs)), key=lambda index: abs(float.fromhex(theirs[index])))
    if kind == "upper lowered":
        claims["upper"] = hexed(claims["upper"], lambda x: math.nextafter(x, -math.inf))
    elif kind == "lower raised":
        claims["lower"] = hexed(claims["lower"], lambda x: math.nextafter(math.nextafter(x, math.inf), math.inf))
    elif kind == "bound raised":
        bound["value"] = hexed(bound["value"], lambda x: x * (1 + 1e-12))
    elif kind == "gap shrunk":
        claims["gap"] = (0.0).hex()
    elif kind == "gap negative":
        claims["gap"] = (-1.0).hex()
    elif kind == "tolerance widened":
        claims["tolerance"] = (1.0).hex()
    elif kind == "row perturbed":
        # An optimum of UFM is stationary: a smaller step changes the loss by less than the claims leave open.
        visible = max(size, 1e-6) if problem["model"] == "UFM" else size
        row[elsewhere] = hexed(row[elsewhere], lambda x: x + visible)
    elif kind == "row flipped":
        row[j] = hexed(row[j], lambda x: -x)
    elif kind == "rows merged":
        point["rows"][a] = list(point["rows"][b])
    elif kind == "row of zeros":
        point["rows"][a] = [(0.0).hex()] * len(row)
    elif kind == "norm lowered":
        a %= problem["classes"].count(0)  # the norm of a class of one sample is free
        point["norms"][a] = hexed(point["norms"][a], lambda x: x * (1 - size))
    elif kind == "norm above one":
        point["norms"][a] = (1 + size).hex()
    elif kind == "temperature changed":
        problem["tau"] = hexed(problem["tau"], lambda x: x * (1 + size))
    elif kind == "size changed":
        problem["sizes"][a] += 1
    elif kind == "size negative":
        problem["sizes"][a] = -problem["sizes"][a]
    elif kind == "size not whole":
        problem["sizes"][a] = 2.5
    elif kind == "label swapped":
        problem["classes"][a] = problem["classes"][b]
    elif kind == "orbit left out of a batch":
        problem["batches"][0].pop()
    elif kind == "batch repeated":
        problem["batches"].append(problem["batches"][0])
    elif kind == "dimension changed":
        problem["d"] += 1
    elif kind == "other model":
        problem["model"] = "UFM" if problem["model"] == "UFM+" else "UFM+"
    elif kind == "moved far":
        point["moved"] = (1e-3).hex()
    elif kind in ("NaN", "inf", "-inf", "nan", "Infinity"):
        row[j] = kind
    elif kind == "decimal number":
        row[j] = 1.0
    elif kind == "huge number":
        row[j] = "0x1.0p+9999"
    elif kind == "huge whole number":
        problem["sizes"][a] = 10**400
    elif kind == "true for one":
        problem["sizes"][a] = True
    elif kind == "field missing":
        del claims["gap"]
    elif kind == "field added":
        claims["extra"] = 1
    elif kind == "part missing":
        del content["lower_bound"]
    elif kind == "status unknown":
        claims["status"] = "proved"
    elif kind == "bound of unknown kind":
        bound["kind"] = "trust me"
    elif kind == "format changed":
        content["format"] = "ufm-scl certificate 0"
    elif kind == "ragged rows":
        row.pop()
    elif kind == "rows missing":
        point["rows"].pop()
    elif kind == "samples digest malformed":
        problem["samples_digest"] = "0x" + "0" * 62
    else:
        raise AssertionError(kind)
    return content


EVERYWHERE = (
    "upper lowered",
    "lower raised",
    "bound raised",
    "gap shrunk",
    "gap negative",
    "tolerance widened",
    "row perturbed",
    "row flipped",
    "rows merged",
    "row of zeros",
    "norm lowered",
    "norm above one",
    "temperature changed",
    "size changed",
    "size negative",
    "size not whole",
    "label swapped",
    "orbit left out of a batch",
    "batch repeated",
    "dimension changed",
    "other model",
    "moved far",
    "NaN",
    "inf",
    "-inf",
    "nan",
    "Infinity",
    "decimal number",
    "huge number",
    "huge whole number",
    "true for one",
    "field missing",
    "field added",
    "part missing",
    "status unknown",
    "bound of unknown kind",
    "format changed",
    "ragged rows",
    "rows missing",
    "samples digest malformed",
)


@pytest.mark.parametrize("name", ["frame", "free", "family"])
@pytest.mark.parametrize("kind", EVERYWHERE)
def test_every_kind_of_forgery_is_refused(files, kind, name, tmp_path):
    for signed in (True, False):
        content = spoil(copy.deepcopy(files[name]), kind, 1, 1e-2)
        if signed:
            sign(content)
        assert outcome(json.dumps(content), tmp_path) != PROVED


TRIALS = st.tuples(
    st.sampled_from(EVERYWHERE),
    st.sampled_from(["frame", "free", "family", "pieces"]),
    st.integers(0, 7),
    st.floats(-9, -2),
    st.booleans(),
)


def one_forgery(files, trial, folder):
    kind, name, orbit, exponent, signed = trial
    content = spoil(copy.deepcopy(files[name]), kind, orbit, 10.0**exponent)
    if signed:
        sign(content)
    assert outcome(json.dumps(content), folder) != PROVED


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TRIALS)
def test_forgeries_of_every_strength_are_refused(files, tmp_path, trial):
    one_forgery(files, trial, tmp_path)


@pytest.mark.slow
@settings(max_examples=5000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TRIALS)
def test_five_thousand_forgeries(files, tmp_path, trial):
    one_forgery(files, trial, tmp_path)


def test_the_share_of_a_price_is_the_gaps_own(tmp_path, capsys):
    problem = ufm.Problem.from_class_sizes([3, 3, 2], d=3, tau=1.0)
    certificate = Certifier(problem, conic=False).certify(np.eye(3)[np.asarray(problem.labels)])
    certificate.save(tmp_path / "frame.json")
    assert check.main([str(tmp_path / "frame.json")]) == PROVED
    share = float(capsys.readouterr().out.split("which is at most ")[1].split()[0])
    assert 0 < share < 1e-40


def test_help_teaches(capsys):
    assert check.main(["--help"]) == 0
    assert "Exit status" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["merged", "free frame", "flat"])
def test_promoted_statuses_are_refused(files, name, tmp_path):
    content = copy.deepcopy(files[name])
    content["claims"]["status"], content["witness"] = "certified", None
    assert outcome(json.dumps(sign(content)), tmp_path) == NOT_PROVED


def test_a_witness_that_is_no_better_is_refused(files, tmp_path, capsys):
    content = copy.deepcopy(files["merged"])
    content["witness"] = {name: content["point"][name] for name in ("rows", "norms")}
    assert outcome(json.dumps(sign(content)), tmp_path) == NOT_PROVED
    assert "the better point is better" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["pieces", "flat"])
def test_uniqueness_of_other_problems_is_refused(files, name, tmp_path):
    content = copy.deepcopy(files[name])
    content["claims"]["unique"], content["other_minimiser"] = True, None
    assert outcome(json.dumps(sign(content)), tmp_path) == NOT_PROVED


@pytest.mark.parametrize("unique", [False, "yes", 1])
def test_uniqueness_is_proved_or_not_claimed(files, unique, tmp_path):
    content = copy.deepcopy(files["frame"])
    content["claims"]["unique"] = unique
    assert outcome(json.dumps(sign(content)), tmp_path) != PROVED


@pytest.mark.parametrize(
    ("field", "index", "value"),
    [("spread", 1, 0.0), ("norm", 2, 1.0), ("cosine", (0, 3), 0.0), ("cosine", (2, 2), 0.5)],
)
@pytest.mark.parametrize("name", ["frame", "flat", "merged"])
def test_implications_that_do_not_follow_are_refused(files, name, field, index, value, tmp_path, capsys):
    content = copy.deepcopy(files[name])
    target = content["claims"]["implied"][field]
    if isinstance(index, tuple):
        target[index[0]][index[1]] = target[index[1]][index[0]] = value.hex()
    else:
        target[index] = value.hex()
    assert outcome(json.dumps(sign(content)), tmp_path) == NOT_PROVED
    assert ("norm" if index == (2, 2) else field) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("field", "index", "raised"),
    [
        *((("cosine", "least_cosine")[lower], pair, lower) for lower in (0, 1) for pair in ((1, 0), (0, 2), (3, 2))),
        ("cosine", (2, 2), 0),
        *(("norm", (c,), 1) for c in range(4)),
        *(("spread", (c,), 0) for c in (0, 1)),
    ],
)
@pytest.mark.parametrize("name", ["free", "free, singles", "free frame"])
def test_intervals_that_do_not_follow_are_refused(files, name, field, index, raised, tmp_path, capsys):
    """A bound made sharper by a thousandth of its distance from the value at the point is none."""
    content = copy.deepcopy(files[name])
    implied, point = content["claims"]["implied"], content["point"]
    rows = np.array([[float.fromhex(x) for x in row] for row in point["rows"]])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    value = {"norm": 1.0, "spread": 0.0}.get(field, (rows @ rows.T)[index[0]][index[-1]])
    table = implied[field] if len(index) == 1 else implied[field][index[0]]
    said = float.fromhex(table[index[-1]])
    if len(index) == 1 and content["problem"]["sizes"][index[0]] == 1 and field == "spread":
        return
    assert (said < value + 1e-9) if raised else (said > value - 1e-9)
    step = max(1e-3 * abs(value - said), 1e-15)
    table[index[-1]] = min(said + step if raised else said - step, 1.0).hex()
    assert outcome(json.dumps(sign(content)), tmp_path) == NOT_PROVED
    assert "CERTIFIED" not in capsys.readouterr().out


def test_another_minimiser_is_checked_exactly(files, tmp_path, capsys):
    """unique = false stands on a second minimiser: its loss equal to the last digit, its Gram matrix another."""
    content = copy.deepcopy(files["pieces"])
    assert content["claims"]["unique"] is False
    other = content["other_minimiser"]
    assert outcome(json.dumps(sign(content)), tmp_path) == PROVED
    assert "not the only minimiser" in capsys.readouterr().out

    def refused(rows=other["rows"], norms=other["norms"], unique=False):
        changed = copy.deepcopy(content)
        changed["other_minimiser"] = None if rows is None else {"rows": rows, "norms": norms}
        changed["claims"]["unique"] = unique
        return outcome(json.dumps(sign(changed)), tmp_path)

    frame = [[float(c == j).hex() for j in range(2)] for c in content["problem"]["classes"]]
    assert refused(rows=frame) == NOT_PROVED  # the frame itself
    tiny = [[hexed(x, lambda x: x or 1e-30) for x in row] for row in other["rows"]]
    assert refused(rows=tiny) == NOT_PROVED
    assert refused(norms=[hexed(x, lambda x: math.nextafter(x, 0)) for x in other["norms"]]) == NOT_PROVED
    assert refused(rows=None) == UNREADABLE
    assert refused(unique=None) == UNREADABLE
    assert refused(unique=True) == UNREADABLE
    assert refused(rows=None, unique=True) == NOT_PROVED


@pytest.mark.parametrize("name", ["frame", "free", "flat"])
def test_another_minimiser_of_other_problems_is_refused(files, name, tmp_path):
    content = copy.deepcopy(files[name])
    content["claims"]["unique"] = False
    content["other_minimiser"] = {field: content["point"][field] for field in ("rows", "norms")}
    assert outcome(json.dumps(sign(content)), tmp_path) == NOT_PROVED


def test_samples_without_a_positive_are_free(tmp_path, capsys):
    problem = ufm.Problem([0, 0, 1, 1, 2], 3)
    Certifier(problem).certify(np.eye(3)[np.asarray(problem.labels)]).save(tmp_path / "free.json")
    assert check.main([str(tmp_path / "free.json")]) == PROVED
    assert "not the only minimiser" in capsys.readouterr().out


def test_equal_values_within_a_batch_of_one_class_are_enough(tmp_path, capsys):
    problem = PROBLEMS["classes that never meet"]()
    Certifier(problem).certify(np.full((6, 2), 0.5)).save(tmp_path / "equal.json")
    assert check.main([str(tmp_path / "equal.json")]) == PROVED
    assert "not the only minimiser" in capsys.readouterr().out


def test_a_chain_of_a_thousand_orbits_is_checked_in_seconds(tmp_path):
    """Shortest paths, not rounds over all edges: a class of orbits in one long chain."""
    n = 1200
    labels = np.arange(n) % 2
    problem = ufm.Problem(labels, 2, 1.0, [[i, i + 1, i + 2, i + 3] for i in range(0, n - 2, 2)][:-1])
    Certifier(problem, conic=False).certify(np.eye(2)[labels]).save(tmp_path / "chain.json")
    began = perf_counter()
    assert check.main([str(tmp_path / "chain.json")]) == PROVED
    assert perf_counter() - began < 20


def test_lopsided_cosines_are_refused(files, tmp_path):
    content = copy.deepcopy(files["frame"])
    content["claims"]["implied"]["cosine"][0][1] = (0.5).hex()
    assert outcome(json.dumps(sign(content)), tmp_path) == NOT_PROVED


@pytest.mark.parametrize("change", ["v lowered", "v negative", "N in UFM", "gram of another", "whole dual of another"])
def test_duals_that_prove_less_are_refused(files, change, tmp_path):
    content = copy.deepcopy(files["free"])
    bound = content["lower_bound"]
    if change == "v lowered":
        bound["v"] = [hexed(x, lambda x: x * (1 - 1e-6)) for x in bound["v"]]
    elif change == "v negative":
        bound["v"][0] = (-1.0).hex()
    elif change == "N in UFM":
        bound["N"][1][0] = (1e-3).hex()
    elif change == "gram of another":
        bound["gram"] = [[float(a == b).hex() for b in range(a + 1)] for a in range(4)]
    else:
        other = PROBLEMS["four classes"](tau=0.6, nonneg=False)
        path = tmp_path / "other.json"
        Certifier(other).certify(np.eye(4, 5)[np.asarray(other.labels)]).save(path)
        theirs = json.loads(path.read_text())["lower_bound"]
        bound |= {name: theirs[name] for name in ("gram", "v", "N")}
    assert outcome(json.dumps(sign(content)), tmp_path) != PROVED


def test_a_laplacian_is_no_bound_without_the_relu(files, tmp_path):
    content = copy.deepcopy(files["free frame"])
    content["lower_bound"] = {"kind": "laplacian", "source": "", "value": content["claims"]["upper"]}
    content["claims"] |= {"status": "certified", "lower": content["claims"]["upper"], "gap": (0.0).hex()}
    content["witness"] = None
    assert outcome(json.dumps(sign(content)), tmp_path) == UNREADABLE


def test_an_elementary_bound_is_checked(files, tmp_path, capsys):
    problem = ufm.Problem.from_class_sizes([3, 3], d=1, tau=1.0, nonneg=False)
    H = np.array([[1.0], [-1.0]])[np.asarray(problem.labels)]
    certifier = Certifier(problem, conic=False)
    path = tmp_path / "elementary.json"
    certifier.certify(H).save(path)
    content = json.loads(path.read_text())
    value = (6 * math.log(2 + 3 * math.exp(-2)) * (1 - 1e-15)).hex()
    content["lower_bound"] = {"kind": "elementary", "source": "", "value": value}
    content["claims"] |= {"lower": value, "gap": (1e-13).hex()}
    assert outcome(json.dumps(sign(content)), tmp_path) == UNREADABLE  # what the matrix implies is still there
    content["claims"] |= {"implied": None, "unique": None}
    assert outcome(json.dumps(sign(content)), tmp_path) == PROVED
    content["lower_bound"]["value"] = hexed(value, lambda x: x * (1 + 1e-13))
    assert outcome(json.dumps(sign(content)), tmp_path) == NOT_PROVED


# Files that are no certificates.

JUNK = (
    b"",
    b"\x00",
    b"\xff\xfe\x00junk",
    b"null",
    b"[]",
    b"{}",
    b'"text"',
    b"NaN",
    b"1e999999",
    b"9" * 100_000,
    b"[" * 1_000_000,
    b'{"a":' * 100_000,
    b'{"format": "ufm-scl certificate 1"}',
    b'{"format": "ufm-scl certificate 1", "format": "ufm-scl certificate 1"}',
    b'{"\\ud800": "\\ud800"}',
)


@pytest.mark.parametrize("junk", JUNK, ids=range(len(JUNK)))
def test_junk_is_unreadable(junk, tmp_path):
    assert outcome(junk, tmp_path) == UNREADABLE


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=400))
@example(b"{")
def test_binary_junk_is_unreadable(tmp_path, junk):
    assert outcome(junk, tmp_path) == UNREADABLE


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just((0.5).hex()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["frame", "free", "family", "merged"]), st.integers(0, 10**6), VALUES)
def test_any_value_anywhere_is_refused_or_harmless(files, tmp_path, name, position, value):
    """Replace one node of the JSON tree by anything; only fields that prove nothing may change unpunished."""
    content = copy.deepcopy(files[name])
    places = list(walk(content))
    path = places[position % len(places)]
    node = content
    for step in path[:-1]:
        node = node[step]
    before, node[path[-1]] = node[path[-1]], value
    try:
        sign(content)
    except (KeyError, TypeError, AttributeError):
        assert outcome(json.dumps(content), tmp_path) == UNREADABLE
        return
    harmless = path[0] == "second_opinion" or path[-1] in ("reason", "source", "digest", "checksum")
    assert outcome(json.dumps(content), tmp_path) != PROVED or harmless or value == before or true_anyway(path)


def true_anyway(path):
    """Claims that a different number may state more weakly, and so truly; a frame turned into its spare coordinate."""
    weaker = (["claims", "implied"], ["claims", "upper"], ["claims", "gap"])
    return path[:2] in weaker or path[-1] in ("unique", "moved") or (path[:2] == ["point", "rows"] and path[-1] == 4)


def walk(node, path=()):
    for key, inner in node.items() if isinstance(node, dict) else enumerate(node):
        yield [*path, key]
        if isinstance(inner, (dict, list)):
            yield from walk(inner, (*path, key))


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9, 0.999])
def test_truncated_files_are_unreadable(files, fraction, tmp_path):
    text = json.dumps(files["frame"])
    assert outcome(text[: int(fraction * len(text))], tmp_path) == UNREADABLE


def test_repeated_fields_are_unreadable(files, tmp_path):
    text = json.dumps(files["frame"])
    assert outcome(text.replace('"d": 5', '"d": 5, "d": 5'), tmp_path) == UNREADABLE


@pytest.mark.parametrize("size", [10**7, 10**9, 10**18])
def test_dimensions_that_would_exhaust_memory_are_refused(files, size, tmp_path):
    content = copy.deepcopy(files["frame"])
    content["problem"]["d"] = size
    assert outcome(json.dumps(sign(content)), tmp_path) == UNREADABLE


def test_batches_that_would_exhaust_time_are_refused(files, tmp_path):
    content = copy.deepcopy(files["frame"])
    content["problem"] |= {"classes": [0, 1] * 750, "sizes": [2] * 1500, "batches": [list(range(1500))]}
    assert outcome(json.dumps(sign(content)), tmp_path) == UNREADABLE


def test_files_too_large_are_unreadable(tmp_path):
    path = tmp_path / "large.json"
    with path.open("wb") as stream:
        stream.truncate(2**26)
    assert check.main([str(path)]) == UNREADABLE


def test_missing_files_folders_and_odd_names(tmp_path):
    assert check.main([str(tmp_path / "missing.json")]) == UNREADABLE
    assert check.main([str(tmp_path)]) == UNREADABLE
    assert check.main(["/dev/null"]) == UNREADABLE
    assert check.main(["nul\0byte"]) == UNREADABLE
    assert check.main([]) == UNREADABLE


# The command.


def run(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("module", ["ufm_check", pytest.param("solvers.check", marks=pytest.mark.thorough)])
def test_command_line_and_exit_statuses(module, files, tmp_path):
    command = ("-m", module)
    paths = {name: tmp_path / f"{name}.json" for name in ("frame", "merged", "junk")}
    for name, path in paths.items():
        path.write_text(json.dumps(files[name]) if name != "junk" else "junk")
    for name, status in (("frame", 0), ("merged", 1), ("junk", 2)):
        finished = run(*command, str(paths[name]))
        assert finished.returncode == status
        assert finished.stderr == ""
    assert run(*command, *map(str, paths.values())).returncode == 2
    assert run(*command).returncode == 2


def test_it_needs_no_other_file_than_its_own(files, tmp_path):
    """Nothing of the package but the checker, beside python-flint: no solver, no NumPy, no JAX."""
    flint_alone = tmp_path / "site"
    shutil.copytree(SOURCE.parent, tmp_path / "ufm_check")
    flint_alone.mkdir()
    for folder in Path(flint.__file__).parents[1].glob("*flint*"):
        (flint_alone / folder.name).symlink_to(folder)
    path = tmp_path / "frame.json"
    path.write_text(json.dumps(files["frame"]))
    program = "import runpy, sys; sys.path[:0] = sys.argv[1:3]; del sys.argv[1:3]; "
    program += "runpy.run_module('ufm_check', run_name='__main__')"
    finished = run("-I", "-S", "-c", program, str(tmp_path), str(flint_alone), str(path))
    assert (finished.returncode, finished.stderr) == (PROVED, "")
    assert run("-I", "-S", "-c", "import numpy").returncode != 0


def test_it_imports_the_standard_library_and_flint_only():
    modules = list(SOURCE.parent.glob("*.py"))
    imports = {
        line.split()[1]
        for module in modules
        for line in module.read_text().splitlines()
        if line[:5] in ("impor", "from ")
    }
    outside = {name for name in imports if name.split(".")[0] not in sys.stdlib_module_names}
    assert {name.split(".")[0] for name in outside} == {"flint", "ufm_check"}


@pytest.mark.parametrize("nonneg", [True, False])
def test_where_nothing_is_constrained_no_price_is_named(nonneg, tmp_path, capsys):
    """One sample a class: no pair and no tie."""
    problem = ufm.Problem([0, 1, 2], 3, 1.0, nonneg=nonneg)
    certificate = certify(np.eye(3), problem)
    certificate.save(tmp_path / "alone.json")
    assert check.main([str(tmp_path / "alone.json")]) == 0
    printed = capsys.readouterr().out
    assert "broken pair" not in printed
    assert "times 1e-8 (1 plus the size of a frame's loss), since no pair or tie is constrained" in printed
    assert "nothing is constrained" in certificate.summary().lines["gap"]
    priced = certify(np.eye(3)[[0, 0, 1, 2]], ufm.Problem([0, 0, 1, 2], 3, 1.0)).summary().lines["gap"]
    assert "the smallest constraint weight" in priced


def test_a_number_is_shown_no_smaller_than_it_is():
    """A ball a little above a number of three digits, by less than doubles see."""
    with ctx.workprec(200):
        x = arb(0.5) + arb(2) ** -100
        assert float(reading.shown(x)) > 0.5
        assert float(reading.shown(-x, rounding=ROUND_FLOOR)) < -0.5
    assert reading.shown(0.5) == reading.shown(arb(0.5)) == "0.5"


def test_it_can_be_read_in_one_sitting():
    lengths = [len(path.read_text().splitlines()) for path in SOURCE.parent.glob("*.py")]
    assert max(lengths) < 200
    assert sum(lengths) < 1100


def test_a_problem_without_batches_determines_no_gram_matrix(tmp_path, capsys):
    """Its loss is 0 everywhere: a tiny dual proves the bound, and no claim about all minimisers follows."""
    problem = ufm.Problem.from_class_sizes([2, 2], d=2, tau=1.0, nonneg=False)
    Certifier(problem, conic=False).certify(np.eye(2)[[0, 0, 1, 1]]).save(tmp_path / "pairs.json")
    content = json.loads((tmp_path / "pairs.json").read_text())
    one, zero, tiny = (1.0).hex(), (0.0).hex(), (-1e-39).hex()
    content["problem"]["batches"] = []
    content["lower_bound"] = {"kind": "matrix", "source": "", "value": tiny, "v": [(1e-40).hex()] * 2}
    content["lower_bound"] |= {"gram": [[one], [zero, one]], "N": [[zero], [zero, zero]]}
    trivial = {"cosine": [[one] * 2] * 2, "least_cosine": [[one, "-" + one], ["-" + one, one]]}
    trivial |= {"spread": [(2.0).hex()] * 2, "norm": [zero] * 2}
    content["claims"] |= {"status": "certified", "upper": zero, "lower": tiny, "gap": (1e-39).hex()}
    content["claims"] |= {"theoretical": None, "unique": True, "implied": trivial}
    content["witness"] = None
    assert outcome(json.dumps(sign(content)), tmp_path) == NOT_PROVED
    assert "a full batch" in capsys.readouterr().out
    content["claims"] |= {"unique": None, "implied": None}
    assert outcome(json.dumps(sign(content)), tmp_path) == PROVED  # that 0 is the least loss is true
