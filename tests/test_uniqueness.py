"""Uniqueness against brute force over every placement of samples on axes, and at families that are known."""

import time
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from families import LOSSES
from problems import PROBLEMS

import ufm
from ufm import batching, losses

excess = jax.jit(ufm.excess)
metrics = jax.jit(ufm.geometry_metrics, static_argnames="k")


def brute_force(labels, batches, d):
    """Whether a zero-excess placement of the samples on d axes or at zero is no orthogonal frame.

    Straight from the loss at tau = 1, over all (d + 1)^n placements; the names of the axes do not
    matter, so an axis may be used only after those before it.
    """
    labels, n = np.array(labels), len(labels)
    placements = [()]
    for _ in range(n):
        placements = [(*p, a) for p in placements for a in range(-1, min(max(p, default=-1) + 2, d))]
    P = np.array(placements)
    G = ((P[:, :, None] == P[:, None, :]) & (P[:, :, None] >= 0)).astype(float)
    loss = np.zeros(len(P))
    for batch in batches:
        for i in batch:
            others = [j for j in batch if j != i]
            positives = [j for j in others if labels[j] == labels[i]]
            if positives:
                loss += np.log(np.exp(G[:, i, others]).sum(axis=1)) - G[:, i, positives].mean(axis=1)
    attained = loss - float(oracles.bound(labels, 1.0, batches)) < 1e-9
    frame = np.equal(G, labels[:, None] == labels[None, :]).all(axis=(1, 2))
    assert attained[frame].all()
    return bool((attained & ~frame).any())


def assert_counterexample(problem, H):
    """Zero excess, exactly, at a feasible H whose Gram is not the orthogonal frame's."""
    labels = np.asarray(problem.labels)
    assert H.shape == (problem.num_points, problem.d)
    np.testing.assert_array_equal(H, ufm.project(H, True))
    assert float(excess(H, problem)) == 0.0
    geometry = metrics(H, problem.labels, k=problem.k)
    assert geometry.delta_gm > 1e-3 or geometry.beta_nc > 1e-3
    assert not np.array_equal(np.asarray(H @ H.T), (labels[:, None] == labels[None, :]).astype(float))


def random_family(rng, n, k, kind):
    labels = rng.permutation(np.concatenate([np.arange(k), rng.integers(0, k, n - k)]))
    batches = []
    for _ in range(rng.integers(1, 7)):
        pool = np.arange(n)
        if kind == "open" and rng.random() < 0.6:  # single-class batches, which may leave cases open
            pool = np.flatnonzero(labels == rng.integers(k))
        size = rng.integers(1, len(pool) + 1) if kind != "small" else min(len(pool), rng.integers(1, 4))
        batches.append(rng.permutation(pool)[:size].tolist())
    return labels.tolist(), batches


def test_identical_verdicts_to_brute_force_on_tiny_problems():
    rng = np.random.default_rng(0)
    seen = {True: 0, False: 0, None: 0}
    for trial in range(300):
        k = int(rng.integers(2, 4))
        n = int(rng.integers(k, 8))
        d = int(rng.choice([k, k + 1, 2 * k]))
        labels, batches = random_family(rng, n, k, ("any", "open", "small")[trial % 3])
        problem = ufm.Problem(labels, d, 1.0, [batch + [-1] * (n - len(batch)) for batch in batches])
        result = ufm.uniqueness(problem)
        seen[result.unique] += 1
        assert (result.counterexample is not None) == (result.unique is False)
        if result.unique is not None:
            assert result.unique is not brute_force(labels, batches, d), (labels, batches, d, result.reason)
    assert seen[True] > 20
    assert seen[False] > 100
    assert seen[None] < 6


def test_every_counterexample_has_zero_excess_and_another_geometry():
    rng = np.random.default_rng(1)
    checked = 0
    for trial in range(240):
        k, n = 3, 8
        labels, batches = random_family(rng, n, k, ("any", "open", "small")[trial % 3])
        d = (3, 4, 6)[trial % 5 % 3]
        padded = np.full((6, n), -1)
        for b in range(6):  # repeated batches change nothing but the shape, so that one compilation does
            row = batches[b % len(batches)]
            padded[b, : len(row)] = row
        problem = ufm.Problem(labels, d, 0.5, padded)
        result = ufm.uniqueness(problem)
        if result.unique is False:
            assert_counterexample(problem, result.counterexample)
            checked += 1
    assert checked > 100


