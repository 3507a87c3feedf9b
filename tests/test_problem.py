"""What a problem accepts, what it holds, and how it says no."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ufm
from ufm.errors import whole_number


def test_fields_of_a_plain_problem():
    problem = ufm.Problem([0, 1, 0, 2], 3)
    assert problem.batches.tolist() == [[0, 1, 2, 3]]
    assert problem.multiplicity.tolist() == [1, 1, 1, 1]
    assert problem.class_sizes.tolist() == [2, 1, 1]
    assert (problem.k, problem.d, problem.num_points, problem.num_samples) == (3, 3, 4, 4)
    assert float(problem.tau) == 1.0
    assert problem.nonneg
    assert problem.is_full_batch
    assert problem.bound_is_attained


def test_whether_the_bound_is_attained():
    assert not ufm.Problem([0, 1, 2], 2).bound_is_attained
    assert not ufm.Problem([0, 1, 2], 3, nonneg=False).bound_is_attained


def test_from_class_sizes():
    problem = ufm.Problem.from_class_sizes(ufm.step_imbalance(4, 2, 3), d=5, tau=0.5, nonneg=False)
    assert problem.labels.tolist() == [0] * 6 + [1] * 6 + [2] * 2 + [3] * 2
    assert (problem.d, float(problem.tau), problem.nonneg) == (5, 0.5, False)


def test_multiplicities_count():
    problem = ufm.Problem([0, 1, 1], 2, multiplicity=[4, 0, 2])
    assert problem.num_samples == 6
    assert problem.class_sizes.tolist() == [4, 2]


def test_batches_are_padded_and_padding_is_dropped():
    problem = ufm.Problem([0, 0, 1, 1], 2, batches=[[0, 1, 2], [3, 1]])
    assert problem.batches.tolist() == [[0, 1, 2], [3, 1, -1]]
    assert not problem.is_full_batch
    again = ufm.Problem([0, 0, 1, 1], 2, batches=np.array([[-1, 0, -1, 1], [2, 3, -1, -1]]))
    assert again.batches.tolist() == [[0, 1, -1, -1], [2, 3, -1, -1]]  # an array keeps its width
    assert not ufm.Problem([0, 0, 1, 1], 2, batches=[[0, 1, 2]]).is_full_batch


@pytest.mark.parametrize("kind", [list, tuple, np.array, jnp.array, lambda x: np.array(x, dtype=np.uint8)])
def test_labels_and_batches_of_every_integer_kind(kind):
    problem = ufm.Problem(kind([0, 1, 1, 0]), 2, batches=[kind([0, 1]), kind([1, 2, 3])])
    assert problem.labels.tolist() == [0, 1, 1, 0]
    assert problem.batches.tolist() == [[0, 1, -1], [1, 2, 3]]
    assert ufm.Problem([0, 1, 1, 0], 2, batches=kind([[0, 1], [2, 3]])).batches.tolist() == [[0, 1], [2, 3]]


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("d", [np.int64(3), np.uint8(3), jnp.asarray(3)])
def test_d_of_every_integer_kind(d):
    assert ufm.Problem([0, 1], d).d == 3
    assert type(ufm.Problem([0, 1], d).d) is int


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("tau", [1, 0.01, 1e4, np.float32(0.5), jnp.asarray(0.5), np.asarray(2)])
def test_tau_of_every_real_kind(tau):
    assert float(ufm.Problem([0, 1], 2, tau).tau) == float(tau)


def test_a_problem_is_a_pytree_whose_shape_ignores_tau():
    one, other = ufm.Problem([0, 1, 1], 2, 0.1), ufm.Problem([0, 1, 1], 2, 1.0)
    assert jax.tree.structure(one) == jax.tree.structure(other)
    assert jax.tree.structure(one) != jax.tree.structure(ufm.Problem([0, 1, 1], 2, 0.1, nonneg=False))


NAN, INF = float("nan"), float("inf")

BAD = [
    *[("labels", v) for v in ([], 3, None, "abc", [[0, 1], [1]], [[0, 1]], [0.0, 1.0], [True, False], ["a", "b"])],
    *[("labels", v) for v in ([-1, 0, 1], [0, 2], [1, 2], [0, 0], [0, 10**9], [0, 2**70], [0, None])],
    *[("d", v) for v in (0, -1, 3.0, 2.5, "3", None, True, NAN, [3])],
    *[("tau", v) for v in (0, -1, NAN, INF, -INF, 0.009, 1.1e4, "1.0", "warm", None, [1.0], 1j, True)],
    *[("multiplicity", v) for v in ([1, 1, 1], 2, [1, 1, 1, -1], [1, 1, 1, 0.5], [1, 1, 1, NAN], [1, 1, 1, INF])],
    *[("multiplicity", v) for v in (["a"] * 4, [[1], [1, 2]], [1, 1, 0, 0], [True] * 4, [None] * 4)],
    *[("batches", v) for v in ([], 5, "01", 0.5, iter([]), np.zeros((0, 3), dtype=int), np.asarray(3))],
]
BAD_BATCH = [
    [],
    [-1, -1],
    [0, 4],
    [-2],
    [0, 0],
    [0.0, 1.0],
    ["a"],
    [[0, 1]],
    [[0], [1, 2]],
    1,
    "01",
    None,
    [True, False],
]


def assert_refused(argument, call):
    with pytest.raises(ufm.InvalidInput) as caught:
        call()
    assert caught.value.argument == argument
    line = str(caught.value)
    assert line.startswith(f"{argument} = ")
    assert "\n" not in line
    assert len(line) < 200


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(("argument", "value"), BAD, ids=[f"{argument}-{i}" for i, (argument, _) in enumerate(BAD)])
def test_bad_input_is_one_line_naming_the_argument(argument, value):
    good = {"labels": [0, 0, 1, 1], "d": 2}
    assert_refused(argument, lambda: ufm.Problem(**{**good, argument: value}))


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("batch", BAD_BATCH, ids=range(len(BAD_BATCH)))
def test_a_bad_batch_is_named_by_its_number(batch):
    assert_refused("batches[1]", lambda: ufm.Problem([0, 0, 1, 1], 2, batches=[[0, 1], batch]))


def test_a_flat_list_is_not_a_list_of_batches(untyped):
    assert_refused("batches[0]", lambda: ufm.Problem([0, 0, 1, 1], 2, batches=[0, 1, 2]))


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    "sizes",
    [[], [3], 3, [3, 0], [3, -1], [3.0, 2.0], ["a", "b"], [[3, 2]], [[3], [2, 1]], None, [2**31, 1], [2**62] * 4],
)
def test_bad_class_sizes(sizes):
    assert_refused("sizes", lambda: ufm.Problem.from_class_sizes(sizes, d=2))


def test_a_long_value_is_shortened_to_one_line():
    assert_refused("labels", lambda: ufm.Problem(np.linspace(0, 1, 500), 2))


def test_whole_number():
    assert whole_number("x", np.int8(3), 0, "") == 3
    with pytest.raises(ufm.InvalidInput, match=r"^x = 2: at least 3$"):
        whole_number("x", 2, 3, "at least 3")
