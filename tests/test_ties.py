"""What only batches of a single class tie, directly or in chains, is judged as well as what mixed batches force."""

import json

import mpmath
import numpy as np
import pytest
from flint import arb, ctx
from problems import reduced

import ufm
from solvers.certification.balls import precision
from solvers.certification.certificate import Proof
from solvers.certification.certifier import Certifier, certify
from solvers.certification.constraints import largest_violation, smallest_tie_weight
from solvers.certification.orbit_problem import OrbitProblem, Point, loss
from solvers.certification.verification import Verdict, verify
from ufm_check import check

PROVED = 0


def hidden(n, tau):
    """Two large classes, and three more samples of the first that only batches of their own tie."""
    x = [2 * n, 2 * n + 1, 2 * n + 2]
    labels = [0] * n + [1] * n + [0] * 3
    problem = ufm.Problem(labels, d=4, tau=tau, batches=[list(range(2 * n)), x, x[:2], x[1:]])
    return problem, np.eye(4)[[0] * n + [1] * n + [0, 0, 3]]


@pytest.mark.parametrize(("n", "tau"), [(200, 100.0), (8000, 1.0), (200, 1e4), (5, 0.02), (2000, 10.0)])
def test_a_tie_below_the_weakest_pair_is_no_rounding(n, tau, tmp_path):
    problem, broken = hidden(n, tau)
    certificate = certify(broken, problem, conic=False)
    assert certificate.status is Proof.NOT_CERTIFIED
    certificate.save(tmp_path / "broken.json")
    assert check.main([str(tmp_path / "broken.json")]) != PROVED
    assert verify(broken, problem).verdict is not Verdict.GLOBAL_MINIMISER
    frame = np.eye(4)[np.asarray(problem.labels)]
    assert certify(frame, problem, conic=False).status is Proof.CERTIFIED
    assert verify(frame, problem).verdict is Verdict.GLOBAL_MINIMISER


@pytest.mark.parametrize("r", [1e-6, 1e-3, 0.1, 1.0])
@pytest.mark.parametrize(("positives", "tau"), [(2, 0.01), (3, 1.0), (7, 0.3), (50, 1e4)])
def test_the_price_of_a_tie_is_the_least_over_all_other_values(positives, tau, r):
    """Minimised numerically, in 60 digits: log-mean-exp minus mean of r/2, -r/2 and others."""
    with mpmath.workdps(60):
        tau = mpmath.mpf(tau)

        def resolution(y):
            values = [r / (2 * tau), -r / (2 * tau)] + [y] * (positives - 2)
            return mpmath.log(mpmath.fsum(map(mpmath.exp, values)) / positives) - mpmath.fsum(values) / positives

        stated = 2 * mpmath.log(mpmath.cosh(r / (2 * tau))) / positives
        best = mpmath.log(mpmath.cosh(r / (2 * tau)))
        assert mpmath.almosteq(resolution(best), stated, rel_eps=1e-20)
        assert all(resolution(best + off) >= stated for off in (-1, -1e-3, 1e-3, 1))


def test_the_weakest_tie_in_numbers():
    problem = OrbitProblem((0, 0, 0, 1), (1, 3, 2, 1), ((0, 1, 2), (0, 3)), 0.5, 4, True)
    with ctx.workprec(precision(0.5)):
        # Anchor 0 sees masses 3/5 and 2/5; each of the 3 samples of orbit 1 sees 1/5, 2/5, 2/5; of 2 in orbit 2: 1/5...
        expected = 2 * min(2 / 5, 3 / 5, 2 / 5) * float((1 / (2 * arb(0.5))).cosh().log())
        assert np.isclose(float(smallest_tie_weight(problem)), expected)


def chain(links, merged):
    """A chain of batches of one class, each of three samples and two of them shared; the first pair glued or not."""
    samples = [[j, j + 1, j + 2] for j in range(links)]
    n = links + 2
    labels = [0] * n + [1]
    batches = samples + ([[0, 1, n]] if merged else [])
    return ufm.Problem(labels, 3, 1.0, batches)


@pytest.mark.parametrize("merged", [True, False])
@pytest.mark.parametrize("links", [5, 100])
def test_links_that_each_give_way_a_little_are_seen_at_the_point(links, merged):
    """Rows that turn by a small angle from sample to sample end at right angles."""
    problem = chain(links, merged)
    n = links + 2
    angle = np.linspace(0, np.pi / 2, n)
    rows = np.zeros((n + 1, 3))
    rows[:n, 0], rows[:n, 1], rows[n, 2] = np.cos(angle), np.sin(angle), 1
    small = reduced(problem)
    point = Point(rows[ufm.orbits(problem).first], np.ones(len(small)))
    with ctx.workprec(precision(1.0)):
        off = largest_violation(small, point)
    G = rows @ rows.T
    if merged:  # the two ends of the chain are at right angles
        assert 1 <= off < 1.01
        assert certify(rows, problem, conic=False, tolerance=1e-2).status is not Proof.CERTIFIED
    else:  # neighbours at one angle are tied in the chain, and so are neighbours but one: equal only if all are 1
        assert off > 0.9 * (G[0, 1] - G[0, 2])


