r"""How long two merged classes take to separate, on average over random batches: the last stage of emergence.

Two collapsed classes a and b, of norm 1, at an angle theta; all others orthogonal to both. In a batch with m_a, m_b
samples of the two and q_a beside class a, s = 1/tau, each sample of a is pushed along -h_b with

    s e^{s (cos theta - 1)} m_b ( [m_a >= 2] / Z_a + [m_b >= 2] / Z_b ),
    Z_a = (m_a - 1) + m_b e^{s (cos theta - 1)} + (q_a - m_b) e^{-s},

and the mean of class a moves by m_a / n_a of that. So on average, and to first order in the step eta, theta grows by

    eta sin(theta) s e^{s (cos theta - 1)} (1/n_a + 1/n_b) E[ m_a m_b ( [m_a >= 2] / Z_a + [m_b >= 2] / Z_b ) ]

a step, and the time from theta_0 to a right angle is an integral over theta. In the full batch, where the two are
minorities, Z is about N e^{-s} and the time grows like N, that is like R. Under uniform batches of b samples m_a >= 2
is itself rare, and the time grows like N^3/b^2 once few batches hold two samples of a minority.

Random starts: class means of n_min rows, uniform on the nonnegative part of the unit sphere, differ by an angle of
about sqrt((pi - 2) / n_min) where d is large (each row has squared length 2/pi along the mean direction and 1 - 2/pi
across it, and a mean is over n_min rows). That is theta_0. The theory neglects that other classes move meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy.integrate import quad

from ufm.errors import InvalidInput, real_number, whole_number
from ufm.model.laws import MOST_VECTORS, Drawn, Law
from ufm.samplers import Sampler
from ufm.theory.stochastic_rate import SAMPLED, SEED


def separation_time(
    sizes: Sequence[int] | Int[np.ndarray, " k"],
    a: int,
    b: int,
    tau: float,
    eta: float,
    sampler: Sampler | None = None,
    angle: float | None = None,
) -> float:
    """The number of steps from an angle to a right angle between classes a and b; inf if no batch pushes them apart.

    sampler: None is the full batch. angle: theta_0 in radians, at most pi/2; by default that of random starts.
    Raises InvalidInput for a bad class, step or angle.
    """
    counts = np.asarray(sizes)
    for name, value in (("a", a), ("b", b)):
        whole_number(name, value, 0, f"give a class, 0 to {len(counts) - 1}", len(counts) - 1)
    if a == b:
        raise InvalidInput("b", b, "give two different classes")
    eta = real_number("eta", eta, float(np.nextafter(0.0, 1.0)), 1e100, "give a step above 0")
    start = start_angle(int(min(counts[a], counts[b]))) if angle is None else angle
    start = real_number("angle", start, 1e-12, np.pi / 2, "give an angle above 0 and at most pi/2")
    law = _whole(counts, a, b) if sampler is None else _pair(sampler.law(counts), a, b)

    def log_speed(theta: float) -> float:
        return np.log(_push(law, theta, tau) * (1 / counts[a] + 1 / counts[b]) * eta * np.sin(theta))

    if _push(law, np.pi / 2, tau) <= 0:
        return np.inf
    return float(quad(lambda theta: np.exp(-log_speed(theta)), start, np.pi / 2, limit=200)[0])


def start_angle(n_min: int) -> float:
    """theta_0: between the means of two classes of n_min random rows, in many dimensions."""
    return float(min(np.sqrt((np.pi - 2.0) / n_min), 1.0))


def _whole(sizes: Int[np.ndarray, " k"], a: int, b: int) -> Drawn:
    """The full batch, with probability 1."""
    one = np.ones(1, dtype=np.int64)
    return Drawn(one * sizes[a], one * sizes[b], one * sizes.sum(), np.ones(1))


def _pair(law: Law, a: int, b: int) -> Drawn:
    """Samples of two classes in a batch, with its size."""
    if not law.bound:
        drawn = law.drawn(a, b)
        views = law.views
        return Drawn(views * drawn.first, views * drawn.second, views * drawn.total, drawn.probability)
    counts = law.counts() if law.vectors <= MOST_VECTORS else law.sampled(SAMPLED, SEED)
    held = law.views * (counts.drawn + law.bound)
    return Drawn(held[:, a], held[:, b], held.sum(axis=1), counts.probability)


def _push(law: Drawn, theta: float, tau: float) -> float:
    """E[m_a m_b (...)] s e^{s (cos theta - 1)}."""
    near, far = np.exp((np.cos(theta) - 1.0) / tau), np.exp(-1.0 / tau)

    def push(count: Int[np.ndarray, " v"], other: Int[np.ndarray, " v"]) -> Float[np.ndarray, " v"]:
        Z = (count - 1) + other * near + (law.total - count - other) * far
        return np.where(count >= 2, 1.0 / np.where(count >= 2, Z, 1.0), 0.0)

    pushed = law.first * law.second * (push(law.first, law.second) + push(law.second, law.first))
    return float(np.sum(law.probability * pushed)) * near / tau
