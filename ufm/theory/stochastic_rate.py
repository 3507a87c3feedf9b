r"""How fast stochastic projected gradient collapses classes near an orthogonal frame: in mean square, random batches.

A step takes one random batch B of a sampler and the gradient of its summed loss, with step eta. In the batch class c
has m samples beside q of other classes; Z = (m-1) + q e^{-1/tau}, w = (1/(m-1) - 1/Z)/tau = q e^{-1/tau}/((m-1) Z tau)
(`ufm.theory.local_rate`, of the batch). Near a frame the deviations x_i of the members from mu_c move to the batch's
mean,

    x_i <- xbar_B + rho (x_i - xbar_B),     rho(m, q) = (1 - 2 eta w) / (1 + 2 eta w (m-1)),

and those of other samples stay. Nothing moves if m < 2 or q = 0: rho = 1. The sum over a batch is kept, so the class
mean is too, and V = sum_i |x_i - xbar|^2 loses (1 - rho^2) times the squares within the batch. Given its count every
set of samples of a class is equally likely, so that these are V (m-1)/(n_c-1) on average: V contracts in mean square by

    r_c = 1 - E[ (1 - rho(m,q)^2) (m-1)_+ ] / (n_c - 1)

a step, exactly, whatever the deviations. In an epoch every sample is in one batch, and the sum over its batches takes
the place of the mean: with T batches the factor of an epoch is 1 - T (1 - r_c), less than r_c^T. Where some samples are
bound to every batch, squares within them, within the others and between both means follow a linear recursion, and
its spectral radius is the rate; two views of an image differ by what contracts on its own. (Theory, 5.20.)

**The best step.** rho = 0 is the best there is: r_c >= 1 - E[(m-1)_+] / (n_c - 1), whatever eta and tau. No step makes
a class contract faster than its samples meet positives; so under uniform batches the *smallest* class is the slowest,
where in the full batch it is the largest. If a batch always holds the same m and q of the class, eta = 1/(2w) attains
it; and for smaller steps the best temperature is that of the full batch with m and q in the place of n_c and N - n_c,
tau = 1 / (1 + W(q / ((m-1) e))) (theory, 5.21). Else both are found by minimising in one variable.
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

# Of a bound sampler with more count vectors than can be listed so many are drawn, with this seed.
SAMPLED, SEED = 200_000, 0
# Temperatures among which the best is looked for; points of a first grid.
SMALLEST_TEMPERATURE, LARGEST_TEMPERATURE, GRID = 0.02, 50.0, 61
# Steps among which the best is looked for, in units of the least and the largest 1/(2w) of a batch.
SHORTEST, LONGEST = 0.1, 10.0


class ClassLaw(NamedTuple):
    """What a batch holds, as one class sees it.

    - units: of the class (samples, or images of two views). bound: units that are in every batch.
    - drawn: other units of the class in a batch. others: samples of other classes. probability: of each such pair.
    - views: samples of a unit. epoch: batches of an epoch, in which every unit is once; 1 if batches are independent.
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
        """w: minus the derivative of a batch's loss in one pair of the class, at a frame; 0 where nothing pulls."""
        positives = np.maximum(self.members - 1.0, 1.0)
        repelled = self.others * np.exp(-1.0 / tau)
        pulls = (self.members > 1) & (self.others > 0)
        return np.where(pulls, repelled / (positives * (positives + repelled) * tau), 0.0)

    def contraction(self, tau: float, eta: float) -> Float[np.ndarray, " v"]:
        """rho: of the deviations from the batch's mean."""
        moved = 2.0 * eta * self.pull(tau)
        return (1.0 - moved) / (1.0 + moved * np.maximum(self.members - 1.0, 0.0))


def class_laws(sampler: Sampler, sizes: Sequence[int] | Int[np.ndarray, " k"]) -> list[ClassLaw]:
    """The law of the batches of a sampler as each class sees it. A bound sampler's is listed by count vectors, or
    estimated from SAMPLED of them where they are too many.

    Raises InvalidInput if it cannot draw from classes of these sizes, or binds samples to the batches of an epoch.
    """
    law = sampler.law(sizes)
    if law.bound and law.epoch:
        raise InvalidInput("sampler", sampler, "no rate is known of bound epochs; bind uniform batches")
    return [_with_bound(law, c) if law.bound else _drawn(law, c) for c in range(law.k)]


def _drawn(law: Law, c: int) -> ClassLaw:
    own = law.drawn(c)
    others = law.views * (own.total - own.first)
    return ClassLaw(law.sizes[c], 0, own.first, others, own.probability, law.views, max(law.epoch, 1))


