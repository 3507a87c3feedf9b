"""Every method meets every problem; starts are independent; the staircase frees what descent alone leaves stuck."""

import jax
import numpy as np
import optax
import problems
import pytest

import solvers
import ufm
from solvers.certification.verification import Verdict, Verifier
from solvers.compilation.compiled import LOG
from solvers.loop.slots import RunOptions, Start, run_slots
from solvers.loop.stopping import Status
from solvers.methods.accelerated import Accelerated
from solvers.methods.projected_gradient import ProjectedGradient
from solvers.methods.quasi_newton import QuasiNewton
from solvers.multistart import METHODS
from solvers.parallel.padding import bucket
from solvers.staircase.lifts import merge_parallel_columns
from solvers.staircase.staircase import EARLY_EXIT, Staircase
from solvers.starts.groups import collapsed_starts
from solvers.starts.random_starts import random_start

PROBLEMS = {name: problems.PROBLEMS[name]() for name in ("balanced", "imbalanced", "cold", "bound batches")}


@pytest.mark.few(5)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", PROBLEMS)
def test_every_method_on_every_problem(method, name):
    problem = PROBLEMS[name]
    solution = solvers.solve(problem, inits=6, seed=3, method=method)
    verifier = Verifier(problem)
    verdicts = [verifier.verify(H) for H in solution.H]
    result = [v.verdict is Verdict.GLOBAL_MINIMISER and v.is_orthogonal_frame for v in verdicts]
    assert np.mean(result) >= (1.0 if method == "staircase" else 0.5)
    for verdict, status, excess in zip(verdicts, solution.status, solution.excess, strict=True):
        assert verdict.feasible
        assert excess >= 0
        assert np.isclose(excess, verdict.excess, rtol=1e-9, atol=1e-25)
        if status is Status.CONVERGED:
            assert verdict.residual < 1e-8
    for history, iterations in zip(solution.history, solution.iterations, strict=True):
        assert history.iteration[-1] == iterations
        assert (np.diff(history.iteration) >= 0).all()
        assert history.H is None
        assert all(np.isfinite(column).all() for column in history[:-1])


def test_staircase_frees_every_start_where_descent_alone_does_not():
    problem = ufm.Problem.from_class_sizes(ufm.step_imbalance(10, 2, 100), d=10)
    verifier = Verifier(problem)

    def share(max_lifts):
        solution = solvers.solve(problem, inits=16, method=Staircase(max_lifts=max_lifts))
        ends = [verifier.verify(solution.embedding(s)) for s in range(16)]
        return np.mean([end.verdict is Verdict.GLOBAL_MINIMISER and end.is_orthogonal_frame for end in ends]), solution

    without, stuck = share(0)
    assert without < 0.5
    assert Status.SPURIOUS in stuck.status
    with_lifts, freed = share(50)
    assert with_lifts == 1.0
    assert set(freed.status) == {Status.CONVERGED}
    assert freed.lifts.max() >= 1


def test_a_dead_class_is_named_and_revived():
    problem = ufm.Problem.from_class_sizes([6, 6, 6], d=3, tau=0.1)
    rows = np.array([[1.0, 0, 0], [0, np.sqrt(0.5), np.sqrt(0.5)], [0, 0, 0]])
    verdict = solvers.verify(rows[np.asarray(problem.labels)], problem)
    assert not verdict.unit_norms
    assert verdict.norm.classes == (2, 2)
    from solvers.staircase.escape import continuation

    quotient = ufm.orbits(problem).quotient
    method = QuasiNewton(early_exit=EARLY_EXIT)
    (revived,) = continuation(
        method, quotient, [Start(rows)], RunOptions(1), streams=[(0, 0)], progress=lambda ended: None
    )
    assert revived.status is Status.CONVERGED
    assert np.allclose(revived.last.H @ revived.last.H.T, np.eye(3), atol=1e-9)
    assert not revived.last.H[:, 3:].any()


@pytest.mark.thorough
def test_start_is_the_same_whatever_runs_beside_it():
    problem = ufm.Problem.from_class_sizes([12, 6, 3, 3], d=4)
    many = solvers.solve(problem, inits=7, seed=5)
    few = solvers.solve(problem, inits=3, seed=5)
    assert np.array_equal(many.points[:3], few.points)
    assert not np.array_equal(solvers.solve(problem, inits=3, seed=6).points, few.points)
    key = jax.random.key_data(jax.random.key(0))
    assert np.array_equal(random_start(key, 17, 10, 4, True), random_start(key, 17, 16, 4, True)[:10])
    assert float(random_start(key, 17, 10, 4, True).min()) >= 0
    assert float(random_start(key, 17, 10, 4, False).min()) < 0