def test_full_batch():
    result = ufm.uniqueness(PROBLEMS["two pairs"]())
    assert result.unique is True
    assert result.reason == "every class is one component of merged samples, and every two classes share a cross edge"
    assert result.graph.plain_claims_unique


def test_a_class_of_one_sample_has_no_norm():
    problem = ufm.Problem([0, 0, 1], 3)
    result = ufm.uniqueness(problem)
    assert result.unique is False
    assert "class 1" in result.reason
    assert_counterexample(problem, result.counterexample)
    assert result.graph.plain_claims_unique  # and the plain graph is wrong


@pytest.mark.parametrize(("d", "unique"), [(2, True), (3, False), (4, False)])
def test_d_equal_to_k_is_unique_where_d_above_k_is_not(d, unique):
    # Two pieces of class 0, each repelled by class 1: with two coordinates there is no room to differ.
    problem = PROBLEMS["a class in two pieces"](d=d)
    result = ufm.uniqueness(problem)
    assert result.unique is unique
    assert result.graph.components_of_class.tolist() == [2, 1]
    assert not result.graph.plain_claims_unique
    if not unique:
        assert_counterexample(problem, result.counterexample)


@pytest.mark.few(4)
@pytest.mark.parametrize(
    "batches",
    [
        [[0, 1, 2], [3, 4, 5]],  # single-class batches: equal values, never 1
        [[0, 1], [1, 2], [3, 4], [4, 5], [0, 3]],  # pairs of one class constrain nothing
        [[0, 1, 2], [3, 4, 5], [0, 3], [1, 4], [2, 5]],  # a pair of two classes has no active anchor
    ],
)
@pytest.mark.parametrize("d", [2, 3, 5])
def test_the_plain_graph_overclaims(batches, d):
    labels = [0, 0, 0, 1, 1, 1]
    problem = ufm.Problem(labels, d, 1.0, batches)
    result = ufm.uniqueness(problem)
    assert result.unique is False
    assert_counterexample(problem, result.counterexample)
    assert result.graph.plain_claims_unique == any(len({labels[i] for i in batch}) > 1 for batch in batches)


def test_a_single_class_batch_glues_once_one_of_its_pairs_is_glued():
    # Batch [0, 1, 2] is glued through 0 ~ 1; then [2, 3, 4] through nothing yet; [1, 2, 3] through 1 ~ 2.
    batches = [[0, 1, 5, 6], [0, 1, 2], [1, 2, 3], [2, 3, 4]]
    result = ufm.uniqueness(ufm.Problem([0, 0, 0, 0, 0, 1, 1], 4, 1.0, batches))
    assert result.unique is True
    assert result.graph.open_batches == ()
    assert len(set(result.graph.component[:5].tolist())) == 1


def test_two_classes_that_never_meet():
    problem = ufm.Problem([0, 0, 1, 1, 2, 2], 5, 1.0, [[0, 1, 2, 3], [0, 1, 4, 5]])
    result = ufm.uniqueness(problem)
    assert result.unique is False
    assert result.reason == "classes 1 and 2 never repel: no batch holds both with a second sample of either"
    assert_counterexample(problem, result.counterexample)


def pairs_family(pieces):
    """Class 0 in merged pairs, each repelled by classes 1 and 2, tied by one single-class batch over the pairs."""
    labels = [0] * (2 * pieces) + [1, 1, 2, 2]
    others = list(range(2 * pieces, 2 * pieces + 4))
    batches = [[2 * p, 2 * p + 1, *others] for p in range(pieces)] + [[2 * p for p in range(pieces)]]
    return labels, batches


@pytest.mark.parametrize(("pieces", "d", "unique"), [(3, 3, True), (3, 4, True), (3, 5, False), (4, 5, True)])
def test_more_equal_angles_than_dimensions_coincide(pieces, d, unique):
    labels, batches = pairs_family(pieces)
    problem = ufm.Problem(labels, d, 1.0, batches)
    result = ufm.uniqueness(problem)
    assert result.unique is unique
    assert len(result.graph.open_batches) == 1  # the answer keeps the graph that was asked about
    if not unique:
        assert_counterexample(problem, result.counterexample)


