"""Runtime checks of every shape and type in `ufm`, `solvers` and `networks`, and the settings of hypothesis."""

import atexit
import collections
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

import jaxtyping
import pytest

# Peers of the extra `bench`, the extra `docs` and a browser, which the tests' own environment need not have.
collect_ignore = [] if importlib.util.find_spec("torch") else ["test_against_torch.py"]
if not (importlib.util.find_spec("myst_nb") and shutil.which("chromium") and shutil.which("chromedriver")):
    collect_ignore.append("test_site_in_chromium.py")
# Nothing of a test is kept in the user's directories.
os.environ.setdefault("UFM_SCL_COMPILE_CACHE", "off")
# Compiling takes most of a test's time. As in jax's own tests little is optimised; with this at 0 all is, as for users.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# The processes of one session share what they compile: its workers, and the commands that tests start.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="compiled-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

# Before either package is imported: annotations are compiled into checks at import.
jaxtyping.install_import_hook(["ufm", "solvers", "networks"], "typechecker.typechecked")

import hypothesis  # noqa: E402
import jax  # noqa: E402

# Compilation makes the first example slow; the same examples on every machine make failures repeatable.
hypothesis.settings.register_profile("ufm", deadline=None, derandomize=True, max_examples=50, database=None)
hypothesis.settings.load_profile("ufm")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Of a table marked few(n), n rows spread over it run by default; the others are marked thorough."""
    tables = collections.defaultdict(list)
    for item in items:
        if item.get_closest_marker("few") and not item.get_closest_marker("slow"):
            tables[item.parent, item.originalname].append(item)
    for rows in tables.values():
        count = rows[0].get_closest_marker("few").args[0]
        stored = {(2 * i + 1) * len(rows) // (2 * count) for i in range(count)}
        for place, item in enumerate(rows):
            if place not in stored:
                item.add_marker(pytest.mark.thorough)


@pytest.fixture(autouse=True, scope="module")
def few_mapped_regions():
    """Each executable maps hundreds of regions of memory, and Linux ends a process with more than 65,530."""
    yield
    regions = Path("/proc/self/maps")
    if regions.exists() and len(regions.read_text().splitlines()) > 30_000:
        jax.clear_caches()


@pytest.fixture
def untyped():
    """The runtime type checks off: a test of bad input wants the package's own answer to it."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
