"""Every public function at the edges of what it takes: a finite and right answer, or one line of `ufm.InvalidInput`.

Values are compared with the definitions in 50 digits. A name that is public and has no call in `public_calls`, or a
call that reads nothing of a world and is not listed as such, fails.
"""

import dataclasses
import enum
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import oracles
import pytest
import xarray as xr
from docstrings import public_names
from public_calls import CALLS, LABELS, World, positive_rows

import ufm

pytestmark = pytest.mark.usefixtures("untyped")

POSITIVE, AXES = positive_rows(9), np.eye(3)[LABELS]
WHOLE = ("i1", "u1", ">i2", "<u2", ">i4", "u4", "i8", ">i8", "u8", ">u8")
# Rows of nine samples of three classes; None where the loss refuses them.
ROWS = {
    "zero rows": np.zeros((9, 3)),
    "one zero row": POSITIVE * (np.arange(9) != 4)[:, None],
    "rows of 1e-160": 1e-160 * POSITIVE,
    "rows of 1e-310": 1e-310 * POSITIVE,
    "one row of 1e-160": POSITIVE * np.where(np.arange(9) == 4, 1e-160, 1.0)[:, None],
    "one sample to all": POSITIVE[np.zeros(9, int)],
    "both signs": POSITIVE * np.where(np.arange(3) == 1, -1.0, 1.0),
    **{f"numbers {kind}": (0.9 * POSITIVE).astype(kind) for kind in ("<f2", ">f2", "<f4", ">f4", "<f8", ">f8")},
    **{f"whole numbers {kind}": AXES.astype(kind) for kind in WHOLE},
    "a masked array without masked entries": np.ma.masked_array(POSITIVE, mask=False),
}
REFUSED_ROWS = {
    "rows of 1e160": 1e160 * POSITIVE,
    "rows with infinity": np.where(POSITIVE > 0.9, np.inf, POSITIVE),
    "rows with masked entries": np.ma.masked_array(POSITIVE, mask=POSITIVE > 0.9),
    "complex rows": POSITIVE * 1j,
    "no rows": POSITIVE[:0],
    "rows without entries": POSITIVE[:, :0],
}
# Labels, and what else describes a world of `public_calls`.
PROBLEMS = {
    "one sample": {"labels": [0], "k": 2},
    "two samples of one class": {"labels": [0, 0], "k": 2},
    "one class": {"labels": [0] * 9, "k": 2},
    "absent classes": {"k": 5},
    "classes of one sample": {"labels": [0, 1, 2]},
    "two samples of two classes": {"labels": [0, 1]},
    "batches of one sample": {"batches": [[i] for i in range(9)]},
    "batches of one class": {"batches": [[0, 1, 2, 3], [4, 5, 6], [7, 8]]},
}
MANY = {"labels": np.repeat(np.arange(2000), 2)}
# Beside the names below, that take neither samples nor rows.
WITHOUT_EDGES = ("networks.", "solvers.Proof", "solvers.Verdict", "solvers.Status", "ufm.losses.", "ufm.InvalidInput")
LOSSES = {
    "the loss": None,
    "decoupled, logit-adjusted": ufm.losses.log_sum_exp(strength=-1.0, positives_in_denominator=False),
    "class-averaged": ufm.losses.class_averaged(),
    "sigmoid": ufm.losses.sigmoid(2.0, -1.0),
    "SupCon-in": ufm.losses.supcon_in(),
}


@pytest.fixture(autouse=True)
def fifty_digits():
    with mpmath.workdps(50):
        yield


def assert_right(result, truth, size=0.0):
    """Relative to the truth or to what it is left of."""
    error = abs(mpmath.mpf(float(result)) - truth)
    assert error <= 1e-12 * max(abs(truth), size, mpmath.mpf(10) ** -300), (float(result), truth)


def assert_losses_are_right(H, problem):
    rows = np.asarray(H, dtype=np.float64)
    loss, bound = oracles.family(rows, problem)
    assert_right(ufm.scl_loss(H, problem), loss)
    assert_right(ufm.loss_bound(problem), bound)
    assert_right(ufm.excess(H, problem), loss - bound, size=abs(loss))


