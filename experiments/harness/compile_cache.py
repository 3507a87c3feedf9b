"""Lowered and compiled functions, cached in the user's directory from one run of a command to the next."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import platform
import sys
from pathlib import Path

import jax
from jax._src import compilation_cache as of_jax

from solvers.compilation import disk_cache
from solvers.files import sealed, unsealed, write_atomically

VARIABLE = "UFM_SCL_COMPILE_CACHE"
HELP = (
    f"Compiled functions are kept in the user's cache directory, so that a second start compiles little; "
    f"{VARIABLE}=off switches that off, {VARIABLE}=DIRECTORY puts them elsewhere."
)


def enable() -> Path | None:
    """Keep compiled functions in `directory()`, for this process; None if there is none."""
    path = directory()
    if path is None:
        return None
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None  # a home that cannot be written costs time, not the run
    settings = {
        "jax_compilation_cache_dir": str(path),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    for name, value in settings.items():
        jax.config.update(name, value)
    of_jax.reset_cache()
    of_jax.get_file_cache = lambda path: (SealedCache(Path(path)), path)
    disk_cache.keep_in(path / "lowered")
    return path


class SealedCache:
    """Compiled functions in a directory, in the place of jax's own files (its CacheInterface).

    jax's files have no checksum of their own, are written where a reader may see half of them, and are never repaired:
    with one flipped bit a machine may run other code than was compiled.
    """

    def __init__(self, path: Path) -> None:
        self._path = path  # jax reads it

    def get(self, key: str) -> bytes | None:
        """What was put under a key; None if nothing was, or, in a line of the log, if it is not as it was written."""
        file = self._file(key)
        try:
            content = file.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            logging.getLogger(__name__).warning("%s: a compiled function, made anew (%s)", file, error.strerror)
            return None
        result = unsealed(content)
        if result is None:
            logging.getLogger(__name__).warning("%s: a compiled function, made anew (damaged)", file)
        return result

    def put(self, key: str, value: bytes) -> None:
        """Keep a value under a key, in the place of what is there."""
        with contextlib.suppress(OSError):  # costs the next process time, not this one its run
            write_atomically(self._file(key), sealed(value))

    def clear(self) -> None:
        """Nothing: files of other processes stay."""

    def _file(self, key: str) -> Path:
        return self._path / f"{key}-sealed"


def directory() -> Path | None:
    """Where: one directory for each kind of processor, whose machine code another might not run; None: nowhere."""
    chosen = os.environ.get(VARIABLE, "")
    if chosen.lower() == "off":
        return None
    parent = Path(chosen) if chosen else _users()
    return None if parent is None else parent / f"jax-{jax.__version__}-{_processor()}"


def _users() -> Path | None:
    """The package's directory in the user's cache; None for a user without a home."""
    if value := os.environ.get("XDG_CACHE_HOME"):
        return Path(value) / "ufm-scl"
    try:
        return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "ufm-scl"
    except RuntimeError:  # a number without an entry in passwd, as in containers
        return None


def _processor() -> str:
    """Twelve digits that name the machine's instruction set as the system states it."""
    to_dict = platform.machine() + platform.processor()
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        to_dict += next((line for line in listing.read_text().splitlines() if line.startswith(("flags", "Feat"))), "")
    return hashlib.sha256(to_dict.encode()).hexdigest()[:12]
