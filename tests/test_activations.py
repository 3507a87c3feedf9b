"""Activations: their infima, the sets they give, projection onto those, descent through them, and theory."""

import math

import cvxpy as cp
import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

import networks
import solvers
import ufm
from solvers.certification.entry_bound_relaxation import entry_bound_relaxation
from ufm.activations import ACTIVATIONS, GELU_INFIMUM, SILU_INFIMUM, UFM, UFM_PLUS, activation
from ufm.model.projections import project_bounded_below
from ufm.theory import entry_bounds
from ufm.theory.local_rate import leaving_time, repulsion

LINE = np.linspace(-30, 30, 60_001)
FEATURES = {  # floors: normalised, cut to the ball
    "relu": (UFM_PLUS, UFM_PLUS),
    "abs": (UFM_PLUS, UFM_PLUS),
    "softplus": (UFM_PLUS, UFM_PLUS),
    "none": (UFM, UFM),
    "leaky-relu": (UFM, UFM),
    "leaky-relu:0.3": (UFM, UFM),
    "elu": (UFM, UFM),
    "gelu": (UFM, GELU_INFIMUM),
    "silu": (UFM, SILU_INFIMUM),
}


def test_infima_are_those_of_the_definitions():
    with mpmath.workdps(30):
        gelu = mpmath.findroot(lambda x: mpmath.diff(lambda t: t * mpmath.ncdf(t), x), -0.75)
        silu = mpmath.findroot(lambda x: mpmath.diff(lambda t: t / (1 + mpmath.exp(-t)), x), -1.28)
        assert abs(gelu * mpmath.ncdf(gelu) - GELU_INFIMUM) < 1e-16
        assert abs(silu / (1 + mpmath.exp(-silu)) - SILU_INFIMUM) < 1e-16


@pytest.mark.parametrize("name", FEATURES)
def test_images_lie_in_the_sets_and_fill_them(name):
    row = activation(name)
    least = float(np.asarray(row.function(jnp.asarray(LINE))).min())
    assert least >= row.infimum - 1e-15
    if math.isfinite(row.infimum):
        assert least < row.infimum + 1e-6
    assert (row.entry_bound(normalised=True), row.entry_bound(normalised=False)) == FEATURES[name]
    z = jnp.asarray(np.random.default_rng(0).standard_normal((500, 4)) * np.geomspace(1e-3, 30, 500)[:, None])
    for normalised in (True, False):
        H = np.asarray(row.embedding(z, normalised=normalised))
        assert H.min() >= row.entry_bound(normalised=normalised) - 1e-15
        assert np.linalg.norm(H, axis=1).max() <= 1
        if row.entry_bound(normalised=normalised) == UFM and normalised:
            assert H.min() < -0.9


def test_a_row_of_zeros_stays_one_and_has_a_finite_derivative():
    for name in ("relu", "gelu"):
        for normalised in (True, False):
            z = -jnp.ones((2, 3)) * (0.0 if name != "relu" else 1.0)
            H, back = jax.vjp(lambda z, n=normalised, a=name: activation(a).embedding(z, normalised=n), z)
            assert bool(jnp.isfinite(H).all())
            assert bool(jnp.isfinite(back(jnp.ones_like(H))[0]).all())


@pytest.mark.parametrize(
    "name", ["tanh", "relu:2", "leaky-relu:0", "leaky-relu:2", "leaky-relu:x", "leaky-relu:nan", 3]
)
def test_no_activation(name, untyped):
    with pytest.raises(ufm.InvalidInput, match="activation"):
        activation(name)


def test_networks_have_the_same_activations():
    assert set(networks.ACTIVATIONS) == set(ACTIVATIONS)
    for name, function in networks.ACTIVATIONS.items():
        assert function is ACTIVATIONS[name].function
        assert function(jnp.ones(2, jnp.float32)).dtype == jnp.float32


