"""Lowered and compiled functions kept from one start of a command to the next, in a directory of the user's."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from pathlib import Path

import jax

from solvers.compilation import disk_cache

VARIABLE = "UFM_SCL_COMPILE_CACHE"
HELP = (
    f"Compiled functions are kept in the user's cache directory, so that a second start compiles little; "
    f"{VARIABLE}=off switches that off, {VARIABLE}=DIRECTORY puts them elsewhere."
)


def enable() -> Path | None:
    """Keep compiled functions in `directory()`, for this process and those it starts; None if there is none."""
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
        os.environ[name.upper()] = str(value)
    disk_cache.keep_in(path / "lowered")
    return path


def directory() -> Path | None:
    """Where: one directory for each kind of processor, whose machine code another might not run; None: nowhere."""
    chosen = os.environ.get(VARIABLE, "")
    if chosen.lower() == "off":
        return None
    parent = Path(chosen) if chosen else _users()
    return None if parent is None else parent / f"jax-{jax.__version__}-{_processor()}"


def _users() -> Path | None:
    """The package's directory in the user's cache; None for a user without a home."""
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given) / "ufm-scl"
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