def assert_metrics_are_right(H, labels, k):
    result, right = ufm.geometry_metrics(H, labels, k=k), oracles.metrics(H, labels, k)
    scale = mpmath.norm(right[5])
    for name, size in (("delta_gm", 1e-2), ("trace_sw", scale), ("mean_cosine", 1e-2), ("max_cosine", 1e-2)):
        assert_right(getattr(result, name), right[result._fields.index(name)], size)
    for place, value in np.ndenumerate(np.asarray(result.gram)):
        assert_right(value, right[5][place], scale)
    if np.isfinite(result.beta_nc):
        assert abs(float(result.beta_nc) - right[1]) <= 1e-9 * max(right[1], 1e-9)
    else:  # class means coincide within rounding, samples do not
        assert right[1] == 0 < right[2]


@pytest.mark.few(3)
@pytest.mark.parametrize("name", ROWS)
def test_values_of_rows_at_the_edges(name):
    H = ROWS[name]
    assert_losses_are_right(H, ufm.Problem(LABELS, 3, 0.3, nonneg=name != "both signs"))
    projected = np.asarray(ufm.project(H, True))
    assert (projected >= 0).all()
    inside = np.maximum(np.asarray(H, dtype=np.float64), 0)
    digits = 1e-3 if projected.dtype == np.float16 else 1e-6 if projected.dtype == np.float32 else 1e-15
    np.testing.assert_allclose(projected, inside, rtol=digits, atol=1e-307)
    if name != "rows of 1e-310":  # taken for 0
        assert_metrics_are_right(H, LABELS, 3)


@pytest.mark.few(2)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", PROBLEMS)
def test_values_of_problems_at_the_edges(name, loss):
    """Also of rows that are all zero."""
    w = World(None, **PROBLEMS[name])
    for H in (w.H, np.zeros_like(w.H)):
        assert_losses_are_right(H, w.posed(loss=LOSSES[loss]))
        assert_metrics_are_right(H, w.labels, w.k)


@pytest.mark.slow
def test_values_of_2000_classes():
    """Where the truth is known in closed form: all rows alike, and a frame, of which 2,000 classes have none in R^3."""
    w = World(None, **MANY)
    for nonneg in (True, False):
        problem = w.posed(nonneg=nonneg)
        bound = oracles.bound(w.labels, 0.3, [range(w.n)])
        assert_right(ufm.loss_bound(problem), bound)
        for H in (np.zeros((w.n, 3)), np.eye(3)[np.zeros(w.n, int)]):
            assert_right(ufm.scl_loss(H, problem), w.n * mpmath.log(w.n - 1))
            assert_right(ufm.excess(H, problem), w.n * mpmath.log(w.n - 1) - bound)
    frame, problem = np.eye(w.k)[w.labels], ufm.Problem(w.labels, w.k, 0.3)
    assert_right(ufm.scl_loss(frame, problem), bound)
    assert float(ufm.excess(frame, problem)) == 0
    metrics = ufm.geometry_metrics(frame, w.labels)
    np.testing.assert_allclose(metrics[:5], 0, atol=1e-13)
    np.testing.assert_array_equal(metrics.gram, np.eye(w.k))


@pytest.mark.parametrize("name", REFUSED_ROWS)
def test_rows_beyond_the_edges_are_refused_in_one_line(name):
    problem, H = ufm.Problem(LABELS, 3, 0.3), REFUSED_ROWS[name]
    for call in (ufm.scl_loss, ufm.excess, lambda H, problem: ufm.geometry_metrics(H, problem.labels)):
        with pytest.raises(ufm.InvalidInput) as refused:
            call(H, problem)
        assert len(str(refused.value).splitlines()) == 1


def test_rows_of_1e160_are_projected():
    for project in (ufm.project_ball, ufm.project_nonnegative_ball):
        for signs in (1.0, np.where(np.arange(3) == 1, -1.0, 1.0)):
            H = 1e160 * POSITIVE * signs
            held = H if project is ufm.project_ball else np.maximum(H, 0)
            right = held / 1e160 / np.linalg.norm(held / 1e160, axis=1, keepdims=True)
            np.testing.assert_allclose(project(H), right, rtol=1e-14)


