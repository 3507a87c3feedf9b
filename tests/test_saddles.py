"""Without the ReLU every start leaves the saddles on its way, and what is lifted goes down."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import problems
import pytest

import solvers
import ufm
from experiments.harness.loss_names import NAMES, loss_of
from solvers.loop.stopping import Status
from solvers.staircase import escape, saddles
from solvers.staircase.lifts import slope_at
from solvers.staircase.staircase import Staircase

K, N_MIN, D = 6, 4, 8
CONVEX = [name for name in NAMES if name != "supcon-in"]
# Where all starts ended with all minorities on one vector, or some of them did.
SADDLES = [
    ("class-weights", 30, 0.7),
    ("class-averaging", 30, 0.4),
    ("class-weights", 100, 0.4),
    ("class-averaging", 100, 0.2),
    ("class-averaging", 1000, 0.2),
    ("class-weights", 1000, 0.2),
]


def posed(name, R, tau, d=D):
    sizes = ufm.step_imbalance(K, N_MIN, R)
    return ufm.Problem.from_class_sizes(sizes, d=d, tau=tau, nonneg=False, loss=loss_of(name, np.array(sizes)))


def uncertified(problem, solution, conic=False):
    certifier = solvers.Certifier(problem, conic=conic)
    return [s for s, H in enumerate(solution.H) if str(certifier.certify(H).status) != "certified"]


@pytest.mark.parametrize(("name", "R", "tau"), SADDLES)
def test_every_start_leaves_the_saddle_that_all_minorities_share(name, R, tau):
    problem = posed(name, R, tau)
    solution = solvers.solve(problem, inits=4, seed=6)
    assert set(solution.status) == {Status.CONVERGED}
    assert uncertified(problem, solution) == []


@pytest.mark.few(2)
@pytest.mark.parametrize(("name", "R", "tau"), SADDLES)
def test_a_start_of_ones_own_on_or_beside_a_saddle(name, R, tau):
    problem = posed(name, R, tau)
    minority = np.asarray(problem.class_sizes) == N_MIN
    minorities = minority[np.asarray(problem.labels)]
    (H,) = solvers.solve(problem, inits=1, method=Staircase(max_lifts=0), seed=6).H
    shared = np.where(minorities[:, None], H[minorities].mean(axis=0), H)
    (saddle,) = solvers.solve(problem, H0=shared, method=Staircase(max_lifts=0)).H
    assert np.ptp(saddle[minorities], axis=0).max() < 1e-12
    assert uncertified(problem, solvers.solve(problem, H0=saddle, method=Staircase(max_lifts=0))) == [0]
    noise = np.random.default_rng(0).standard_normal((K, D))[np.asarray(problem.labels)]
    beside = np.stack([saddle, *(saddle + size * noise for size in (1e-12, 1e-8, 1e-4, 1e-1))])
    assert uncertified(problem, solvers.solve(problem, H0=beside)) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", CONVEX)
def test_every_start_of_every_convex_loss_is_certified(name):
    cells = [(R, tau) for R in (3, 10, 30, 100, 300, 1000) for tau in (0.1, 0.3, 0.7, 1.0, 3.0)]
    requested = {cell: posed(name, *cell) for cell in cells}
    left = {cell: uncertified(problem, solvers.solve(problem, inits=4, seed=6)) for cell, problem in requested.items()}
    assert {cell: starts for cell, starts in left.items() if starts} == {}
    print(f"{name}: {len(left)} cells, {4 * len(left)} starts, all certified")


def _few(*rows):
    return [row if i == 0 else pytest.param(*row, marks=pytest.mark.slow) for i, row in enumerate(rows)]


@pytest.mark.parametrize(
    ("R", "tau"),
    _few(
        (30, 0.7),
        *((R, tau) for R in (3, 10, 30, 100, 300, 1000) for tau in (0.1, 0.3, 0.7, 1.0, 3.0) if (R, tau) != (30, 0.7)),
    ),
)
def test_supcon_in_ends_where_a_second_order_search_finds_nothing_lower(R, tau):
    """The search: the whole Hessian over directions of the rows, scaled by the forces, and a walk along its axes."""
    problem = posed("supcon-in", R, tau)
    solution = solvers.solve(problem, inits=4, seed=6)
    quotient = ufm.orbits(problem).quotient

    @jax.jit
    def excess(V):
        return ufm.excess(V / jnp.linalg.norm(V, axis=1, keepdims=True), quotient)

    for U, residual in zip(solution.points, solution.residual, strict=True):
        assert residual < 1e-8
        assert np.allclose(np.linalg.norm(U, axis=1), 1.0, atol=1e-9)
        gradient_scale = np.asarray(saddles.dual_at(jnp.asarray(U), jnp.asarray(tau), quotient).gradient_scale)
        root = np.sqrt(np.repeat(gradient_scale, D))
        hessian = np.asarray(jax.hessian(excess)(jnp.asarray(U))).reshape(K * D, K * D) / np.outer(root, root)
        bends, axes = np.linalg.eigh(hessian)
        assert bends.min() > -1e-6
        at = float(excess(jnp.asarray(U)))
        for axis in (axes / root[:, None]).T[:20]:
            for size in (-0.3, -0.03, 0.03, 0.3):
                step = size * axis.reshape(K, D) / np.abs(axis).max()
                assert float(excess(jnp.asarray(U + step))) >= at - 1e-12 * (1 + abs(at))


SAME = {
    "UFM, class weights": lambda: posed("class-weights", 1000, 0.2),
    "UFM+": lambda: problems.step(5, 100, 0.1, n_min=2),
    "d < k": lambda: ufm.Problem.from_class_sizes([6, 5, 4, 4], d=2, tau=0.5),
    "UFM, averaged": lambda: posed("class-averaging", 30, 0.4),
}


@pytest.mark.few(2)
@pytest.mark.parametrize("name", SAME)
def test_a_start_ends_the_same_to_the_last_bit_whatever_runs_beside_or_before_it(name):
    problem = SAME[name]()
    alone = solvers.solve(problem, inits=1, seed=6)
    for inits in (2, 4, 32):
        together = solvers.solve(problem, inits=inits, seed=6)
        assert np.array_equal(together.points[0], alone.points[0])
        assert together.iterations[0] == alone.iterations[0]
        assert together.status[0] is alone.status[0]
        assert together.excess[0] == alone.excess[0]
    again = solvers.solve(problem, inits=1, seed=6)
    assert np.array_equal(again.points, alone.points)


@pytest.mark.few(2)
@pytest.mark.parametrize(("seed", "nonneg"), [(3, True), (2, False), (2, True), (3, False)])
def test_with_several_batches_it_ends_the_same_up_to_rounding(seed, nonneg):
    """The compiler sums batches in an order that depends on how many starts there are side by side."""
    problem = problems.family(seed, nonneg=nonneg)
    ends = [solvers.solve(problem, inits=inits, seed=6) for inits in (1, 2, 4, 32)]
    grams = np.stack([end.points[0] @ end.points[0].T for end in ends])
    assert np.ptp(grams, axis=0).max() < 1e-10
    assert np.ptp([end.excess[0] for end in ends]) <= 1e-12 * (1 + abs(ends[0].excess[0]))


LIFTED = {
    "minorities": (lambda: problems.step(10, 1000, 0.1, n_min=2), "lifted"),
    "d = k": (lambda: ufm.Problem.from_class_sizes([40, 20, 10, 5, 5, 5], d=6, tau=0.5), "lifted"),
    "reshuffled": (
        lambda: ufm.Problem(np.arange(24) % 4, 4, 0.2, ufm.batching.reshuffled(24, 8, 2, 1)),
        "lifted",
    ),
    "without the ReLU": (lambda: posed("class-weights", 1000, 0.2), "off_saddle"),
    "without the ReLU, averaged": (lambda: posed("class-averaging", 30, 0.4), "off_saddle"),
}


@pytest.mark.parametrize("name", LIFTED)
def test_every_lift_lowers_the_loss(name, monkeypatch):
    make, function = LIFTED[name]
    plain, falls = getattr(escape, function), []

    def watched(H, *rest):
        lifted = plain(H, *rest)
        if lifted is not None:
            problem, tau = rest[-2:]
            before, after = (float(jax.jit(slope_at)(at, tau, problem).excess) for at in (H, lifted))
            falls.append(before - after)
            assert np.linalg.norm(lifted, axis=1).max() <= 1 + 1e-12
            assert problem.nonneg <= (lifted.min() >= 0)
        return lifted

    monkeypatch.setattr(escape, function, watched)
    solvers.solve(make(), inits=8, seed=1)
    assert len(falls) > 0
    assert min(falls) > 0


def test_more_points_than_eigenvectors_are_worth_are_left_alone():
    n = 2 * saddles.MOST_POINTS
    problem = ufm.Problem(np.arange(n) % 4, 6, 0.5, [np.arange(n)[b::8] for b in range(8)] + [np.arange(n)], False)
    H = np.zeros((n, 6))
    H[:, 0] = 1.0
    assert saddles.off_saddle(H, problem, 0.5) is None


def test_expected_losses_without_the_relu_are_compiled():
    """XLA's quick emitters aborted the process over this one."""
    sampler = ufm.samplers.uniform(4)
    problem = ufm.Problem.expected([9, 5, 3], sampler, 4, 0.1, False, loss=ufm.losses.decoupled())
    solution = solvers.solve(problem, inits=3, seed=1)
    assert set(solution.status) == {Status.CONVERGED}


def test_what_is_lifted_between_descents_counts_in_the_seconds_of_a_start(monkeypatch):
    def slowly(*inputs):
        time.sleep(0.3)
        return saddles.off_saddle(*inputs)

    monkeypatch.setattr(escape, "off_saddle", slowly)
    problem = posed("class-weights", 1000, 0.2)
    (status,) = solvers.solve(problem, inits=1, seed=6, max_seconds=0.25).status
    assert status is Status.OUT_OF_TIME
