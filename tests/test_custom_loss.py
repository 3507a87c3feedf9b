"""A loss of one's own, by one row function: solved and verified like the others; never certified, and never a crash."""

import pickle

import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import logsumexp
from problems import frame
from test_checker import UNREADABLE, outcome

import solvers
import ufm
from experiments.measurements.solutions import measure_problem
from solvers.certification.certificate import Certificate, Proof
from solvers.certification.verification import Verdict
from solvers.multistart import solve_each
from solvers.solution import Solution
from ufm import losses


def scl_row(cosines, samples, positive, tau):
    """SCL written once more, as a user would."""
    mean = jnp.sum(jnp.where(positive, samples * cosines, 0.0)) / jnp.sum(jnp.where(positive, samples, 0.0))
    return logsumexp(cosines / tau, b=samples) - mean / tau


def springs(cosines, samples, positive, tau):
    """An invented loss: springs that pull positives to cosine 1 and push negatives below 0, stiffer with the sine."""
    off = jnp.where(positive, 1.0 - cosines, cosines)
    return jnp.sum(samples * (jnp.cosh(off / tau) - 1.0 + 0.1 * jnp.sin(off) ** 2))


def oblique(cosines, samples, positive, tau):
    """An invented loss that no frame minimises: negatives want a cosine of 1/4."""
    return jnp.sum(samples * jnp.where(positive, 1.0 - cosines, (cosines - 0.25) ** 2)) / tau


LABELS = [0] * 6 + [1] * 3 + [2] * 2
FAMILY = [[0, 1, 2, 6, 7], [2, 3, 4, 7, 8, 10], [0, 1, 2], [3, 4], [5, 6, 9, 10], [1, 3, 6, 8]]


def posed(row, batches=None, nonneg=True, **options):
    return ufm.Problem(LABELS, 4, 0.5, batches, nonneg, loss=losses.custom(row, name=row.__name__, **options))


def points(seed):
    H = np.abs(np.random.default_rng(seed).standard_normal((len(LABELS), 4)))
    return H / np.linalg.norm(H, axis=1, keepdims=True) * np.linspace(0.5, 1.0, len(LABELS))[:, None]


@pytest.mark.few(1)
@pytest.mark.parametrize("batches", [None, FAMILY])
def test_scl_as_a_loss_of_ones_own_is_scl(batches):
    custom, plain = posed(scl_row, batches, minimal_at_frames=True), ufm.Problem(LABELS, 4, 0.5, batches)
    assert float(ufm.loss_bound(custom)) == pytest.approx(float(ufm.loss_bound(plain)), rel=1e-14)
    for seed in range(5):
        H = points(seed)
        ours, theirs = (ufm.model.evaluation.evaluate(jnp.asarray(H), problem) for problem in (custom, plain))
        for name in ("loss", "excess", "gradient", "gap_contribution"):
            np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("row", [springs, oblique])
def test_value_and_gradient_of_an_invented_loss(row):
    """The value by a plain sum over samples; the gradient against differences; the same over orbits."""
    problem, H = posed(row, FAMILY), points(0)
    G, labels, plain = H @ H.T, np.array(LABELS), 0.0
    for batch in FAMILY:
        for i in batch:
            others = [j for j in batch if j != i]
            same = labels[others] == labels[i]
            if same.any():
                plain += float(row(jnp.array(G[i, others]), jnp.ones(len(others)), jnp.array(same), 0.5))
    assert float(ufm.scl_loss(jnp.asarray(H), problem)) == pytest.approx(plain, rel=1e-12)
    gradient, step = np.asarray(ufm.model.evaluation.evaluate(jnp.asarray(H), problem).gradient), 1e-6
    for i, j in ((0, 1), (7, 2), (10, 3)):
        shift = np.zeros_like(H)
        shift[i, j] = step
        above, below = (float(ufm.scl_loss(jnp.asarray(H + sign * shift), problem)) for sign in (1, -1))
        assert gradient[i, j] == pytest.approx((above - below) / (2 * step), rel=1e-6, abs=1e-8)
    symmetry = ufm.orbits(problem)
    rows = points(1)[: len(symmetry)]
    whole, collapsed = (
        float(ufm.excess(jnp.asarray(x), of)) for x, of in ((rows[symmetry.index], problem), (rows, symmetry.quotient))
    )
    assert whole == pytest.approx(collapsed, rel=1e-10)


