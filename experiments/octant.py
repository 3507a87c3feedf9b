"""`python -m experiments.octant`: the animation of the README and the site, from a real run."""

from __future__ import annotations

import dataclasses
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import optax
import xarray as xr
from jaxtyping import Float

from experiments.harness import command_line
from figures import octant, style
from solvers.certification.verification import Verdict, verify
from solvers.files import write_atomically
from solvers.loop.slots import Limits, Start
from solvers.methods.projected_gradient import ProjectedGradient
from solvers.multistart import solve
from solvers.staircase.escape import continuation
from solvers.staircase.lifts import merge_parallel_columns
from ufm import InvalidInput, Problem

ROUNDING = 1e-9  # of inner products, where a picture in R^3 stands for a point in more coordinates


@dataclasses.dataclass(frozen=True)
class Config:
    """Draw octant.gif and octant.png: embeddings of three classes in d = 3, caught by a spurious point of UFM+.

    The first random start that plain projected gradient leaves in a spurious point, sample by sample; then the lift of
    the staircase out of it into a fresh coordinate, and the same projected gradient there. The columns that one class
    alone uses are merged before, so that three axes show all inner products.

    Exit status: 0 if drawn, 2 for bad input or if no start gets stuck.
    """

    sizes: tuple[int, ...] = (10, 4, 4)
    """Samples of the three classes."""
    tau: float = 1.0
    """Temperature."""
    rate: float = 0.02
    """Step of the projected gradient, without momentum, on the summed loss."""
    inits: int = 12
    """Random starts to look through."""
    seed: int = 0
    """Of the starts and of the lift."""
    out: Path = Path("docs/images")
    """Where the two files go."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Compute and draw; 0."""
    config = command_line.parse(Config, arguments)
    if len(config.sizes) != 3:
        raise InvalidInput("sizes", config.sizes, "give three classes: they are to fill the octant")
    cell = stuck_and_lifted(config)
    content = {"octant.png": style.rendered(octant.draw([cell]))["png"], "octant.gif": octant.animation(cell)}
    config.out.mkdir(parents=True, exist_ok=True)
    for name, drawn in content.items():
        write_atomically(config.out / name, drawn)
        print(f"{config.out / name}: {len(drawn) / 1000:.0f} kB")
    return 0


def stuck_and_lifted(config: Config) -> xr.Dataset:
    """The cell of `figures.octant`: path, excess, step and phase of each line; attrs say what was run."""
    problem = Problem.from_class_sizes(config.sizes, d=3, tau=config.tau)
    method = ProjectedGradient(optax.sgd(config.rate))
    result = solve(problem, config.inits, config.seed, method, record_H=True)
    stuck = [s for s, H in enumerate(result.H) if verify(H, problem).verdict is Verdict.SPURIOUS]
    if not stuck:
        raise InvalidInput("seed", config.seed, f"none of {config.inits} starts ends in a spurious point; try another")
    caught, before = result.embedding(stuck[0]), result.history[stuck[0]]
    run_options = Limits().run_options(problem, 1, keep_H=True)
    streams = [(config.seed, stuck[0])]
    (escape,) = continuation(
        method, problem, [Start(caught)], run_options, streams=streams, progress=lambda ended: None
    )
    if len(escape.descents) < 2:
        raise InvalidInput("seed", config.seed, "the spurious point was not lifted; try another")
    after = escape.descents[1].history
    assert before.H is not None
    assert after.H is not None
    merged = merge_parallel_columns(caught)
    turn = _nearest(merged, caught)
    used = int(np.count_nonzero(merged.any(axis=0)))
    lifted = np.stack([_folded(H, used)[:, turn] for H in after.H])
    last = int(before.iteration[-1])
    path = np.concatenate([before.H, merged[None][:, :, turn], lifted])
    phase = [octant.PHASES[0]] * len(before.H) + [octant.PHASES[1]] + [octant.PHASES[2]] * len(lifted)
    return xr.Dataset(
        {
            "path": (("line", "sample", "coordinate"), path),
            "excess": ("line", np.concatenate([before.excess, before.excess[-1:], after.excess])),
            "step": ("line", np.concatenate([before.iteration, [last], last + after.iteration])),
            "phase": ("line", phase),
            "label": ("sample", np.asarray(problem.labels)),
        },
        attrs={"tau": config.tau, "rate": config.rate, "seed": config.seed, "start": stuck[0]},
    )


def _nearest(turned: Float[np.ndarray, "n 3"], caught: Float[np.ndarray, "n 3"]) -> list[int]:
    """The order of columns that brings a point closest to another: axes keep their names in the picture."""
    orders = itertools.permutations(range(3))
    return list(min(orders, key=lambda order: float(np.linalg.norm(turned[:, list(order)] - caught))))


def _folded(H: Float[np.ndarray, "n w"], used: int) -> Float[np.ndarray, "n 3"]:
    """The fresh coordinates as one axis, which keeps inner products where all that is there is parallel."""
    drawn = np.column_stack([H[:, :used], np.linalg.norm(H[:, used:], axis=1)])
    drawn = np.pad(drawn, ((0, 0), (0, 3 - drawn.shape[1]))) if drawn.shape[1] <= 3 else drawn
    if drawn.shape[1] > 3 or np.abs(drawn @ drawn.T - H @ H.T).max() > ROUNDING:
        raise InvalidInput("seed", used, "three axes cannot show this lift; try another")
    return drawn


if __name__ == "__main__":
    command_line.run(lambda: main(sys.argv[1:]))