@pytest.mark.thorough
def test_lanes_do_not_change_results():
    problem = ufm.orbits(PROBLEMS["imbalanced"]).quotient
    key = jax.random.key_data(jax.random.key(1))
    starts = [(s, Start(np.asarray(random_start(key, s, 3, 6, True)))) for s in range(5)]

    def ends(slots):
        outcomes = {}
        run_slots(Accelerated(), problem, starts, RunOptions(slots), lambda o: outcomes.__setitem__(o.key, o))
        return outcomes

    alone, together = ends(1), ends(4)
    for s in range(5):
        assert np.allclose(alone[s].H, together[s].H, atol=1e-13)
        assert alone[s].steps == together[s].steps


def _explodes():
    return optax.scale(float("inf"))


def test_a_failed_start_is_reported_and_leaves_the_others_alone():
    problem = PROBLEMS["balanced"]
    solution = solvers.solve(problem, inits=3, method=ProjectedGradient(_explodes))
    assert set(solution.status) == {Status.NOT_FINITE}
    assert np.isfinite(solution.H).all()
    assert "overflow" in solution.status[0].sentence

    # One bad start among good ones: NaN in, and only that lane fails.
    good = np.asarray(random_start(jax.random.key_data(jax.random.key(1)), 0, 3, 6, True))
    bad = np.full_like(good, np.nan)
    outcomes = {}
    quotient = ufm.orbits(PROBLEMS["imbalanced"]).quotient
    run_slots(
        Accelerated(),
        quotient,
        [(0, Start(good)), (1, Start(bad)), (2, Start(good))],
        RunOptions(2),
        lambda outcome: outcomes.__setitem__(outcome.key, outcome),
    )
    assert [outcomes[s].status for s in range(3)] == [Status.CONVERGED, Status.NOT_FINITE, Status.CONVERGED]
    assert np.array_equal(outcomes[0].H, outcomes[2].H)


def test_step_limit_is_reported():
    solution = solvers.solve(PROBLEMS["imbalanced"], inits=2, method="projected-gradient", max_steps=5)
    assert set(solution.status) == {Status.OUT_OF_STEPS}
    assert "allow more steps" in solution.status[0].sentence


def _adam():
    return optax.adam(0.05)


@pytest.mark.thorough
def test_any_optax_transformation_is_a_method():
    solution = solvers.solve(PROBLEMS["balanced"], inits=4, method=ProjectedGradient(_adam, tolerance=1e-6))
    assert (solution.excess < 1e-3).any()
    verdicts = [solvers.verify(H, PROBLEMS["balanced"]) for H in solution.H]
    assert all(verdict.feasible for verdict in verdicts)


@pytest.mark.thorough
def test_fast_and_reference_path_agree_from_the_same_point_near_the_optimum():
    problem = ufm.Problem.from_class_sizes([30, 20, 3], d=5)
    frame = np.eye(5)[:3][np.asarray(problem.labels)]
    near = np.abs(frame + 0.05 * np.random.default_rng(0).standard_normal(frame.shape))
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    grams, verdicts = [], []
    for method in (QuasiNewton(), Accelerated(), ProjectedGradient()):
        outcomes = {}
        run_slots(method, problem, [(0, Start(near))], RunOptions(1), lambda o, to=outcomes: to.__setitem__(0, o))
        grams.append(outcomes[0].H @ outcomes[0].H.T)
        verdicts.append(solvers.verify(outcomes[0].H, problem).verdict)
    assert np.ptp(grams, axis=0).max() < 1e-8
    assert set(verdicts) == {Verdict.GLOBAL_MINIMISER}


@pytest.mark.thorough
def test_compilations_do_not_grow_with_starts_seeds_or_imbalance_within_a_bucket():
    def solve_and_verify(R, inits, seed, tau):
        problem = ufm.Problem.from_class_sizes(ufm.step_imbalance(6, 3, R), d=7, tau=tau)
        solution = solvers.solve(problem, inits=inits, seed=seed)
        Verifier(problem).verify(solution.embedding(0))

    solve_and_verify(9.0, 4, 0, 1.0)
    before = len(LOG)
    solve_and_verify(9.3, 4, 1, 0.7)
    assert len(LOG) == before  # same buckets: nothing is compiled again
    solve_and_verify(40.0, 4, 1, 0.7)
    assert [entry.name for entry in LOG[before:]] == ["collapse_group"]  # the classes collapse: one problem for every R


