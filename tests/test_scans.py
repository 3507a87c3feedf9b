"""Long scans: the same numbers piece by piece, shown while they last, stopped at once."""

import numpy as np
import pytest

import ufm
from solvers import measurement, progress
from solvers.certification import scans
from solvers.certification.verification import verify
from solvers.measurement import measure, measure_all
from solvers.progress import Stopped, followed


def plain_across(rows, labels):
    norms = np.linalg.norm(rows, axis=1)
    units = rows / np.where(norms > 0, norms, 1)[:, None]
    cosines = np.where(labels[:, None] == labels, 0, np.abs(units @ units.T))
    return cosines.max()


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("spread", [0.0, 1e-9, 1e-2, 10.0])
def test_the_worst_cosine_is_that_of_all_pairs(seed, spread, monkeypatch):
    monkeypatch.setattr(scans, "BLOCK_ENTRIES", 64)
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.concatenate([np.arange(4), rng.integers(0, 4, 96)]))
    rows = np.eye(6)[labels] + spread * rng.standard_normal((100, 6))
    rows[rng.integers(0, 100, 3)] = 0
    message = []
    worst = scans.worst_across(rows, labels, lambda *said: message.append(said))
    assert np.isclose(abs(worst.value), plain_across(rows, labels), rtol=0, atol=1e-12)
    (i, j), (c, e) = worst.samples, worst.classes
    assert (labels[i], labels[j]) == (c, e)
    assert c != e or worst.value == 0
    assert np.isclose(message[-1][1], message[-1][2])


def test_collapsed_classes_need_few_pairs(monkeypatch):
    """Frames: one block beside each class, whatever n."""
    labels = np.repeat(np.arange(5), 2000)
    looked = []
    scans.worst_across(np.eye(5)[labels], labels, lambda what, done, total: looked.append(done))
    assert len(looked) <= 2 * 5


@pytest.mark.few(1)
@pytest.mark.parametrize("family", ["full", "partition", "unequal"])
def test_pieces_add_up_to_the_whole(family, monkeypatch):
    rng = np.random.default_rng(0)
    labels = np.concatenate([np.arange(3), rng.integers(0, 3, 297)])
    batches = {
        "full": None,
        "partition": ufm.batching.partition(300, 40, 0),
        "unequal": [rng.choice(300, size, replace=False) for size in (5, 200, 90, 31)],
    }[family]
    problem = ufm.Problem(labels, 5, 0.5, batches)
    H = np.abs(rng.standard_normal((300, 5)))
    H /= np.linalg.norm(H, axis=1, keepdims=True)
    whole, points, spread = measure(H, problem), np.stack([H, H[::-1]]), np.array([[0.1, 0.2, 0.3], [0.0, 1.0, 2.0]])
    several = measure_all(points, problem, spread=spread)
    monkeypatch.setattr("ufm.model.evaluation.BLOCK_ENTRIES", 2**13)
    for piece in (10, 3000, 10_000):
        monkeypatch.setattr(measurement, "PIECE", piece)
        monkeypatch.setattr(measurement._part, "begun", {})
        message = []
        parts = measure(H, problem, progress=lambda *said, message=message: message.append(said))
        assert np.isclose(parts.loss, whole.loss, rtol=1e-12)
        assert np.isclose(parts.excess, whole.excess, rtol=1e-12)
        assert np.allclose(parts.residuals, whole.residuals, rtol=1e-9, atol=1e-12)
        assert len(message) > 1
        assert np.isclose(message[-1][1], message[-1][2])
        also = measure_all(points, problem, spread=spread)
        np.testing.assert_allclose(also.excess, several.excess, rtol=1e-12)
        np.testing.assert_allclose(also.metrics.beta_nc, several.metrics.beta_nc, rtol=1e-9)


def test_ctrl_c_ends_a_scan_with_what_it_was_doing(monkeypatch):
    monkeypatch.setattr(measurement, "PIECE", 1000)
    problem = ufm.Problem.from_class_sizes([200, 200], d=3)
    H = np.abs(np.random.default_rng(0).standard_normal((400, 3)))
    H /= np.linalg.norm(H, axis=1, keepdims=True)

    def interrupt(what, done, total):
        raise KeyboardInterrupt

    with pytest.raises(Stopped, match=r"pairs of samples: stopped at .*%; nothing was decided"):
        verify(H, problem, progress=interrupt)
    assert issubclass(Stopped, KeyboardInterrupt)


def test_a_bar_is_shown_on_a_terminal_after_a_moment(monkeypatch, capsys):
    monkeypatch.setattr(progress, "PATIENCE", -1.0)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    seen = []
    followed(seen.append, ((i, 1.0) for i in range(5)), "counting", 5.0)
    assert seen == list(range(5))
    assert "counting" in capsys.readouterr().err
