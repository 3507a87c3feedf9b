"""Solving, verifying and certifying. Public names load on first use, so that the independent checker
(`python -m solvers.check`) needs neither JAX nor cvxpy."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from solvers.certification.certificate import Certificate, Proof
    from solvers.certification.certifier import Certifier, certify
    from solvers.descent.status import Status
    from solvers.multistart import Solution, solve
    from solvers.verification import Verdict, Verification, verify

__all__ = [
    "Certificate",
    "Certifier",
    "Proof",
    "Solution",
    "Status",
    "Verdict",
    "Verification",
    "certify",
    "solve",
    "verify",
]

_HOME = {
    "Certificate": "certification.certificate",
    "Certifier": "certification.certifier",
    "certify": "certification.certifier",
    "Solution": "multistart",
    "solve": "multistart",
    "Proof": "certification.certificate",
    "Status": "descent.status",
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
