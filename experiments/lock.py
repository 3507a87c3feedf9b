"""One process at a time on a directory of results."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from ufm.errors import InvalidInput

NAME = ".lock"


@contextlib.contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold the directory's lock file, which says who holds it.

    The lock is the operating system's (flock), so that of a killed process is free at once, whatever its
    file still says. Raises InvalidInput, naming the owner, if another process holds it.
    """
    handle = _acquired(root / NAME, root)
    try:
        with contextlib.suppress(OSError):  # on a full disk the lock holds without its owner's name
            os.ftruncate(handle, 0)
            os.pwrite(handle, json.dumps({"pid": os.getpid(), "host": platform.node()}).encode(), 0)
        yield
    finally:
        (root / NAME).unlink(missing_ok=True)
        os.close(handle)


def _acquired(path: Path, root: Path) -> int:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_file(handle, path):
                return handle
        except BlockingIOError:
            said = _owner(path)
            os.close(handle)
            raise InvalidInput(
                "out", str(root), f"{said} is writing there; wait for it to end, or give another directory"
            ) from None
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # the owner ended and removed the file between our opening and locking it


def _is_file(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _owner(path: Path) -> str:
    try:
        owner = json.loads(path.read_bytes())
        return f"process {owner['pid']} on {owner['host']}"
    except (OSError, ValueError, LookupError, TypeError):
        return "another process"
