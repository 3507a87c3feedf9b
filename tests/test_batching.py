"""Batch families: the sets they may return, for every seed."""

from itertools import chain

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ufm
from ufm import batching

sizes = st.integers(1, 40)
seeds = st.integers(0, 10**6)


def members(family):
    """The batches as lists, after checking that each is a padded set."""
    assert family.dtype == np.int32
    lists = []
    for row in family:
        inside = [int(i) for i in row if i >= 0]
        assert row.tolist() == inside + [-1] * (len(row) - len(inside))
        assert len(set(inside)) == len(inside) > 0
        lists.append(inside)
    return lists


@st.composite
def labelled(draw):
    k = draw(st.integers(2, 4))
    return np.array(draw(st.permutations([*range(k), *draw(st.lists(st.integers(0, k - 1), max_size=25))])))


@given(sizes, sizes, seeds)
def test_partition(n, batch_size, seed):
    batches = members(batching.partition(n, batch_size, seed))
    assert sorted(chain(*batches)) == list(range(n))
    assert [len(b) for b in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert 0 < len(batches[-1]) <= batch_size


@given(st.data(), sizes, seeds)
def test_partition_without_the_last_short_batch(data, n, seed):
    batch_size = data.draw(st.integers(1, n))
    family = batching.partition(n, batch_size, seed, drop_last=True)
    assert family.shape == (n // batch_size, batch_size)
    flat = [*chain(*members(family))]
    assert len(set(flat)) == n - n % batch_size
    stored = batching.partition(n, batch_size, seed)[: n // batch_size]
    assert (family == stored).all()


@given(labelled(), sizes, seeds)
def test_stratified_partition(labels, batch_size, seed):
    batches = members(batching.stratified_partition(labels, batch_size, seed))
    assert sorted(chain(*batches)) == list(range(len(labels)))
    assert len(batches) == -(-len(labels) // batch_size)
    lengths = [len(b) for b in batches]
    assert max(lengths) <= batch_size
    assert max(lengths) - min(lengths) <= 1
    for c in range(labels.max() + 1):
        share = np.sum(labels == c) / len(batches)
        counts = {int(np.sum(labels[b] == c)) for b in batches}
        assert counts <= {int(np.floor(share)), int(np.ceil(share))}


@given(sizes, sizes, st.integers(1, 5), seeds)
def test_reshuffled(n, batch_size, epochs, seed):
    family = batching.reshuffled(n, batch_size, epochs, seed)
    parts = np.split(family, epochs)
    for part in parts:
        assert sorted(chain(*members(part))) == list(range(n))
    assert len({part.shape for part in parts}) == 1


def test_epochs_differ():
    first, second = np.split(batching.reshuffled(100, 10, 2, 0), 2)
    assert not np.array_equal(first, second)


@given(labelled(), sizes, seeds, st.data())
def test_bind(labels, batch_size, seed, data):
    m = data.draw(st.integers(1, int(np.bincount(labels).min())))
    family = batching.partition(len(labels), batch_size, seed)
    bound = batching.bind(family, labels, m, seed)
    assert bound.shape == (family.shape[0], family.shape[1] + m * (labels.max() + 1))
    before, after = members(family), members(bound)
    binding = set(range(len(labels))).intersection(*map(set, after))
    for old, new in zip(before, after, strict=True):
        assert new[: len(old)] == old
        assert set(new) - set(old) <= binding
        assert (np.bincount(labels[new], minlength=labels.max() + 1) >= m).all()
    added = set().union(*map(set, after)) if len(after) == 1 else binding
    assert (np.bincount(labels[sorted(added)]) >= m).all()
    if len(before) > 1:  # nothing but the binding samples is in every batch of a bound partition
        assert np.bincount(labels[sorted(binding)]).tolist() == [m] * (labels.max() + 1)


def test_bind_takes_lists_and_uses_one_choice_for_all_batches():
    labels = [0, 0, 0, 1, 1, 1]
    bound = members(batching.bind([[0, 3], [1, 2, 4]], labels, 1, seed=3))
    shared = set(bound[0]) & set(bound[1])
    assert sorted(np.array(labels)[sorted(shared)]) == [0, 1]


@pytest.mark.parametrize(
    "build",
    [
        lambda seed: batching.partition(20, 6, seed),
        lambda seed: batching.stratified_partition([0, 1] * 10, 6, seed),
        lambda seed: batching.reshuffled(20, 6, 2, seed),
        lambda seed: batching.bind(batching.partition(20, 6, 0), [0, 1] * 10, 2, seed),
    ],
)
def test_seeds_decide(build):
    assert (build(1) == build(1)).all()
    assert not np.array_equal(build(1), build(2))


def test_bound_partitions_of_one_shape_stack_and_vmap():
    labels = [0, 1, 1, 0, 2, 2, 0, 1]
    H = jnp.asarray(oracles.random_rows(np.random.default_rng(0), "ufm+", labels, 3))
    problems = [ufm.Problem(labels, 3, 1.0, batching.bind(batching.partition(8, 3, seed), labels)) for seed in range(4)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *problems)
    values = jax.jit(jax.vmap(ufm.scl_loss, in_axes=(None, 0)))(H, stacked)
    for problem, value in zip(problems, values, strict=True):
        expected = oracles.scl(H, labels, 1.0, oracles.batch_lists(problem))
        assert float(value) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("n", lambda: batching.partition(0, 3, 0)),
        ("n", lambda: batching.partition(4.0, 3, 0)),
        ("batch_size", lambda: batching.partition(4, 0, 0)),
        ("batch_size", lambda: batching.partition(4, "two", 0)),
        ("batch_size", lambda: batching.partition(4, 5, 0, drop_last=True)),
        ("seed", lambda: batching.partition(4, 2, -1)),
        ("seed", lambda: batching.partition(4, 2, None)),
        ("labels", lambda: batching.stratified_partition([0, 0], 2, 0)),
        ("batch_size", lambda: batching.stratified_partition([0, 1], 0, 0)),
        ("epochs", lambda: batching.reshuffled(4, 2, 0, 0)),
        ("epochs", lambda: batching.reshuffled(4, 2, 1.5, 0)),
        ("m", lambda: batching.bind([[0, 1]], [0, 1, 1], 0)),
        ("m", lambda: batching.bind([[0, 1]], [0, 1, 1], 2)),
        ("batches[0]", lambda: batching.bind([[0, 7]], [0, 1, 1])),
        ("labels", lambda: batching.bind([[0, 1]], [0, 2, 2])),
        ("seed", lambda: batching.bind([[0, 1]], [0, 1], 1, -2)),
    ],
)
def test_bad_input_is_one_line_naming_the_argument(argument, call):
    with pytest.raises(ufm.InvalidInput) as caught:
        call()
    assert caught.value.argument == argument
    assert "\n" not in str(caught.value)
