r"""How fast stochastic projected gradient collapses classes near an orthogonal frame, in mean square.

A step takes one random batch B of a sampler and the gradient of its summed loss, with step eta. In the batch class c
has m samples beside q of other classes; Z = (m-1) + q e^{-1/tau}, w = (1/(m-1) - 1/Z)/tau = q e^{-1/tau}/((m-1) Z tau)
(`ufm.theory.local_rate`, for this batch). Near a frame the deviations x_i of the members from mu_c move to the batch's
mean,

    x_i <- xbar_B + rho (x_i - xbar_B),     rho(m, q) = (1 - 2 eta w) / (1 + 2 eta w (m-1)),

and those of other samples do not change. Nothing moves if m < 2 or q = 0: rho = 1. The sum over a batch does not
change, so the class mean does not either, and V = sum_i |x_i - xbar|^2 loses (1 - rho^2) times the squares within the
batch. Given the count, every set of samples of a class is equally likely, so that these are V (m-1)/(n_c-1) on average:
V contracts in mean square by

    r_c = 1 - E[ (1 - rho(m,q)^2) (m-1)_+ ] / (n_c - 1)

in each step, exactly, for all deviations of this linear recursion. In an epoch every sample is in one batch, and the
sum over its batches replaces the mean: with T batches the factor of an epoch is 1 - T (1 - r_c), less than r_c^T. If
some samples are bound to every batch, three kinds of squares follow a linear recursion: within the bound samples,
within the others, and between both means. Its spectral radius is the rate. The differences between two views of an
image contract independently of these. (Theory, 5.20.)

**The best step.** rho = 0 is the best value: r_c >= 1 - E[(m-1)_+] / (n_c - 1) for all eta and tau. No step makes a
class contract faster than its samples meet positives. So under uniform batches the *smallest* class is the slowest,
while in the full batch it is the largest. If a batch always holds the same m and q, eta = 1/(2w) attains this bound.
For smaller steps the best temperature is then that of the full batch with m and q in place of n_c and N - n_c,
tau = 1 / (1 + W(q / ((m-1) e))) (theory, 5.21). In other cases both are minimised numerically in one variable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import minimize_scalar

from ufm.errors import InvalidInput, real_number
from ufm.model.laws import MOST_VECTORS, Law
from ufm.model.problem import Problem
from ufm.samplers import Sampler

# For a bound sampler with too many count vectors to list, this number is drawn, with this seed.
SAMPLED, SEED = 200_000, 0
# The range of temperatures in which the best is searched, and the points of a first grid.
SMALLEST_TEMPERATURE, LARGEST_TEMPERATURE, GRID = 0.02, 50.0, 61
# The range of steps in which the best is searched, in units of the least and the largest 1/(2w) of a batch.
SHORTEST, LONGEST = 0.1, 10.0


class ClassLaw(NamedTuple):
    """The law of a batch's content from the point of view of one class.

    - units: of the class (samples, or images with two views). bound: units that are in every batch.
    - drawn: other units of the class in a batch. others: samples of other classes. probability: of each such pair.
    - views: samples of a unit. epoch: batches of an epoch, which hold every unit once; 1 if batches are independent.
    """

    units: int
    bound: int
    drawn: Int[np.ndarray, " v"]
    others: Int[np.ndarray, " v"]
    probability: Float[np.ndarray, " v"]
    views: int
    epoch: int

    @property
    def members(self) -> Int[np.ndarray, " v"]:
        """m: samples of the class in a batch."""
        return self.views * (self.bound + self.drawn)

    def pull(self, tau: float) -> Float[np.ndarray, " v"]:
        """w: minus the derivative of a batch's loss in one pair of the class, at a frame; 0 if m < 2 or q = 0."""
        positives = np.maximum(self.members - 1.0, 1.0)
        repelled = self.others * np.exp(-1.0 / tau)
        pulls = (self.members > 1) & (self.others > 0)
        return np.where(pulls, repelled / (positives * (positives + repelled) * tau), 0.0)

    def contraction(self, tau: float, eta: float) -> Float[np.ndarray, " v"]:
        """rho: the factor of the deviations from the batch's mean."""
        moved = 2.0 * eta * self.pull(tau)
        return (1.0 - moved) / (1.0 + moved * np.maximum(self.members - 1.0, 0.0))


