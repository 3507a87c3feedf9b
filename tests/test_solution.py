"""Starts of one's own, the path of H, and solutions kept in files: round trips, and what is refused."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from problems import PROBLEMS, frame

import solvers
import ufm
from solvers.loop.method import COLUMNS
from solvers.loop.stopping import Status
from solvers.solution import FORMAT, histories

PROBLEM = PROBLEMS["two pairs"](d=3, tau=0.5)
H0 = np.abs(np.random.default_rng(0).standard_normal((2, 4, 3)))
H0 /= np.linalg.norm(H0, axis=-1, keepdims=True)


def solve(**options):
    return solvers.solve(PROBLEM, **{"method": "accelerated", "H0": H0, **options})


@pytest.fixture(scope="module")
def solution():
    """Two starts of one's own, their paths kept."""
    return solve(record_H=True)


@pytest.fixture
def saved(solution, tmp_path):
    solution.save(tmp_path / "solution.nc")
    return tmp_path / "solution.nc"


# Starts of one's own, and their path.


def test_the_path_leads_from_the_start_given_to_the_end(solution):
    assert len(solution.status) == 2
    for s, history in enumerate(solution.history):
        lines = int(solution.iterations[s]) + 1
        assert history.H.shape == (lines, 4, 3)
        np.testing.assert_array_equal(history.iteration, np.arange(lines))
        np.testing.assert_allclose(history.H[0], H0[s], atol=1e-15)
        np.testing.assert_array_equal(history.H[-1], solution.embedding(s))
        excess = [float(ufm.excess(H, PROBLEM)) for H in history.H]
        np.testing.assert_allclose(history.excess[[0, -1]], [excess[0], excess[-1]], rtol=1e-9, atol=1e-13)
        assert excess[-1] < 1e-9 < excess[0]
        assert (history.H >= 0).all()
        assert np.linalg.norm(history.H, axis=-1).max() <= 1 + 1e-12


@pytest.mark.parametrize(
    "start", [H0, H0.tolist(), jnp.asarray(H0), H0.astype(np.float32)], ids=lambda g: type(g).__name__
)
def test_a_start_may_be_any_real_array(start, solution):
    again = solve(H0=start, inits=2, record_H=True)
    tolerance = 1e-6 if getattr(start, "dtype", None) == np.float32 else 0
    for history, known in zip(again.history, solution.history, strict=True):
        np.testing.assert_allclose(history.H[0], known.H[0], atol=tolerance)


def test_a_single_start_is_one_of_several(solution):
    alone, beside = solve(H0=H0[1], record_H=True).history[0].H, solution.history[1].H
    np.testing.assert_allclose(alone[:3], beside[:3], atol=1e-12)
    np.testing.assert_allclose(alone[-1], beside[-1], atol=1e-6)


def test_a_start_outside_is_moved_into_the_feasible_set(solution):
    wide = solve(H0=np.array([[3.0, 0, 0], [-1, 2, 0], [0.1, -5, 0.2], [0, 0, -1]]), record_H=True).history[0].H[0]
    np.testing.assert_allclose(wide, [[1, 0, 0], [0, 1, 0], [0.1, 0, 0.2], [0, 0, 0]], atol=1e-15)


def test_a_start_at_a_minimiser_stays_there():
    ended = solve(H0=frame(PROBLEM), record_H=True)
    np.testing.assert_allclose(ended.embedding(0), frame(PROBLEM), atol=1e-12)
    assert ended.excess[0] < 1e-12


def test_the_staircase_starts_at_the_mean_of_each_orbit():
    rows = np.repeat(frame(PROBLEM)[[0, 2]], 2, axis=0)
    ended = solve(H0=np.stack([rows, rows]), method="staircase")
    assert all(history.H is None for history in ended.history)
    for H in ended.H:
        np.testing.assert_allclose(H @ H.T, rows @ rows.T, atol=1e-9)
    with pytest.raises(
        ufm.InvalidInput, match=r"^record_H = True: the staircase and random batches record no path of H"
    ):
        solve(method="staircase", record_H=True)


