"""What a gap implies without the ReLU: each feasible point of no larger loss, collapsed or not, keeps the intervals."""

import jax.numpy as jnp
import numpy as np
import pytest
from families import LOSSES
from flint import arb, ctx
from hypothesis import given, settings
from hypothesis import strategies as st

import ufm
from solvers.certification.certificate import Certificate, Proof
from solvers.certification.certifier import Certifier
from solvers.certification.consequences_ufm import implied_ufm

pytestmark = pytest.mark.thorough

SIZES = [(5, 5, 5), (8, 3, 2), (6, 2, 1), (4, 3, 1, 1), (3, 1, 1), (7, 2)]
# Without the ReLU, duals bound these. Weights and margins that differ by 1e12 leave no gap to speak of: see below.
CONVEX = [name for name in LOSSES if name not in ("supcon-in", "extreme margins")]
MILD = {
    "class weights": lambda k: ufm.losses.class_weighted(np.linspace(1.0, 0.2, k)),
    "margins": lambda k: ufm.losses.log_sum_exp(margins=np.sin(np.arange(k * k)).reshape(k, k)),
    "weights and averaging": lambda k: ufm.losses.log_sum_exp(weights=np.linspace(0.3, 1.0, k), averaged=True),
    "all at once": lambda k: ufm.losses.log_sum_exp(
        np.linspace(1.0, 0.5, k),
        np.cos(np.arange(k * k)).reshape(k, k),
        np.linspace(1.0, 1.5, k),
        averaged=True,
        positives_in_denominator=False,
    ),
    "sigmoid": lambda k: ufm.losses.sigmoid(2.0, -1.0),
}


def loss_by(name, k):
    return MILD[name](k) if name in MILD else LOSSES[name](np.random.default_rng(k), k)


def solved(sizes, tau, d=None, name="scl"):
    """The certifier of a full batch, and its polished optimum, row by row."""
    k = len(sizes)
    problem = ufm.Problem.from_class_sizes(sizes, d=d or k, tau=tau, nonneg=False, loss=loss_by(name, k))
    certifier = Certifier(problem, conic=False)
    return certifier, certifier.better.placed()[np.asarray(problem.labels)]


def geometry(H, problem):
    """Cosines and norms of class means, and the width of every class."""
    labels = np.asarray(problem.labels)
    means = np.stack([H[labels == c].mean(axis=0) for c in range(problem.k)])
    norms = np.linalg.norm(means, axis=1)
    wide = [np.linalg.norm(H[labels == c][:, None] - H[labels == c], axis=-1).max() for c in range(problem.k)]
    return means @ means.T / np.outer(norms, norms), norms, np.array(wide)


def feasible(H):
    return H / np.maximum(np.linalg.norm(H, axis=1, keepdims=True), 1)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize(("name", "tau"), [("scl", 0.1), ("scl", 0.5), ("scl", 2.0), *((name, 0.3) for name in CONVEX)])
def test_intervals_hold_the_optimum_and_shrink_with_the_root_of_the_gap(sizes, tau, name):
    certifier, H = solved(sizes, tau, name=name)
    certificate = certifier.certify(H)
    assert certificate.status is Proof.CERTIFIED
    cosines, _, _ = geometry(H, certifier.samples_problem)
    widths = []
    dual = certificate.lower_bound.dual
    least_gap = max(1e-10 * float(np.min(dual.v)), certificate.gap)
    for gap in (least_gap, 1e4 * least_gap):
        with ctx.workprec(certifier.problem.bits):
            says = implied_ufm(certifier.problem, arb(gap), dual)
        least, most = np.array(says.least_cosine), np.array(says.cosine)
        assert (least <= cosines + 1e-12).all()
        assert (cosines <= most + 1e-12).all()
        widths.append((most - least).max())
    assert widths[0] < 0.02 * widths[1] + 1e-3
    assert widths[0] < 0.05