def class_laws(sampler: Sampler, sizes: Sequence[int] | Int[np.ndarray, " k"]) -> list[ClassLaw]:
    """The law of a sampler's batches from the point of view of each class.

    For a bound sampler it is computed from all count vectors, or estimated from SAMPLED of them if they are too many.
    Raises InvalidInput if it cannot draw from classes of these sizes, or binds samples to the batches of an epoch.
    """
    law = sampler.law(sizes)
    if law.bound and law.epoch:
        raise InvalidInput("sampler", sampler, "no rate is known for epochs with binding; bind uniform batches instead")
    return [_with_bound(law, c) if law.bound else _drawn(law, c) for c in range(law.k)]


def _drawn(law: Law, c: int) -> ClassLaw:
    drawn = law.drawn(c)
    others = law.views * (drawn.total - drawn.first)
    return ClassLaw(law.sizes[c], 0, drawn.first, others, drawn.probability, law.views, max(law.epoch, 1))


def _with_bound(law: Law, c: int) -> ClassLaw:
    """By the joint law of all counts, since binding makes the size of a batch random."""
    counts = law.counts() if law.vectors <= MOST_VECTORS else law.sampled(SAMPLED, SEED)
    drawn = counts.drawn[:, c]
    others = law.views * (counts.drawn.sum(axis=1) - drawn + law.bound * (law.k - 1))
    return ClassLaw(law.sizes[c], law.bound, drawn, others, counts.probability, law.views, 1)


def recursion(law: ClassLaw, rho: Float[np.ndarray, " v"]) -> Float[np.ndarray, "s s"]:
    """The linear recursion of the expected squares of one class in a step, or in an epoch (theory, 5.20).

    It has the squares that can differ from 0: of the bound units about their mean, of the others about theirs, between
    the two means, and with two views those within bound and within other images.
    """
    a, free, n, j = law.bound, law.units - law.bound, law.units, law.drawn.astype(float)
    lost = 1.0 - rho**2

    def mean(values: Float[np.ndarray, " v"]) -> float:
        return law.epoch * float(np.sum(law.probability * values))

    spread = np.maximum(j - 1.0, 0.0) / max(free - 1, 1)
    retained = 1.0 - mean(lost)
    views = [retained] * (a > 0) + [1.0 - mean(lost * j) / max(free, 1)] * (free > 0) if law.views > 1 else []
    if a == 0 or free == 0:
        factor = retained if a else 1.0 - mean(lost * spread)
        return np.diag([factor] * (n > 1) + views)
    # The variance of the mean of the drawn units, for each unit of the squares of the others.
    varies = np.where(j > 0, (free - j) / np.maximum(j * free * max(free - 1, 1), 1.0), 0.0)
    towards = (1.0 - rho) * j * n / ((a + j) * free)
    between_means = a * j / (a + j)
    between = np.array([0.0, a * free / n * mean(towards**2 * varies), mean((1.0 - towards) ** 2)])
    within_others = mean(lost * (spread + between_means * varies))
    losses = np.array([mean(lost), within_others, mean(lost * between_means) * n / (a * free)])
    bound = np.array([retained, 0.0, 0.0])
    there = np.flatnonzero([a > 1, free > 1, True])
    squares = np.stack([bound, 1.0 - losses - bound - between, between])[np.ix_(there, there)]
    whole = np.diag([0.0] * len(there) + views)
    whole[: len(there), : len(there)] = squares
    return whole


