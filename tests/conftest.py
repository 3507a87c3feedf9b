"""Runtime checks of every shape and type in `ufm` and `solvers`, and the settings of hypothesis."""

import os

import jaxtyping
import pytest

# Nothing of a test is kept in the user's directories.
os.environ.setdefault("UFM_SCL_COMPILE_CACHE", "off")

# Before either package is imported: annotations are compiled into checks at import.
jaxtyping.install_import_hook(["ufm", "solvers"], "typechecker.typechecked")

import hypothesis  # noqa: E402

# Compilation makes the first example slow; the same examples on every machine make failures repeatable.
hypothesis.settings.register_profile("ufm", deadline=None, derandomize=True, max_examples=50, database=None)
hypothesis.settings.load_profile("ufm")


@pytest.fixture
def untyped():
    """The runtime type checks off: a test of bad input wants the package's own answer to it."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
