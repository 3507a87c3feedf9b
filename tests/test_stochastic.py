"""Stochastic projected gradient: its gradient, its path, taken up again, limits, failures, and bad input."""

import families
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from damage import damages

from solvers import Status, StochasticProjectedGradient, solve
from solvers.loop.slots import Limits
from solvers.stochastic.checkpoint import Checkpoint
from ufm import InvalidInput, Problem, geometry_metrics, losses, project, samplers, scl_loss
from ufm.model.evaluation import batch_gradient
from ufm.model.problem import PADDING

SIZES = (6, 4, 4)
UNIFORM = samplers.uniform(6)


def problem_of(sizes=SIZES, d=6, tau=0.5, **options):
    return Problem.from_class_sizes(sizes, d=d, tau=tau, **options)


def method(**options):
    return StochasticProjectedGradient(**{"sampler": UNIFORM, "every": 10, **options})


GRADIENT = jax.jit(batch_gradient)


@pytest.mark.few(2)
@pytest.mark.parametrize("name", ["scl", "all at once", "decoupled", "sigmoid", "supcon-in", "own"])
def test_the_gradient_is_that_of_the_loss_of_the_batch(name):
    """Padding anywhere, lone anchors, one class alone, nobody active."""
    rng = np.random.default_rng(0)
    if name == "own":
        loss = losses.custom(
            lambda G, samples, same, t: jnp.sum(samples * jnp.where(same, 1 - G, G) ** 2) / t, name="own"
        )
    else:
        loss = families.LOSSES[name](rng, 3)
    H = np.abs(rng.standard_normal((14, 6)))
    H /= np.linalg.norm(H, axis=1, keepdims=True)
    for tau in (0.05, 0.7, 10.0):
        problem = problem_of(tau=tau, loss=loss)
        for batch in ([0, 1, 6, 7, 10], [0, 6, PADDING, 7, 13], [PADDING, 3, 2, 1, PADDING], [0, 6, 10, -1, -1]):
            members = np.array(batch, dtype=np.int32)
            last = np.sort(members)[::-1][None]
            whole = Problem(np.asarray(problem.labels), 6, tau, last, loss=loss)
            expected = np.asarray(jax.grad(scl_loss)(jnp.asarray(H), whole))[members] * (members >= 0)[:, None]
            result = GRADIENT(H, problem, members)
            np.testing.assert_allclose(result, expected, rtol=1e-9, atol=1e-11 * max(np.abs(expected).max(), 1e-9))


