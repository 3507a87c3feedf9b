"""Starts on their way, kept in a file: a run that was stopped goes on to the same result, bit for bit."""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from solvers.descent.method import COLUMNS, Record
from solvers.descent.walks import Walks
from solvers.files import write_atomically
from ufm.errors import InvalidInput

TOLD = "of"


@dataclass(frozen=True)
class Kept:
    """A file of one call, told from others' by `told`: a pytree of arrays, and values that print all they are."""

    path: Path
    told: Any

    def write(self, state: Walks, lines: list[Record]) -> None:
        """All of it in one atomic step. Raises OSError, naming the file, if it cannot be written."""
        content = io.BytesIO()
        columns = {name: np.stack([getattr(line, name) for line in lines]) for name in COLUMNS}
        leaves = {f"leaf{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}
        named: dict[str, Any] = {TOLD: np.array(self._digest()), **columns, **leaves}
        np.savez(content, **named)
        write_atomically(self.path, content.getvalue())

    def read(self, begun: Walks) -> tuple[Walks, list[Record]]:
        """The starts as they were, and the lines so far; those given, and none, if there is no file.

        Raises InvalidInput for a file that is damaged, or of another call.
        """
        if not self.path.exists():
            return begun, []
        leaves, structure = jax.tree.flatten(begun)
        try:
            with np.load(io.BytesIO(self.path.read_bytes()), allow_pickle=False) as stored:
                told, columns = str(stored[TOLD]), {name: stored[name] for name in COLUMNS}
                found = [stored[f"leaf{i}"] for i in range(len(leaves))]
                more = f"leaf{len(leaves)}" in stored
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            raise InvalidInput("keep", str(self.path), "it is damaged, or no such file; remove it") from None
        alike = [(np.shape(leaf), leaf.dtype) for leaf in leaves] == [(leaf.shape, leaf.dtype) for leaf in found]
        if told != self._digest() or more or not alike:
            mend = "it is kept of another problem, method, seed or start; name another file, or remove it"
            raise InvalidInput("keep", str(self.path), mend)
        lines = [Record(**{name: columns[name][at] for name in COLUMNS}) for at in range(len(columns[COLUMNS[0]]))]
        return jax.tree.unflatten(structure, found), lines

    def _digest(self) -> str:
        digest = hashlib.sha256()
        leaves, structure = jax.tree.flatten(self.told)
        digest.update(str(structure).encode())
        for leaf in leaves:
            numeric = isinstance(leaf, (np.ndarray, jax.Array))
            digest.update(np.asarray(leaf).tobytes() if numeric else repr(leaf).encode())
        return digest.hexdigest()
