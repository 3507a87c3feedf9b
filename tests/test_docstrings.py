"""No public name whose docstring leaves open what shapes it takes, on which scale a loss is, and what it raises."""

import importlib
import inspect
import re

import pytest

import ufm.errors
from tests.docstrings import PACKAGES, ROOT, Tree, faults, packages, public_modules, public_names

# Raised by what is called for other callers' sake; here it cannot be, and why.
_MADE = "the transformation was made once already, when the method was"
_ROWS = "its rows are an array of JAX already"
NEVER = {
    "solvers.Solution.shared_rows": "rows and index of a Solution fit each other",
    **{f"solvers.{name}.{step}": _MADE for name in ("Activated", "ProjectedGradient") for step in ("init", "step")},
    **{name: _ROWS for name in ("solvers.Accelerated.init", "solvers.Accelerated.step", "solvers.QuasiNewton.step")},
}


def test_every_public_docstring_states_shapes_scale_and_errors():
    tree, wrong, seen = packages(), {}, set()
    for name, thing, owner in public_names():
        seen.add(name)
        result = faults(thing, owner, tree)
        if name in NEVER:
            assert result == ["does not say that it raises InvalidInput"], f"{name} needs no exception"
        elif result:
            wrong[name] = result
    assert wrong == {}
    assert len(seen) > 120
    assert set(NEVER) <= seen


def test_every_public_name_stands_on_its_page_of_the_api():
    for package in PACKAGES:
        page = (ROOT / "docs" / "api" / f"{package}.md").read_text(encoding="utf-8")
        modules = {module.rpartition(".")[2] for module in public_modules() if module.startswith(f"{package}.")}
        listed = re.findall(
            rf"^\.\. (?:autoclass|autofunction|autoexception|py:data):: {package}\.(\w+)$", page, re.MULTILINE
        )
        assert sorted(listed) == sorted(set(importlib.import_module(package).__all__) - modules)
    for module in public_modules():
        page = (ROOT / "docs" / "api" / f"{module.rpartition('.')[2]}.md").read_text(encoding="utf-8")
        assert f".. automodule:: {module}\n   :members:\n" in page


SOURCE = """
from ufm.errors import InvalidInput, whole_number

def checked(n):
    return whole_number("n", n, 1, "give one")

def deep(n):
    return checked(n)

def caught(n):
    try:
        return checked(n)
    except InvalidInput:
        return 0

def caught_elsewhere(n):
    try:
        return checked(n)
    except OSError:
        return 0

def raised_while_handling(n):
    try:
        return n
    except ValueError:
        raise InvalidInput("n", n, "give one")

def recursive(n):
    return recursive(n - 1)

class Made:
    def __init__(self, n):
        self.n = self.own(n)

    def own(self, n):
        return deep(n)

def makes(n):
    return Made(n)
"""


@pytest.mark.parametrize(
    ("name", "raises"),
    [
        ("checked", True),
        ("deep", True),
        ("caught", False),
        ("caught_elsewhere", True),
        ("raised_while_handling", True),
        ("recursive", False),
        ("Made", True),
        ("Made.own", True),
        ("makes", True),
    ],
)
def test_what_may_be_raised_is_found_through_calls(name, raises):
    errors = inspect.getsource(ufm.errors)
    assert (("m", name) in Tree({"ufm.errors": errors, "m": SOURCE}).raising) is raises


def bare(H: "np.ndarray", tau: float) -> "float":
    """Of H and tau."""
    return tau


def shaped(H: 'Float[Array, "n d"]', rows: "np.ndarray") -> 'Float[Array, ""]':
    """Of H.

    - rows: (n, d), anything.
    """


def shaped_elsewhere(rows: "np.ndarray", others: "np.ndarray") -> None:
    """Of (n, d) others.

    - rows: anything.
    """


def some_loss(tau: float) -> float:
    """A loss."""
    return tau


def some_summed_loss(tau: float) -> float:
    """A loss, summed over anchors at tau."""
    return tau


def undocumented(n: int) -> int:
    return n


@pytest.mark.parametrize(
    ("function", "wrong"),
    [
        (bare, ["no shape of H"]),
        (shaped, []),
        (shaped_elsewhere, ["no shape of rows"]),
        (some_loss, ["names a loss, not its scale (sum or mean, tau)"]),
        (some_summed_loss, []),
        (undocumented, ["no docstring"]),
    ],
)
def test_a_planted_fault_is_found(function, wrong):
    assert faults(function, None, Tree({})) == wrong
