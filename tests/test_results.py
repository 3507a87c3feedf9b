"""Results of a sweep as one dataset and as one table, from cells of this version and of earlier ones."""

import json

import numpy as np
import pytest
import xarray as xr

from experiments import results
from experiments.harness import store as stores
from experiments.harness.store import Store
from ufm import InvalidInput


def cell(R, inits, records=3, **attrs):
    values = R + np.arange(inits * records, dtype=float).reshape(inits, records)
    return xr.Dataset(
        {
            "excess": ("init", values[:, 0]),
            "iterations": ("init", np.arange(inits)),
            "verdict": ("init", np.array(["global minimiser"] * inits)),
            "history_excess": (("init", "record"), values),
            "best": ((), float(R)),
        },
        attrs={"R": R, "tau": 0.5, "k": 4, **attrs},
    )


@pytest.fixture
def folder(tmp_path):
    store = Store(tmp_path / "my runs")
    for name, (R, inits, records) in {"c": (10.0, 3, 3), "a": (100.0, 2, 5), "b": (1.0, 3, 2)}.items():
        files = {f"certificates/{name}-{s}.json": f"{name}{s}".encode() for s in range(inits)}
        store.write_cell(f"cells/{name}.nc", cell(R, inits, records, loss=f"loss {name}", n=int(4 * R)), files)
    return store.root


def test_cells_have_coordinates_and_no_attribute_of_digests(folder):
    stored = xr.load_dataset(folder / "cells/c.nc", engine="h5netcdf")
    assert (float(stored.R), float(stored.tau), stored.init.values.tolist()) == (10.0, 0.5, [0, 1, 2])
    assert set(stored.attrs) == {"R", "tau", "k", "loss", "n", "stored_as"}
    assert stored["file_sha256"].sel(file="certificates/c-1.json").item().isalnum()
    read = Store(folder).read_cell("cells/c.nc")
    assert "file" not in read.dims
    assert read.drop_vars(["R", "tau", "init"]).identical(cell(10.0, 3, 3, loss="loss c", n=40))


def test_a_cell_of_an_earlier_version_is_read(tmp_path):
    """Its digests are an attribute, and it has no coordinates."""
    store, earlier = Store(tmp_path), cell(7.0, 2)
    store.write_bytes("certificates/x.json", b"x")
    digests = {"certificates/x.json": stores._sha256(b"x")}
    named = earlier.assign_attrs(stored_as="cells/x.nc", stored_with=json.dumps(digests))
    content = bytes(named.to_netcdf(engine="h5netcdf"))
    store.write_bytes("cells/x.nc", content)
    store.write_bytes("cells/x.nc.sha256", stores._seal(content))
    read = store.read_cell("cells/x.nc")
    assert float(read.R) == 7.0
    assert read.drop_vars(["R", "tau", "init"]).identical(earlier)
    assert results.read(tmp_path)["R"].values.tolist() == [7.0]
    store.write_bytes("certificates/x.json", b"y")
    assert store.read_cell("cells/x.nc") is None


def test_one_dataset_of_all_cells(folder):
    data = results.read(folder)
    assert dict(data.sizes) == {"cell": 3, "init": 3, "record": 5}
    assert data["R"].values.tolist() == [1.0, 10.0, 100.0]
    assert data["tau"].values.tolist() == [0.5] * 3
    assert data["name"].values.tolist() == ["b.nc", "c.nc", "a.nc"]
    assert data.attrs == {"tau": 0.5, "k": 4}
    assert data["n"].values.tolist() == [4, 40, 400]
    assert data["loss"].values.tolist() == ["loss b", "loss c", "loss a"]
    assert data["best"].values.tolist() == [1.0, 10.0, 100.0]
    at_10 = data.swap_dims(cell="R").sel(R=10.0)
    assert np.array_equal(at_10["excess"], cell(10.0, 3)["excess"])
    assert np.isnan(data["excess"].values[2, 2])
    assert data["verdict"].values[2].tolist() == ["global minimiser"] * 2 + [""]
    assert np.isfinite(data["history_excess"].values).sum() == 3 * 2 + 3 * 3 + 2 * 5


def test_one_table_of_all_starts(folder):
    table = results.frame(folder)
    assert len(table) == 8
    assert table.groupby("R")["excess"].min().to_dict() == {1.0: 1.0, 10.0: 10.0, 100.0: 100.0}
    assert table.loc[table["R"] == 100.0, "init"].tolist() == [0, 1]
    assert table["iterations"].dtype.kind == "i"
    assert set(table.columns) == {"name", "R", "tau", "k", "n", "loss", "init", "excess", "iterations", "verdict"}
    with pytest.raises(InvalidInput, match="no cell has this dimension"):
        results.frame(folder, along="run")


def test_what_cannot_be_read_is_named(folder, tmp_path):
    with pytest.raises(InvalidInput, match="there is no cell"):
        results.read(tmp_path / "nowhere")
    path = folder / "cells/c.nc"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InvalidInput, match=r"c\.nc.*its checksum does not hold"):
        results.read(folder)
