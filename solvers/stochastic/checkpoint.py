"""A file with the state of running starts: a stopped run resumes from it, with the same result bit for bit."""

from __future__ import annotations

import hashlib
import io
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from solvers.files import sealed, unsealed, write_atomically
from solvers.loop.method import COLUMNS, Record
from solvers.stochastic.trajectories import Trajectories
from ufm.errors import InvalidInput

FINGERPRINT = "of"
# At both ends of every such file, so that a damaged file can be distinguished from one of another kind.
MARK = b"ufm-scl starts 1"


@dataclass(frozen=True)
class Checkpoint:
    """The file of one call.

    of: identifies the call: a pytree of arrays, and of values whose printed form determines them.
    """

    path: Path
    of: Any

    def write(self, state: Trajectories, lines: list[Record]) -> None:
        """Write state and lines in one atomic step. Raises OSError, naming the file, if it cannot be written."""
        content = io.BytesIO()
        columns = {name: np.stack([getattr(line, name) for line in lines]) for name in COLUMNS}
        leaves = {f"leaf{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}
        named: dict[str, Any] = {FINGERPRINT: np.array(self._digest()), **columns, **leaves}
        np.savez(content, **named)
        write_atomically(self.path, MARK + sealed(content.getvalue()) + MARK)

    def read(self, begun: Trajectories) -> tuple[Trajectories, list[Record]]:
        """The stored state and lines; `begun` and no lines if there is no file.

        A damaged file counts as no file, with a warning in the log. Raises InvalidInput for a file of another call or
        of another kind, and for one that cannot be read.
        """
        if not self.path.exists():
            return begun, []
        content = self._content()
        if content is None:
            logging.getLogger(__name__).warning("%s: the stored starts are damaged and begin again", self.path)
            return begun, []
        leaves, structure = jax.tree.flatten(begun)
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            of, columns = str(stored[FINGERPRINT]), {name: stored[name] for name in COLUMNS}
            saved = [stored[name] for name in (f"leaf{i}" for i in range(len(leaves))) if name in stored]
            more = f"leaf{len(leaves)}" in stored
        alike = [(np.shape(leaf), leaf.dtype) for leaf in leaves] == [(leaf.shape, leaf.dtype) for leaf in saved]
        if of != self._digest() or more or not alike:
            fix = "it is of another problem, method, seed or start; name another file, or remove it"
            raise InvalidInput("keep", str(self.path), fix)
        lines = [Record(**{name: columns[name][at] for name in COLUMNS}) for at in range(len(columns[COLUMNS[0]]))]
        return jax.tree.unflatten(structure, saved), lines

    def _content(self) -> bytes | None:
        """The stored bytes; None if the file is damaged, as one that is empty or holds only zeros."""
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise InvalidInput("keep", str(self.path), f"cannot be read ({error.strerror})") from None
        marked = content.startswith(MARK) or content.endswith(MARK)
        ours = marked or MARK.startswith(content) or not content.strip(b"\0")
        if not ours:
            raise InvalidInput("keep", str(self.path), "not a file of stored starts; name another file, or remove it")
        return unsealed(content[len(MARK) : -len(MARK)])

    def _digest(self) -> str:
        digest = hashlib.sha256()
        leaves, structure = jax.tree.flatten(self.of)
        digest.update(str(structure).encode())
        for leaf in leaves:
            numeric = isinstance(leaf, (np.ndarray, jax.Array))
            digest.update(np.asarray(leaf).tobytes() if numeric else repr(leaf).encode())
        return digest.hexdigest()
