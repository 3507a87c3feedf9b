"""The public names for solving, verifying and certifying."""

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
