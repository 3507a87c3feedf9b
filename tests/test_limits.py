"""Limits on steps and seconds stop each start, exactly, with its status and never without a result."""

import jax.numpy as jnp
import numpy as np
import pytest
from problems import PROBLEMS

import solvers
import ufm
from solvers.loop.stopping import Status

COLD = ufm.Problem(
    np.arange(10) % 2, d=3, tau=0.05, batches=[[4, 9, 6, 0, 5], [3, 4, 1, 6, 0], [8, 0, 7, 1, 9], [3, 8, 1, 2, 0]]
)
WITHOUT_RELU = ufm.Problem(np.arange(24) % 3, 3, 0.1, ufm.batching.reshuffled(24, 8, 2, 0), nonneg=False)


class Restless(solvers.ProjectedGradient):
    """Never content."""

    def converged(self, state):
        return jnp.asarray(False)


@pytest.mark.few(2)
@pytest.mark.parametrize("method", ["staircase", "quasi-newton", "accelerated", "projected-gradient"])
@pytest.mark.parametrize("most", [7, 8])
def test_steps_of_a_start_are_limited_exactly(method, most):
    solution = solvers.solve(WITHOUT_RELU, inits=3, method=method, max_steps=most)
    assert (solution.iterations == most).all()
    assert set(solution.status) == {Status.OUT_OF_STEPS}
    assert np.isfinite(solution.H).all()
    assert np.isfinite(solution.excess).all()
    assert [history.iteration[-1] for history in solution.history] == [most] * 3


@pytest.mark.thorough
@pytest.mark.parametrize("most", [1, 3, 20])
def test_the_collapse_counts(most):
    problem = PROBLEMS["imbalanced"]()
    solution = solvers.solve(problem, inits=2, max_steps=most)
    assert (solution.iterations <= most).all()
    assert set(solution.status) == {Status.OUT_OF_STEPS if most < 20 else Status.CONVERGED}
    assert np.isfinite(solution.excess).all()


def test_seconds_of_a_start_are_limited():
    def run(**limit):
        return solvers.solve(COLD, 2, method=Restless(), max_steps=10**9, **limit)

    run(max_seconds=0.01)  # compiles
    solution = run(max_seconds=0.5)
    assert set(solution.status) == {Status.OUT_OF_TIME}
    assert solution.timings.solve < 20  # a loaded machine is slow to look at its clock
    assert np.isfinite(solution.excess).all()
    assert "allow more seconds" in solution.status[0].sentence


def test_ten_samples_in_four_cold_batches_need_few_steps():
    solution = solvers.solve(COLD, inits=32)
    assert set(solution.status) == {Status.CONVERGED}
    assert solution.iterations.max() < 300
    certifier = solvers.Certifier(COLD, conic=False)
    assert {str(certifier.certify(H).status) for H in solution.H} == {"certified"}


@pytest.mark.parametrize("tau", [0.5, 1.0])
def test_nothing_begins_after_the_last_second(tau):
    problem = ufm.Problem.from_class_sizes([5, 5, 5], d=4, tau=tau)
    solution = solvers.solve(problem, inits=2, max_seconds=1e-300)
    assert set(solution.status) == {Status.OUT_OF_TIME}
    assert np.isfinite(solution.H).all()
    assert [history.iteration[-1] for history in solution.history] == solution.iterations.tolist()


def test_what_converged_at_another_temperature_is_out_of_steps(monkeypatch):
    """Cold UFM ends by Newton's method: a limit right before that leaves what is stationary where it is warmer."""
    problem, left = ufm.Problem.from_class_sizes([5, 3], d=3, tau=0.1, nonneg=False), []

    def newton(*inputs, max_steps, **named):
        left.append(max_steps)
        return solvers.methods.newton.newton(*inputs, max_steps=max_steps, **named)

    monkeypatch.setattr("solvers.staircase.staircase.newton", newton)
    solvers.solve(problem, inits=1, max_steps=1000)
    solution = solvers.solve(problem, inits=1, max_steps=1000 - left[0])
    assert solution.status == (Status.OUT_OF_STEPS,)
    assert solution.iterations == 1000 - left[0]
    assert len(left) == 1


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan"), True, "5", None])
def test_bad_seconds_are_named(seconds, untyped):
    with pytest.raises(ufm.InvalidInput, match=r"^max_seconds = "):
        solvers.solve(COLD, max_seconds=seconds)
