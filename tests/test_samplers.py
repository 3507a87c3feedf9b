"""Samplers against their laws: chi-square of counts and of pairs, on the host and in compiled loops; and bad input."""

import itertools
import math
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chisquare

import ufm
from ufm import samplers
from ufm.batches.draws import distinct
from ufm.model.problem import PADDING

BALANCED, STEP, LONG = (6, 6, 6), (12, 12, 2, 2), (20, 8, 4, 2)
# Sampler, class sizes of images: 12 pairs, 5 samplers, bound and not, views and not.
PAIRS = [
    (samplers.uniform(5), BALANCED),
    (samplers.uniform(8), STEP),
    (samplers.uniform(6).bound(1), LONG),
    (samplers.reshuffled(5), BALANCED),
    (samplers.reshuffled(8), LONG),
    (samplers.reshuffled(6).bound(2), STEP),
    (samplers.class_balanced(8), BALANCED),
    (samplers.class_balanced(11), LONG),
    (samplers.class_balanced(6).bound(1), STEP),
    (samplers.m_per_class(2, 2), STEP),
    (samplers.two_views(samplers.uniform(5)), STEP),
    (samplers.two_views(samplers.m_per_class(2, 2).bound(1)), LONG),
]
NAMES = [f"{sampler}-{sizes}" for sampler, sizes in PAIRS]


def views_of(sampler):
    return 2 if isinstance(sampler, samplers.TwoViews) else 1


def labels_of(sampler, sizes):
    return np.tile(np.repeat(np.arange(len(sizes)), sizes), views_of(sampler))


def law_of(sampler, sizes):
    return sampler.law(np.array(sizes) * views_of(sampler))


def on_host(sampler, labels, batches, seed):
    return sampler.draw(labels, seed, batches)


def on_device(sampler, labels, batches, seed):
    """By begin and next alone, one lane of two under vmap."""
    population = sampler.population(labels)

    @jax.jit
    def run(keys, population):
        def step(states, _):
            drawn, states = jax.vmap(lambda state: sampler.next(state, population))(states)
            return states, drawn[1]

        return jax.lax.scan(step, jax.vmap(lambda key: sampler.begin(key, population))(keys), length=batches)[1]

    return np.asarray(run(jax.random.split(jax.random.key(seed), 2), population))


def independent_batches(sampler, sizes, draw, number, seed):
    """Membership (number, n) of independent batches; of a reshuffled sampler one an epoch, each place in turn."""
    labels, law = labels_of(sampler, sizes), law_of(sampler, sizes)
    epoch = law.epoch or 1
    number -= number % epoch
    rows = draw(sampler, labels, number * epoch, seed).reshape(number, epoch, -1)
    rows = rows[np.arange(number), np.arange(number) % epoch]
    member = np.zeros((number, len(labels) + 1), dtype=bool)
    member[np.arange(number)[:, None], rows] = True  # -1 is the last column
    assert (member[:, :-1].sum(axis=1) == (rows != PADDING).sum(axis=1)).all(), "a sample twice in a batch"
    return member[:, :-1]


def p_value(observed, expected):
    """Cells of fewer than 5 expected put together."""
    observed, expected = np.array(observed, float), np.array(expected, float)
    few = expected < 5
    observed = np.append(observed[~few], observed[few].sum())
    expected = np.append(expected[~few], expected[few].sum())
    stored = expected > 1e-9
    assert observed[~stored].sum() == 0
    if stored.sum() < 2:
        return 1.0
    return chisquare(observed[stored], expected[stored] * observed.sum() / expected.sum()).pvalue