@pytest.mark.parametrize(
    ("start", "inits", "said"),
    [
        (
            H0[:, :3],
            None,
            r"H0 = 'array of shape \(2, 3, 3\)': give one row for each sample, shape \(4, 3\), or several",
        ),
        (H0[0].T, None, r"H0 = 'array of shape \(3, 4\)'"),
        (H0[0, 0], None, r"H0 = 'array of shape \(3,\)'"),
        (H0[None], None, r"H0 = 'array of shape \(1, 2, 4, 3\)'"),
        (H0[:0], None, r"H0 = 'array of shape \(0, 4, 3\)'"),
        (np.where(H0 > 0.9, np.nan, H0), None, "H0 = 'array with NaN or infinite entries': give finite numbers"),
        (np.full((4, 3), np.inf), None, "H0 = 'array with NaN or infinite entries'"),
        (H0 * 1j, None, "H0 = 'ndarray': give a real array"),
        (np.full((4, 3), "a"), None, "H0 = 'ndarray': give a real array"),
        ("start", None, "H0 = 'str': give a real array"),
        ([[0.0, 1.0], [1.0]], None, "H0 = 'list': give a real array"),
        (H0, 3, "inits = 3: the number of starts in H0 is 2; leave inits out"),
        (H0[0], 2, "inits = 2: the number of starts in H0 is 1; leave inits out"),
    ],
)
def test_what_is_no_start_is_one_line(start, inits, said, untyped):
    with pytest.raises(ufm.InvalidInput, match=f"^{said}") as refused:
        solve(H0=start, inits=inits)
    assert len(str(refused.value).splitlines()) == 1


# In a dataset, and in a file.


def test_as_a_dataset(solution):
    stored = solution.to_xarray()
    assert dict(stored.sizes) | {"record": 0} == {
        **{"init": 2, "row": 4, "coordinate": 3, "sample": 4, "batch": 1, "slot": 4, "record": 0}
    }
    known = {"format": FORMAT, "model": "UFM+", "nonneg": 1, "k": 2, "d": 3, "tau": 0.5, "n": 4, "inits": 2}
    assert {name: stored.attrs[name] for name in known} == known
    assert stored.attrs["loss_bound"] == float(ufm.loss_bound(PROBLEM))
    assert all(variable.attrs["long_name"] for variable in stored.data_vars.values())
    np.testing.assert_array_equal(stored["points"].values[:, stored["index"].values], solution.H)
    for name in (*COLUMNS, "H"):
        for s, history in enumerate(solution.history):
            column = stored[f"history_{name}"].values[s]
            lines = int(stored["records"][s])
            np.testing.assert_array_equal(column[:lines], getattr(history, name))
            assert (column[lines - 1 :] == column[lines - 1]).all()


@pytest.mark.parametrize("kind", ["own starts, path kept", "staircase", "batches, without ReLU", "multiplicities"])
def test_what_is_saved_is_loaded(kind, solution, tmp_path):
    if kind == "staircase":
        solution = solve(method="staircase", H0=None, inits=2)
    if kind == "batches, without ReLU":
        batches = [[0, 1, 2], [3, 1], [2]]
        problem = ufm.Problem([0, 0, 1, 1], 3, 0.5, batches, nonneg=False)
        solution = dataclasses.replace(solution, problem=problem, status=(Status.CONVERGED, Status.OUT_OF_TIME))
    if kind == "multiplicities":
        problem = ufm.Problem([0, 0, 1, 1], 3, 0.5, multiplicity=[1, 2, 3, 0])
        solution = dataclasses.replace(solution, problem=problem)
    solution.save(tmp_path / "solution.nc")
    loaded = solvers.Solution.load(tmp_path / "solution.nc")
    assert_equal(loaded, solution)
    loaded.save(tmp_path / "again.nc")
    assert_equal(solvers.Solution.load(str(tmp_path / "again.nc")), solution)
    assert repr(loaded) == repr(solution)