def by_bisection(y, entry_bound):
    """The projection by its conditions: theory, 1.6 (d)."""

    def norm(t):
        return float((np.maximum(entry_bound, t * y) ** 2).sum())

    least, most = 0.0, 1.0
    if norm(1.0) <= 1:
        return np.maximum(entry_bound, y)
    for _ in range(200):
        middle = (least + most) / 2
        least, most = (middle, most) if norm(middle) <= 1 else (least, middle)
    return np.maximum(entry_bound, least * y)


projected = jax.jit(project_bounded_below)


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.floats(-1.5, 12), st.sampled_from([0.0, 0.01, 0.17, 0.5, 1.0]))
def test_projection_is_exact(seed, d, size, depth):
    """Entries of 0 stay 0 and change nothing: all dimensions in one shape."""
    rng = np.random.default_rng(seed)
    y = rng.standard_normal(d) * 10.0**size + rng.choice([0.0, -1.0])
    x = np.asarray(projected(jnp.asarray(np.pad(y, (0, 60 - d))), -depth))
    assert (x[d:] == 0).all()
    x = x[:d]
    np.testing.assert_allclose(x, by_bisection(y, -depth), atol=2e-15)
    assert x.min() >= -depth
    assert x @ x <= 1 + 1e-15


@pytest.mark.parametrize("entry_bound", [-0.17, -0.4])
def test_projection_against_cvxpy(entry_bound):
    H = np.random.default_rng(3).standard_normal((4, 30)) * np.array([[0.1], [0.5], [1.0], [5.0]])
    X = cp.Variable(H.shape)
    cp.Problem(cp.Minimize(cp.sum_squares(X - H)), [entry_bound <= X, cp.norm(X, 2, axis=1) <= 1]).solve(
        solver=cp.CLARABEL
    )
    result = np.asarray(project_bounded_below(jnp.asarray(H), entry_bound))
    np.testing.assert_allclose(result, X.value, atol=1e-4)
    assert ((result - H) ** 2).sum() <= ((X.value - H) ** 2).sum() + 1e-6


def test_at_its_ends_it_is_the_projection_of_the_models():
    H = jnp.asarray(np.random.default_rng(4).standard_normal((50, 7)))
    np.testing.assert_allclose(project_bounded_below(H, 0.0), ufm.project(H, True), atol=1e-15)
    np.testing.assert_allclose(project_bounded_below(H, -1.0), ufm.project(H, False), atol=1e-15)


@pytest.mark.parametrize(("rank", "d"), [(1, 1), (1, 5), (2, 3), (3, 4), (4, 9), (9, 312), (6, 6)])
def test_flat_frames(rank, d):
    Q = entry_bounds.flat_frame(rank, d)
    np.testing.assert_allclose(Q.T @ Q, np.eye(rank), atol=1e-13)
    if rank < d:
        np.testing.assert_allclose(np.linalg.norm(Q, axis=1), math.sqrt(rank / d), atol=1e-13)


@given(st.integers(0, 2**32 - 1), st.integers(2, 5), st.integers(1, 12), st.floats(0.1, 0.9))
def test_no_vectors_above_a_floor_are_excluded(seed, k, d, depth):
    """Theory, 4.20 (b) and (c), of vectors that are there."""
    rng = np.random.default_rng(seed)
    x = np.stack([by_bisection(3 * rng.standard_normal(d), -depth) for _ in range(k)])
    G = x @ x.T
    pairs = G[~np.eye(k, dtype=bool)]
    assert pairs.mean() >= entry_bounds.balanced_cosine(k, d, -depth) - 1e-12
    if np.diagonal(G).min() > 1 - 1e-12:
        np.fill_diagonal(G, 1.0)
        assert entry_bounds.necessary_dimension(G, -depth) <= d


