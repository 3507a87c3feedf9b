"""The expected mini-batch loss in class space: against all batches, drawn batches, and as a certified problem."""

import copy
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flint import ctx
from test_checker import NOT_PROVED, PROVED, UNREADABLE, digest

import solvers
import ufm
from solvers.certification.balls import balls
from solvers.certification.certifier import Certifier, serialised_samples
from solvers.certification.consequences import pair_weights
from solvers.certification.orbit_problem import OrbitProblem, loss_and_gradient
from solvers.parallel.padding import padded
from ufm import losses, samplers
from ufm.batches.expected_error import standard_error
from ufm.model.problem import PADDING
from ufm_check import check

SIZES = (4, 3, 2)
LOSSES = [
    losses.scl(),
    losses.logit_adjusted(0.5),
    losses.class_averaged(),
    losses.decoupled(),
    losses.class_weighted([1.0, 2.0, 0.5]),
    losses.sigmoid(),
    losses.supcon_in(),
]
STEP = (20, 20, 4, 4)


def rows_of(seed, m, d, nonneg=True):
    H = np.random.default_rng(seed).standard_normal((m, d))
    H = np.abs(H) if nonneg else H
    return 0.9 * H / np.linalg.norm(H, axis=1, keepdims=True)


def all_batches(sizes, b, **kwargs):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return ufm.Problem(labels, batches=list(itertools.combinations(range(len(labels)), b)), **kwargs)


@pytest.mark.few(3)
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
@pytest.mark.parametrize("b", [2, 5])
def test_value_excess_and_gradient_against_all_batches(loss, b):
    expected = ufm.Problem.expected(SIZES, samplers.uniform(b), 5, 0.5, loss=loss)
    every = all_batches(SIZES, b, d=5, tau=0.5, loss=loss)
    labels, U = np.asarray(every.labels), jnp.asarray(rows_of(0, 3, 5))
    for quantity in (ufm.scl_loss, ufm.excess):
        value, gradient = jax.value_and_grad(lambda U, f=quantity: f(U[labels], every) / len(every.batches))(U)
        result, slope = jax.value_and_grad(lambda U, f=quantity: f(U, expected))(U)
        assert float(result) == pytest.approx(float(value), rel=1e-12, abs=1e-13)
        np.testing.assert_allclose(slope, gradient, rtol=1e-10, atol=1e-13)
    bound = float(ufm.loss_bound(every)) / len(every.batches)
    assert float(ufm.loss_bound(expected)) == pytest.approx(bound, rel=1e-12)


@pytest.mark.few(1)
@pytest.mark.parametrize(
    "sampler",
    [
        samplers.reshuffled(4),
        samplers.class_balanced(5),
        samplers.m_per_class(2, 2),
        samplers.uniform(4).bound(1),
        samplers.class_balanced(5).bound(2),
        samplers.two_views(samplers.uniform(3)),
        samplers.two_views(samplers.m_per_class(1, 2)).bound(1),
    ],
    ids=str,
)
def test_against_the_mean_over_drawn_batches(sampler):
    """Within five standard errors, at a point that is constant on the points of the problem."""
    views = 2 if isinstance(sampler, samplers.TwoViews) else 1
    labels = np.tile(np.repeat(np.arange(3), SIZES), views)
    rows = sampler.draw(labels, 1, 600)
    expected = ufm.Problem.expected(views * np.array(SIZES), sampler, 5, 0.7)
    U = rows_of(2, expected.num_points, 5)
    point = labels.copy()
    if expected.num_points > 3:  # binding samples are in every batch
        always = np.bincount(rows[rows != PADDING], minlength=len(labels)) == len(rows)
        others = np.asarray(expected.labels)[3:].tolist()
        point = np.array([c if bound else 3 + others.index(c) for c, bound in zip(labels, always, strict=True)])
        assert (np.bincount(point) == np.asarray(expected.multiplicity)).all()
    H, width = U[point], rows.shape[1]
    each = [float(ufm.scl_loss(H, ufm.Problem(labels, 5, 0.7, row[None, :width]))) for row in rows]
    error = np.std(each) / np.sqrt(len(each))
    assert abs(np.mean(each) - float(ufm.scl_loss(U, expected))) < 5 * error + 1e-12


