"""Every number finite, whatever the batch family, the temperature and the feasible point; and no NaN passes a test."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import oracles
import pytest
import xarray as xr

import solvers
import ufm
from experiments import sweep_batching, sweep_imbalance
from experiments.reports import batching as batching_report
from experiments.reports import imbalance as imbalance_report
from solvers import measurement
from solvers.certification import verification
from solvers.certification.verification import STATIONARY, Verdict
from solvers.loop.stopping import relative_gap_contribution, stationarity
from solvers.methods.projected_gradient import ProjectedGradient
from solvers.parallel.padding import padded
from ufm.model.evaluation import Evaluation, evaluate

FAMILIES = ("full", "any", "singletons", "one class", "repeated", "partition", "wide")
POINTS = ("sphere", "ball", "zeros", "duplicates", "collapsed", "frame", "near", "antipodal", "one direction")


def random_problem(rng, n, k, d, nonneg, most_batches=12):
    labels = rng.permutation(np.concatenate([np.arange(k), rng.integers(rng.integers(1, k + 1), size=n - k)]))
    kind = rng.choice(FAMILIES)
    pools = [np.arange(n)]
    if kind == "partition":
        pools = ufm.batching.partition(n, int(rng.integers(1, n + 1)), int(rng.integers(2**31)))[:8]
    elif kind != "full":
        pools = [rng.permutation(n)[: rng.integers(1, n + 1)] for _ in range(rng.integers(1, 6))]
    if kind == "singletons":
        pools += [rng.integers(n, size=1) for _ in range(3)]
    if kind == "one class":
        pools += [np.flatnonzero(labels == c) for c in rng.integers(k, size=2)]
    if kind == "repeated":
        pools += [pools[-1]] * 3
    pools = pools[-most_batches:]
    if kind == "wide":
        longest = max(map(len, pools))
        pools = np.stack([np.pad(pool, (0, longest + 7 - len(pool)), constant_values=-1) for pool in pools])
    multiplicity = None
    if rng.random() < 0.3:
        multiplicity = np.floor(2.0 ** rng.uniform(0, rng.choice([2, 45]), n))
    tau = 10 ** rng.uniform(-2, 4)
    return ufm.Problem(labels, d, tau, pools, nonneg, multiplicity=multiplicity)


def random_point(rng, problem):
    """A feasible point."""
    n, d, labels = problem.num_points, problem.d, np.asarray(problem.labels)
    kind = rng.choice(POINTS)
    H = rng.normal(size=(n, d))
    if kind == "collapsed":
        H = H[labels]
    if kind == "antipodal":
        H = H[np.zeros(n, int)] * rng.choice([-1, 1], problem.k)[labels][:, None]
    if kind == "one direction":
        H = H[np.zeros(n, int)]
    if kind in ("frame", "near"):
        H = np.eye(max(d, problem.k))[labels][:, :d] + 10 ** rng.uniform(-12, -1) * (kind == "near") * np.abs(H)
    if kind == "duplicates":
        H = H[rng.integers(n, size=n)]
    H = np.abs(H) if problem.nonneg else H
    H = np.array(ufm.project(jnp.asarray(H * 1e3), problem.nonneg))
    if kind == "ball":
        H = H * rng.uniform(size=(n, 1))
    if kind == "zeros":
        H[rng.random(n) < 0.3] = 0
    return H


@eqx.filter_jit
def everything(H, problem):
    """All that is computed at a point, in one tree."""
    at = evaluate(H, problem)
    return at, stationarity(H, at, problem), relative_gap_contribution(at)


def finite(tree):
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


@pytest.mark.thorough
def test_a_frame_over_batches_with_slots_to_spare():
    """The deficits of 500 samples, taken for those of one positive, overflow at tau = 0.1."""
    labels = np.arange(1000) % 2
    problem = ufm.Problem(labels, d=4, tau=0.1, batches=ufm.batching.partition(1000, 500, 0))
    result = solvers.verify(np.eye(4)[labels], problem)
    assert result.verdict is Verdict.GLOBAL_MINIMISER
    assert abs(result.excess) < 1e-12
    assert set(solvers.solve(problem, inits=2).status) == {solvers.Status.CONVERGED}


# Largest number of points and of batches, classes, coordinates, and how many problems of either model.
SHAPES = [(12, 12, 2, 1, 40), (40, 12, 5, 8, 20)]
MANY = [
    (12, 12, 2, 1, 1500),
    (12, 12, 3, 4, 1500),
    (40, 12, 5, 8, 1200),
    (200, 12, 10, 16, 600),
    (1000, 4, 4, 8, 150),
    (3000, 4, 10, 5, 50),
]


@pytest.mark.few(1)
@pytest.mark.parametrize("nonneg", [True, False])
@pytest.mark.parametrize(
    ("n", "nb", "k", "d", "count"), [*SHAPES, *(pytest.param(*shape, marks=pytest.mark.slow) for shape in MANY)]
)
def test_every_number_is_finite(n, nb, k, d, count, nonneg):
    rng = np.random.default_rng([n, k, d, count, nonneg])
    for number in range(count):
        problem = random_problem(rng, int(rng.integers(max(k, n // 2), n + 1)), k, d, nonneg, nb)
        H = np.pad(random_point(rng, problem), ((0, n - problem.num_points), (0, 0)))
        assert finite(everything(jnp.asarray(H), padded(problem, (n, nb, n + 8)))), number


@pytest.mark.parametrize("count", [16, pytest.param(500, marks=pytest.mark.slow)])
def test_every_number_is_right(count, monkeypatch):
    """Relative to what adds up: of the excess the sizes of the anchors' shares (on UFM+ they are the shares, and
    add up to it), of a row's gradient the forces on it, and rounding of the attraction and repulsion they are left of.
    """
    monkeypatch.setattr(ufm.model.evaluation, "BLOCK_ENTRIES", 1)  # blocks of 32 anchors
    rng = np.random.default_rng(2)
    within = eqx.filter_jit(lambda H, problem: evaluate(H, problem))
    with mpmath.workdps(170):  # e^{-1/tau} at tau = 0.01, beside 1, in 50 digits, and squared
        for number in range(count):
            problem = random_problem(rng, int(rng.integers(4, 34)), 3, 4, nonneg=number % 2 == 0)
            H = random_point(rng, problem)
            wide = padded(problem, (40, 12, 44))
            at = within(jnp.asarray(np.pad(H, ((0, 40 - len(H)), (0, 0)))), wide)
            loss, excess, compositions, gradient, gradient_scale, cancelling = oracles.evaluation(H, problem)
            rounding = mpmath.mpf(10) ** -150 * (1 + abs(loss))  # of the oracle, where the truth is 0
            assert abs(mpmath.mpf(float(at.loss)) - loss) <= 1e-10 * abs(loss) + rounding, number
            assert abs(mpmath.mpf(float(at.excess)) - excess) <= 1e-10 * compositions + rounding, number
            for i, row in enumerate(np.asarray(at.gradient)[: len(H)].tolist()):
                error = mpmath.norm([mpmath.mpf(x) - gradient[i, c] for c, x in enumerate(row)])
                assert error <= 1e-10 * gradient_scale[i] + 1e-15 * cancelling[i] + rounding, (number, i)


NOTHING = Evaluation(*[jnp.zeros(())] * 2, jnp.zeros((3, 2)), *[jnp.ones(3)] * 5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("field", ["gradient", "gradient_scale", "gap_contribution"])
def test_what_is_not_finite_is_neither_stationary_nor_without_conflict(field, bad):
    problem = ufm.Problem([0, 0, 1], 2, 1.0)
    at = NOTHING._replace(**{field: getattr(NOTHING, field).at[1].set(bad)})
    residual = np.asarray(stationarity(jnp.asarray(np.eye(3, 2)), at, problem))
    gap_contribution = np.asarray(relative_gap_contribution(at))
    seen = gap_contribution if field == "gap_contribution" else residual
    assert not seen[1] <= STATIONARY
    assert np.isfinite(seen[[0, 2]]).all()


@dataclasses.dataclass(frozen=True)
class Broken(ProjectedGradient):
    """Reports a number that is not finite from its third step on, in one field of its iterate."""

    field: str = "residual"

    def step(self, state, problem):
        after = super().step(state, problem)
        bad = jnp.where(state.now.excess < 1e300, jnp.nan, 0.0)
        return after._replace(now=after.now._replace(**{self.field: getattr(after.now, self.field) + bad}))


@pytest.mark.few(2)
@pytest.mark.parametrize("field", ["H", "excess", "residual", "gap_contribution"])
def test_a_step_that_is_not_finite_is_not_taken(field):
    solution = solvers.solve(ufm.Problem([0, 0, 1, 1], 3, 1.0), inits=1, method=Broken(field=field), max_steps=40)
    assert solution.status == (solvers.Status.NOT_FINITE,)
    assert np.isfinite(solution.H).all()


@pytest.mark.parametrize("field", ["excess", "residuals"])
def test_no_verdict_rests_on_a_nan(field, monkeypatch):
    labels = [0, 0, 1, 1]

    def measured(*arguments):
        at = measurement.measure(*arguments)
        return at._replace(**{field: np.asarray(getattr(at, field)) * np.nan})

    monkeypatch.setattr(verification, "measure", measured)
    assert solvers.verify(np.eye(3)[labels], ufm.Problem(labels, 3, 1.0)).verdict is Verdict.NOT_FINITE


def cell(**columns):
    """Two starts, all well but for what is given."""
    good = {
        "excess": [1e-12, 1e-12],
        "residual": [1e-14, 1e-14],
        "certified": [True, True],
        "orthogonal_frame": [True, True],
        "start": [0, 1],
        "unique": ["True", "True"],
        "counterexample_certified": ["None", "None"],
    }
    data = {name: ("init", np.asarray(values)) for name, values in {**good, **columns}.items()}
    return xr.Dataset(data, attrs={"nonneg": 1})


@pytest.mark.parametrize(
    ("columns", "holds"),
    [
        ({}, True),
        ({"excess": [np.nan, 1e-12]}, False),
        ({"excess": [1e-12, np.inf]}, False),
        ({"residual": [1e-14, np.nan]}, False),
        ({"certified": [True, False]}, False),
    ],
)
def test_no_sweep_concludes_from_a_nan(columns, holds):
    assert sweep_imbalance.reproduced(cell(**columns)) is holds
    assert sweep_batching.confirmed(cell(**columns)) is holds


@pytest.mark.parametrize(("excess", "good"), [("1e-12", True), ("nan", False), ("inf", False)])
def test_no_report_concludes_from_a_nan(excess, good):
    row = {"certified": "1", "orthogonal_frames": "1", "inits": "1", "worst_excess": excess}
    for relu in (True, False):
        assert imbalance_report.judged({"relu": relu}, [row])[0] is good
    start = {"certified": "True", "orthogonal_frame": "True", "unique": "True", "start": "0", "excess": excess}
    assert batching_report.judged([start])[0] is good
