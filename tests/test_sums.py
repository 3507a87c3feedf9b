"""Sums over groups of rows: both ways add the same rows."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ufm.model import sums
from ufm.model.sums import grouped_sum


@given(st.lists(st.integers(-1, 4), min_size=1, max_size=30), st.sampled_from([(), (1,), (3,), (2, 2)]))
def test_products_and_scatters_add_the_same_rows(groups, shape):
    group = np.array(groups, np.int32)
    values = np.random.default_rng(len(groups)).standard_normal((len(group), *shape))
    expected = np.zeros((5, *shape))
    np.add.at(expected, group[group >= 0], values[group >= 0])
    for most in (0, sums.MOST_ENTRIES):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sums, "MOST_ENTRIES", most)
            result = grouped_sum(jnp.asarray(values), jnp.asarray(group), 5)
        assert result.shape == expected.shape
        np.testing.assert_allclose(result, expected, rtol=1e-13, atol=1e-13)