def test_single_samples_that_open_batches_tie_to_a_frame():
    # d = k: the two unit pieces of class 0 coincide, and so does sample 4 that has equal values with them.
    labels = [0, 0, 0, 0, 0, 1, 1]
    batches = [[0, 1, 5, 6], [2, 3, 5, 6], [0, 2, 4]]
    assert ufm.uniqueness(ufm.Problem(labels, 2, 1.0, batches)).unique is True
    problem = ufm.Problem(labels, 3, 1.0, batches)
    result = ufm.uniqueness(problem)
    assert result.unique is False
    assert_counterexample(problem, result.counterexample)


def test_d_equal_to_k_against_brute_force_colouring():
    rng = np.random.default_rng(5)
    verdicts = set()
    for _ in range(60):
        labels = np.repeat([0, 1, 2], 6)  # three glued pairs a class
        pairs = [(2 * p, 2 * p + 1) for p in range(9)]
        batches = []
        for p, q in oracles.pairs(9):
            if p // 3 != q // 3 and rng.random() < 0.62:
                batches.append([*pairs[p], *pairs[q]])
        problem = ufm.Problem(labels, 3, 1.0, batches)
        result = ufm.uniqueness(problem)
        other = another_colouring([(p // 2, q // 2) for p, _, q, _ in batches], 9, 3) or len(batches) == 0
        met = {i for batch in batches for i in batch}
        assert result.unique is (not other and len(met) == 18)
        verdicts.add(result.unique)
    assert verdicts == {True, False}


def another_colouring(edges, vertices, colours):
    """Brute force: a proper colouring in which some same-class pair differs or some other pair agrees."""
    C = np.array(list(product(range(colours), repeat=vertices - 1)), dtype=np.int8)
    C = np.concatenate([np.zeros((len(C), 1), dtype=np.int8), C], axis=1)  # the first colour is a matter of names
    for p, q in edges:
        C = C[C[:, p] != C[:, q]]
    classes = np.arange(vertices) // (vertices // 3)
    same = C[:, :, None] == C[:, None, :]
    return bool((same != (classes[:, None] == classes[None, :])).any())


def test_undetermined_is_said():
    result = ufm.uniqueness(PROBLEMS["two pairs"](nonneg=False))
    assert result.unique is None
    assert result.counterexample is None
    assert "ReLU" in result.reason
    result = ufm.uniqueness(ufm.Problem([0, 0, 1, 1, 2, 2], 2))
    assert result.unique is None
    assert "d = 2 is less than k = 3" in result.reason


@pytest.mark.parametrize(("d", "unique"), [(2, True), (3, True), (4, False)])
def test_classes_confine_each_other(d, unique):
    """Two classes of three pairs that all repel, and one open batch a class: one pair leaves three the d - 1 others."""
    labels, pairs = [0] * 6 + [1] * 6, np.arange(12).reshape(6, 2).tolist()
    batches = [[*pairs[a], *pairs[b]] for a in range(3) for b in range(3, 6)] + [[0, 2, 4], [6, 8, 10]]
    problem = ufm.Problem(labels, d, 1.0, batches)
    result = ufm.uniqueness(problem)
    assert result.unique is unique
    if not unique:
        assert_counterexample(problem, result.counterexample)


def test_batches_that_share_pairs_have_one_value():
    # Four pieces whose pairs all agree through four triples, in the three coordinates that are left to them.
    labels, batches = pairs_family(4)
    batches = [*batches[:-1], [0, 2, 4], [2, 4, 6], [0, 4, 6], [0, 2, 6]]
    assert ufm.uniqueness(ufm.Problem(labels, 5, 1.0, batches)).unique is True
    assert (
        ufm.uniqueness(ufm.Problem(labels, 5, 1.0, batches[:-2])).unique is False
    )  # the first and the last piece agree


def test_an_open_case_is_undetermined():
    # Seven pieces, any two in one triple: no triple alone is more than the three coordinates left to it, no two share
    # a pair, and no placement on axes has every triple on one axis or on three.
    labels, batches = pairs_family(7)
    lines = [[i, (i + 1) % 7, (i + 3) % 7] for i in range(7)]
    batches = [*batches[:-1], *([2 * p for p in line] for line in lines)]
    result = ufm.uniqueness(ufm.Problem(labels, 5, 1.0, batches))
    assert result.unique is None
    assert result.reason.startswith("undetermined: class 0 consists of 7 components")
    assert result.counterexample is None


def rings(m, shifts):
    """Three classes of m glued pairs; between every two classes a ring of 2m cross edges, twisted by shifts."""
    labels = np.repeat([0, 1, 2], 2 * m)
    edges = [
        (m * a + i, m * ((a + 1) % 3) + (i + shifts[a] + step) % m)
        for a in range(3)
        for i in range(m)
        for step in (0, 1)
    ]
    return labels, [[2 * p, 2 * p + 1, 2 * q, 2 * q + 1] for p, q in edges], edges


@pytest.mark.parametrize("m", [2, 3])
@pytest.mark.parametrize("shifts", [(0, 0, 0), (0, 0, 1), (0, 1, 1)])
def test_rings_of_cross_edges_against_brute_force_colouring(m, shifts):
    labels, batches, edges = rings(m, shifts)
    problem = ufm.Problem(labels, 3, 1.0, batches)
    result = ufm.uniqueness(problem)
    assert result.unique is not another_colouring(edges, 3 * m, 3)
    if result.unique is False:
        assert_counterexample(problem, result.counterexample)


def test_a_colouring_problem_too_large_to_exhaust_is_undetermined():
    # No three components are pairwise adjacent, and every two classes are connected: no rule applies.
    labels, batches, _ = rings(80, (0, 10, 20))
    result = ufm.uniqueness(ufm.Problem(labels, 3, 1.0, batches))
    assert result.unique is None
    assert result.reason.endswith("too large to exhaust")


def test_search_gives_up_in_time():
    labels, batches, _ = rings(30, (0, 3, 5))
    problem = ufm.Problem(labels, 3, 1.0, batches)
    start = time.perf_counter()
    result = ufm.uniqueness(problem)
    assert time.perf_counter() - start < 10
    assert result.unique is not True
    if result.unique is False:
        assert_counterexample(problem, result.counterexample)


def test_components_forced_by_colouring_glue_what_open_batches_tie_to_them():
    # d = k, both classes in two pieces on a path: forced; sample 4 has equal values with two equal vectors.
    labels = [0, 0, 0, 0, 0, 1, 1, 1, 1]
    batches = [[0, 1, 5, 6], [2, 3, 5, 6], [0, 1, 7, 8], [0, 2, 4]]
    assert ufm.uniqueness(ufm.Problem(labels, 2, 1.0, batches)).unique is True
    assert ufm.uniqueness(ufm.Problem(labels, 3, 1.0, batches)).unique is False


def test_points_that_stand_for_several_samples_are_refused():
    with pytest.raises(ufm.InvalidInput, match=r"^multiplicity = "):
        ufm.uniqueness(ufm.Problem([0, 1], 2, multiplicity=[2, 2]))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("m", [1, 2])
def test_binding_makes_unique_iff_every_class_has_two_samples_and_every_sample_takes_part(seed, m):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(m, 6, 3)
    labels = rng.permutation(np.repeat([0, 1, 2], sizes))
    family = batching.partition(len(labels), int(rng.integers(2, 5)), seed)[: rng.integers(1, 8)]
    bound = batching.bind(family, labels, m, seed)
    expected = sizes.min() >= 2 and set(bound.ravel()) - {-1} == set(range(len(labels)))
    for d in (3, 5):
        assert ufm.uniqueness(ufm.Problem(labels, d, 1.0, bound)).unique is bool(expected)


def test_plain_graph_by_brute_force():
    rng = np.random.default_rng(2)
    for _ in range(40):
        labels, batches = random_family(rng, 9, 3, "small")
        graph = ufm.interaction(ufm.Problem(labels, 3, 1.0, batches))
        reach = np.eye(9, dtype=bool)
        for batch in batches:
            for i, j in product(batch, batch):
                reach[i, j] |= labels[i] == labels[j]
        for _ in range(4):
            reach = reach @ reach
        assert ((graph.plain_component[:, None] == graph.plain_component[None, :]) == reach).all()
        for a, b in oracles.pairs(3):
            meet = any({a, b} <= {labels[i] for i in batch} for batch in batches)
            assert graph.plain_cross[a, b] == meet


def test_a_hundred_thousand_samples_in_seconds():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 100_000)
    problem = ufm.Problem(labels, 11, 1.0, batching.reshuffled(100_000, 128, 5, 0))
    start = time.perf_counter()
    result = ufm.uniqueness(problem)
    assert time.perf_counter() - start < 5
    assert result.unique is True


def test_many_components_in_seconds():
    # Batches of three: a class falls into thousands of components, d = k and d > k.
    labels = np.random.default_rng(0).integers(0, 3, 30_000)
    family = batching.reshuffled(30_000, 3, 2, 0)
    for d in (3, 4):
        problem = ufm.Problem(labels, d, 1.0, family)
        start = time.perf_counter()
        result = ufm.uniqueness(problem)
        assert time.perf_counter() - start < 5
        assert result.unique is False
        assert float(excess(jnp.asarray(result.counterexample), problem)) == 0.0


def loss_over_placements(G, labels, batches, loss):
    """Every loss of the family at many Gram matrices at once, tau = 1, from its definition (theory, 1.5)."""
    k, total = max(labels) + 1, 0.0
    n = np.bincount(labels)
    get = lambda name, rest: rest if getattr(loss, name) is None else np.asarray(getattr(loss, name))  # noqa: E731
    omega, tau, a = get("weights", np.ones(k)), get("taus", np.ones(k)), get("margins", np.zeros((k, k)))
    a = a + get("strength", 0.0) * np.log(n)
    for batch in batches:
        for i in batch:
            c, others = labels[i], [j for j in batch if j != i]
            pos, neg = ([j for j in others if (labels[j] == c) == alike] for alike in (True, False))
            if not pos or not (neg or loss.positives_in_denominator):
                continue
            x = G[:, i] / tau[c]
            if loss.kind == "sigmoid":
                t, b = float(loss.scale), float(loss.bias)
                total += np.log1p(np.exp(-t * x[:, pos] - b)).sum(axis=1)
                total += np.log1p(np.exp(t * x[:, neg] + b)).sum(axis=1)
            elif loss.kind == "supcon-in":
                total -= np.log(np.exp(x[:, pos]).mean(axis=1) / np.exp(x[:, others]).sum(axis=1))
            else:
                held = others if loss.positives_in_denominator else neg
                others_of_class = {e: sum(labels[j] == e for j in batch) - (e == c) for e in range(k)}
                margins = np.array([a[c, labels[j]] - loss.averaged * np.log(others_of_class[labels[j]]) for j in held])
                total += omega[c] * (np.log(np.exp(margins + x[:, held]).sum(axis=1)) - x[:, pos].mean(axis=1))
    return total


def placements_on_axes(n, d):
    """Gram matrices of all placements of n samples on d axes or at zero, up to the names of the axes."""
    placements = [()]
    for _ in range(n):
        placements = [(*p, a) for p in placements for a in range(-1, min(max(p, default=-1) + 2, d))]
    P = np.array(placements)
    return ((P[:, :, None] == P[:, None, :]) & (P[:, :, None] >= 0)).astype(float)


def family_agrees(name, seed):
    """Whether the verdict is that of brute force; None where it is left open."""
    rng = np.random.default_rng([13, seed])
    k = int(rng.integers(2, 4))
    n = int(rng.integers(k, 7))
    d = int(rng.choice([k, k + 1]))
    labels, batches = random_family(rng, n, k, ("any", "open", "small")[seed % 3])
    loss = LOSSES[name](rng, k)
    problem = ufm.Problem(labels, d, 1.0, batches, loss=loss)
    result = ufm.uniqueness(problem)
    G = placements_on_axes(n, d)
    values = np.broadcast_to(loss_over_placements(G, np.array(labels), batches, loss), len(G))
    frame = np.equal(G, np.equal.outer(labels, labels)).all(axis=(1, 2))
    # Weights and margins may be tiny: what an excess is held against is the cost of one broken placement.
    over = values - values[frame][0]
    assert over.min() > -1e-9 * (1 + abs(values[frame][0]))
    scale = np.abs(values).max()
    attained = over <= 1e-13 * (1 + scale)
    if result.counterexample is not None:
        H = np.asarray(result.counterexample)
        other = loss_over_placements((H @ H.T)[None], np.array(labels), batches, loss)
        assert np.all(abs(other - values[frame][0]) <= 1e-13 * (1 + scale))
        assert not np.array_equal(H @ H.T, np.equal.outer(labels, labels))
    return None if result.unique is None else result.unique is not bool((attained & ~frame).any())


# Numbers of order one: at axes, brute force sees every broken constraint in doubles.
MODERATE = [name for name in LOSSES if "extreme" not in name]


@pytest.mark.parametrize("name", MODERATE)
def test_identical_verdicts_to_brute_force_for_every_loss(name):
    agree = [family_agrees(name, seed) for seed in range(18)]
    assert False not in agree
    assert agree.count(True) > 15


@pytest.mark.slow
@pytest.mark.parametrize("name", MODERATE)
def test_identical_verdicts_to_brute_force_in_five_hundred_problems(name):
    agree = [family_agrees(name, seed) for seed in range(500)]
    print(name, agree.count(True), agree.count(None))
    assert False not in agree


def test_batches_of_one_class_differ_from_loss_to_loss():
    # Four samples of class 0, of which two are glued to each other and one is in batches of its class alone.
    labels, batches = [0, 0, 0, 0, 1, 1], [[0, 1, 4, 5], [2, 3, 4, 5], [1, 2, 3]]
    pairs = [[0, 1, 4, 5], [2, 3, 4, 5], [1, 2]]
    expected = {"scl": (True, False), "sigmoid": (True, True), "decoupled": (False, False), "supcon-in": (False, False)}
    for name, verdicts in expected.items():
        loss = LOSSES[name](np.random.default_rng(0), 2)
        result = [ufm.uniqueness(ufm.Problem(labels, 3, 1.0, family, loss=loss)) for family in (batches, pairs)]
        assert tuple(one.unique for one in result) == verdicts, name


def family_of_pairs(seed):
    """Glued pairs of two or three classes, most of which repel, with open batches: labels, batches, d."""
    rng = np.random.default_rng([39, seed])
    k = int(rng.integers(2, 4))
    counts = rng.integers(1, 5, k)
    while counts.sum() > 7:
        counts[counts.argmax()] -= 1
    of = np.repeat(np.arange(k), counts)
    batches = [
        [2 * p, 2 * p + 1, 2 * q, 2 * q + 1]
        for p, q in oracles.pairs(len(of))
        if of[p] != of[q] and rng.random() < rng.choice([0.8, 1.0])
    ]
    for c in np.flatnonzero(counts >= 3):
        for _ in range(rng.integers(1, 4)):
            members = rng.permutation(np.flatnonzero(of == c))[: rng.integers(3, counts[c] + 1)]
            batches.append((2 * members).tolist())
    return np.repeat(of, 2).tolist(), batches, k + int(rng.integers(0, 3))


def other_placements(labels, batches, d):
    """Whether some placement of glued pairs on axes has the loss of the frame and another Gram matrix."""
    labels, G = np.array(labels), placements_on_axes(len(labels) // 2, d)
    G = G.repeat(2, axis=1).repeat(2, axis=2)
    values = loss_over_placements(G, labels, batches, losses.scl())
    frame = np.equal(G, np.equal.outer(labels, labels)).all(axis=(1, 2))
    return bool(((values - values[frame][0] < 1e-9) & ~frame).any())


@pytest.mark.thorough
def test_families_of_pairs_against_all_placements():
    seen = {True: 0, False: 0, None: 0}
    for seed in range(500):
        labels, batches, d = family_of_pairs(seed)
        if {i for batch in batches for i in batch} == set(range(len(labels))):
            unique = ufm.uniqueness(ufm.Problem(labels, d, 1.0, batches)).unique
            seen[unique] += 1
            assert unique is None or unique is not other_placements(labels, batches, d), (labels, batches, d)
    assert seen[True] > 180
    assert seen[False] > 200
    assert seen[None] < 5
