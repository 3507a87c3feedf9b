"""Files that are never seen half-written."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

# A file of this suffix, hidden by a leading dot, is what a killed process was writing: safe to remove.
TEMPORARY = ".part"


def write_atomically(path: Path, content: bytes) -> None:
    """Write beside `path` under a temporary name, flush to disk, rename: readers see the old file or the new one.

    Raises OSError with the name of the file and the reason; nothing is left behind.
    """
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def remove_temporaries(root: Path) -> int:
    """Remove what killed processes left in a directory and below; how many files that were."""
    left = list(root.rglob(f".*{TEMPORARY}"))
    for path in left:
        path.unlink(missing_ok=True)
    return len(left)
