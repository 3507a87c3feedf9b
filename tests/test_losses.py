"""The family of losses: value, bound, excess and gradient against the definitions; the objects; bad input."""

import json
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import oracles
import pytest
from families import LOSSES
from hypothesis import given
from hypothesis import strategies as st

import ufm
from solvers.parallel.padding import padded
from ufm import losses
from ufm.model.evaluation import evaluate
from ufm.theory.local_rate import attraction

# One shape for all: 9 points, 5 batches of 9 slots, rows in R^9 (so that they may be orthonormal).
K, D = 3, 9
SHAPE = (9, 5, 9)
LABELS = [0, 2, 1, 0, 1, 2, 0, 0, 2]
KINDS = ["ufm+", "ufm", "zeros", "duplicates", "near"]

evaluate_jit = eqx.filter_jit(evaluate)


@pytest.fixture(autouse=True)
def many_digits():
    with mpmath.workdps(50):
        yield


def case(seed, name, tau=None):
    """A random problem with this loss, of one shape, and rows of a random kind."""
    rng = np.random.default_rng(seed)
    kind = KINDS[seed % len(KINDS)]
    batches = oracles.random_batches(rng, LABELS, 5)
    tau = 10.0 ** rng.uniform(-1, 1) if tau is None else tau
    problem = padded(ufm.Problem(LABELS, D, tau, batches, kind != "ufm", loss=LOSSES[name](rng, K)), SHAPE)
    return problem, oracles.random_rows(rng, kind, LABELS, D), rng


def against_the_oracle(seed, name):
    """How far value, bound, excess and slope are off, each in its own scale; 1e-10 stands for 1e-7 of the slope."""
    problem, H, rng = case(seed, name)
    loss, bound = oracles.family(H, problem)
    at = evaluate_jit(jnp.asarray(H), problem)
    size = sum(abs(x) for x in (loss, bound)) + 1
    # A point of UFM has anchors above and below their bounds: those cancel, in the oracle too.
    scale = abs(loss - bound) if problem.nonneg else abs(loss - bound) + mpmath.mpf("1e-6") * size
    direction = np.round(8 * rng.normal(size=H.shape)) / 8
    step = mpmath.mpf(2) ** -60
    rows = mpmath.matrix(H.tolist())
    ahead, behind = (
        oracles.family((rows + sign * step * mpmath.matrix(direction.tolist())).tolist(), problem)[0]
        for sign in (1, -1)
    )
    slope = (ahead - behind) / (2 * step)
    gradient = np.asarray(at.gradient)
    turned = np.linalg.norm(gradient) * np.linalg.norm(direction) + 1e-300
    frame = jnp.asarray(oracles.orthogonal_frame(LABELS, D))
    at_frame = evaluate_jit(frame, problem)
    return {
        "loss": float(abs(mpmath.mpf(float(at.loss)) - loss) / size),
        "bound": float(abs(mpmath.mpf(float(ufm.loss_bound(problem))) - bound) / size),
        "excess": float(abs(mpmath.mpf(float(at.excess)) - (loss - bound)) / scale),
        "gradient": 1e-3 * abs(float(np.sum(gradient * direction) - slope)) / turned,
        "frame": abs(float(at_frame.excess)) / float(size) + float(abs(float(at_frame.loss) - bound) / size),
        "below": 0.0 if not problem.nonneg or float(at.excess) >= 0 else 1.0,
    }