def by_hand(problem, sampler, H, seed, steps, eta):
    """The definition: batches of the sampler on the host, the loss of each differentiated, rows projected."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 0), 1)
    population = sampler.population(np.asarray(problem.labels))
    state, H = sampler.begin(jax.random.key_data(key), population), jnp.asarray(H)
    for t in range(steps):
        batch, state = sampler.next(state, population)
        inside = [int(i) for i in batch if i >= 0]
        batch_problem = Problem(np.asarray(problem.labels), problem.d, float(problem.tau), [inside])
        moved = project(H - eta(t) * jax.grad(scl_loss)(H, batch_problem), problem.nonneg)
        H = H.at[np.array(inside)].set(moved[np.array(inside)])
    return np.asarray(H)


@pytest.mark.few(1)
@pytest.mark.parametrize(
    "sampler", [UNIFORM, samplers.reshuffled(5), samplers.m_per_class(2, 2), samplers.uniform(3).bound(1)]
)
def test_the_path_is_the_definition(sampler):
    problem = problem_of()
    H0 = np.abs(np.random.default_rng(1).standard_normal((14, 6)))
    H0 /= np.linalg.norm(H0, axis=1, keepdims=True)

    def eta(t):
        return 0.2 / (1.0 + t)

    solution = solve(problem, H0=H0, seed=3, method=method(sampler=sampler, schedule=eta), max_steps=7)
    np.testing.assert_allclose(solution.H[0], by_hand(problem, sampler, H0, 3, 7, eta), atol=1e-12)
    assert solution.status == (Status.ALL_STEPS,)
    assert solution.iterations[0] == 7


@pytest.mark.thorough
def test_plain_sgd_of_optax_is_the_fast_way():
    fast, slow = (solve(problem_of(), 2, method=method(transformation=t), max_steps=30) for t in (None, optax.sgd(1.0)))
    np.testing.assert_allclose(fast.H, slow.H, atol=1e-12)


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("transformation", "schedule"),
    [(optax.sgd(1.0, momentum=0.9), 0.02), (optax.adam(1.0), optax.cosine_decay_schedule(0.02, 1500))],
)
@pytest.mark.parametrize("nonneg", [True, False])
def test_it_reaches_the_minimum_with_any_transformation(transformation, schedule, nonneg):
    """UFM+ and balanced UFM: the frames that theory names."""
    problem = problem_of((4, 4, 4), d=6, nonneg=nonneg)
    made = method(sampler=samplers.class_balanced(6), transformation=transformation, schedule=schedule, every=100)
    solution = solve(problem, 4, method=made, max_steps=1500)
    cosine = 0.0 if nonneg else -0.5
    ended = [geometry_metrics(H, np.asarray(problem.labels)) for H in solution.H]
    assert sum(abs(float(at.mean_cosine) - cosine) < 0.02 for at in ended) >= 3
    assert (np.linalg.norm(solution.H, axis=2) <= 1).all()
    assert not nonneg or (solution.H >= 0).all()


def test_it_ends_at_frames_and_a_history_says_so():
    problem = problem_of()
    solution = solve(problem, 4, method=method(every=50), max_steps=420)
    for s, history in enumerate(solution.history):
        assert history.iteration.tolist() == [*range(50, 401, 50), 420]
        assert all(np.isfinite(np.asarray(column)).all() for column in history if column is not None)
        assert (history.excess >= 0).all()
        at = geometry_metrics(solution.H[s], np.asarray(problem.labels))
        assert history.delta_gm[-1] == pytest.approx(float(at.delta_gm), abs=1e-12)
        assert history.beta_nc[-1] == pytest.approx(float(at.beta_nc), abs=1e-12)
    assert np.median([history.delta_gm[-1] for history in solution.history]) < 1e-3
    assert "4 all steps taken" in str(solution)


def test_the_problems_batches_are_what_the_end_is_judged_by():
    few = problem_of(batches=[[0, 1, 6, 7]])
    ends = [solve(problem, 1, method=method(), max_steps=20) for problem in (problem_of(), few)]
    np.testing.assert_array_equal(ends[0].H, ends[1].H)
    assert ends[0].excess[0] > ends[1].excess[0] > 0


@pytest.mark.thorough
def test_a_start_does_not_depend_on_the_others(monkeypatch):
    alone, beside = (solve(problem_of(), s, seed=5, method=method(), max_steps=25) for s in (1, 3))
    np.testing.assert_array_equal(alone.H[0], beside.H[0])
    # Not even on how many fit a device.
    monkeypatch.setattr("solvers.stochastic.projected_gradient.GROUP_ENTRIES", 2 * 14 * 6)
    message = []
    grouped = solve(problem_of(), 3, seed=5, method=method(), max_steps=25, progress=message.append)
    np.testing.assert_array_equal(grouped.H, beside.H)
    assert message == [2, 1]


@pytest.mark.few(1)
@pytest.mark.parametrize("transformation", [None, optax.adam(0.1)])
def test_stopped_and_taken_up_again_it_is_the_same_bit_for_bit(tmp_path, transformation):
    problem, options = problem_of(), {"sampler": samplers.reshuffled(5), "transformation": transformation, "every": 20}
    straight = solve(problem, 2, method=method(**options), max_steps=70)
    stored = method(**options, keep=tmp_path / "walks.npz")
    for most in (33, 40, 70):
        again = solve(problem, 2, method=stored, max_steps=most)
        assert again.iterations.tolist() == [most, most]
    np.testing.assert_array_equal(again.H, straight.H)
    for one, other in zip(again.history, straight.history, strict=True):
        jax.tree.map(np.testing.assert_array_equal, one, other)
    # All is there: nothing is computed again.
    at_end = solve(problem, 2, method=stored, max_steps=70)
    np.testing.assert_array_equal(at_end.H, straight.H)
    assert at_end.history[0].iteration.tolist() == [20, 40, 60, 70]


def test_seconds_are_a_limit_and_what_is_kept_goes_on(tmp_path):
    stored = method(keep=tmp_path / "walks.npz")
    stopped = solve(problem_of(), 2, method=stored, max_steps=200, max_seconds=1e-9)
    assert stopped.status == (Status.OUT_OF_TIME,) * 2
    assert stopped.iterations.tolist() == [10, 10]
    again = solve(problem_of(), 2, method=stored, max_steps=200)
    np.testing.assert_array_equal(again.H, solve(problem_of(), 2, method=method(), max_steps=200).H)


def test_a_step_that_is_not_finite_is_not_taken_and_stops_one_start_alone():
    problem = problem_of()

    def bursts(t):
        return jnp.where(t == 12, jnp.nan, 0.1)

    solution = solve(problem, 3, method=method(schedule=bursts), max_steps=40)
    assert solution.status == (Status.NOT_FINITE,) * 3
    assert solution.iterations.tolist() == [12] * 3
    assert np.isfinite(solution.H).all()
    assert solution.history[0].iteration.tolist() == [10, 12]
    before = solve(problem, 3, method=method(), max_steps=12)
    np.testing.assert_array_equal(solution.H, before.H)


def test_a_failed_start_takes_no_other_with_it():
    """Of a loss of one's own that is not finite where a cosine is 0: one start is there from the beginning."""

    def row(G, samples, same, tau):
        return jnp.sum(samples * jnp.where(same, 1 - G, jnp.sqrt(jnp.abs(G) + jnp.maximum(1 - samples, 0))))

    problem = Problem([0, 0, 1, 1], 3, loss=losses.custom(row, name="root"))
    fine = np.array([[1, 0.1, 0.2], [1, 0.2, 0.1], [0.1, 1, 0.3], [0.2, 1, 0.2]])
    bad = np.array([[1.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0]])
    H0 = np.stack([fine, bad, fine]) / np.linalg.norm(np.stack([fine, bad, fine]), axis=2, keepdims=True)
    outcomes = method(sampler=samplers.uniform(4), schedule=1e-4).run(problem, list(H0), 0, Limits(20))
    assert outcomes.status == (Status.ALL_STEPS, Status.NOT_FINITE, Status.ALL_STEPS)
    assert outcomes.steps.tolist() == [20, 0, 20]
    np.testing.assert_array_equal(outcomes.H[1], H0[1])
    assert np.isfinite(outcomes.H).all()
    assert all(np.isfinite(column).all() for history in outcomes.history for column in history if column is not None)


