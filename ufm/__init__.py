"""The unconstrained features model under the supervised contrastive loss, and what theory says of it.

Pure mathematics: no solving and no input or output. float64 is the default of the whole project
(minority classes move the loss by less than float32 can see), so importing this package switches
JAX to 64 bits.
"""

import sys

import jax

jax.config.update("jax_enable_x64", True)

from ufm import activations, batching, losses, samplers  # noqa: E402
from ufm.deprecated import FormerModules  # noqa: E402
from ufm.errors import InvalidInput  # noqa: E402
from ufm.model.evaluation import excess, loss_bound, scl_loss  # noqa: E402
from ufm.model.geometry import GeometryMetrics, geometry_metrics  # noqa: E402
from ufm.model.imbalance import long_tail_imbalance, step_imbalance  # noqa: E402
from ufm.model.orbits import Orbits, SharedRows, orbits  # noqa: E402
from ufm.model.problem import Problem  # noqa: E402
from ufm.model.projections import project, project_ball, project_nonnegative_ball  # noqa: E402
from ufm.theory.interaction import Interaction, interaction  # noqa: E402
from ufm.theory.uniqueness import Uniqueness, uniqueness  # noqa: E402

sys.meta_path.append(FormerModules())

__version__ = "0.2.0"

__all__ = [
    "GeometryMetrics",
    "Interaction",
    "InvalidInput",
    "Orbits",
    "Problem",
    "SharedRows",
    "Uniqueness",
    "activations",
    "batching",
    "excess",
    "geometry_metrics",
    "interaction",
    "long_tail_imbalance",
    "loss_bound",
    "losses",
    "orbits",
    "project",
    "project_ball",
    "project_nonnegative_ball",
    "samplers",
    "scl_loss",
    "step_imbalance",
    "uniqueness",
]