def test_the_full_batch_is_one_end():
    expected = ufm.Problem.expected(SIZES, samplers.uniform(9), 5, 0.5, nonneg=False)
    full = ufm.Problem.from_class_sizes(SIZES, 5, 0.5, nonneg=False)
    U = rows_of(3, 3, 5, nonneg=False)
    assert float(ufm.scl_loss(U, expected)) == pytest.approx(float(ufm.scl_loss(U[np.asarray(full.labels)], full)))
    bounds = [Certifier(problem).lower_bound.value for problem in (expected, full)]
    assert bounds[0] == pytest.approx(bounds[1], rel=1e-10)


@pytest.mark.parametrize("nonneg", [True, False])
def test_gradients_and_pair_weights_are_those_of_all_samples(nonneg):
    """4.19 (c): C_ab of the count vectors against C_ij over all batches, every sample an orbit of its own."""
    sizes, b = (4, 2, 1), 4
    few = OrbitProblem.of(ufm.Problem.expected(sizes, samplers.uniform(b), 4, 0.5, nonneg))
    every = all_batches(sizes, b, d=4, tau=0.5, nonneg=nonneg)
    many = OrbitProblem.of(ufm.orbits(every).quotient)
    of = np.array(many.classes)
    U = rows_of(1, 3, 4, nonneg)
    with ctx.workprec(few.bits):
        value, C = loss_and_gradient(few, balls(U @ U.T))
        whole, each = loss_and_gradient(many, balls((U @ U.T)[np.ix_(of, of)]))
        assert float(value) == pytest.approx(float(whole) / len(many.batches), rel=1e-12)
        for i, j in itertools.combinations(range(len(of)), 2):
            assert float(C[of[i]][of[j]]) == pytest.approx(float(each[i][j]) / len(many.batches), abs=1e-14)
        for result, stated in zip(pair_weights(few), pair_weights(many), strict=True):
            for (i, j), weight in stated.items():
                pair = tuple(sorted((of[i], of[j])))
                assert float(result[pair]) == pytest.approx(float(weight) / len(many.batches), rel=1e-12)


def test_collapsing_loses_nothing_without_the_relu():
    """4.19 (b): the certified least over all samples and all batches is that of three classes."""
    sizes, b = (3, 2, 1), 3
    every = Certifier(all_batches(sizes, b, d=6, tau=0.5, nonneg=False))
    few = Certifier(ufm.Problem.expected(sizes, samplers.uniform(b), 6, 0.5, nonneg=False))
    assert few.lower_bound.value == pytest.approx(every.lower_bound.value / 20, rel=1e-9)


@pytest.fixture(scope="module")
def certified(tmp_path_factory):
    """Certificates at k = 4, batch 8, all count vectors: with the ReLU the frame, without it the polished point."""
    folder, result = tmp_path_factory.mktemp("expected"), {}
    for name, sampler, nonneg, sizes in [
        ("frame", samplers.uniform(8), True, STEP),
        ("free", samplers.uniform(8), False, STEP),
        ("free, balanced", samplers.class_balanced(6), False, STEP),
        ("free, bound", samplers.uniform(2).bound(1), False, (6, 3)),
        ("frame, bound", samplers.uniform(4).bound(1), True, STEP),
    ]:
        problem = ufm.Problem.expected(sizes, sampler, 5, 0.5, nonneg)
        certifier = Certifier(problem)
        H = np.eye(4, 5)[np.asarray(problem.labels)] if nonneg else certifier.better.placed()
        result[name] = certifier.certify(H), folder / name
        result[name][0].save(folder / name)
    return result


def test_the_certificate_is_checked_independently(certified, capsys):
    for name, (certificate, path) in certified.items():
        assert certificate.status == "certified", (name, certificate.reason)
        assert certificate.relative_gap < 1e-10
        assert check.main([str(path)]) == PROVED, capsys.readouterr().out
        assert solvers.Certificate.load(path).serialised() == certificate.serialised()
    assert "count vectors of an expected loss" in capsys.readouterr().out


