"""Metrics of geometry at frames that are known, and against their definitions in plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ufm
from ufm.model.geometry import between

compiled = jax.jit(ufm.geometry_metrics, static_argnames="k")


def metrics_of(H, labels, multiplicity=None):
    """Compiled: operation by operation, every new shape would compile fifty small programs."""
    return compiled(H, labels, k=int(labels.max()) + 1, multiplicity=multiplicity)


def plain(H, labels, multiplicity=None):
    """Straight from the definitions, with the pseudo-inverse of NumPy."""
    origin = np.repeat(np.arange(len(labels)), np.ones(len(labels), int) if multiplicity is None else multiplicity)
    H, labels = np.asarray(H)[origin], np.asarray(labels)[origin]
    k = labels.max() + 1
    M = np.stack([H[labels == c].mean(axis=0) for c in range(k)])
    G = M @ M.T
    within = sum(np.outer(h - M[c], h - M[c]) for h, c in zip(H, labels, strict=True)) / len(H)
    centred = M - M.mean(axis=0)
    between = centred.T @ centred / k
    norms = np.linalg.norm(M, axis=1)
    cosines = [G[a, b] / norms[a] / norms[b] for a, b in oracles.pairs(k)]
    return {
        "delta_gm": np.linalg.norm(G / np.linalg.norm(G) - np.eye(k) / np.sqrt(k)),
        "beta_nc": np.trace(within @ np.linalg.pinv(between, rcond=1e-12)) / k,
        "trace_sw": np.trace(within),
        "mean_cosine": np.mean(cosines),
        "max_cosine": np.max(cosines),
        "gram": G,
    }


@pytest.mark.parametrize("d", [2, 3, 7])
@pytest.mark.parametrize("multiplicity", [None, [2, 1, 5, 3, 1, 1, 4, 1]])
def test_against_the_definitions(d, multiplicity):
    labels = np.array([0, 1, 2, 3, 0, 1, 1, 3])
    H = jnp.asarray(np.random.default_rng(d).normal(size=(8, d)))
    weight = None if multiplicity is None else jnp.asarray(multiplicity, dtype=float)
    metrics = metrics_of(H, jnp.asarray(labels), multiplicity=weight)
    for name, value in plain(H, labels, multiplicity).items():
        np.testing.assert_allclose(getattr(metrics, name), value, rtol=1e-10, atol=1e-13, err_msg=name)


@given(st.integers(0, 2**31))
def test_samples_that_spread_about_a_row_count_by_their_second_moments(seed):
    """Metrics of the rows with the moments of what they stand for are those of all samples."""
    rng = np.random.default_rng(seed)
    k, each, rows = 3, 4, 6  # two rows a class, four samples a row, spread in the span of the axes alone
    centres = rng.standard_normal((rows, k))
    about = rng.standard_normal((rows, each, k))
    about -= about.mean(axis=1, keepdims=True)
    labels = np.arange(rows) % k
    samples = (centres[:, None] + about).reshape(-1, k)
    whole = ufm.geometry_metrics(samples, np.repeat(labels, each), k=k)
    axes = between(jnp.stack([centres[labels == c].mean(axis=0) for c in range(k)])).axes
    spread = jnp.sum((about.reshape(-1, k) @ axes.T) ** 2, axis=0)
    of_rows = ufm.geometry_metrics(centres, labels, k=k, multiplicity=np.full(rows, each), spread=spread)
    np.testing.assert_allclose(of_rows.beta_nc, whole.beta_nc, rtol=1e-7)
    np.testing.assert_allclose(of_rows.trace_sw, whole.trace_sw, rtol=1e-12)
    np.testing.assert_allclose(of_rows.delta_gm, whole.delta_gm, rtol=1e-12)


def test_an_orthogonal_frame_of_any_size():
    labels = jnp.asarray([0, 0, 1, 2, 2, 2])
    metrics = metrics_of(0.3 * jnp.eye(3, 5)[labels], labels)
    assert metrics.delta_gm == pytest.approx(0, abs=1e-15)
    assert metrics.beta_nc == pytest.approx(0, abs=1e-30)
    assert metrics.mean_cosine == metrics.max_cosine == 0
    np.testing.assert_allclose(metrics.gram, 0.09 * np.eye(3), rtol=1e-15, atol=1e-17)


def test_a_spread_outside_the_span_of_the_means_is_seen_by_trace_sw_alone():
    """The means of classes 0 and 1 differ along e_1 - e_2 only, their samples from them along e_3 and e_4 only."""
    H = jnp.asarray([[1, 0, 0.5, 0], [1, 0, 0, 0.5], [0, 1, 0.5, 0], [0, 1, 0, 0.5]])
    metrics = metrics_of(H, jnp.asarray([0, 0, 1, 1]))
    assert metrics.beta_nc == 0
    assert metrics.trace_sw == 0.125  # every sample is (1/4, -1/4) away, in the last two coordinates


def test_a_simplex_and_two_merged_minorities():
    simplex = jnp.eye(4) - 0.25
    metrics = metrics_of(simplex, jnp.arange(4))
    assert metrics.mean_cosine == pytest.approx(-1 / 3)
    # ||I - 1/4||_F^2 = 3 for the Gram, whose inner product with I is 3.
    assert metrics.delta_gm == pytest.approx(np.sqrt(2 - 2 * 3 / np.sqrt(3 * 4)))

    merged = jnp.eye(10)[jnp.asarray([0, 1, 2, 3, 4, 5, 6, 7, 8, 8])]
    metrics = metrics_of(merged, jnp.arange(10))
    assert metrics.delta_gm == pytest.approx(np.sqrt(2 - 2 * 10 / np.sqrt(12 * 10)))
    assert metrics.delta_gm == pytest.approx(0.417, abs=1e-3)
    assert metrics.max_cosine == pytest.approx(1.0)


@pytest.mark.parametrize("row", [[1.0, 0.0, 0.0], [0.1, 0.7, 0.2], [0.0, 0.0, 0.0]])
def test_coinciding_class_means(row):
    labels = jnp.asarray([0, 0, 0, 1, 1, 1])
    same = jnp.tile(jnp.asarray(row), (6, 1))
    assert metrics_of(same, labels).beta_nc == 0
    offset = jnp.asarray([[0.1, 0, 0], [-0.1, 0, 0], [0, 0, 0], [0, 0.3, 0], [0, -0.3, 0], [0, 0, 0]])
    spread = metrics_of(same + offset, labels)
    assert spread.beta_nc == np.inf
    assert not np.isnan(spread.delta_gm)


def test_a_dead_class_has_cosine_zero_with_all():
    metrics = metrics_of(jnp.asarray([[1.0, 0.0], [0.0, 0.0], [1.0, 0.0]]), jnp.asarray([0, 1, 2]))
    assert metrics.max_cosine == 1
    assert metrics.mean_cosine == pytest.approx(1 / 3)


@pytest.mark.parametrize("scale", [1e200, 1e-200, 1.7e308, 1e-300])
def test_scale_is_irrelevant_and_never_nan(scale):
    labels = jnp.asarray([0, 0, 1, 1, 2, 2])
    H = np.abs(np.random.default_rng(0).uniform(0, 1, (6, 4)))
    at, scaled = metrics_of(jnp.asarray(H), labels), metrics_of(jnp.asarray(H * scale), labels)
    for name in ("delta_gm", "beta_nc", "mean_cosine", "max_cosine"):
        np.testing.assert_allclose(getattr(scaled, name), getattr(at, name), rtol=1e-9, err_msg=name)
    assert not np.isnan(scaled.gram).any()


def test_all_zero_rows():
    metrics = metrics_of(jnp.zeros((4, 3)), jnp.asarray([0, 0, 1, 1]))
    assert metrics.delta_gm == pytest.approx(1)
    assert metrics.beta_nc == 0
    assert metrics.mean_cosine == metrics.max_cosine == 0


@given(st.integers(0, 10**6))
def test_invariant_under_rotation_and_relabelling(seed):
    rng = np.random.default_rng(seed)
    labels = np.array([0, 0, 1, 1, 2, 2, 2])
    H = rng.normal(size=(7, 4))
    Q, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    rename = rng.permutation(3)
    at = metrics_of(jnp.asarray(H), jnp.asarray(labels))
    turned = metrics_of(jnp.asarray(H @ Q), jnp.asarray(rename[labels]))
    for name in ("delta_gm", "beta_nc", "mean_cosine", "max_cosine"):
        np.testing.assert_allclose(getattr(turned, name), getattr(at, name), rtol=1e-8, atol=1e-12, err_msg=name)


def test_under_vmap():
    labels = jnp.asarray([0, 1, 2, 0])
    H = jnp.asarray(np.random.default_rng(0).normal(size=(5, 4, 3)))
    many = jax.jit(jax.vmap(lambda X: ufm.geometry_metrics(X, labels, k=3)))(H)
    for i in range(5):
        np.testing.assert_allclose(many.beta_nc[i], metrics_of(H[i], labels).beta_nc, rtol=1e-12)


def test_one_class_has_no_geometry():
    with pytest.raises(ufm.InvalidInput, match=r"^k = 1: .*2 classes"):
        ufm.geometry_metrics(jnp.ones((2, 2)), jnp.asarray([0, 0]))
    assert ufm.geometry_metrics(jnp.eye(2), jnp.asarray([0, 1])).delta_gm == 0
