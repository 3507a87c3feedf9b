"""One process at a time on a directory of results, and nothing left there of one that was killed."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from solvers.files import TEMPORARY
from ufm.errors import InvalidInput

NAME = ".lock"


@contextlib.contextmanager
def locked(root: Path) -> Iterator[Callable[[Path], None]]:
    """Hold the directory's lock file, which says who holds it and which temporary file is being written.

    What is yielded notes the latter, before the file is made. One that a killed holder noted is removed, and no other:
    hidden files of strangers, and of sweeps in directories below, look the same.

    The lock is the operating system's (flock), so that of a killed process is free at once, whatever its
    file still says. Raises InvalidInput, naming the owner, if another process holds it.
    """
    handle = _acquired(root / NAME, root)

    def say(**more: str) -> None:
        with contextlib.suppress(OSError):  # on a full disk the lock holds without its owner's name
            os.ftruncate(handle, 0)
            os.pwrite(handle, json.dumps({"pid": os.getpid(), "host": platform.node(), **more}).encode(), 0)

    try:
        _remove_what_was_left(root)
        say()
        yield lambda temporary: say(writing=os.path.relpath(temporary, root))
    finally:
        (root / NAME).unlink(missing_ok=True)
        os.close(handle)


def _remove_what_was_left(root: Path) -> None:
    writing = _said(root / NAME).get("writing")
    if not isinstance(writing, str) or "\0" in writing:
        return
    left = root / writing
    if left.name.startswith(".") and left.suffix == TEMPORARY:
        with contextlib.suppress(OSError):
            left.unlink()


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
    said = _said(path)
    return f"process {said['pid']} on {said['host']}" if {"pid", "host"} <= said.keys() else "another process"


def _said(path: Path) -> dict[str, Any]:
    """What a lock file says; nothing if it cannot be read."""
    try:
        said = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}