@pytest.mark.thorough
def test_other_points_are_not_certified(tmp_path):
    problem = ufm.Problem.expected(STEP, samplers.uniform(8), 5, 0.5)
    merged = solvers.certify(np.eye(4, 5)[[0, 1, 2, 2]], problem)
    assert merged.status == "not certified"
    merged.save(tmp_path / "merged")
    assert check.main([str(tmp_path / "merged")]) == NOT_PROVED
    free = ufm.Problem.expected(STEP, samplers.uniform(8), 5, 0.5, nonneg=False)
    assert solvers.certify(np.eye(4, 5), free).status == "not certified"


def forged(content, change):
    content = copy.deepcopy(content)
    content.pop("checksum")
    problem = content["problem"]
    change(problem)
    problem["digest"] = digest({x: y for x, y in problem.items() if x not in ("digest", "samples_digest")})
    content["checksum"] = digest(content)
    return content


def put(field, batch, value):
    def change(problem):
        problem[field][batch] = value(problem[field][batch]) if callable(value) else value

    return change


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (put("weights", 3, (0.0).hex()), UNREADABLE),
        (put("weights", 3, (-1.0).hex()), UNREADABLE),
        (put("weights", 3, "nan"), UNREADABLE),
        (put("weights", 3, "inf"), UNREADABLE),
        (put("weights", 3, 0.5), UNREADABLE),
        (put("weights", 3, lambda w: (2 * float.fromhex(w)).hex()), NOT_PROVED),
        (put("counts", 3, lambda n: [0, *n[1:]]), UNREADABLE),
        (put("counts", 3, lambda n: [-1, *n[1:]]), UNREADABLE),
        (put("counts", 3, lambda n: [21, *n[1:]]), UNREADABLE),
        (put("counts", 3, lambda n: [1.5, *n[1:]]), UNREADABLE),
        (put("counts", 3, lambda n: [True, *n[1:]]), UNREADABLE),
        (put("counts", 3, lambda n: n[1:]), UNREADABLE),
        (put("counts", 3, 7), UNREADABLE),
        (lambda problem: problem["counts"].pop(), UNREADABLE),
        (lambda problem: problem["weights"].pop(), UNREADABLE),
        (lambda problem: problem.pop("weights"), UNREADABLE),
        (lambda problem: (problem.pop("weights"), problem.pop("counts")), NOT_PROVED),
        (lambda problem: problem.update(counts=7), UNREADABLE),
    ],
)
def test_no_forged_file_is_proved(certified, change, status, tmp_path):
    path = certified["free"][1]
    content = forged(json.loads(path.read_text()), change)
    (tmp_path / "forged").write_text(json.dumps(content))
    assert check.main([str(tmp_path / "forged")]) == status


@pytest.mark.thorough
@pytest.mark.parametrize("sampler", [samplers.uniform(6), samplers.two_views(samplers.uniform(3))], ids=str)
def test_solve_verify_and_files(sampler, tmp_path):
    problem = ufm.Problem.expected((6, 6, 4), sampler, 4, 0.5)
    solution = solvers.solve(problem, inits=2, seed=0)
    solution.save(tmp_path / "solution.nc")
    loaded = solvers.Solution.load(tmp_path / "solution.nc").problem
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(loaded), jax.tree.leaves(problem), strict=True))
    assert loaded.views == problem.views
    assert "count vectors, of 6 samples" in repr(problem)
    best = solution.H[solution.best]
    assert solvers.certify(best, problem).status == "certified"
    assert solvers.verify(best, problem).verdict is solvers.Verdict.GLOBAL_MINIMISER


def test_padding_weighs_nothing():
    problem = ufm.Problem.expected(SIZES, samplers.uniform(4), 5, 0.5)
    wider = padded(problem, (5, 20, 6))
    U = rows_of(4, 3, 5)
    result = float(ufm.scl_loss(np.pad(U, ((0, 2), (0, 0))), wider))
    assert result == pytest.approx(float(ufm.scl_loss(U, problem)), rel=1e-14)


def test_the_digest_knows_counts_and_weights():
    first = ufm.Problem.expected(SIZES, samplers.uniform(4), 5, 0.5)
    others = [
        ufm.Problem(first.labels, 5, 0.5, first.batches, multiplicity=first.multiplicity),
        ufm.Problem(first.labels, 5, 0.5, first.batches, multiplicity=first.multiplicity, counts=first.counts),
        ufm.Problem.expected(SIZES, samplers.uniform(5), 5, 0.5),
    ]
    assert len({serialised_samples(problem) for problem in (first, *others)}) == 4


