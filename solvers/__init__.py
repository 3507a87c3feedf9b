"""Solving, verifying and certifying. Public names load on first use, so that the independent checker
(`python -m solvers.check`) needs neither JAX nor cvxpy."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from solvers.certification.certificate import Certificate, Proof
    from solvers.certification.certifier import Certifier, certify
    from solvers.certification.suboptimality import Suboptimality, suboptimality
    from solvers.certification.verification import Verdict, Verification, verify
    from solvers.loop.stopping import Status
    from solvers.methods.accelerated import Accelerated
    from solvers.methods.activated import Activated
    from solvers.methods.projected_gradient import ProjectedGradient
    from solvers.methods.quasi_newton import QuasiNewton
    from solvers.multistart import solve
    from solvers.solution import Solution
    from solvers.staircase.staircase import Staircase
    from solvers.stochastic.projected_gradient import StochasticProjectedGradient

__all__ = [
    "Accelerated",
    "Activated",
    "Certificate",
    "Certifier",
    "ProjectedGradient",
    "Proof",
    "QuasiNewton",
    "Solution",
    "Staircase",
    "Status",
    "StochasticProjectedGradient",
    "Suboptimality",
    "Verdict",
    "Verification",
    "certify",
    "solve",
    "suboptimality",
    "verify",
]

_HOME = {
    "Certificate": "certification.certificate",
    "Certifier": "certification.certifier",
    "certify": "certification.certifier",
    "Suboptimality": "certification.suboptimality",
    "suboptimality": "certification.suboptimality",
    "Solution": "solution",
    "Staircase": "staircase",
    "StochasticProjectedGradient": "stochastic",
    "Accelerated": "descent.accelerated",
    "Activated": "descent.activated",
    "ProjectedGradient": "descent.projected_gradient",
    "QuasiNewton": "descent.quasi_newton",
    "solve": "multistart",
    "Proof": "certification.certificate",
    "Status": "descent.stopping",
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