@pytest.mark.few(6)
@pytest.mark.parametrize("draw", [on_host, on_device])
@pytest.mark.parametrize(("sampler", "sizes"), PAIRS, ids=NAMES)
def test_counts_and_pairs_follow_the_stated_law(sampler, sizes, draw):
    member = independent_batches(sampler, sizes, draw, 3000, seed=7)
    labels, law, half = labels_of(sampler, sizes), law_of(sampler, sizes), sum(sizes)
    if law.views == 2:
        assert (member[:, :half] == member[:, half:]).all()
    images, of = member[:, :half], labels[:half]
    binding = images.all(axis=0) if law.bound else np.zeros(half, dtype=bool)
    counts = np.stack([(images & ~binding)[:, of == c].sum(axis=1) for c in range(law.k)], axis=1)
    if law.bound:
        assert (np.bincount(of[binding], minlength=law.k) == law.bound).all()
    stated = law.counts()
    assert stated.probability.sum() == pytest.approx(1)
    seen = Counter(map(tuple, counts.tolist()))
    assert set(seen) <= set(map(tuple, stated.drawn.tolist()))
    observed = [seen[tuple(vector)] for vector in stated.drawn.tolist()]
    assert p_value(observed, len(counts) * stated.probability) > 0.001

    free = [np.flatnonzero((of == c) & ~binding) for c in range(law.k)]
    for c, e in [(0, 0), (0, 1), (1, law.k - 1)]:
        if not len(free[e]) or free[c][0] == free[e][-1]:
            continue
        i, j = free[c][0], free[e][-1]
        together = int((images[:, i] & images[:, j]).sum())
        meets = law.meets(c, e)
        assert p_value([together, len(images) - together], len(images) * np.array([meets, 1 - meets])) > 0.001
    alone = int(images[:, free[0][0]].sum())
    share = law.includes(0)
    assert p_value([alone, len(images) - alone], len(images) * np.array([share, 1 - share])) > 0.001


@pytest.mark.parametrize(("sampler", "sizes"), PAIRS, ids=NAMES)
def test_the_parts_of_a_law_agree(sampler, sizes):
    """Marginals against the whole list of count vectors, and a seeded sample of it."""
    law = law_of(sampler, sizes)
    stated = law.counts()
    assert len(stated.probability) <= law.vectors
    held = law.views * (stated.drawn + law.bound)
    for c in range(law.k):
        assert law.at_least_two(c) == pytest.approx(stated.probability @ (held[:, c] >= 2))
    if not law.bound:
        for c, e in itertools.combinations(range(law.k), 2):
            pairs = stated.drawn[:, c] * stated.drawn[:, e]
            assert law.meets(c, e) == pytest.approx(stated.probability @ pairs / (law.sizes[c] * law.sizes[e]))
            joint = law.drawn(c, e)
            assert joint.probability.sum() == pytest.approx(1)
    drawn = law.sampled(2000, seed=1)
    assert drawn.probability.sum() == pytest.approx(1)
    frequency = dict(zip(map(tuple, drawn.drawn.tolist()), drawn.probability, strict=True))
    observed = [2000 * frequency.pop(tuple(vector), 0.0) for vector in stated.drawn.tolist()]
    assert frequency == {}
    assert p_value(observed, 2000 * stated.probability) > 0.001


@pytest.mark.few(1)
@pytest.mark.parametrize(("size", "quota"), [(6, 2), (5, 4), (4, 4), (7, 3)])
def test_floyds_algorithm_at_once_draws_every_set_equally_often(size, quota):
    keys = jax.random.split(jax.random.key(3), 5000)
    rank = jnp.arange(quota, dtype=jnp.int32)
    rows = np.asarray(jax.vmap(lambda key: distinct(key, jnp.int32(size), jnp.int32(quota), rank))(keys))
    seen = Counter(map(tuple, np.sort(rows, axis=1).tolist()))
    sets = list(itertools.combinations(range(size), quota))
    assert set(seen) == set(sets)
    assert p_value([seen[one] for one in sets], np.full(len(sets), 5000 / len(sets))) > 0.001


def test_strata_are_drawn_apart():
    """Two strata, (3 of 5) and (2 of 4): every pair of sets equally often."""
    keys = jax.random.split(jax.random.key(5), 6000)
    size, quota, rank, offset = (
        jnp.array(x, dtype=jnp.int32)
        for x in ([5] * 3 + [4] * 2, [3] * 3 + [2] * 2, [0, 1, 2, 0, 1], [0] * 3 + [5] * 2)
    )
    rows = np.asarray(jax.vmap(lambda key: distinct(key, size, quota, rank, offset=offset))(keys))
    seen = Counter((frozenset(row[:3]), frozenset(row[3:])) for row in rows.tolist())
    assert len(seen) == math.comb(5, 3) * math.comb(4, 2)
    assert all(len(a) == 3 and len(b) == 2 for a, b in seen)
    assert p_value(list(seen.values()), np.full(len(seen), 6000 / len(seen))) > 0.001