@pytest.mark.thorough
def test_main_command_compiles_at_most_three_functions_per_shape_bucket():
    before = len(LOG)
    sizes = []
    for R in (1, 10, 100):
        problem = ufm.Problem.from_class_sizes(ufm.step_imbalance(5, 3, R), d=11)
        sizes.append(problem.num_points)
        Verifier(problem).verify(solvers.solve(problem, inits=4).embedding(0))
    names = [entry.name for entry in LOG[before:]]
    of_orbits = [name for name in names if name != "collapse_group"]
    assert len(of_orbits) <= 4  # one of them tells histories of collapses
    assert names.count("collapse_group") <= len({bucket(size) for size in sizes})


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 50, 275, 2525, 25025, 10**6])
def test_buckets_waste_at_most_a_quarter(count):
    assert count <= bucket(count) <= max(1.25 * count, count + 1)
    assert bucket(bucket(count)) == bucket(count)


@pytest.mark.thorough
def test_collapse_moves_samples_little_and_says_how_much():
    problem = PROBLEMS["imbalanced"]
    symmetry = ufm.orbits(problem)
    (coarse,) = collapsed_starts([symmetry.quotient], [symmetry], [0], count=1, threshold=1e-1)
    (fine,) = collapsed_starts([symmetry.quotient], [symmetry], [0], count=1, threshold=1e-6)
    assert coarse.moved <= 1e-1
    assert fine.moved <= 1e-6
    assert fine.steps > coarse.steps


def test_merging_parallel_columns_keeps_the_gram_matrix():
    rng = np.random.default_rng(0)
    directions = rng.uniform(size=(6, 3))
    H = np.hstack([directions * factor for factor in (0.3, 0.5, 0.1)] + [np.zeros((6, 2))])
    merged = merge_parallel_columns(H)
    assert merged.any(axis=0).sum() == 3
    assert np.allclose(merged @ merged.T, H @ H.T, atol=1e-14)


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("inits", {"inits": 0}),
        ("inits", {"inits": True}),
        ("max_steps", {"max_steps": 0}),
        ("method", {"method": "newton"}),
    ],
)
def test_bad_arguments_are_named(argument, call, untyped):
    with pytest.raises(ufm.InvalidInput, match=f"^{argument} = "):
        solvers.solve(PROBLEMS["balanced"], **call)


def test_without_relu_the_balanced_minimiser_is_the_simplex():
    problem = problems.PROBLEMS["five equal classes"](nonneg=False)
    solution = solvers.solve(problem, inits=4)
    for points in solution.points:
        cosines = points @ points.T
        assert np.allclose(cosines[~np.eye(5, dtype=bool)], -0.25, atol=1e-9)


@pytest.mark.thorough
def test_too_few_dimensions_end_honestly():
    problem = ufm.Problem.from_class_sizes([4] * 4, d=3)
    solution = solvers.solve(problem, inits=4)
    verdicts = {solvers.verify(H, problem).verdict for H in solution.H}
    assert Verdict.GLOBAL_MINIMISER not in verdicts
    assert (solution.excess > 1e-3).all()


@pytest.mark.slow
@pytest.mark.parametrize("tau", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("R", [1, 10, 100, 1000])
@pytest.mark.parametrize(("k", "d"), [(4, 4), (4, 8), (10, 10), (10, 20)])
def test_every_start_is_certified(k, d, R, tau):
    _assert_all_certified(ufm.Problem.from_class_sizes(ufm.step_imbalance(k, 2, R), d=d, tau=tau), inits=64)


@pytest.mark.slow
@pytest.mark.parametrize(("k", "R"), [(50, 1), (50, 100), (50, 1000), (100, 1), (100, 100)])
def test_every_start_is_certified_with_many_classes(k, R):
    _assert_all_certified(ufm.Problem.from_class_sizes(ufm.step_imbalance(k, 2, R), d=k), inits=8)


def _assert_all_certified(problem, inits):
    solution = solvers.solve(problem, inits=inits)
    verifier, certifier = Verifier(problem), solvers.Certifier(problem, conic=False)
    for start in range(inits):
        H = solution.embedding(start)
        verdict = verifier.verify(H)
        assert verdict.verdict is Verdict.GLOBAL_MINIMISER
        assert verdict.is_orthogonal_frame
        assert str(certifier.certify(H).status) == "certified"
