"""Proved bounds of cosines as arrays: they hold at minimisers, and for every point of no larger loss if asked for."""

import jax.numpy as jnp
import numpy as np
import pytest
from problems import frame, step

import solvers
import ufm
from solvers.certification.certificate import Certificate
from solvers.certification.certifier import Certifier


def cosines(H, problem):
    means = np.stack([H[np.asarray(problem.labels) == c].mean(axis=0) for c in range(problem.k)])
    norms = np.linalg.norm(means, axis=1, keepdims=True)
    return means @ means.T / (norms * norms.T)


def within(bounds, measured, slack=1e-9):
    least, largest = bounds
    return (least - slack <= measured).all() and (measured <= largest + slack).all()


def off_diagonal(matrix):
    return matrix[~np.eye(len(matrix), dtype=bool)]


def test_zeros_where_the_frame_is_the_only_minimiser(tmp_path):
    problem = step(4, 10, 0.5)
    spoilt = np.abs(frame(problem) + 1e-4 * np.random.default_rng(0).normal(size=(problem.num_points, problem.d)))
    spoilt /= np.linalg.norm(spoilt, axis=1, keepdims=True)
    for H in (frame(problem), spoilt):
        certificate = solvers.certify(H, problem, conic=False)
        assert certificate.unique is True
        for bounds in certificate.cosine_bounds():
            assert np.array_equal(bounds, np.eye(4))
        bounds = certificate.cosine_bounds(no_larger_loss=True)
        assert np.array_equal(bounds[0], np.eye(4))
        assert (off_diagonal(bounds[1]) > 0).all()
        assert within(bounds, cosines(frame(problem), problem), 0)
    certificate.save(tmp_path / "c.json")
    loaded = Certificate.load(tmp_path / "c.json")
    for no_larger_loss in (False, True):
        pairs = zip(
            loaded.cosine_bounds(no_larger_loss=no_larger_loss),
            certificate.cosine_bounds(no_larger_loss=no_larger_loss),
            strict=True,
        )
        assert all(np.array_equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("nonneg", [True, False])
def test_every_minimiser_and_every_point_of_no_larger_loss_is_within(nonneg):
    """Points near a spoilt minimiser: those of no larger loss meet the wider bounds, the minimiser meets both."""
    problem, rng = step(4, 5, 0.5, nonneg=nonneg), np.random.default_rng(1)
    certifier = Certifier(problem, conic=False)
    best = certifier.better.placed()[np.asarray(problem.labels)]

    def feasible(H):
        H = np.maximum(H, 0) if nonneg else H
        return H / np.maximum(np.linalg.norm(H, axis=1, keepdims=True), 1)

    spoilt = feasible(best + 1e-3 * rng.normal(size=(problem.k, problem.d))[np.asarray(problem.labels)])
    certificate = certifier.certify(spoilt)
    assert within(certificate.cosine_bounds(), cosines(best, problem))
    bounds, seen = certificate.cosine_bounds(no_larger_loss=True), 0
    assert (off_diagonal(bounds[1] - bounds[0]) < 1).any()
    for _ in range(200):
        H = feasible(best + 10.0 ** rng.uniform(-5, -2) * rng.normal(size=best.shape))
        if float(ufm.scl_loss(jnp.asarray(H), problem)) <= certificate.upper:
            seen += 1
            assert within(bounds, cosines(H, problem))
    assert seen > 20


def test_of_ufm_they_are_those_implied():
    problem = step(4, 10, 0.5, nonneg=False)
    certifier = Certifier(problem, conic=False)
    certificate = certifier.certify(certifier.better.placed()[np.asarray(problem.labels)])
    least, largest = certificate.cosine_bounds()
    assert np.array_equal(
        largest, np.minimum(np.array(certificate.implied.cosine), np.array(certificate.implied.cosine).T)
    )
    assert off_diagonal(largest - least).max() < 1e-3
    assert off_diagonal(least).min() < 0


def test_several_minimisers_are_all_within():
    """Without uniqueness there is no zero: the other minimiser is within the bounds as well."""
    problem = ufm.Problem([0, 0, 1, 1, 2, 2], 4, 0.5, [[0, 1, 2, 3], [4, 5]])
    certificate = solvers.certify(frame(problem), problem, conic=False)
    assert certificate.unique is False
    least, largest = certificate.cosine_bounds()
    assert np.array_equal(least, np.eye(3))
    assert largest[0, 1] < 1e-6
    assert largest[0, 2] == largest[1, 2] == 1
    other = np.eye(4)[[0, 0, 1, 1, 0, 0]]  # class 2 meets no other class
    assert float(ufm.excess(jnp.asarray(other), problem)) == 0
    assert within((least, largest), cosines(other, problem))


def test_trivial_where_nothing_is_implied():
    problem = ufm.Problem([0, 0, 1, 1], 3, 0.5, [[0, 1, 2], [1, 2, 3]], nonneg=False)
    certificate = solvers.certify(frame(problem), problem, conic=False)
    assert certificate.implied is None
    least, largest = certificate.cosine_bounds()
    assert np.array_equal(least, [[1, -1], [-1, 1]])
    assert np.array_equal(largest, np.ones((2, 2)))
