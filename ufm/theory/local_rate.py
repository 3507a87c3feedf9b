r"""How fast plain projected gradient collapses classes near an orthogonal frame, and the best temperature for it.

The batch is the full batch of N samples, n_c of class c. The step is eta on the summed loss: H <- P(H - eta grad L(H)).

**Contraction.** At an orthogonal frame (rows of class c equal mu_c, the mu_c orthonormal and nonnegative, so
of disjoint supports) the derivative of L in one ordered pair within class c is C_ij = -w_c,

    w_c = (1/(n_c - 1) - p+) / tau = N_c e^{-1/tau} / ((n_c - 1) Z_c tau),
    N_c = N - n_c,    Z_c = (n_c - 1) + N_c e^{-1/tau},    p+ = 1/Z_c,

and C_il >= 0 across classes. The gradient at sample i is sum_l (C_il + C_li) h_l. Let x_i = h_i - mu_c be small,
in directions orthogonal to mu_c and in coordinates where no other class has mass (those of the support of mu_c, or of
no class). To first order the gradient is -2 w_c (n_c - 1) along mu_c and -2 w_c sum_{j != i} x_j across it, so that
a step gives h_i the length 1 + 2 eta w_c (n_c - 1) along mu_c, which the projection divides out, and with the
class's mean deviation x,

    x_i <- [ x_i + 2 eta w_c (n_c x - x_i) ] / (1 + 2 eta w_c (n_c - 1)).

The mean does not move (rotating the frame does not change the loss), and deviations from it contract by

    rho_c = (1 - 2 eta w_c) / (1 + 2 eta w_c (n_c - 1))

in each step. In coordinates of other classes repulsion is of first order, so those entries reach 0 exactly after
finitely many steps. Hence in the asymptotic phase deviations fall like rho^t and the excess, quadratic in them, like
rho^{2t}, rho = max_c |rho_c|, or faster if the slowest class has no such direction. (With d = k and every class on one
coordinate no class has one, and the iteration ends after finitely many steps.) |rho_c| < 1 for every eta > 0: near the
frame no step is too long. The neighbourhood shrinks with tau: the loss repels the closest positives, by a gradient of
third order in x with weight 1/tau^2, while w_c is of order e^{-1/tau}/tau. So the phase begins once x is small in
comparison with sqrt(tau e^{-1/tau}).

**The best temperature.** Let s = 1/tau. rho_c falls as w_c grows, and w_c = N_c / (n_c - 1) * s / ((n_c - 1) e^s + N_c)
has one maximum in s, where (s - 1) e^{s - 1} = N_c / ((n_c - 1) e). With Lambert's W,

    tau_c = 1 / (1 + W(N_c / ((n_c - 1) e))),

for every eta. For fixed N and tau, 1 - rho_c = 2 eta x n_c/(n_c - 1) / (1 + 2 eta x), x = w_c (n_c - 1), falls in n_c.
The largest class is the slowest, so the best temperature of the whole problem is that of its largest class, as long as
2 eta w_c <= 1, that is rho_c >= 0, for all c. (Theory, 5.10 and 5.11.)
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.special import lambertw

from ufm.display import count
from ufm.errors import InvalidInput, real_number
from ufm.model.problem import Problem
from ufm.settings import in_fixed_settings


@in_fixed_settings
def attraction(problem: Problem) -> Float[Array, " k"]:
    """w_c: minus the derivative of the loss in one pair G_ij of class c, at an orthogonal frame.

    It is 0 for a class of one sample, which has no pair. Raises InvalidInput unless the problem is plain SCL in the
    full batch.
    """
    if not problem.loss.is_plain:
        raise InvalidInput("loss", problem.loss.name, "the local rate is known for plain SCL only")
    if not problem.is_full_batch:
        fix = "the local rate is known for the full batch only"
        raise InvalidInput("batches", count("batch", problem.batches.shape[0]), fix)
    sizes = problem.class_sizes
    positives = jnp.maximum(sizes - 1.0, 1.0)
    repelled = (sizes.sum() - sizes) * jnp.exp(-1.0 / problem.tau)
    return jnp.where(sizes > 1, repelled / (positives * (positives + repelled) * problem.tau), 0.0)


@in_fixed_settings
def repulsion(problem: Problem) -> Float[Array, "k k"]:
    """F_ab: the derivative of the summed loss in the coordinate of class b of a sample of class a != b, at an
    orthogonal frame (theory, 5.22). It is >= 0, and gradient descent moves the sample by -F_ab along the vector of
    class b.

    F_ab = n_b s e^{-s} (1/Z_a + 1/Z_b), s = 1/tau; the term of a class of one sample is left out. Raises as
    `attraction`.
    """
    attraction(problem)
    sizes = problem.class_sizes
    s = 1.0 / problem.tau
    Z = jnp.maximum(sizes - 1.0, 1.0) + (sizes.sum() - sizes) * jnp.exp(-s)
    inverse = jnp.where(sizes > 1, 1.0 / Z, 0.0)
    off = 1.0 - jnp.eye(problem.k)
    return off * sizes[None, :] * s * jnp.exp(-s) * (inverse[:, None] + inverse[None, :])


@in_fixed_settings
def leaving_time(problem: Problem, slope: float, cosine: float) -> float:
    """The time after which gradient flow through LeakyReLU, from a frame with ||z|| = 1, reaches the inner product
    -cosine for a pair of class means, if the gradient stays that of the frame (theory, 5.22). n steps eta of one sample
    of each class are a time n eta.

    Each class turns by slope tan(phi), phi/2 + sin(2 phi)/4 = slope F t, where F is the norm of its row of `repulsion`.
    t is of the order of cosine / slope^2 if the cosine is small in comparison with the slope, and about
    pi / (4 slope F) if it is large. Raises as `attraction`, and InvalidInput for a slope outside (0, 1] or a cosine
    outside (0, 1).
    """
    slope, cosine = real_number("slope", slope, 1e-9, 1.0), real_number("cosine", cosine, 1e-12, 1.0)
    gradient_scale = np.asarray(repulsion(problem))
    whole = np.linalg.norm(gradient_scale, axis=1)
    direction = gradient_scale / whole[:, None]

    def largest(t: float) -> float:
        turned = slope * np.tan(_angle(np.minimum(slope * whole * t, np.pi / 4)))
        pairs = turned[:, None] * direction
        return float((pairs + pairs.T).max())

    least, most = 0.0, float(np.pi / (4 * slope * whole.max()))
    for _ in range(60):
        middle = (least + most) / 2
        least, most = (middle, most) if largest(middle) < cosine else (least, middle)
    return most


def _angle(u: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    """phi in [0, pi/2] with phi/2 + sin(2 phi)/4 = u, by bisection."""
    least, most = np.zeros_like(u), np.full_like(u, np.pi / 2)
    for _ in range(60):
        middle = (least + most) / 2
        below = middle / 2 + np.sin(2 * middle) / 4 < u
        least, most = np.where(below, middle, least), np.where(below, most, middle)
    return (least + most) / 2


@in_fixed_settings
def contraction(problem: Problem, eta: float) -> Float[Array, " k"]:
    """rho_c: the factor by which the deviations within each class change in a step of plain projected gradient.

    The step eta is on the summed loss. It is 0 for a class of one sample, which has no deviations. Raises InvalidInput
    for eta <= 0, and as `attraction`.
    """
    if not 0 < eta < np.inf:
        raise InvalidInput("eta", eta, "give a step above 0")
    sizes = problem.class_sizes
    moved = 2.0 * eta * attraction(problem)
    return jnp.where(sizes > 1, (1.0 - moved) / (1.0 + moved * (sizes - 1.0)), 0.0)


@in_fixed_settings
def slowest_contraction(problem: Problem, eta: float) -> float:
    """rho = max_c |rho_c|, the final factor of deviations in a step; that of the excess is rho^2. Raises as
    `contraction`."""
    return float(jnp.max(jnp.abs(contraction(problem, eta))))


def best_tau(sizes: Sequence[int] | Int[np.ndarray, " k"]) -> float:
    """The temperature that minimises `slowest_contraction`, in closed form, for any step with all rho_c >= 0.

    It is 1 / (1 + W((N - n) / ((n - 1) e))), where n is the size of the largest class. Raises InvalidInput for fewer
    than two classes or if no class has two samples.
    """
    counts = np.asarray(sizes)
    if len(counts) < 2 or counts.min() < 1 or counts.max() < 2:
        raise InvalidInput("sizes", counts.tolist(), "give at least 2 classes, one of them with at least 2 samples")
    largest = float(counts.max())
    crowd = (float(counts.sum()) - largest) / (largest - 1.0)
    return float(1.0 / (1.0 + lambertw(crowd / np.e).real))