@pytest.mark.parametrize(("n", "batch_size"), [(18, 5), (12, 4), (9, 9), (10, 8)])
def test_every_epoch_is_a_partition(n, batch_size):
    labels = np.arange(n) % 3
    rows = samplers.reshuffled(batch_size).draw(labels, 0, 4 * -(-n // batch_size))
    for epoch in rows.reshape(4, -1):
        assert sorted(epoch[epoch != PADDING].tolist()) == list(range(n))


def test_water_fills_the_classes():
    """Of 11 from (20, 8, 4, 2): 3, 3, 3 and 2."""
    labels = labels_of(samplers.class_balanced(11), LONG)
    rows = samplers.class_balanced(11).draw(labels, 0, 50)
    assert all(np.bincount(labels[row], minlength=4).tolist() == [3, 3, 3, 2] for row in rows)
    one_more = samplers.class_balanced(10).draw(labels, 0, 50)
    counts = {tuple(np.bincount(labels[row], minlength=4).tolist()) for row in one_more}
    assert counts == {(3, 3, 2, 2), (3, 2, 3, 2), (2, 3, 3, 2)}
    whole = samplers.class_balanced(34).draw(labels, 0, 2)
    assert np.sort(whole, axis=1).tolist() == [list(range(34))] * 2


def test_draws_are_seeded_and_specifications_are_values():
    labels = labels_of(samplers.uniform(5), STEP)
    sampler = samplers.uniform(5).bound(1)
    assert sampler == samplers.uniform(5).bound(1)
    assert hash(sampler) == hash(samplers.uniform(5).bound(1))
    assert (sampler.draw(labels, 3, 6) == sampler.draw(labels, 3, 6)).all()
    assert (sampler.draw(labels, 3, 6) != sampler.draw(labels, 4, 6)).any()
    rows = sampler.draw(labels, 3, 6)
    padded = rows == PADDING
    assert rows.shape == (6, sampler.slots(4))
    assert (np.diff(padded.astype(int), axis=1) >= 0).all()
    assert ufm.Problem(labels, 5, batches=rows).batches.shape == rows.shape


def test_views_bind_images():
    assert samplers.two_views(samplers.uniform(4)).bound(1) == samplers.two_views(samplers.uniform(4).bound(1))


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: samplers.uniform(1), "batch_size = 1: a batch of one sample has no positives"),
        (lambda: samplers.reshuffled(1), "batch_size"),
        (lambda: samplers.class_balanced(0), "batch_size"),
        (lambda: samplers.uniform(2.0), "batch_size"),
        (lambda: samplers.m_per_class(1, 1), "m = 1"),
        (lambda: samplers.m_per_class(0, 3), "m"),
        (lambda: samplers.uniform(4).bound(0), "m"),
        (lambda: samplers.uniform(4).bound(1).bound(1), "m"),
        (lambda: samplers.two_views(samplers.two_views(samplers.uniform(4))), "sampler"),
        (lambda: samplers.two_views("uniform"), "sampler"),
        (lambda: samplers.uniform(7).draw([0, 0, 1, 1, 1], 0, 1), "batch_size = 7: there are only 5 samples"),
        (lambda: samplers.m_per_class(2, 3).draw([0, 0, 1, 1], 0, 1), "p = 3: there are only 2 classes"),
        (lambda: samplers.m_per_class(3, 2).draw([0, 0, 0, 1, 1], 0, 1), "m = 3: class 1 has only 2"),
        (
            lambda: samplers.uniform(2).bound(3).draw([0, 0, 0, 1, 1], 0, 1),
            "m = 3: class 1 has only 2 samples; give a smaller m",
        ),
        (lambda: samplers.uniform(2).draw([0, 0, 2], 0, 1), "labels"),
        (lambda: samplers.uniform(2).draw([0, 0, 1], 0, 0), "batches"),
        (lambda: samplers.uniform(2).draw([0, 0, 1], -1, 1), "seed"),
        (lambda: samplers.uniform(2).draw([0, 0, 1], 0, 10**8), "batches"),
        (lambda: samplers.two_views(samplers.uniform(2)).draw([0, 0, 1, 0, 1, 0], 0, 1), "labels"),
        (lambda: samplers.two_views(samplers.uniform(2)).law([3, 4]), "labels = 3: class 0 has an odd number"),
        (lambda: samplers.uniform(2).law([3]), "sizes"),
        (lambda: samplers.uniform(2).law([3, 0]), "sizes"),
        (lambda: samplers.uniform(9).law([3, 3]), "batch_size"),
        (lambda: samplers.uniform(60).law([50] * 10).counts(), "sampler"),
        (lambda: samplers.uniform(2).law([3, 3]).sampled(1, 0), "vectors"),
    ],
)
def test_bad_input_is_one_clear_line(call, named, untyped):
    with pytest.raises(ufm.InvalidInput, match=named) as caught:
        call()
    assert "\n" not in str(caught.value)
