r"""Minority collapse without the ReLU: the ratio R at which the minorities become one vector, between two certificates.

At one ratio a certificate bounds all angles between minorities, in every minimiser, from both sides (theory, 4.17 and
4.18). A search over ratios N / n_min, N whole, ends with two of them: below, every minimiser keeps all minorities apart
by a stated angle; above, it has all of them within a stated one. In class space, so that no sample is ever held.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float

from experiments.harness.cells import Computed, ProgressCallback, certificate_file
from experiments.harness.loss_names import loss_of
from solvers.certification.certificate import Certificate
from solvers.certification.certifier import Certifier
from ufm import InvalidInput, Problem, step_imbalance

# Minorities within this angle (radians) that are not proved to be apart are one vector as far as the search is
# concerned; the angle that is proved is stated.
ONE_VECTOR = 0.01
APART, MERGED = "apart", "merged"  # the two ends, in names of files and columns


class Angles(NamedTuple):
    """What a certificate proves of the angles between minorities in every minimiser, in radians.

    All are at least `least` and at most `most`; 0 and pi say nothing.
    """

    R: float
    least: float
    most: float
    proof: Certificate

    @property
    def merged(self) -> bool | None:
        """Whether the minorities are one vector: False if they are proved to be none; None if that is not decided."""
        return False if self.least > 0 else True if self.most <= ONE_VECTOR else None


class Bracket(NamedTuple):
    """The ends of the search, and every ratio that it asked. A missing end: no ratio proved it up to the largest."""

    apart: Angles | None
    merged: Angles | None
    tried: tuple[Angles, ...]


def certified_minimiser(problem: Problem) -> Certificate:
    """The certificate of the best point of UFM that duality leads to; no solver, no random start."""
    certifier = Certifier(problem)
    if certifier.better is None:
        raise InvalidInput("d", problem.d, f"give at least k - 1 = {problem.k - 1} dimensions")
    return certifier.certify(certifier.better.placed()[certifier.orbits.index])


def collapsed_problem(loss: str, majority: int, *, k: int, n_min: int, d: int, tau: float) -> Problem:
    """STEP imbalance without the ReLU in class space: a point a class, majorities of so many samples."""
    sizes = step_imbalance(k, n_min, majority / n_min)
    return Problem(np.arange(k), d, tau, nonneg=False, multiplicity=sizes, loss=loss_of(loss, sizes))


def angles(problem: Problem) -> Angles:
    """The angles between the classes of the second half, the minorities under STEP imbalance."""
    proof, few = certified_minimiser(problem), np.arange((problem.k + 1) // 2, problem.k)
    R = proof.problem.sizes[0] / proof.problem.sizes[-1]
    if proof.implied is None or proof.implied.least_cosine is None:
        return Angles(R, 0.0, math.pi, proof)
    pairs = np.ix_(few, few)
    apart = ~np.eye(len(few), dtype=bool)
    most, least = (np.array(bounds)[pairs][apart] for bounds in (proof.implied.cosine, proof.implied.least_cosine))
    # One rounding of the arc cosine outwards.
    near, far = math.acos(most.max()), math.acos(least.min())
    return Angles(R, max(0.0, math.nextafter(near, -1)), math.nextafter(far, 4), proof)


def bracket(loss: str, *, k: int, n_min: int, d: int, tau: float, precision: float, most_R: float) -> Bracket:
    """Search for the ratio of collapse up to most_R: doubling, then bisection until the ends differ by `precision`.

    loss: by name. precision: relative. A ratio at which neither is proved is stepped over twice; then the search ends
    with the ends it has.
    """
    requested: dict[int, Angles] = {}

    def at(majority: int) -> Angles:
        if majority not in requested:
            problem = collapsed_problem(loss, majority, k=k, n_min=n_min, d=d, tau=tau)
            requested[majority] = angles(problem)
        return requested[majority]

    low, high, largest = n_min, None, math.floor(most_R * n_min)
    while high is None and low < largest:
        following = min(2 * low, largest)
        if at(following).merged is False:
            low = following
        else:
            high = following
    while high is not None and high - low > max(1, precision * low):
        for share in (0.5, 0.4, 0.6):
            middle = min(max(round(low ** (1 - share) * high**share), low + 1), high - 1)
            if at(middle).merged is not None:
                break
        if requested[middle].merged is None:
            break
        low, high = (low, middle) if requested[middle].merged else (middle, high)
    at(low)
    in_order = tuple(requested[majority] for majority in sorted(requested))
    below, above = requested[low], None if high is None else requested[high]
    return Bracket(
        below if below.merged is False else None, above if above is not None and above.merged else None, in_order
    )


def threshold(
    *,
    loss: str,
    name: str,
    k: int,
    n_min: int,
    d: int,
    tau: float,
    precision: float,
    most_R: float,
    progress: ProgressCallback,
) -> Computed:
    """The cell of a bracket: what every ratio asked proves, over the dimension R, and the certificates of both ends."""
    result = bracket(loss, k=k, n_min=n_min, d=d, tau=tau, precision=precision, most_R=most_R)
    ends = {APART: result.apart, MERGED: result.merged}
    files = {certificate_file(name, which): end.proof.serialised() for which, end in ends.items() if end is not None}
    columns: dict[str, Float[np.ndarray, " R"]] = {
        "least_angle": np.array([requested.least for requested in result.tried]),
        "most_angle": np.array([requested.most for requested in result.tried]),
        "relative_gap": np.array([requested.proof.relative_gap for requested in result.tried]),
    }
    stated = {f"R_{which}": math.nan if end is None else end.R for which, end in ends.items()}
    stated |= {"angle_apart": math.nan if result.apart is None else result.apart.least}
    stated |= {"angle_merged": math.nan if result.merged is None else result.merged.most}
    parameters = {"loss": loss, "k": k, "d": d, "tau": tau, "n_min": n_min, "precision": precision, "most_R": most_R}
    data = {column: ("R", values) for column, values in columns.items()}
    return xr.Dataset(
        data, coords={"R": [requested.R for requested in result.tried]}, attrs={**parameters, **stated}
    ), files
