"""Class profiles: their definition, their ends, and bad input."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ufm

PROFILES = [ufm.step_imbalance, ufm.long_tail_imbalance]


def test_step():
    assert ufm.step_imbalance(4, 5, 10).tolist() == [50, 50, 5, 5]
    assert ufm.step_imbalance(5, 2, 3).tolist() == [6, 6, 6, 2, 2]
    assert ufm.step_imbalance(2, 1, 1.5).tolist() == [2, 1]


def test_long_tail():
    assert ufm.long_tail_imbalance(3, 5, 100).tolist() == [500, 50, 5]
    assert ufm.long_tail_imbalance(2, 3, 7).tolist() == [21, 3]


@given(k=st.integers(2, 30), n_min=st.integers(1, 50), R=st.floats(1, 1000))
@pytest.mark.parametrize("profile", PROFILES)
def test_profiles_fall_from_R_n_min_to_n_min(profile, k, n_min, R):
    sizes = profile(k, n_min, R)
    assert sizes.shape == (k,)
    assert np.issubdtype(sizes.dtype, np.integer)
    assert (np.diff(sizes) <= 0).all()
    assert sizes[-1] == n_min
    assert abs(sizes[0] - R * n_min) <= 0.5 + 1e-9 * R * n_min


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("profile", PROFILES)
def test_balanced_at_R_1_and_numpy_numbers(profile):
    assert profile(np.int64(4), np.int32(3), np.float64(1)).tolist() == [3, 3, 3, 3]


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(
    ("argument", "value"),
    [("k", v) for v in (1, 0, -3, 2.0, 2.5, float("nan"), "ten", None, True)]
    + [("n_min", v) for v in (0, -1, 1.0, float("inf"), "five", None, True)]
    + [("R", v) for v in (0, -5, 0.5, float("nan"), float("inf"), "ten", None, True, 1e12, 10**400)],
    ids=lambda value: repr(value)[:20],
)
def test_bad_input_is_one_line_naming_the_argument(profile, argument, value):
    good = {"k": 3, "n_min": 5, "R": 10}
    with pytest.raises(ufm.InvalidInput) as caught:
        profile(**{**good, argument: value})
    assert caught.value.argument == argument
    assert str(caught.value).startswith(f"{argument} = ")
    assert "\n" not in str(caught.value)