def true_violation(problem, H):
    """From `ufm.interaction`: how far H is from the values that minimisers must have."""
    graph, G = ufm.interaction(problem), H @ H.T
    first = np.unique(graph.component, return_index=True)[1]
    unit = graph.is_unit[graph.component]
    off = np.max((1 - G[np.arange(len(H)), first[graph.component]])[unit], initial=0.0)
    cross = graph.cross.tocoo()
    off = max(off, np.max(G[first[cross.row], first[cross.col]], initial=0.0))
    for batch in graph.open_batches:
        values = [G[first[a], first[b]] for i, a in enumerate(batch) for b in batch[:i]]
        off = max(off, max(values) - min(values))
    return off


def one_tied_problem(seed):
    """Large classes in a mixed batch, small pieces of them tied by batches of their own, at times glued; a point that
    breaks such a tie (or, every third time, none)."""
    rng = np.random.default_rng(seed)
    large = int(rng.choice([3, 30, 300, 3000]))
    labels = np.repeat([0, 1], large).tolist()
    batches = [list(range(2 * large))]
    axes = [0] * large + [1] * large
    for _ in range(int(rng.integers(1, 4))):
        c, size = int(rng.integers(0, 2)), int(rng.integers(3, 7))
        piece = list(range(len(labels), len(labels) + size))
        labels += [c] * size
        axes += [c] * size
        batches.append(piece)
        for _ in range(int(rng.integers(0, 4))):
            batches.append(rng.choice(piece, int(rng.integers(2, size + 1)), replace=False).tolist())
        if rng.random() < 0.4:  # a pair of it is glued, by a sample of the other class or to its own
            other = 1 - c
            partner = [large * other] if rng.random() < 0.5 else [large * c, large * other]
            batches.append([*piece[: int(rng.integers(1, 3))], *partner])
        if rng.random() < 0.67:
            for j in rng.choice(piece, int(rng.integers(1, size)), replace=False):
                axes[j] = int(rng.integers(0, 4))
    tau = float(np.exp(rng.uniform(np.log(0.01), np.log(1e4))))
    problem = ufm.Problem(labels, 4, tau, batches)
    H = np.eye(4)[axes]
    if rng.random() < 0.3:  # break it by less
        share = 10.0 ** rng.uniform(-4, 0)
        frame = np.eye(4)[labels]
        H = frame + share * (H - frame)
        H /= np.linalg.norm(H, axis=1, keepdims=True)
    orbit = ufm.orbits(problem)
    return problem, H[orbit.first][orbit.index]


def judged_truly(seed, folder, capsys):
    """Proof of a random tied problem; asserts that nothing false is certified, proved or called a minimiser."""
    problem, H = one_tied_problem(seed)
    off = true_violation(problem, H)
    certificate = certify(H, problem, conic=False)
    path = folder / "certificate.json"
    certificate.save(path)
    code = check.main([str(path)])
    printed = capsys.readouterr().out
    assert (code == PROVED) == (certificate.status is Proof.CERTIFIED)
    if off > 0.0101:  # the root of the tolerance
        assert certificate.status is not Proof.CERTIFIED
        assert "So the point is a global minimiser" not in printed
    if off == 0:
        assert certificate.status is Proof.CERTIFIED
    result = verify(H, problem)
    assert (result.verdict is Verdict.GLOBAL_MINIMISER) == (certificate.status is Proof.CERTIFIED)
    if certificate.implied is not None:
        reduced = certificate.problem
        gram = certificate.point.placed() @ certificate.point.placed().T
        for batch, count in zip(reduced.batches, reduced.counts, strict=True):
            if len(count) == 1:
                for a in batch:
                    values = [gram[a, b] for b in batch if reduced.sizes[b] > (a == b)]
                    if len(values) > 1:
                        allowed = certificate.implied.tie[reduced.classes[a]]
                        assert max(values) - min(values) <= allowed + 1e-9
    return certificate.status, off


@pytest.mark.few(4)
@pytest.mark.parametrize("seed", range(12))
def test_what_single_class_batches_tie_is_not_certified_once_broken(seed, tmp_path, capsys):
    judged_truly(seed, tmp_path, capsys)


@pytest.mark.slow
def test_two_thousand_problems_where_single_class_batches_tie_something(tmp_path, capsys):
    seen = [judged_truly(seed, tmp_path, capsys) for seed in range(2000)]
    broken = sum(off > 0.0101 for _, off in seen)
    certified = sum(status is Proof.CERTIFIED for status, _ in seen)
    print(f"2000 problems, {broken} broken, {certified} certified")
    assert broken > 500
    assert certified > 300


def test_the_loss_at_a_broken_tie_is_above_the_frame(tmp_path):
    problem, broken = hidden(200, 100.0)
    certifier = Certifier(problem, conic=False)
    certifier.certify(broken).save(tmp_path / "broken.json")
    content = json.loads((tmp_path / "broken.json").read_text())
    content["claims"]["status"], content["witness"] = "certified", None
    for part in (content,):
        part.pop("checksum")
        part["checksum"] = check.digest(part)
    (tmp_path / "forged.json").write_text(json.dumps(content))
    assert check.main([str(tmp_path / "forged.json")]) == 1
    with ctx.workprec(precision(100.0)):
        at = loss(certifier.problem, certifier.certify(broken).point.gram())
        frame = loss(certifier.problem, certifier.better.gram())
        assert at > frame
