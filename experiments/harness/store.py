"""Results on disk: cells as netCDF with a checksum beside them, tables as CSV; every write is atomic."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from experiments.harness.lock import locked
from solvers.files import write_atomically
from ufm.errors import InvalidInput

# An attribute of a stored cell: its own name. A variable: the digests of the files that belong to it, by file name;
# cells of earlier versions have them as an attribute.
NAME, DIGESTS, FORMER_DIGESTS = "stored_as", "file_sha256", "stored_with"
# Attributes that a stored cell has as scalar coordinates too.
COORDINATES = ("R", "tau")


class Store:
    """A directory of results. Raises InvalidInput if it cannot be made or written to."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._note: Callable[[Path], None] | None = None
        try:
            root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=root):
                pass
        except OSError as error:
            raise InvalidInput("out", str(root), f"give a directory that can be written ({error.strerror})") from None

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes out, and remove the temporary file that a killed one left.

        Raises InvalidInput, naming the owner, if another process is in.
        """
        with locked(self.root) as self._note:
            try:
                yield
            finally:
                self._note = None

    def path(self, name: str) -> Path:
        """Where a file of this name belongs; its directory exists."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write_bytes(self, name: str, content: bytes) -> Path:
        """A reader sees all of it or nothing. Raises OSError, naming the file, if it cannot be written."""
        path = self.path(name)
        write_atomically(path, content, self._note)
        return path

    def write_json(self, name: str, content: Any) -> Path:
        """Indented JSON, keys in the order given."""
        return self.write_bytes(name, (json.dumps(content, indent=2) + "\n").encode())

    def read_json(self, name: str) -> Any:
        """What `write_json` wrote; None if there is none, or it cannot be read."""
        try:
            return json.loads((self.root / name).read_bytes())
        except (OSError, ValueError, RecursionError):
            return None

    def remove(self, names: Iterable[str]) -> None:
        """Remove those of these files that are there."""
        for name in names:
            (self.root / name).unlink(missing_ok=True)

    def write_csv(self, name: str, rows: Iterable[Mapping[str, Any]]) -> Path:
        """One line a row; the columns are those of the first row. Floats are written to round-trip."""
        rows = list(rows)
        lines = []

        class _Lines:
            def write(self, text: str) -> None:
                lines.append(text)

        writer = csv.DictWriter(_Lines(), fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return self.write_bytes(name, "".join(lines).encode())

    def write_cell(self, name: str, cell: xr.Dataset, files: Mapping[str, bytes] | None = None) -> Path:
        """A dataset as netCDF, after the files that belong to it; its sha256 is written last and stands for "complete".

        The cell holds its own name and the digests of its files: a cell moved to another's name is no cell of that
        name, and one whose files were lost or changed is not complete. It gets coordinates (`with_coordinates`).
        """
        for file, content in (files or {}).items():
            self.write_bytes(file, content)
        digests = [_sha256(content) for content in (files or {}).values()]
        named = with_coordinates(cell).assign_attrs({NAME: name})
        if files:
            named = named.assign({DIGESTS: ("file", digests)}).assign_coords(file=list(files))
        content = bytes(named.to_netcdf(engine="h5netcdf"))
        path = self.write_bytes(name, content)
        self.write_bytes(f"{name}.sha256", _seal(content))
        return path

    def read_cell(self, name: str) -> xr.Dataset | None:
        """A dataset written by `write_cell`, or None if it is missing or unusable; an unusable one is reported."""
        path, seal = self.root / name, self.root / f"{name}.sha256"
        if not path.exists():
            return None
        try:
            cell, digests = opened(path, seal, name)
            for file, stated in digests.items():
                if _sha256((self.root / file).read_bytes()) != stated:
                    raise _UnusableError(f"{file} is not the one written with it")
        except Exception as error:  # whatever a damaged file raises
            reason = " ".join(str(error).split()) or type(error).__name__
            print(f"{path} is not used and made again: {reason}", file=sys.stderr)
            return None
        return cell


class _UnusableError(Exception):
    """Why a file is no stored cell."""


def with_coordinates(cell: xr.Dataset) -> xr.Dataset:
    """The cell with scalar coordinates R and tau, where its attributes have them, and a coordinate init of starts."""
    numbers = {name: cell.attrs.get(name) for name in COORDINATES if name not in {*cell.variables, *cell.dims}}
    known = {name: float(value) for name, value in numbers.items() if isinstance(value, (int, float, np.number))}
    starts = {"init": range(cell.sizes["init"])} if "init" in cell.dims and "init" not in cell.coords else {}
    return cell.assign_coords({**known, **starts})


def opened(path: Path, seal: Path, name: str) -> tuple[xr.Dataset, dict[str, str]]:
    """A dataset, sealed and of this name, and the digests of its files; nothing is parsed before the seal is checked.

    Raises an exception, which says what is wrong with the file.
    """
    content = path.read_bytes()
    if not seal.is_file():
        raise _UnusableError("no checksum is beside it")
    if seal.read_bytes() != _seal(content):
        raise _UnusableError("its checksum does not hold")
    try:
        with xr.open_dataset(io.BytesIO(content), engine="h5netcdf") as cell:
            cell.load()
    except Exception:
        raise _UnusableError("it is no netCDF file") from None
    if cell.attrs.get(NAME) != name:
        raise _UnusableError(f"it was stored as {cell.attrs.get(NAME, 'something else')}")
    del cell.attrs[NAME]
    digests = json.loads(cell.attrs.pop(FORMER_DIGESTS, "{}"))
    if DIGESTS in cell:
        digests = dict(zip(cell["file"].values.tolist(), cell[DIGESTS].values.tolist(), strict=True))
        cell = cell.drop_vars([DIGESTS, "file"])
    return with_coordinates(cell), digests


def _seal(content: bytes) -> bytes:
    return f"{_sha256(content)}\n".encode()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def digest(content: Any) -> str:
    """Sixteen hexadecimal digits that name a configuration."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