def test_until():
    outcomes = method().run(
        problem_of(),
        [np.eye(3, 6)[np.repeat(range(3), SIZES)]],
        0,
        Limits(500),
        until=lambda line: line.delta_gm < 1e-3,
    )
    assert (outcomes.status, outcomes.steps.tolist()) == ((Status.OUT_OF_TIME,), [10])


@pytest.mark.parametrize("damage", ["text", "folder", "problem", "step", "seed"])
def test_a_file_of_another_call_is_refused(tmp_path, damage):
    path = tmp_path / "walks.npz"
    stored = method(keep=path)
    solve(problem_of(), 1, method=stored, max_steps=10)
    problem = problem_of(tau=0.6) if damage == "problem" else problem_of()
    if damage == "step":
        stored = method(keep=path, schedule=0.2)
    if damage == "text":
        path.write_text("not a file of arrays")
    if damage == "folder":
        path.unlink()
        path.mkdir()
    with pytest.raises(InvalidInput, match=r"^keep = "):
        solve(problem, 1, int(damage == "seed"), stored, max_steps=20)


@pytest.mark.few(1)
def test_a_damaged_file_is_begun_anew_and_said_so(tmp_path, caplog):
    path = tmp_path / "walks.npz"
    straight = solve(problem_of(), 1, method=method(keep=path), max_steps=20)
    content = path.read_bytes()
    for damaged in (content[:-200], content[:5], b"", bytes(len(content)), content[:900] + b"!" + content[901:]):
        path.write_bytes(damaged)
        again = solve(problem_of(), 1, method=method(keep=path), max_steps=20)
        np.testing.assert_array_equal(again.H, straight.H)
        assert [record.getMessage() for record in caplog.records] == [
            f"{path}: the stored starts are damaged and begin again"
        ]
        caplog.clear()
        assert path.read_bytes()[-16:] == content[-16:]


def test_no_damage_to_kept_starts_is_overlooked(tmp_path):
    """2,000 single bits, truncations and zeroed blocks: as it was, damaged, or in one line no such file."""
    path = tmp_path / "walks.npz"
    solve(problem_of(), 1, method=method(keep=path), max_steps=10)
    content, result = path.read_bytes(), Checkpoint(path, None)
    whole, refused = result._content(), []
    for damaged in damages(content, 2000):
        path.write_bytes(damaged)
        try:
            assert result._content() in (None, whole)
        except InvalidInput as error:
            refused.append(str(error).splitlines())
    assert len(refused) < 20
    assert all(len(lines) == 1 for lines in refused)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: StochasticProjectedGradient("uniform"), "sampler"),
        (lambda: StochasticProjectedGradient(samplers.Uniform), "sampler"),
        (lambda: method(schedule=-0.1), "schedule"),
        (lambda: method(schedule=float("nan")), "schedule"),
        (lambda: method(schedule=lambda t: "fast"), "schedule"),
        (lambda: method(schedule=lambda t: -1.0), "schedule"),
        (lambda: method(transformation="sgd"), "transformation"),
        (lambda: method(transformation=optax.trace(0.9)), "transformation"),
        (lambda: method(every=0), "every"),
        (lambda: method(keep=3), "keep"),
        (lambda: solve(problem_of(), 1, method=method(sampler=samplers.uniform(99))), "batch_size"),
        (lambda: solve(problem_of(), 1, method=method(sampler=samplers.m_per_class(5, 2))), "m"),
        (lambda: solve(problem_of(), 1, method=method(), record_H=True), "record_H"),
        (lambda: solve(problem_of(), 1, method=StochasticProjectedGradient), "method"),
        (lambda: solve(Problem([0, 1], 2, multiplicity=[3, 2]), 1, method=method()), "problem"),
    ],
)
def test_bad_input_is_refused(call, named, untyped):
    with pytest.raises(InvalidInput, match=f"^{named} = "):
        call()
