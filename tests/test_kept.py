"""What was traced and lowered is kept for the next process, under a name that tells what it computes."""

import dataclasses
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from damage import damages

import ufm
from solvers import ProjectedGradient, QuasiNewton
from solvers.compilation import disk_cache
from solvers.files import unsealed
from ufm.model.evaluation import evaluate

# LAPACK is called in it, and the process has lowered no such call before.
PROGRAM = """
import sys, numpy as np
from pathlib import Path
from solvers.compilation import disk_cache
from solvers.compilation.compiled import Compiled
from solvers.methods.quasi_newton import _direction
disk_cache.keep_in(Path(sys.argv[1]))
rows = np.abs(np.random.default_rng(0).standard_normal((4, 3)))
moves = np.random.default_rng(1).standard_normal((2, 4, 3))
past = np.stack([moves, moves])
step, plain = Compiled(_direction)(rows, rows - 0.5, np.ones(4), past, nonneg=True)
print(step.tobytes().hex(), bool(plain), len(list(Path(sys.argv[1]).iterdir())))
"""


@pytest.fixture
def directory(tmp_path):
    disk_cache.keep_in(tmp_path)
    yield tmp_path
    disk_cache.keep_in(None)


@pytest.fixture
def arguments():
    problem = ufm.Problem.from_class_sizes([3, 2], d=2)
    H = np.abs(np.random.default_rng(0).standard_normal((problem.num_points, 2)))
    leaves, structure = jax.tree.flatten((H, problem))
    return structure, leaves


def bits(evaluation):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(evaluation)]


def test_what_is_kept_is_neither_traced_nor_lowered_again(directory, arguments, monkeypatch):
    static = {"with_gradient": True}
    first = disk_cache.executable(evaluate, *arguments, static)(*arguments[1])
    plainly = jax.jit(evaluate)(*jax.tree.unflatten(*arguments))
    monkeypatch.setattr(disk_cache._Lowered, "of", None)
    again = disk_cache.executable(evaluate, *arguments, static)(*arguments[1])
    assert bits(first) == bits(again) == bits(plainly)
    assert type(again) is type(plainly)
    with pytest.raises(TypeError):  # another function
        disk_cache.executable(evaluate, *arguments, {"with_gradient": False})
    assert len(list(directory.iterdir())) == 1


def test_another_process_calls_lapack(tmp_path):
    runs = [
        subprocess.run([sys.executable, "-c", PROGRAM, tmp_path], capture_output=True, text=True, check=False)
        for _ in range(2)
    ]
    assert [run.returncode for run in runs] == [0, 0], runs[-1].stderr
    assert runs[0].stdout == runs[1].stdout
    assert runs[0].stdout.split()[-1] == "1"


@pytest.mark.parametrize("kind", ["empty", "text", "truncated", "bit"])
def test_a_damaged_file_is_written_anew(directory, arguments, kind, caplog):
    first = disk_cache.executable(evaluate, *arguments, {})(*arguments[1])
    (path,) = directory.iterdir()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    damaged = {"empty": b"", "text": b"no pickle", "truncated": content[: len(content) // 2], "bit": content}[kind]
    path.write_bytes(damaged)
    assert bits(disk_cache.executable(evaluate, *arguments, {})(*arguments[1])) == bits(first)
    assert [record.getMessage() for record in caplog.records] == [f"{path}: a kept function, made anew (damaged)"]
    assert disk_cache._load(path) is not None


def test_no_damage_reaches_what_reads_a_function(directory, arguments):
    """Of 2,000 single bits, truncations and zeroed blocks: no seal holds of what is not as it was."""
    disk_cache.executable(evaluate, *arguments, {})
    (path,) = directory.iterdir()
    content = path.read_bytes()
    for damaged in damages(content, 2000):
        assert unsealed(damaged) is None
    assert unsealed(content) is not None


def test_settings_of_jax_are_part_of_the_name(arguments, directory):
    """All of them, as this thread has them: what they change is another function."""

    def name():
        return disk_cache._file_of(evaluate, *arguments, {})

    names = {name()}
    for setting in (jax.threefry_partitionable(False), jax.default_prng_impl("rbg"), jax.numpy_rank_promotion("warn")):
        with setting:
            names.add(name())
    assert len(names) == 4
    jax.config.update("jax_softmax_custom_jvp", not jax.config.jax_softmax_custom_jvp)
    try:
        assert name() not in names
    finally:
        jax.config.update("jax_softmax_custom_jvp", not jax.config.jax_softmax_custom_jvp)
    assert name() in names


def test_sources_are_part_of_the_name(directory, arguments, monkeypatch):
    disk_cache.executable(evaluate, *arguments, {})
    monkeypatch.setattr(disk_cache, "_surroundings", lambda: "other sources")
    disk_cache.executable(evaluate, *arguments, {})
    assert len(list(directory.iterdir())) == 2


def foreign(H, problem):
    return evaluate(H, problem)


@dataclasses.dataclass(frozen=True)
class OwnRow:
    def __call__(self, cosines, samples, positive, tau):
        return jnp.sum(samples * jnp.where(positive, -cosines, cosines)) / tau


def test_what_names_do_not_tell_is_not_kept(directory, arguments):
    assert disk_cache._file_of(evaluate, *arguments, {"method": QuasiNewton()}) is not None
    assert disk_cache._file_of(evaluate, *arguments, {"method": ProjectedGradient(optax.sgd(0.1))}) is None
    assert disk_cache._file_of(foreign, *arguments, {}) is None
    disk_cache.executable(foreign, *arguments, {})
    own = ufm.losses.custom(OwnRow(), name="linear")
    leaves, structure = jax.tree.flatten((np.eye(2)[[0, 0, 1, 1]], ufm.Problem([0, 0, 1, 1], d=2, loss=own)))
    assert disk_cache._file_of(evaluate, structure, leaves, {}) is None
    assert list(directory.iterdir()) == []


def test_where_nothing_can_be_written_nothing_is_kept(arguments, tmp_path):
    (tmp_path / "file").write_text("")
    disk_cache.keep_in(tmp_path / "file" / "below")
    try:
        assert bits(disk_cache.executable(evaluate, *arguments, {})(*arguments[1]))
    finally:
        disk_cache.keep_in(None)


def test_options_that_this_xla_does_not_know_are_left_out(arguments, monkeypatch):
    """Any version of jax compiles: known ones are used on CPUs, and what is computed is the same."""
    on_cpu = jax.default_backend() == "cpu"
    disk_cache._options.cache_clear()
    assert disk_cache._options(True) == ({**disk_cache.IN_ORDER, **disk_cache.QUICK} if on_cpu else {})
    assert disk_cache._options(False) == (disk_cache.IN_ORDER if on_cpu else {})
    monkeypatch.setattr(disk_cache, "IN_ORDER", {"xla_cpu_scheduler_type": "NO_SUCH_TYPE"})
    monkeypatch.setattr(disk_cache, "QUICK", {"xla_no_such_option": True})
    disk_cache._options.cache_clear()
    try:
        assert disk_cache._options(True) == {}
        plain = disk_cache.executable(evaluate, *arguments, {})(*arguments[1])
    finally:
        disk_cache._options.cache_clear()
    monkeypatch.undo()
    chosen = disk_cache.executable(evaluate, *arguments, {})(*arguments[1])
    np.testing.assert_allclose(plain.gradient, chosen.gradient, rtol=1e-12, atol=1e-15)
