"""Solving, verifying and certifying. Public names load on first use, so that the independent checker
(`python -m solvers.check`) needs neither JAX nor cvxpy."""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "Certificate": "solvers.certificate",
    "Certifier": "solvers.certificate",
    "Solution": "solvers.many_starts",
    "Status": "solvers.status",
    "Verdict": "solvers.verification",
    "Verification": "solvers.verification",
    "certify": "solvers.certificate",
    "solve": "solvers.many_starts",
    "verify": "solvers.verification",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'solvers' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
