"""Certificates of many classes: their growth, their parts, and verdicts that do not compute them again."""

import sys

import numpy as np
import pytest

import ufm
from solvers import certify, verify
from solvers.certification.certificate import Certificate
from solvers.certification.certifier import Certifier
from solvers.progress import Stopped


def frame(k, auxiliary=2, batches=None):
    sizes = [max(5, round(640 * (1 / 128) ** (i / (k - 1)))) for i in range(k)]
    problem = ufm.Problem.from_class_sizes(sizes, k + auxiliary, 0.5, batches)
    return problem, ufm.SharedRows(np.eye(k, k + auxiliary), np.asarray(problem.labels))


def calls_of_certify(problem, H):
    """How many functions of the certifier `certify` enters: a count, which no load of the machine changes."""
    entered = 0

    def count(frame, event, _):
        nonlocal entered
        entered += event == "call" and "certification" in frame.f_code.co_filename

    sys.setprofile(count)
    try:
        certificate = certify(H, problem, conic=False)
    finally:
        sys.setprofile(None)
    assert certificate.status == "certified"
    return entered


def test_certify_grows_with_pairs_of_classes_not_with_triples():
    few, many = (calls_of_certify(*frame(k)) for k in (24, 48))
    assert many < 2**2.1 * few  # summing the partition anew for every pair: 2**2.8


def test_orbits_that_meet_in_no_batch_cost_nothing(monkeypatch):
    from solvers.certification.orbit_problem import Point

    pairs, products = [], Point.products

    def counted(self, orbits):
        pairs.append(len(orbits) ** 2)
        return products(self, orbits)

    monkeypatch.setattr(Point, "products", counted)
    n = 400
    batches = [x for seed in (0, 1) for x in np.random.default_rng(seed).permutation(n).reshape(-1, 20)]
    problem = ufm.Problem(np.arange(n) % 10, 12, 0.5, batches)
    certificate = certify(np.eye(10, 12)[np.arange(n) % 10], problem, conic=False)
    assert certificate.status == "certified"
    assert sum(pairs) <= len(batches) * 20**2


def test_verify_takes_the_certificate_of_its_own_point_and_no_other(monkeypatch, tmp_path):
    problem, shared = frame(6)
    H = np.asarray(shared.rows)[shared.index]
    certificate, alone = certify(H, problem, conic=False), verify(H, problem)
    certificate.save(tmp_path / "certificate.json")
    other_problem = ufm.Problem.from_class_sizes([5] * 6, 8, 0.5)
    other_H = np.eye(6, 8)[np.asarray(other_problem.labels)]
    for point, of, certificate_of_another in (
        (H[:, ::-1], problem, certificate),
        (other_H, other_problem, certificate),
        (H, problem, Certificate.load(tmp_path / "certificate.json")),
    ):
        with pytest.raises(ufm.InvalidInput, match="certificate"):
            verify(point, of, certificate=certificate_of_another)
    monkeypatch.setattr(Certifier, "certify", None)  # it is not called again
    taken = verify(H, problem, certificate=certificate)
    assert (taken.verdict, taken.reason, taken.allowed) == (alone.verdict, alone.reason, alone.allowed)


@pytest.mark.parametrize("nonneg", [True, False])
@pytest.mark.parametrize("part", range(1, 5))
def test_ctrl_c_says_what_is_proved_so_far(part, nonneg):
    problem = ufm.Problem.from_class_sizes([5, 4, 3], 4, 0.5, nonneg=nonneg)
    H, seen = np.eye(3, 4)[np.asarray(problem.labels)], []
    whole = certify(H, problem, conic=False)

    def progress(what, done, total):
        seen.append((what, done, total))
        if len(seen) == part:
            raise KeyboardInterrupt

    with pytest.raises(Stopped, match=r"certifying: stopped at .*proved so far: no feasible point") as stopped:
        certify(H, problem, conic=False, progress=progress)
    assert seen == [("certifying", float(i + 1), 5.0) for i in range(part)]
    assert f"the loss of this point is at most {whole.upper!r}" in str(stopped.value)
    assert f"below {whole.lower!r}" in str(stopped.value) or part == 1


def test_ctrl_c_before_a_bound_decides_nothing(monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    problem, H = frame(3)
    monkeypatch.setattr("solvers.certification.certifier.frame_loss", interrupted)
    with pytest.raises(Stopped, match="nothing is decided"):
        certify(H, problem)
