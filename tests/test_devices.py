"""Several devices give what one gives: starts shared out, or the samples of one start."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from on_devices import computed

import ufm
from solvers.parallel.devices import holds_whole

pytestmark = pytest.mark.thorough

PROGRAM = Path(__file__).with_name("on_devices.py")


@pytest.mark.parametrize(
    ("devices", "cases"),
    [
        (4, ["full_batch"]),
        pytest.param(4, ["families"], marks=pytest.mark.slow),
        pytest.param(3, ["families", "other_numbers_of_starts", "all_samples"], marks=pytest.mark.slow),
        pytest.param(4, ["samples_of_families"], marks=pytest.mark.slow),
        pytest.param(3, ["samples_of_families"], marks=pytest.mark.slow),
    ],
)
def test_several_devices_give_what_one_gives(tmp_path, devices, cases):
    path = tmp_path / "there.npz"
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    program, stored = [sys.executable, PROGRAM, path, *cases], {**os.environ, "XLA_FLAGS": flags}
    with subprocess.Popen(program, stderr=subprocess.PIPE, text=True, env=stored) as process:
        here = computed(cases)
        complaint = process.communicate()[1]
    assert process.returncode == 0, complaint
    with np.load(path) as there:
        assert set(there) == set(here)
        for name, value in here.items():
            if value.dtype.kind == "f":
                np.testing.assert_allclose(there[name], value, rtol=1e-10, atol=1e-10, err_msg=name)
            else:
                np.testing.assert_array_equal(there[name], value, err_msg=name)


def test_a_bad_size_is_named(monkeypatch):
    monkeypatch.setenv("UFM_SCL_DEVICE_ENTRIES", "many")
    with pytest.raises(ufm.InvalidInput, match=r"^UFM_SCL_DEVICE_ENTRIES = 'many'"):
        holds_whole(1)
