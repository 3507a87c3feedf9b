"""Files that are written atomically, and files with a checksum."""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path

TEMPORARY = ".part"


# The most bytes of a file's name that its temporary name repeats: systems allow 255 in all.
LONGEST = 200


def write_atomically(path: Path, content: bytes, note: Callable[[Path], None] | None = None) -> None:
    """Write to a temporary file beside `path`, flush it to disk, and rename it: readers see the old or the new file.

    As in an ordinary write, links and permissions of an existing file stay, and a new file has those that the umask
    allows. If `path` is not a regular file (a terminal, for example), the content is written to it directly.

    note: called with the temporary name before that file exists, so that it can be found after the process was killed.

    Raises OSError with the name of the file and the reason; no temporary file is left then.
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
    """The kind and the permissions of a path, with links followed; None if it does not exist."""
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None


def sealed(content: bytes) -> bytes:
    """The content, followed by its SHA-256."""
    return content + hashlib.sha256(content).digest()


def unsealed(stored: bytes) -> bytes | None:
    """The content of bytes from `sealed`; None if they have changed."""
    content = stored[: -hashlib.sha256().digest_size]
    return content if stored == sealed(content) else None