def test_one_class_without_k_is_refused():
    for labels in ([0], [0, 0, 0], [1, 1], [0, 2, 2], []):
        with pytest.raises(ufm.InvalidInput, match=r"^labels = ") as refused:
            ufm.Problem(labels, 3, 0.3)
        assert len(str(refused.value).splitlines()) == 1


# All but these take samples, rows, or what is made of them.
NAMES = [name for name in CALLS if not name.startswith(WITHOUT_EDGES)]
# Numbers that are infinite or NaN by definition, by the end of their names.
BY_DEFINITION = (
    "beta_nc",  # class means coincide, samples do not
    "relative_gap",  # of a loss whose lower bound is 0
    "load.margin",  # not stored
    "save.margin",
    "init.now.residual",  # not measured before the first step
    "init.now.gap_contribution",
)
WORLDS = {
    "zero rows": {"rows": ROWS["zero rows"]},
    "rows of 1e-160": {"rows": ROWS["rows of 1e-160"]},
    "rows of 1e160": {"rows": REFUSED_ROWS["rows of 1e160"]},
    "float16": {"rows": ROWS["numbers <f2"]},
    "big-endian": {"rows": ROWS["numbers >f8"]},
    "int8": {"rows": ROWS["whole numbers i1"]},
    "uint64, big-endian": {"rows": ROWS["whole numbers >u8"]},
    "masked": {"rows": REFUSED_ROWS["rows with masked entries"]},
    **PROBLEMS,
}


def numbers(thing, name):
    """All real numbers of a result, with the path to each."""
    if isinstance(thing, jax.Array) and jnp.issubdtype(thing.dtype, jax.dtypes.prng_key):
        return
    if isinstance(thing, (float, np.ndarray, np.generic, jax.Array)):
        array = np.asarray(thing)
        if np.issubdtype(array.dtype, np.inexact):
            yield name, array
    elif isinstance(thing, xr.Dataset):
        yield from numbers({key: column.values for key, column in thing.items()} | dict(thing.attrs), name)
    elif hasattr(thing, "toarray"):
        yield name, thing.toarray()
    elif dataclasses.is_dataclass(thing):
        for field in dataclasses.fields(thing):
            yield from numbers(getattr(thing, field.name), f"{name}.{field.name}")
    elif isinstance(thing, Mapping):
        for key, part in thing.items():
            yield from numbers(part, f"{name}.{key}")
    elif hasattr(thing, "_fields"):
        yield from numbers(thing._asdict(), name)
    elif isinstance(thing, (tuple, list, set, frozenset)) and not isinstance(thing, enum.Enum):
        for part in thing:
            yield from numbers(part, name)


def wrong_at(w, names):
    """Calls whose result is neither finite nor a refusal in one line."""
    for name in names:
        try:
            result = CALLS[name](w)
        except ufm.InvalidInput as refused:
            if len(str(refused).splitlines()) != 1:
                yield name, str(refused)
        else:
            yield from (path for path, array in numbers(result, name) if not is_finite(path, array))


def is_finite(path, array):
    return np.isfinite(array).all() or path.endswith(BY_DEFINITION)


def test_every_public_name_has_a_row():
    public = {name for name, _, _ in public_names()}
    assert set(CALLS) == public
    assert len(NAMES) + sum(name.startswith(WITHOUT_EDGES) for name in public) == len(public) >= 187
    assert all(any(name.startswith(prefix) for name in public) for prefix in WITHOUT_EDGES)


@pytest.mark.slow
@pytest.mark.parametrize("name", WORLDS)
def test_every_public_name_at_the_edges(name, tmp_path):
    assert list(wrong_at(World(tmp_path, **WORLDS[name]), NAMES)) == []


# What is said of a problem and of a point, without solving or certifying.
CHEAP = [name for name in NAMES if name.startswith("ufm.") and not name.startswith("ufm.samplers.")]


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["zero rows", "rows of 1e160", "masked", "one sample", "absent classes"])
def test_names_of_ufm_at_the_edges(name, tmp_path):
    assert list(wrong_at(World(tmp_path, **WORLDS[name]), CHEAP)) == []


@pytest.mark.slow
def test_names_of_ufm_at_2000_classes(tmp_path):
    samplers = [name for name in NAMES if name.startswith("ufm.samplers.")]
    assert list(wrong_at(World(tmp_path, **MANY), CHEAP + samplers)) == []