def one_point(sizes, tau, exponent, seed, name):
    """Points of loss just below that of a spoilt optimum, found by random steps, keep what its certificate implies."""
    rng = np.random.default_rng(seed)
    certifier, best = solved(sizes, tau, len(sizes) + 1, name)
    problem = certifier.samples_problem
    spoilt = feasible(best + 10.0**exponent * rng.standard_normal((problem.k, problem.d))[np.asarray(problem.labels)])
    certificate = certifier.certify(spoilt)
    says = certificate.implied
    if says is None:
        return 0
    stored = 0
    for _ in range(30):
        # Any shape: sample by sample, class by class, or along one row, as far as the loss allows.
        step = rng.standard_normal((problem.num_points, problem.d))
        kind = rng.integers(3)
        if kind == 1:
            step = step[: problem.k][np.asarray(problem.labels)]
        elif kind == 2:
            step = step * (np.arange(problem.num_points) == rng.integers(problem.num_points))[:, None]
        size = 10.0 ** rng.uniform(exponent - 1, exponent + 1)
        for _ in range(12):
            H = feasible(best + size * step)
            if float(ufm.scl_loss(jnp.asarray(H), problem)) <= certificate.upper - 1e-13 * abs(certificate.upper):
                stored += 1
                cosines, norms, wide = geometry(H, problem)
                apart = ~np.eye(problem.k, dtype=bool)
                assert (cosines <= np.array(says.cosine) + 1e-9)[apart].all()
                assert (cosines >= np.array(says.least_cosine) - 1e-9)[apart].all()
                assert (norms >= np.array(says.norm) - 1e-9).all()
                assert (wide <= np.array(says.spread) + 1e-9).all()
                break
            size /= 2
    return stored


TRIALS = (
    st.sampled_from(SIZES),
    st.sampled_from([0.2, 0.5, 1.0]),
    st.floats(-5, -1),
    st.integers(0, 2**32 - 1),
    st.sampled_from(CONVEX),
)


@settings(max_examples=40)
@given(*TRIALS)
def test_no_point_of_lower_loss_leaves_the_intervals(sizes, tau, exponent, seed, name):
    assert one_point(sizes, tau, exponent, seed, name) > 0


@pytest.mark.slow
def test_thirty_thousand_points_of_lower_loss_keep_the_intervals():
    """The loss of a point spoilt by 1e-5 may be that of the optimum in float64: then none of lower loss is seen."""
    rng, stored = np.random.default_rng(0), []
    for seed in range(1100):
        sizes, tau = SIZES[rng.integers(len(SIZES))], (0.2, 0.5, 1.0)[rng.integers(3)]
        stored.append(one_point(sizes, tau, rng.uniform(-5, -1), seed, CONVEX[seed % len(CONVEX)]))
    print(sum(stored), "points of lower loss,", stored.count(0), "optima without")
    assert sum(stored) > 30_000
    assert stored.count(0) < 30


@pytest.mark.parametrize(
    ("labels", "d", "batches", "unique"),
    [
        ([0, 0, 1, 1, 2, 2], 3, None, True),
        ([1, 0, 1, 0, 0], 2, None, True),  # two classes: antipodal, by a matrix though the elementary bound is as good
        ([0, 0, 0, 1, 1, 2], 3, None, True),
        ([0, 0, 1, 1, 2, 2], 2, None, None),  # d < k: the minimisers of the relaxation need not fit
        ([0, 0, 1, 1, 2, 2], 3, [[0, 1, 2, 3, 4, 5], [0, 2, 4], [1, 3, 5]], None),
        ([0, 1, 2], 3, None, None),  # no anchor: every point is a minimiser
    ],
)
def test_uniqueness_where_strict_convexity_proves_it(labels, d, batches, unique):
    certifier = Certifier(ufm.Problem(labels, d, 0.5, batches, nonneg=False), conic=False)
    rows = certifier.better.rows / np.linalg.norm(certifier.better.rows, axis=1, keepdims=True)
    assert certifier.certify(rows[certifier.orbits.index]).unique is unique


def test_other_batches_imply_nothing_and_say_so(tmp_path):
    certifier = Certifier(ufm.Problem([0, 0, 1, 1], 2, 1.0, [[0, 1, 2], [2, 3, 0]], nonneg=False), conic=False)
    certificate = certifier.certify(np.eye(2)[[0, 0, 1, 1]])
    assert certificate.implied is None
    assert certificate.unique is None


def test_a_file_keeps_the_intervals(tmp_path):
    certifier, H = solved((5, 3, 2), 0.5)
    certificate = certifier.certify(H)
    certificate.save(tmp_path / "c.json")
    assert Certificate.load(tmp_path / "c.json").implied == certificate.implied