@pytest.mark.thorough
def test_a_sample_of_count_vectors_and_its_error():
    sampler, U = samplers.uniform(6), rows_of(5, 3, 5)
    exact = float(ufm.scl_loss(U, ufm.Problem.expected((9, 9, 9), sampler, 5, 0.5)))
    for seed in range(5):
        drawn = ufm.Problem.expected((9, 9, 9), sampler, 5, 0.5, vectors=400, seed=seed)
        error = standard_error(U, drawn, 400)
        assert 0 < abs(float(ufm.scl_loss(U, drawn)) - exact) < 4 * error
    many = ufm.Problem.expected([50] * 10, samplers.uniform(64), 10)
    assert float(many.weights.sum()) == pytest.approx(1)
    assert len(many.batches) <= 4096


KNOWN = {"multiplicity": [3, 2], "batches": [[0, 1], [0]]}


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: ufm.Problem([0, 1], 2, weights=[1.0]), "weights"),
        (lambda: ufm.Problem([0, 1], 2, counts=[[2, 1]], **KNOWN), "counts"),
        (lambda: ufm.Problem([0, 1], 2, counts=[[4, 1], [1, 0]], **KNOWN), "counts = 4"),
        (lambda: ufm.Problem([0, 1], 2, counts=[[0, 1], [1, 0]], **KNOWN), "counts = 0"),
        (lambda: ufm.Problem([0, 1], 2, counts=[[1.5, 1], [1, 0]], **KNOWN), "counts = 1.5"),
        (lambda: ufm.Problem([0, 1], 2, counts=[[np.nan, 1], [1, 0]], **KNOWN), "counts = nan"),
        (lambda: ufm.Problem([0, 1], 2, counts=[[2, 1], [1, 0]], weights=[1.0], **KNOWN), "weights"),
        (lambda: ufm.Problem([0, 1], 2, counts=[[2, 1], [1, 0]], weights=[1.0, 0.0], **KNOWN), "weights"),
        (lambda: ufm.Problem([0, 1], 2, counts=[[2, 1], [1, 0]], weights=[1.0, np.inf], **KNOWN), "weights"),
        *[
            (lambda bad=bad: ufm.Problem([0, 1], 2, counts=[[2, 1], [1, 0]], weights=bad, **KNOWN), "weights")
            for bad in (
                [1.0, 1e-310],
                [1e308, 1e308],
                [1.0, 1e101],
                [1e-31, 1e-305],
                [9e-31, 9e-31],
                1.0,
                [1.0, 5e-324],
            )
        ],
        (lambda: ufm.Problem.expected(SIZES, "uniform", 4), "sampler"),
        (lambda: ufm.Problem.expected(SIZES, samplers.uniform(10), 4), "batch_size = 10"),
        (lambda: ufm.Problem.expected(SIZES, samplers.m_per_class(3, 2), 4), "m = 3: class 2 has only 2"),
        (lambda: ufm.Problem.expected(SIZES, samplers.m_per_class(2, 4), 4), "p = 4: there are only 3 classes"),
        (lambda: ufm.Problem.expected(SIZES, samplers.uniform(4), 4, vectors=1), "vectors"),
        (lambda: ufm.Problem.expected(SIZES, samplers.uniform(4), 4, tau=0.0), "tau"),
        (lambda: standard_error(np.eye(3), ufm.Problem([0, 1, 1], 3), 5), "problem"),
        (lambda: solvers.suboptimality(np.eye(3), ufm.Problem.expected(SIZES, samplers.uniform(4), 3)), "problem"),
    ],
)
def test_bad_input(call, named, untyped):
    with pytest.raises(ufm.InvalidInput, match=named):
        call()