@pytest.mark.parametrize("k", [2, 3, 4, 7])
def test_equal_classes(k):
    """Bounds meet: the code attains the mean cosine, and the simplex fits from where theory says."""
    simplex = (k * np.eye(k) - 1) / (k - 1)
    needed = entry_bounds.necessary_dimension(simplex, GELU_INFIMUM)
    assert needed == math.ceil(1 / ((k - 1) * GELU_INFIMUM**2))
    assert entry_bounds.sufficient_dimension(k - 1, GELU_INFIMUM) >= needed
    for d in range(k, 60, k):
        code = entry_bounds.balanced_code(k, d, GELU_INFIMUM)
        G = code @ code.T
        assert code.min() >= GELU_INFIMUM - 1e-16
        np.testing.assert_allclose(np.diagonal(G), 1, atol=1e-13)
        off = entry_bounds.balanced_cosine(k, d, GELU_INFIMUM)
        np.testing.assert_allclose(G[~np.eye(k, dtype=bool)], off, atol=1e-13)
        if d < needed:
            assert off > -1 / (k - 1) + 1e-6


def test_the_relaxation_that_knows_d_is_the_closed_form_for_equal_classes():
    problem = ufm.Problem(range(3), 9, nonneg=False, multiplicity=[4, 4, 4])
    values = entry_bound_relaxation(problem, GELU_INFIMUM, [3, 6, 20])
    for value, d in zip(values, (3, 6, 20), strict=True):
        g = entry_bounds.balanced_cosine(3, d, GELU_INFIMUM)
        exact = 12 * (math.log(3 + 8 * math.exp(g - 1)) - math.log(3 + 8 * math.exp(-1)))
        assert value == pytest.approx(exact, abs=1e-6)
    with pytest.raises(ufm.InvalidInput, match="problem"):
        entry_bound_relaxation(ufm.Problem(range(3), 9, nonneg=False), GELU_INFIMUM, [3])


@pytest.mark.parametrize(
    "call",
    [
        lambda: entry_bounds.sufficient_dimension(0, -0.1),
        lambda: entry_bounds.sufficient_dimension(3, 0.0),
        lambda: entry_bounds.sufficient_dimension(3, -2.0),
        lambda: entry_bounds.flat_frame(4, 3),
        lambda: entry_bounds.balanced_code(3, 4, -0.1),
        lambda: entry_bounds.balanced_cosine(1, 4, -0.1),
        lambda: solvers.Accelerated(entry_bound=0.5),
        lambda: solvers.Activated("swish"),
        lambda: solvers.Activated(scale=0.0),
        lambda: solvers.Activated(normalised="yes"),
        lambda: solvers.Activated(transformation=3),
        lambda: leaving_time(ufm.Problem([0, 0, 1, 1], 2), 0.0, 0.1),
        lambda: leaving_time(ufm.Problem([0, 0, 1, 1], 2), 0.1, 2.0),
        lambda: solvers.solve(ufm.Problem([0, 0, 1, 1], 2), 1, method=solvers.Activated("gelu")),
    ],
)
def test_bad_input_is_one_line(call, untyped):
    with pytest.raises(ufm.InvalidInput) as bad:
        call()
    assert "\n" not in str(bad.value)


def collapsed(sizes, d, nonneg=False):
    return ufm.Problem(range(len(sizes)), d, nonneg=nonneg, multiplicity=sizes)


def falling(steps):
    return optax.adam(optax.cosine_decay_schedule(0.02, steps))


@pytest.mark.few(1)
@pytest.mark.parametrize("name", ["relu", "abs"])
def test_descent_through_a_nonnegative_activation_ends_in_a_frame(name):
    problem = collapsed([4, 4, 4], 12, nonneg=True)
    method = solvers.Activated(name, transformation=falling(1500))
    solution = solvers.solve(problem, 4, method=method, max_steps=1500)
    assert (solution.excess >= 0).all()
    assert np.median([np.abs(H @ H.T - np.eye(3)).max() for H in solution.H]) < 1e-6
    assert all(len(history.iteration) > 2 for history in solution.history)