def mean_square_rate(problem: Problem, sampler: Sampler, eta: float) -> Float[np.ndarray, " k"]:
    """r_c: the factor of the expected squared within-class deviations in a step, near a frame.

    The step eta of stochastic projected gradient is on the summed loss of a batch of `sampler`; the batches of the
    problem are not used. For epochs of T batches it is the T-th root of an epoch's factor. It is 0 for a class of one
    sample, and 1 for a class that no batch pulls together. Raises InvalidInput for eta <= 0, a loss other than plain
    SCL, or classes from which the sampler cannot draw.
    """
    if not problem.loss.is_plain:
        raise InvalidInput("loss", problem.loss.name, "the local rate is known for plain SCL only")
    eta = real_number("eta", eta, float(np.nextafter(0.0, 1.0)), 1e100, "give a step above 0")
    laws = class_laws(sampler, np.asarray(problem.class_sizes).astype(np.int64))
    return np.array([_rate(law, law.contraction(float(problem.tau), eta)) for law in laws])


def least_rate(sampler: Sampler, sizes: Sequence[int] | Int[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    """A lower bound of r_c for all steps and temperatures: its value if every batch moved a class to its mean.

    Raises InvalidInput for a sampler with bound samples, for which no bound is known, or as `class_laws`.
    """
    laws = class_laws(sampler, sizes)
    if any(law.bound for law in laws):
        raise InvalidInput(
            "sampler", sampler, "no least rate is known with bound samples; give a sampler without binding"
        )
    return np.array([_rate(law, np.where((law.members > 1) & (law.others > 0), 0.0, 1.0)) for law in laws])


def best_step(problem: Problem, sampler: Sampler) -> float:
    """The step eta that minimises the largest r_c, to a relative accuracy of about 1e-4. Raises as
    `mean_square_rate`."""
    mean_square_rate(problem, sampler, 1.0)
    laws, tau = class_laws(sampler, np.asarray(problem.class_sizes).astype(np.int64)), float(problem.tau)
    pulls = np.concatenate([law.pull(tau) for law in laws])
    if not (pulls > 0).any():
        raise InvalidInput("sampler", sampler, "its batches pull no class together")
    scales = 0.5 / pulls[pulls > 0]
    return _least(lambda eta: _slowest(laws, tau, eta), SHORTEST * scales.min(), LONGEST * scales.max())


def best_tau(sampler: Sampler, sizes: Sequence[int] | Int[np.ndarray, " k"], eta: float) -> float:
    """The temperature that makes the largest r_c smallest at a step eta, of those from 0.02 to 50.

    Raises InvalidInput as `mean_square_rate`.
    """
    eta = real_number("eta", eta, float(np.nextafter(0.0, 1.0)), 1e100, "give a step above 0")
    laws = class_laws(sampler, sizes)
    return _least(lambda tau: _slowest(laws, tau, eta), SMALLEST_TEMPERATURE, LARGEST_TEMPERATURE)


def _slowest(laws: Sequence[ClassLaw], tau: float, eta: float) -> float:
    return max(_rate(law, law.contraction(tau, eta)) for law in laws)


def _rate(law: ClassLaw, rho: Float[np.ndarray, " v"]) -> float:
    squares = np.linalg.eigvals(recursion(law, rho))
    return float(np.abs(squares).max(initial=0.0)) ** (1.0 / law.epoch)


def _least(rate: Callable[[float], float], low: float, high: float) -> float:
    """The minimiser of a function, on a logarithmic grid and then between the neighbours of the best grid point."""
    grid = np.linspace(np.log(low), np.log(high), GRID)
    at = int(np.argmin([rate(float(np.exp(x))) for x in grid]))
    between = (grid[max(at - 1, 0)], grid[min(at + 1, GRID - 1)])
    minimum = minimize_scalar(
        lambda x: rate(float(np.exp(x))), bounds=between, method="bounded", options={"xatol": 1e-5}
    )
    return float(np.exp(minimum.x))