def worst_of(seeds):
    """The largest of every error over problems with all losses in turn, and its seed."""
    names, worst = list(LOSSES), {}
    for seed in seeds:
        for what, error in against_the_oracle(seed, names[seed // len(KINDS) % len(names)]).items():
            worst[what] = max(worst.get(what, (0.0, -1)), (error, seed))
    return worst


def test_every_loss_against_fifty_digits():
    worst = worst_of(range(len(LOSSES) * len(KINDS)))
    assert {what for what, (error, _) in worst.items() if not error <= 1e-10} == set(), worst


@pytest.mark.slow
@pytest.mark.parametrize("tenth", range(10))
def test_ten_thousand_problems_against_fifty_digits(tenth):
    worst = worst_of(range(1000 * tenth, 1000 * (tenth + 1)))
    print(worst)
    assert {what for what, (error, _) in worst.items() if not error <= 1e-10} == set(), worst


@pytest.mark.parametrize("name", LOSSES)
def test_multiplicity_padding_and_orbits_change_nothing(name):
    """A point of three samples is three equal rows; points of no sample and empty batches are nothing."""
    loss = LOSSES[name](np.random.default_rng(3), K)
    labels, batches = [0, 1, 1, 0, 2], [[0, 1, 2, 3], [1, 4], [0], [0, 1, 2, 3, 4]]
    few = ufm.Problem(labels, D, 0.5, batches, multiplicity=[2, 1, 2, 2, 2], loss=loss)
    many, origin = oracles.expanded(few)
    H = np.abs(oracles.random_rows(np.random.default_rng(1), "ufm", labels, D))
    grouped = ufm.orbits(many)
    values = []
    for problem, place in ((few, np.arange(5)), (many, origin), (grouped.quotient, origin[grouped.first])):
        wide = padded(problem, SHAPE)
        at = evaluate_jit(np.pad(H[place], ((0, 9 - len(place)), (0, 0))), wide)
        summed = np.zeros((5, D))
        np.add.at(summed, place, np.asarray(at.gradient)[: len(place)])
        values.append((at.loss, at.excess, ufm.loss_bound(wide), summed))
        assert not np.any(at.gradient[len(place) :])
    for result in values[1:]:
        for one, other in zip(result, values[0], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("tau", [0.05, 1.0, 1e3])
def test_never_nan_and_frames_have_no_excess(name, tau):
    opposite = np.zeros((9, D))
    opposite[:, 0] = [1, 1, -1, 1, -1, 1, -1, 1, 1]
    frame = oracles.orthogonal_frame(LABELS, D)
    loss = LOSSES[name](np.random.default_rng(3), K)
    for batches in ([list(range(9))], [[0], [2], [0, 2], [3, 4], list(range(5))], [[1, 4, 5]]):
        problem = padded(ufm.Problem(LABELS, D, tau, batches, nonneg=False, loss=loss), SHAPE)
        assert np.isfinite(ufm.loss_bound(problem))
        for H in (np.zeros((9, D)), opposite, np.full((9, D), 1 / 3), frame):
            for values in evaluate_jit(H, problem):
                assert np.isfinite(values).all()
        assert float(evaluate_jit(frame, problem).excess) == 0.0


@pytest.mark.parametrize("name", LOSSES)
def test_pair_weights_and_conflict_are_those_of_the_derivatives(name):
    """Where rows are the coordinate axes the gradient is the matrix of derivatives itself."""
    loss = LOSSES[name](np.random.default_rng(5), K)
    at = evaluate_jit(np.eye(9), padded(ufm.Problem(LABELS, D, 0.7, loss=loss), SHAPE))
    C = np.asarray(
        at.gradient
    )  # row i of (C + C^T) H with H = I: symmetric, and within classes both parts have one sign
    np.testing.assert_allclose(C, C.T, rtol=1e-12, atol=1e-300)
    alike = np.equal.outer(LABELS, LABELS)
    assert (C[alike] <= 0).all()
    assert (C[~alike] >= 0).all()
    np.testing.assert_allclose(at.preconditioner, np.abs(C).sum(axis=1), rtol=1e-11, atol=1e-300)
    # At these rows all cosines are 0 and all deficits of pairs 1.
    np.testing.assert_allclose(at.gap_contribution, 0.5 * np.where(alike, -C, 0).sum(axis=1), rtol=1e-11, atol=1e-300)


def test_special_cases_are_plain_scl():
    rng = np.random.default_rng(0)
    H = oracles.random_rows(rng, "ufm+", LABELS, D)
    plain = evaluate_jit(H, padded(ufm.Problem(LABELS, D, 0.5), SHAPE))
    for loss in (
        losses.class_weighted(np.ones(K)),
        losses.class_temperatures(np.ones(K)),
        losses.logit_adjusted(0.0),
        losses.log_sum_exp(margins=np.full((K, K), 7.0) - 7.0),
    ):
        at = evaluate_jit(H, padded(ufm.Problem(LABELS, D, 0.5, loss=loss), SHAPE))
        for one, other in zip(at, plain, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-12)
    loss = losses.log_sum_exp(margins=np.full((K, K), 7.0))
    shifted = padded(ufm.Problem(LABELS, D, 0.5, loss=loss), SHAPE)
    np.testing.assert_allclose(evaluate_jit(H, shifted).excess, plain.excess, rtol=1e-12)
    np.testing.assert_allclose(ufm.scl_loss(H, shifted) - plain.loss, 7.0 * len(LABELS), rtol=1e-12)


def test_plain_scl_is_compiled_as_if_there_were_no_family():
    problem = ufm.Problem(LABELS, D)
    assert len(jax.tree.leaves(problem)) == 4
    assert problem.loss == losses.scl() == losses.log_sum_exp()
    assert problem.loss.is_plain


def test_new_numbers_of_a_loss_do_not_recompile():
    traces = []

    @eqx.filter_jit
    def value(H, problem):
        traces.append(1)
        return ufm.scl_loss(H, problem)

    H = oracles.random_rows(np.random.default_rng(0), "ufm+", LABELS, D)
    for weight in (1.0, 2.0, 3.0):
        value(H, ufm.Problem(LABELS, D, loss=losses.class_weighted([weight, 1.0, 2.0])))
    assert len(traces) == 1


@given(st.integers(0, 10**6), st.sampled_from(list(LOSSES)))
def test_a_loss_is_its_description(seed, name):
    loss = LOSSES[name](np.random.default_rng(seed), K)
    again = losses.Loss.of_description(json.loads(json.dumps(loss.to_dict())))
    assert again == loss
    assert hash(again) == hash(loss)
    assert loss != losses.log_sum_exp(weights=[1.0, 2.0, 3.0])
    assert "\n" not in repr(loss.name)
    assert repr(loss).startswith("Loss: ")
    assert (loss.name in repr(ufm.Problem(LABELS, D, loss=loss))) == (not loss.is_plain)


SIGMOID = losses.sigmoid(2.0, -1.0).to_dict()
NOT_DESCRIPTIONS = [
    {},
    {**SIGMOID, "kind": "log-sum-exp"},
    {**SIGMOID, "kind": "supcon-in"},
    {**SIGMOID, "kind": "other"},
    {**SIGMOID, "averaged": True},
    {**SIGMOID, "averaged": 0},
    {**SIGMOID, "weights": ["0x1p+0"]},
    {**SIGMOID, "scale": "nan"},
    {**SIGMOID, "scale": "inf"},
    {**SIGMOID, "bias": "-inf"},
    {name: value for name, value in SIGMOID.items() if name != "bias"},
    losses.decoupled().to_dict() | {"weights": ["0x0p+0"] * 3},
    losses.decoupled().to_dict() | {"margins": ["0x0p+0"] * 3},
]


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("description", NOT_DESCRIPTIONS)
def test_what_is_no_description_is_refused(description):
    with pytest.raises((ValueError, LookupError, TypeError)):
        losses.Loss.of_description(description)


INFINITE = float("inf")
BAD = [
    *[
        ("weights", partial(losses.class_weighted, bad))
        for bad in ([1, 0], [1, -1], [1, INFINITE], [1, float("nan")], [1, 1e10], [], 3, "ab", None, [[1]], [1j, 1])
        if bad != []
    ],
    *[("taus", partial(losses.class_temperatures, bad)) for bad in ([1, 0], [-1, 1], [INFINITE], 1.0, None)],
    *[
        ("margins", partial(losses.log_sum_exp, margins=bad))
        for bad in ([[1, 2]], [1, 2], [[INFINITE]], [[-INFINITE]], [[101]], [["a"]], 0.0)
    ],
    *[("strength", partial(losses.logit_adjusted, bad)) for bad in (INFINITE, 5, "1", None, [1], True, float("nan"))],
    *[("averaged", partial(losses.log_sum_exp, averaged=bad)) for bad in (1, None, "yes")],
    *[("positives_in_denominator", partial(losses.log_sum_exp, positives_in_denominator=bad)) for bad in (0, None)],
    *[("scale", partial(losses.sigmoid, bad)) for bad in (0, -1, INFINITE, None, "2")],
    *[("bias", partial(losses.sigmoid, 1.0, bad)) for bad in (INFINITE, 1e3, None)],
    *[("loss", partial(ufm.Problem, [0, 1], 2, loss=bad)) for bad in ("scl", losses.Loss, 1, losses.decoupled)],
    *[
        ("loss", partial(ufm.Problem, [0, 1, 2], 2, loss=bad))
        for bad in (
            losses.class_weighted([1, 2]),
            losses.log_sum_exp(margins=np.zeros((4, 4))),
            losses.class_temperatures([1, 1, 1e-3]),
            losses.sigmoid(1e5),
        )
    ],
    ("loss", partial(attraction, ufm.Problem([0, 1], 2, loss=losses.decoupled()))),
]


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(("argument", "call"), BAD, ids=[f"{i}-{name}" for i, (name, _) in enumerate(BAD)])
def test_a_bad_loss_is_named_in_one_line(argument, call):
    with pytest.raises(ufm.InvalidInput, match=rf"^{argument} = ") as caught:
        call()
    assert "\n" not in str(caught.value)
