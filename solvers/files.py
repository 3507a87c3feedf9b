"""Files that are never seen half-written, and that say whether they are as they were written."""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path

TEMPORARY = ".part"


# Bytes of a name that the temporary name begins with: systems allow 255 in all.
LONGEST = 200


def write_atomically(path: Path, content: bytes, note: Callable[[Path], None] | None = None) -> None:
    """Write beside `path` under a temporary name, flush to disk, rename: readers see the old file or the new one.

    As an ordinary write does, it leaves links and a file's permissions as they are, and gives a new file those that
    the umask allows; what is no regular file, such as a terminal, is written to. note: told the temporary name before
    there is such a file, so that what a kill leaves can be found. Raises OSError with the name of the file and the
    reason; nothing is left behind.
    """
    temporary = None
    try:
        target = Path(os.path.realpath(path))
        mode = _mode(path)
        if mode is not None and not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            path.write_bytes(content)
            return
        beginning = os.fsdecode(os.fsencode(target.name)[:LONGEST])
        hidden = target.with_name(f".{beginning}.{secrets.token_hex(4)}{TEMPORARY}")
        if note is not None:
            note(hidden)
        handle = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        temporary = hidden
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            os.chmod(temporary, stat.S_IMODE(mode))
        os.replace(temporary, target)
    except BaseException as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def _mode(path: Path) -> int | None:
    """The kind and the permissions of what a path leads to; None if there is nothing yet."""
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None


def sealed(content: bytes) -> bytes:
    """The content and, behind its end, its SHA-256."""
    return content + hashlib.sha256(content).digest()


def unsealed(given: bytes) -> bytes | None:
    """The content of what `sealed` gave; None if it is not as it was."""
    content = given[: -hashlib.sha256().digest_size]
    return content if given == sealed(content) else None