def _with_bound(law: Law, c: int) -> ClassLaw:
    """Binding makes the size of a batch random: by the law of all its counts."""
    found = law.counts() if law.vectors <= MOST_VECTORS else law.sampled(SAMPLED, SEED)
    own = found.drawn[:, c]
    others = law.views * (found.drawn.sum(axis=1) - own + law.bound * (law.k - 1))
    return ClassLaw(law.sizes[c], law.bound, own, others, found.probability, law.views, 1)


def recursion(law: ClassLaw, rho: Float[np.ndarray, " v"]) -> Float[np.ndarray, "s s"]:
    """The linear recursion of the expected squares of one class in a step (an epoch, of epochs); theory, 5.20.

    Squares that can be other than 0: of the bound units about their mean; of the others about theirs; between the two
    means; and with two views those within bound and within other images.
    """
    a, free, n, j = law.bound, law.units - law.bound, law.units, law.drawn.astype(float)
    lost = 1.0 - rho**2

    def mean(values: Float[np.ndarray, " v"]) -> float:
        return law.epoch * float(np.sum(law.probability * values))

    spread = np.maximum(j - 1.0, 0.0) / max(free - 1, 1)
    kept = 1.0 - mean(lost)
    views = [kept] * (a > 0) + [1.0 - mean(lost * j) / max(free, 1)] * (free > 0) if law.views > 1 else []
    if a == 0 or free == 0:
        own = kept if a else 1.0 - mean(lost * spread)
        return np.diag([own] * (n > 1) + views)
    # The mean of those drawn varies by so much for each square of the others.
    varies = np.where(j > 0, (free - j) / np.maximum(j * free * max(free - 1, 1), 1.0), 0.0)
    towards = (1.0 - rho) * j * n / ((a + j) * free)
    share = a * j / (a + j)
    between = np.array([0.0, a * free / n * mean(towards**2 * varies), mean((1.0 - towards) ** 2)])
    losses = np.array([mean(lost), mean(lost * (spread + share * varies)), mean(lost * share) * n / (a * free)])
    bound = np.array([kept, 0.0, 0.0])
    there = np.flatnonzero([a > 1, free > 1, True])
    squares = np.stack([bound, 1.0 - losses - bound - between, between])[np.ix_(there, there)]
    whole = np.diag([0.0] * len(there) + views)
    whole[: len(there), : len(there)] = squares
    return whole


def mean_square_rate(problem: Problem, sampler: Sampler, eta: float) -> Float[np.ndarray, " k"]:
    """r_c: factor a step of the expected squared within-class deviations, near a frame; 0 for a class of one sample.

    Of stochastic projected gradient with step eta on the summed loss of batches of `sampler`; the problem's own batches
    do not matter. Of epochs of T batches it is the T-th root of an epoch's factor. 1 for a class that no batch pulls
    together. Raises InvalidInput for eta <= 0, another loss than plain SCL, or what the sampler cannot draw.
    """
    if not problem.loss.is_plain:
        raise InvalidInput("loss", problem.loss.name, "the local rate is of plain SCL")
    eta = real_number("eta", eta, float(np.nextafter(0.0, 1.0)), 1e100, "give a step above 0")
    laws = class_laws(sampler, np.asarray(problem.class_sizes).astype(np.int64))
    return np.array([_rate(law, law.contraction(float(problem.tau), eta)) for law in laws])


def least_rate(sampler: Sampler, sizes: Sequence[int] | Int[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    """What r_c is not below, whatever step and temperature: its value where every batch takes a class to its mean.

    Raises InvalidInput for a sampler with bound samples, of which that is not known, or as `class_laws`.
    """
    laws = class_laws(sampler, sizes)
    if any(law.bound for law in laws):
        raise InvalidInput("sampler", sampler, "with bound samples the least rate is not known; leave them out")
    return np.array([_rate(law, np.where((law.members > 1) & (law.others > 0), 0.0, 1.0)) for law in laws])


def best_step(problem: Problem, sampler: Sampler) -> float:
    """The step eta that makes the largest r_c smallest, found to about 1e-4 relative. Raises as `mean_square_rate`."""
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
    """Where a function is least, on a grid of logarithms and then between its neighbours."""
    grid = np.linspace(np.log(low), np.log(high), GRID)
    at = int(np.argmin([rate(float(np.exp(x))) for x in grid]))
    between = (grid[max(at - 1, 0)], grid[min(at + 1, GRID - 1)])
    found = minimize_scalar(lambda x: rate(float(np.exp(x))), bounds=between, method="bounded", options={"xatol": 1e-5})
    return float(np.exp(found.x))