def stochastic_cosines(sampler, labels, d, tau, nonneg, steps=20_000, starts=4):
    """Projected stochastic gradient on free embeddings with falling steps: cosines of class means of each start,
    averaged over the second half of the run, and the mean rows of the classes at its end."""
    k, n, population = int(labels.max()) + 1, len(labels), sampler.population(labels)
    of = jnp.asarray(labels)

    def means(H):
        rows = jax.ops.segment_sum(H, of, k) / jnp.bincount(of, length=k)[:, None]
        return rows / jnp.linalg.norm(rows, axis=1, keepdims=True)

    def step(carry, t):
        H, state, total = carry
        batch, state = sampler.next(state, population)
        inside = batch != PADDING
        problem = ufm.Problem(of[batch], d, tau, nonneg=nonneg, k=k, multiplicity=inside.astype(float))
        gradient_scale = jax.grad(ufm.scl_loss)(H[batch], problem)
        moved = H.at[jnp.where(inside, batch, n)].add(-0.2 / (1.0 + t / 500.0) * gradient_scale, mode="drop")
        H = ufm.project(moved, nonneg=nonneg)
        cosines = means(H) @ means(H).T
        return (H, state, total + jnp.where(t >= steps // 2, cosines, 0.0)), None

    def run(H, key):
        carry = H, sampler.begin(key, population), jnp.zeros((k, k))
        (H, _, total), _ = jax.lax.scan(step, carry, jnp.arange(steps))
        return total / (steps - steps // 2), means(H)

    rows = jnp.stack([jnp.asarray(rows_of(seed, n, d, nonneg)) for seed in range(starts)])
    return jax.jit(jax.vmap(run))(rows, jax.random.split(jax.random.key(0), starts))


@pytest.mark.slow
@pytest.mark.parametrize("nonneg", [True, False])
@pytest.mark.parametrize(
    "sampler", [samplers.uniform(8), samplers.class_balanced(8), samplers.m_per_class(2, 3)], ids=str
)
def test_a_long_stochastic_run_ends_at_the_certified_minimiser(sampler, nonneg):
    """Class cosines within 0.02; of the starts, the one that ends lowest (UFM+ has spurious minima)."""
    sizes, d, tau = (12, 12, 4, 4), 8, 0.5
    problem = ufm.Problem.expected(sizes, sampler, d, tau, nonneg)
    certifier = Certifier(problem)
    best = certifier.certify(certifier.better.placed())
    assert best.status == "certified"
    rows = certifier.better.placed()
    cosines, ends = stochastic_cosines(sampler, np.repeat(np.arange(4), sizes), d, tau, nonneg)
    lowest = int(np.argmin([float(ufm.scl_loss(end, problem)) for end in ends]))
    np.testing.assert_allclose(np.asarray(cosines[lowest]), rows @ rows.T, atol=0.02)


@pytest.mark.few(1)
@pytest.mark.parametrize("weights", [[1e100, 1e100], [1e-30, 1e-300], [1e-30, 1e-30], [1.0, 1e-300]])
@pytest.mark.parametrize("nonneg", [True, False])
def test_weights_at_the_ends_of_their_range_are_solved_certified_and_read(weights, nonneg, tmp_path):
    """Of UFM+ a batch of weight 1e-300 beside another may be more than a certificate can speak of, and it says so."""
    parts = {"counts": [[3, 2, 2], [2, 2, 4]], "weights": weights, "multiplicity": [4, 4, 4]}
    problem = ufm.Problem([0, 1, 2], 3, 0.1, [[0, 1, 2]] * 2, nonneg, **parts)
    solution = solvers.solve(problem, inits=1)
    assert solution.status == (solvers.Status.CONVERGED,)
    proof = solvers.certify(solution.H[0], problem)
    certified = weights[0] == weights[1] or not nonneg
    assert (proof.status is solvers.Proof.CERTIFIED) is certified
    proof.save(tmp_path / "proof.json")
    assert check.main([str(tmp_path / "proof.json")]) == (0 if certified else 1)


@pytest.mark.parametrize("size", [520, 1000])
def test_count_vectors_that_no_double_knows_are_left_out(size):
    """All of a batch from one class: of probability 3e-312, or 0 to a double."""
    problem = ufm.Problem.expected([size, size], ufm.samplers.uniform(size), 2)
    assert len(problem.batches) < size + 1
    assert float(problem.weights.sum()) == pytest.approx(1, abs=1e-12)
    H = np.eye(2)
    assert abs(float(ufm.excess(H, problem))) < 1e-12
    assert np.isfinite(float(ufm.scl_loss(H, problem)))
