"""The result of `solve`: where every start ended. It can be saved and loaded."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from solvers.files import sealed, unsealed, write_atomically
from solvers.loop.method import COLUMNS, Record
from solvers.loop.stopping import STATIONARY, Status
from ufm.display import Readable, Summary, between, cosines_of_class_means, counted
from ufm.errors import InvalidInput
from ufm.losses import Loss
from ufm.model.evaluation import loss_bound
from ufm.model.orbits import SharedRows
from ufm.model.problem import Problem
from ufm.settings import in_fixed_settings

if TYPE_CHECKING:
    import xarray as xr

FORMAT = "ufm-scl solution 1"
DAMAGED, INCONSISTENT = "damaged", "its numbers do not fit each other"
REASONS = (DAMAGED, INCONSISTENT, "wrong format")
# The dimensions of a column of the history beyond start and record.
_OF_A_LINE = {"H": ("sample", "coordinate")}


@dataclass(frozen=True)
class Timings:
    """The wall seconds of one `solve`: compilation, and everything else."""

    compile: float
    solve: float


@dataclass(frozen=True, repr=False)
class Solution(Readable):
    """Where every start ended. A status is not a proof: see `solvers.verify` and `solvers.certify`.

    - problem: the problem that was solved.
    - points, index: the distinct rows (inits, o, d) of each start, and the number (n,) of the row of every sample:
      H[s] = points[s][index]. With the staircase the samples of an orbit share a row.
    - status: what stopped each start.
    - excess: the loss minus the bound of Theorems 1 and 2, by the exact objective, at H; like the loss it is a sum over
      batches and active anchors, at the problem's tau (theory, 1.1).
    - residual: the largest `solvers.loop.stopping.stationarity` over samples, at H.
    - iterations: the steps of each start, including those of its collapse onto the orbits.
    - lifts: how often the staircase lifted, compressed or merged the point of each start.
    - moved: the largest distance by which a sample moved when its orbit was replaced by its mean, over the samples on
      which the loss depends.
    - history: one `Record` of arrays for each start.
    """

    problem: Problem
    points: Float[np.ndarray, "inits o d"]
    index: Int[np.ndarray, " n"]
    status: tuple[Status, ...]
    excess: Float[np.ndarray, " inits"]
    residual: Float[np.ndarray, " inits"]
    iterations: Int[np.ndarray, " inits"]
    lifts: Int[np.ndarray, " inits"]
    moved: Float[np.ndarray, " inits"]
    history: tuple[Record, ...]
    timings: Timings = Timings(0.0, 0.0)

    @property
    def H(self) -> Float[np.ndarray, "inits n d"]:
        """All embeddings, (inits, n, d): a new array at each call. `embedding(s)` needs less memory for one start."""
        return self.points[:, self.index]

    @property
    def best(self) -> int:
        """The start with the smallest excess; the first one if several have it."""
        return int(np.argmin(self.excess))

    def embedding(self, start: int) -> Float[np.ndarray, "n d"]:
        """The embedding of one start."""
        return self.points[start][self.index]

    def shared_rows(self, start: int) -> SharedRows:
        """The same by its distinct rows, with which the time of `solvers.certify` does not grow with n."""
        return SharedRows(self.points[start], self.index)

    def gram(self, start: int) -> Float[np.ndarray, "k k"]:
        """The cosines of the class means of one start; 0 where a mean has norm 0."""
        problem, samples = self.problem, np.zeros((len(self.points[start]), self.problem.k))
        np.add.at(samples, (self.index, np.asarray(problem.labels)), np.asarray(problem.multiplicity))
        row, label = np.nonzero(samples)
        return cosines_of_class_means(self.points[start][row], label, samples[row, label])

    def summary(self) -> Summary:
        """The problem, the statuses, and the ranges of excess, residual and steps over the starts."""
        problem, inits = self.problem, len(self.status)
        lines = {
            "problem": problem.summary().title.removeprefix("Problem: "),
            "starts": counted(self.status),
            "excess": f"{between(self.excess)} (loss minus that of an orthogonal frame)",
            "residual": f"{between(self.residual)} of the gradient scale (stationary: at most {STATIONARY:g})",
            "steps": f"{between(self.iterations.astype(float))}, median {np.median(self.iterations):g}",
            "seconds": f"{self.timings.solve:.2g} solving, {self.timings.compile:.2g} compiling",
            "proof": "none yet: call solvers.certify(solution.H[s], problem) or solvers.verify",
        }
        return Summary(f"Solution: {inits} start{'s' * (inits > 1)}", lines, self.gram(self.best))

    @in_fixed_settings
    def to_xarray(self) -> xr.Dataset:
        """The solution as a dataset with the dimensions init, row, coordinate, sample and record.

        Shorter histories repeat their last record.
        """
        import xarray as xr

        problem = self.problem
        lengths = [len(history.iteration) for history in self.history]
        data = {
            "points": (("init", "row", "coordinate"), self.points, {"long_name": "distinct rows of H"}),
            "index": ("sample", self.index, {"long_name": "row of each sample"}),
            "label": ("sample", np.asarray(problem.labels), {"long_name": "class"}),
            "multiplicity": ("sample", np.asarray(problem.multiplicity), {"long_name": "samples a point stands for"}),
            "batches": (("batch", "slot"), np.asarray(problem.batches), {"long_name": "samples of a batch, -1 pads"}),
            **_expected_columns(problem),
            "status": ("init", np.array([str(status) for status in self.status]), {"long_name": "what stopped it"}),
            "excess": ("init", self.excess, {"long_name": "loss minus the bound of Theorems 1 and 2"}),
            "residual": ("init", self.residual, {"long_name": "largest stationarity residual"}),
            "iterations": ("init", self.iterations, {"long_name": "steps"}),
            "lifts": ("init", self.lifts, {"long_name": "lifts, compressions and mergings"}),
            "moved": ("init", self.moved, {"long_name": "largest distance of a sample from the row that replaced it"}),
            "records": ("init", np.array(lengths), {"long_name": "lines of the history"}),
            **{
                f"history_{name}": (
                    ("init", "record", *_OF_A_LINE.get(name, ())),
                    column,
                    {"long_name": f"{name} by record"},
                )
                for name, column in histories(self.history).items()
            },
        }
        coordinates = {"init": np.arange(len(self.status)), "sample": np.arange(len(self.index))}
        attributes = {
            "format": FORMAT,
            "model": "UFM+" if problem.nonneg else "UFM",
            "nonneg": int(problem.nonneg),
            "k": problem.k,
            "d": problem.d,
            "tau": float(problem.tau),
            "n": problem.num_samples,
            "inits": len(self.status),
            "loss_bound": float(loss_bound(problem)),
            "loss": json.dumps(problem.loss.to_dict()),
            "views": problem.views,
            "seconds_compile": self.timings.compile,
            "seconds_solve": self.timings.solve,
        }
        return xr.Dataset(data, coordinates, attributes)

    def save(self, path: str | Path) -> None:
        """Write `to_xarray` as netCDF, followed by its SHA-256, in one atomic step; `load` reads it back."""
        content = bytes(self.to_xarray().to_netcdf(engine="h5netcdf"))
        write_atomically(Path(path), sealed(content))

    @classmethod
    @in_fixed_settings
    def load(cls, path: str | Path) -> Solution:
        """Read a file from `save`. Raises InvalidInput if it is not a solution, or if it is damaged."""
        import xarray as xr

        try:
            content = unsealed(Path(path).read_bytes())
            if content is None:  # a damaged file must not reach the HDF5 library
                raise ValueError(DAMAGED)
            with xr.open_dataset(io.BytesIO(content), engine="h5netcdf") as stored:
                return cls._of(stored.load())
        except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
            why = str(error) if str(error) in REASONS else type(error).__name__
            raise InvalidInput("path", str(path), f"not a readable solution ({why}); save it again") from None

    @classmethod
    def _of(cls, stored: xr.Dataset) -> Solution:
        if stored.attrs["format"] != FORMAT:
            raise ValueError("wrong format")
        problem = Problem(
            stored["label"].values,
            int(stored.attrs["d"]),
            float(stored.attrs["tau"]),
            stored["batches"].values,
            stored.attrs["model"] == "UFM+",
            multiplicity=stored["multiplicity"].values,
            counts=stored["counts"].values if "counts" in stored else None,
            weights=stored["weights"].values if "counts" in stored else None,
            views=int(stored.attrs.get("views", 1)),
            # Files without this attribute are of SCL.
            loss=Loss.of_description(json.loads(stored.attrs["loss"])) if "loss" in stored.attrs else None,
        )
        names = [name for name in Record._fields if f"history_{name}" in stored or name in COLUMNS]
        history = tuple(
            Record(**{name: stored[f"history_{name}"].values[start, :lines] for name in names})
            for start, lines in enumerate(stored["records"].values.tolist())
        )
        points, index = stored["points"].values, stored["index"].values
        if points.shape[2] != problem.d or not ((index >= 0) & (index < points.shape[1])).all():
            raise ValueError(INCONSISTENT)
        columns = {name: stored[name].values for name in ("excess", "residual", "iterations", "lifts", "moved")}
        lines, inits = stored["records"].values, len(points)
        whole = all(np.issubdtype(values.dtype, np.integer) for values in (index, lines, columns["iterations"]))
        sizes = {len(values) for values in (*columns.values(), lines, stored["status"].values)}
        numbers = [points, *columns.values(), *(getattr(record, name) for record in history for name in COLUMNS[:3])]
        if not whole or not inits or sizes != {inits} or not all(np.isfinite(values).all() for values in numbers):
            raise ValueError(INCONSISTENT)
        return cls(
            problem=problem,
            points=points,
            index=index,
            status=tuple(Status(name) for name in stored["status"].values.tolist()),
            history=history,
            timings=Timings(float(stored.attrs["seconds_compile"]), float(stored.attrs["seconds_solve"])),
            **columns,
        )


def _expected_columns(problem: Problem) -> dict[str, tuple]:
    """The additional columns of a problem of an expected loss."""
    if not problem.is_expected:
        return {}
    return {
        "counts": (("batch", "slot"), np.asarray(problem.counts), {"long_name": "samples of a point in a batch"}),
        "weights": ("batch", np.asarray(problem.weights), {"long_name": "weight of a batch in the sum"}),
    }


def histories(of_starts: Sequence[Record]) -> dict[str, np.ndarray]:
    """The columns of all histories by name, each (init, record); H (init, record, n, d) if it was recorded.

    Shorter histories repeat their last record.
    """
    longest = max(len(history.iteration) for history in of_starts)
    names = [name for name in Record._fields if all(getattr(history, name) is not None for history in of_starts)]

    def repeated(column: np.ndarray) -> np.ndarray:
        return np.pad(column, [(0, longest - len(column)), *[(0, 0)] * (column.ndim - 1)], mode="edge")

    return {name: np.stack([repeated(getattr(history, name)) for history in of_starts]) for name in names}