def assert_equal(one, other):
    assert one.status == other.status
    assert one.timings == other.timings
    for name in ("points", "index", "excess", "residual", "iterations", "lifts", "moved"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for record, its in zip(one.history, other.history, strict=True):
        for name, column in record._asdict().items():
            expected = getattr(its, name)
            assert (column is None) == (expected is None)
            if column is not None:
                np.testing.assert_array_equal(column, expected)
    for name in ("labels", "multiplicity", "batches", "tau", "d", "k", "nonneg"):
        np.testing.assert_array_equal(getattr(one.problem, name), getattr(other.problem, name))


def test_any_reader_of_netcdf_opens_the_file(saved, solution):
    with xr.open_dataset(saved, engine="h5netcdf") as opened:
        np.testing.assert_array_equal(opened["excess"].values, solution.excess)


def test_a_history_that_ended_early_repeats_its_last_record(solution):
    short = solution.history[0]._replace(**{name: getattr(solution.history[0], name)[:2] for name in (*COLUMNS, "H")})
    columns = histories((short, solution.history[1]))
    lines = len(solution.history[1].iteration)
    assert columns["H"].shape == (2, lines, 4, 3)
    assert (columns["H"][0, 1:] == short.H[1]).all()
    assert (columns["excess"][0, 1:] == short.excess[1]).all()
    without = histories((short._replace(H=None), solution.history[1]))
    assert "H" not in without


def refused(path):
    with pytest.raises(ufm.InvalidInput, match=r"^path = .*: not a readable solution") as error:
        solvers.Solution.load(path)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.7, 0.999])
def test_a_file_cut_short_is_no_solution(share, saved):
    content = saved.read_bytes()
    saved.write_bytes(content[: math.floor(share * len(content))])
    refused(saved)


@pytest.mark.parametrize("seed", range(20))
def test_no_damaged_byte_is_overlooked(seed, saved):
    content = bytearray(saved.read_bytes())
    rng = np.random.default_rng(seed)
    content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
    saved.write_bytes(bytes(content))
    refused(saved)


def test_what_is_longer_than_it_was_is_no_solution(saved):
    saved.write_bytes(saved.read_bytes() + b"\0")
    refused(saved)


def resealed(stored, path):
    """A forged file, its seal made anew."""
    from solvers.files import sealed

    content = bytes(stored.to_netcdf(engine="h5netcdf"))
    path.write_bytes(sealed(content))


@pytest.mark.parametrize(
    "forge",
    [
        lambda stored: stored.drop_vars("points"),
        lambda stored: stored.drop_vars("history_excess"),
        lambda stored: stored.assign_attrs(format="ufm-scl solution 0"),
        lambda stored: xr.Dataset(stored.data_vars, stored.coords),
        lambda stored: stored.assign_attrs(tau=-1.0),
        lambda stored: stored.assign_attrs(d="three"),
        lambda stored: stored.assign_attrs(d=4),
        lambda stored: stored.assign(status=("init", ["converged", "content"])),
        lambda stored: stored.assign(label=("sample", [0, 0, 2, 2])),
        lambda stored: stored.assign(index=("sample", [0, 1, 2, 4])),
        lambda stored: stored.assign(index=("sample", [0, 1, 2, -1])),
        lambda stored: stored.isel(sample=slice(3)),
        lambda stored: xr.Dataset({"gram": ("init", [1.0])}),
    ],
    ids=range(13),
)
def test_what_is_no_solution_is_refused_even_with_a_seal(forge, solution, tmp_path):
    resealed(solution.to_xarray(), tmp_path / "same.nc")
    assert_equal(solvers.Solution.load(tmp_path / "same.nc"), solution)
    resealed(forge(solution.to_xarray()), tmp_path / "forged.nc")
    refused(tmp_path / "forged.nc")


@pytest.mark.parametrize(
    "content", [b"", b"text\n", b"\x89HDF\r\n\x1a\n", b"\x89HDF\r\n\x1a\n" + bytes(500), b"{}" * 99]
)
def test_other_files_are_no_solutions(content, tmp_path):
    (tmp_path / "other.nc").write_bytes(content)
    refused(tmp_path / "other.nc")


def test_what_is_not_there_is_no_solution(tmp_path, untyped):
    for path in (tmp_path / "none.nc", tmp_path, "a\0b", 7):
        refused(path)
