"""Whatever the user's settings: every public function gives, to the last bit, what it gives without them."""

import os
import subprocess
import sys

import families
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from docstrings import public_names
from public_calls import CALLS, TAU, plain, world

import ufm

# What the default suite asks; all of the table is thorough.
RIGOROUS = ("ufm.Problem", "ufm.excess", "ufm.loss_bound", "solvers.verify", "solvers.suboptimality", "solvers.certify")
SOME = (*RIGOROUS, "solvers.Solution", "ufm.Problem.class_sizes", "ufm.samplers.Sampler.draw")


@pytest.fixture
def switch():
    yield lambda on: jax.config.update("jax_enable_x64", on)
    jax.config.update("jax_enable_x64", True)


def test_the_table_has_every_public_name():
    assert set(CALLS) == {name for name, _, _ in public_names()}


@pytest.mark.parametrize("names", [SOME, pytest.param(tuple(CALLS), marks=pytest.mark.thorough)], ids=["some", "all"])
def test_what_is_switched_off_changes_no_bit(names, switch, tmp_path):
    """Off between the making and the call, and off for both."""
    before = world(tmp_path)
    expected = {name: plain(CALLS[name](before)) for name in names}
    switch(False)
    for made in (before, world(tmp_path)):
        wrong = [name for name in names if plain(CALLS[name](made)) != expected[name]]
        assert wrong == []
    assert not jax.config.jax_enable_x64


STRICT = {
    "promotion": lambda: jax.numpy_dtype_promotion("strict"),
    "ranks": lambda: jax.numpy_rank_promotion("raise"),
    "NaN": lambda: jax.debug_nans(True),
    "infinities": lambda: jax.debug_infs(True),
    "not compiled": lambda: jax.disable_jit(),
    "NumPy": lambda: np.errstate(all="raise"),
}


def _strict():
    some = [(setting, SOME) for setting in STRICT]
    return some + [pytest.param(setting, tuple(CALLS), marks=pytest.mark.thorough) for setting in STRICT]


@pytest.mark.parametrize(("setting", "names"), _strict())
def test_what_users_switch_on_for_their_own_code_changes_no_bit(setting, names, tmp_path):
    before = world(tmp_path)
    expected = {name: plain(CALLS[name](before)) for name in names}
    wrong = []
    with STRICT[setting]():
        made = world(tmp_path)
        for name in names:
            if plain(CALLS[name](made)) != expected[name]:
                wrong.append(name)
    assert wrong == []


@pytest.mark.parametrize("setting", STRICT)
def test_a_loss_in_training_code_of_strict_settings(setting):
    problem = ufm.Problem([0, 0, 1, 1, 2, 2], 3, 0.5)
    H = np.eye(3)[[0, 0, 1, 1, 2, 1]]
    step = jax.jit(jax.value_and_grad(lambda H: ufm.scl_loss(H, problem)))
    loss, gradient = ufm.scl_loss(H, problem), jax.grad(lambda H: ufm.scl_loss(H, problem))(H)
    with STRICT[setting]():
        result, slope = step(H)
    np.testing.assert_allclose(result, loss, rtol=1e-14)
    np.testing.assert_allclose(slope, gradient, rtol=1e-12, atol=1e-14)


@pytest.mark.thorough
def test_off_before_the_import_and_in_another_thread():
    code = """
import threading, jax, numpy as np
jax.config.update("jax_enable_x64", False)
import solvers, ufm
problem = ufm.Problem.from_class_sizes([1000, 5, 5], 3, 0.3)
merged = np.eye(3)[np.minimum(np.asarray(problem.labels), 1)]
def ask():
    with jax.enable_x64(False):
        print(float(ufm.excess(merged, problem)).hex(), solvers.verify(merged, problem).verdict)
ask()
thread = threading.Thread(target=ask)
thread.start()
thread.join()
"""
    off = {**os.environ, "JAX_ENABLE_X64": "0"}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=off, check=True)
    problem = ufm.Problem.from_class_sizes([1000, 5, 5], 3, TAU)
    merged = np.eye(3)[np.minimum(np.asarray(problem.labels), 1)]
    line = f"{float(ufm.excess(merged, problem)).hex()} stationary but spurious"
    assert run.stdout.splitlines() == [line, line]


@pytest.mark.few(1)
@pytest.mark.parametrize("name", list(families.LOSSES))
def test_in_a_trace_without_doubles_loss_and_gradient_are_right_to_float32(name, switch):
    """Also where JAX maps or differentiates what was traced before, out of our hands."""
    rng = np.random.default_rng(0)
    problem = ufm.Problem(
        np.repeat(np.arange(3), [5, 5, 4]), 3, TAU, [np.arange(8), np.arange(5, 14)], loss=families.LOSSES[name](rng, 3)
    )
    H = np.abs(rng.standard_normal((14, 3))).astype(np.float32)
    H /= np.linalg.norm(H, axis=1, keepdims=True) * np.float32(1.001)

    def derivatives():
        for wrapped in (jax.jit, lambda f: jax.grad(jax.jit(f))):
            yield jax.vmap(wrapped(lambda H: ufm.excess(H, problem)))(jnp.stack([H, H]))

    expected = list(derivatives())
    switch(False)
    for result, right in zip(derivatives(), expected, strict=True):
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, right, rtol=1e-6, atol=1e-6 * np.abs(right).max())


def test_metrics_in_a_trace_without_doubles_follow_the_user(switch):
    labels = np.repeat(np.arange(3), 4)
    H = np.abs(np.random.default_rng(0).standard_normal((12, 3))).astype(np.float32)
    slope = jax.vmap(jax.grad(jax.jit(lambda H: ufm.geometry_metrics(H, labels, k=3).delta_gm)))
    expected = slope(jnp.stack([H, H]))
    switch(False)
    np.testing.assert_allclose(slope(jnp.stack([H, H])), expected, rtol=1e-4, atol=1e-5)