@pytest.mark.thorough
def test_descent_through_others_ends_in_the_geometry_of_ufm():
    problem = collapsed([20, 20, 4, 4], 8)
    certifier = solvers.Certifier(problem)
    for method in (
        solvers.Activated("elu", transformation=falling(3000)),
        solvers.Activated("gelu", False, falling(3000), tolerance=1e-13),
    ):
        solution = solvers.solve(problem, 2, method=method, max_steps=3000)
        gaps = [certifier.certify(H).gap for H in solution.H]
        if method.normalised:
            assert max(gaps) < 1e-4
        else:  # d = 8 is too small for a floor of -0.17: theory, 4.20
            assert min(solution.H.min(axis=(1, 2))) >= GELU_INFIMUM - 1e-15
            assert min(gaps) > 0.1


@pytest.mark.thorough
def test_the_floor_costs_what_theory_says():
    """Two classes, four coordinates: the code of theory, 4.20 (c), is the minimiser, and descent finds its loss."""
    problem = collapsed([5, 5], 4)
    solution = solvers.solve(problem, 8, method=solvers.Accelerated(entry_bound=GELU_INFIMUM), max_steps=2000)
    code = float(ufm.excess(entry_bounds.balanced_code(2, 4, GELU_INFIMUM), problem))
    assert solution.excess.min() == pytest.approx(code, abs=1e-9)
    assert solution.H.min() >= GELU_INFIMUM


def test_repulsion_is_the_gradient_at_a_frame():
    problem = ufm.Problem.from_class_sizes([6, 3, 2], 3, 0.4)
    frame = jnp.eye(3)[problem.labels]
    gradient = np.asarray(jax.grad(ufm.scl_loss)(frame, problem))
    gradient_scale = np.asarray(repulsion(problem))
    for sample, label in enumerate(np.asarray(problem.labels)):
        off = np.arange(3) != label
        np.testing.assert_allclose(gradient[sample][off], gradient_scale[label][off], rtol=1e-12)


@pytest.mark.parametrize(("slope", "angle"), [(0.01, 0.001), (0.01, 0.1), (0.1, 0.1), (0.5, 0.05)])
def test_the_time_to_leave_against_the_flow(slope, angle):
    """Theory, 5.22 (a) and (b): the flow under a constant force, integrated in z, and its two ends."""
    gradient_scale = np.array([0.0, -0.3, -0.4])

    def flow(_, z):
        x = np.where(z > 0, z, slope * z)
        norm = np.linalg.norm(x)
        h = x / norm
        return np.where(z > 0, 1.0, slope) * (gradient_scale - h * (h @ gradient_scale)) / norm

    def left(_, z):
        x = np.where(z > 0, z, slope * z)
        return x @ gradient_scale / 0.5 - math.sin(math.atan(angle)) * np.linalg.norm(x)

    left.terminal = True
    longest = 10 * math.pi / (4 * slope * 0.5) + 10 * angle / (slope**2 * 0.5)
    run = solve_ivp(flow, (0, longest), np.array([1.0, 0.0, 0.0]), events=left, rtol=1e-10, atol=1e-12)
    phi = math.atan(angle / slope)
    least = (phi / 2 + math.sin(2 * phi) / 4) / (slope * 0.5)
    assert least * (1 - 1e-6) <= run.t[-1] <= least * (1 + angle**2) ** 1.5 * (1 + 1e-6)


def test_the_two_exponents_of_leaving():
    problem = collapsed([5, 5, 5, 5], 4)
    near = [leaving_time(problem, slope, 1e-4) for slope in (0.02, 0.2)]
    far = [leaving_time(problem, slope, 0.3) for slope in (0.001, 0.01)]
    assert math.log10(near[0] / near[1]) == pytest.approx(2, abs=0.01)
    assert math.log10(far[0] / far[1]) == pytest.approx(1, abs=0.01)
    assert far[0] == pytest.approx(math.pi / (4e-3 * float(np.linalg.norm(repulsion(problem)[0]))), rel=0.01)
