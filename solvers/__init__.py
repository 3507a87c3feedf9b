"""Solving, verifying and certifying. Public names load on first use, so that the independent checker
(`python -m solvers.check`) needs neither JAX nor cvxpy."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from solvers.certificate import Certificate
    from solvers.certifier import Certifier, certify
    from solvers.many_starts import Solution, solve
    from solvers.status import Status
    from solvers.verification import Verdict, Verification, verify

__all__ = ["Certificate", "Certifier", "Solution", "Status", "Verdict", "Verification", "certify", "solve", "verify"]

_HOME = {
    "Certificate": "certificate",
    "Certifier": "certifier",
    "certify": "certifier",
    "Solution": "many_starts",
    "solve": "many_starts",
    "Status": "status",
    "Verdict": "verification",
    "Verification": "verification",
    "verify": "verification",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'solvers' has no attribute {name!r}")
    return getattr(importlib.import_module(f"solvers.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