@pytest.mark.few(1)
@pytest.mark.parametrize("batches", [None, FAMILY])
def test_an_invented_loss_is_solved_and_verified(batches):
    problem = posed(springs, batches, minimal_at_frames=True)
    solution = solvers.solve(problem, inits=3, seed=0)
    assert solution.excess.max() < 1e-10
    result = solvers.verify(solution.embedding(solution.best), problem)
    assert result.is_orthogonal_frame or batches
    assert result.verdict is Verdict.STATIONARY  # globality is not known, and it says why
    assert "a loss of your own" in result.reason
    assert "taken on trust" in result.reason
    assert solvers.verify(points(0), problem).verdict is Verdict.NOT_CONVERGED
    assert solvers.verify(2 * frame(problem), problem).verdict is Verdict.INFEASIBLE


@pytest.mark.few(1)
@pytest.mark.parametrize("nonneg", [True, False])
def test_a_loss_that_frames_do_not_minimise(nonneg):
    problem = posed(oblique, nonneg=nonneg)
    solution = solvers.solve(problem, inits=2, seed=0)
    gram = solution.gram(solution.best)
    assert gram[~np.eye(3, dtype=bool)] == pytest.approx(0.25, abs=1e-6)
    assert solution.excess.min() < -0.1  # over what frames pay, which is no bound
    result = solvers.verify(solution.embedding(solution.best), problem)
    assert result.verdict is Verdict.STATIONARY
    assert "trust" not in result.reason


@pytest.mark.parametrize("nonneg", [True, False])
def test_certify_says_what_it_cannot_prove(nonneg, tmp_path):
    problem = posed(springs, nonneg=nonneg)
    certifier = solvers.certification.certifier.Certifier(problem)
    certifier.consider([frame(problem)])
    proof = certifier.certify(frame(problem))
    assert proof.status is Proof.INCONCLUSIVE
    assert "springs is a loss of your own" in proof.reason
    assert proof.implied is None
    assert proof.unique is None
    assert (proof.lower, proof.upper) == (-np.inf, np.inf)
    assert "springs" in str(proof)
    proof.save(tmp_path / "c.json")
    assert outcome((tmp_path / "c.json").read_bytes(), tmp_path) == UNREADABLE  # a file holds no code
    with pytest.raises(ufm.InvalidInput, match="a file cannot hold"):
        Certificate.load(tmp_path / "c.json")


@pytest.mark.thorough
def test_everything_a_sweep_measures():
    data, files = measure_problem(
        posed(springs), name="own", inits=2, seed=0, method="staircase", progress=lambda ended: None
    )
    assert not data["certified"].any()
    assert set(data["verdict"].values) == {"stationary, globality unknown"}
    assert len(files) == 2


def test_what_needs_theory_is_refused(tmp_path):
    problem = posed(springs)
    for ask in (ufm.uniqueness, ufm.interaction):
        with pytest.raises(ufm.InvalidInput, match=r"^loss = 'springs'"):
            ask(problem)
    solution = solvers.solve(problem, inits=1)
    solution.save(tmp_path / "s.nc")
    with pytest.raises(ufm.InvalidInput):
        Solution.load(tmp_path / "s.nc")


def test_two_of_one_name_are_two_losses():
    first, second = losses.custom(springs, name="mine"), losses.custom(oblique, name="mine")
    assert first != second
    assert first == losses.custom(springs, name="mine")
    assert pickle.loads(pickle.dumps(first)) == first
    assert first.name == "mine"
    problems = [ufm.Problem(LABELS, 4, loss=loss) for loss in (first, second)]
    with pytest.raises(ufm.InvalidInput, match="form of loss"):
        solve_each(problems, 1)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [((3,), "row"), ((springs, ""), "name"), ((springs, 5), "name"), ((springs, "a", 1), "minimal_at_frames")],
)
def test_bad_input_is_one_line(arguments, named, untyped):
    row, name, flag = (*arguments, *("mine", False)[len(arguments) - 1 :])
    with pytest.raises(ufm.InvalidInput, match=rf"^{named} = "):
        losses.custom(row, name=name, minimal_at_frames=flag)
