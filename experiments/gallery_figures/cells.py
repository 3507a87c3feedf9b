"""What the figures of the gallery are drawn from: each cell is named and determined by its parameters."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
import xarray as xr
from flint import ctx

from experiments.harness.cells import Cell, Computed, ProgressCallback, cell_name
from experiments.harness.loss_names import NAMES, in_names, loss_of
from experiments.harness.sweep import PROFILES
from experiments.measurements.local_phase import PerSample, grouped, local_phase
from experiments.measurements.solutions import KINDS, cosines_by_kind, measure_problem
from experiments.measurements.thresholds import certified_minimiser, collapsed_problem, threshold
from solvers.certification.certificate import Certificate, Proof
from solvers.certification.certifier import Certifier
from solvers.certification.constraints import smallest_pair_weight
from solvers.certification.verification import Verifier
from solvers.loop.slots import Outcome, RunOptions, Start, run_slots
from solvers.methods.projected_gradient import ProjectedGradient
from solvers.multistart import solve
from solvers.solution import Solution, histories
from ufm import Problem, loss_bound, orbits, step_imbalance
from ufm.model.geometry import geometry_metrics
from ufm.theory.local_rate import best_tau, slowest_contraction

RATIOS = (1, 10, 100, 1000)
K, N_MIN, D = 10, 5, 20
PAIRS = ("majority-majority", "majority-minority", "minority-minority")
ETA, MOMENTUM = 0.1, 0.9  # the authors' recipe


def sweep_cell(R: float, *, imbalance: str = "step", nonneg: bool = True, inits: int = 32) -> Cell:
    """A cell of the imbalance sweep, by the staircase."""
    name = f"sweep-{'relu' if nonneg else 'no-relu'}-{imbalance}-R{R:g}"
    parameters = {"R": R, "imbalance": imbalance, "nonneg": nonneg, "inits": inits, "k": K, "n_min": N_MIN, "d": D}
    settings = {"R": R, "imbalance": imbalance}
    return Cell(name, _sweep_cell, {**parameters, "name": name}, parts=inits, attrs=settings)


def _sweep_cell(
    *,
    R: float,
    imbalance: str,
    nonneg: bool,
    inits: int,
    k: int,
    n_min: int,
    d: int,
    name: str,
    tau: float = 1.0,
    progress: ProgressCallback,
) -> Computed:
    problem = Problem.from_class_sizes(PROFILES[imbalance](k, n_min, R), d=d, tau=tau, nonneg=nonneg)
    return measure_problem(problem, name=name, inits=inits, seed=0, method="staircase", progress=progress)


def random_starts_cell(R: float = 10, inits: int = 8) -> Cell:
    """The excess from random starts: plain projected gradient on all samples, and the staircase."""
    return Cell(f"random-starts-R{R:g}", _random_starts, {"R": R, "inits": inits, "k": K, "n_min": N_MIN, "d": D})


def _random_starts(
    *,
    R: float,
    inits: int,
    k: int,
    n_min: int,
    d: int,
    tau: float = 1.0,
    max_steps: int = 3000,
    progress: ProgressCallback,
) -> Computed:
    problem = Problem.from_class_sizes(step_imbalance(k, n_min, R), d=d, tau=tau)
    data = {}
    for method in ("projected-gradient", "staircase"):
        records = histories(solve(problem, inits, 0, method, max_steps=max_steps).history)
        for name in ("iteration", "excess"):
            data[f"{method}_{name}"] = (("init", f"{method}_record"), records[name])
    attrs = {"R": R, "k": k, "d": d, "n": problem.num_samples, "tau": tau, "inits": inits}
    return xr.Dataset(data, attrs={**attrs, "loss_bound": float(loss_bound(problem))}), {}


def local_cell(R: float) -> Cell:
    """Plain projected gradient near an orthogonal frame."""
    parameters = {"R": R, "k": K, "n_min": N_MIN, "d": D, "eta": ETA, "starts": 4, "steps": 200}
    return Cell(f"near-frame-R{R:g}", _near_frame, parameters)


def _near_frame(
    *,
    R: float,
    k: int,
    n_min: int,
    d: int,
    eta: float,
    starts: int,
    steps: int,
    tau: float = 1.0,
    progress: ProgressCallback,
) -> Computed:
    problem = grouped(step_imbalance(k, n_min, R), n_min, d, tau)
    # Repulsion of minorities is R times weaker: so is the noise it has to end before the asymptotic phase begins.
    across = 1e-3 / R
    run = local_phase(problem, eta, starts=starts, steps=steps, within=0.05, across=across, seed=0)
    return run.assign_attrs(R=R, n_min=n_min, groups=n_min), {}


def temperature_cell(R: float) -> Cell:
    """The local rate against the temperature: predicted on a fine grid, measured on a coarse one."""
    parameters = {"R": R, "k": K, "n_min": N_MIN, "d": D, "eta": ETA, "starts": 4, "steps": 300}
    taus = [0.15, 0.2, 0.3, 0.45, 0.6, 0.8, 1.2, 2.0, 3.5, 5.0]
    return Cell(f"temperature-R{R:g}", _temperature, {**parameters, "taus": taus})


def _temperature(
    *,
    R: float,
    k: int,
    n_min: int,
    d: int,
    eta: float,
    starts: int,
    steps: int,
    taus: list[float],
    progress: ProgressCallback,
) -> Computed:
    sizes = step_imbalance(k, n_min, R)
    runs = [
        local_phase(grouped(sizes, n_min, d, tau), eta, starts=starts, steps=steps, within=0.005, across=0.0, seed=0)
        for tau in taus
    ]
    fine = np.geomspace(min(taus) * 0.85, max(taus) * 1.15, 121)
    best = best_tau(sizes)

    def predicted(tau: float) -> float:
        return slowest_contraction(grouped(sizes, n_min, d, tau), eta)

    return xr.Dataset(
        {
            "measured": (("tau", "start"), np.stack([run["measured"].values for run in runs])),
            "predicted": ("tau", [float(run["predicted"]) for run in runs]),
            "curve": ("fine_tau", [predicted(tau) for tau in fine]),
            "best_tau": best,
            "best_rate": predicted(best),
        },
        coords={"tau": taus, "fine_tau": fine},
        attrs={"R": R, "k": k, "d": d, "n": int(sizes.sum()), "n_min": n_min, "eta": eta, "starts": starts},
    ), {}


def cosines_cell(ratios: Sequence[float] = (1, 3, 10, 30, 100, 300, 1000)) -> Cell:
    """Class-mean cosines of UFM and UFM+ against R: the certified minimiser, and where the solver ends.

    ratios: where the solver is run, in rising order; the curve goes from the first to the last.
    """
    fine, coarse = _between(ratios, 16), list(ratios)
    return Cell("cosines", _cosines, {"fine": fine, "coarse": coarse, "inits": 4, "k": K, "n_min": 10, "d": D})


def _cosines(
    *,
    fine: list[float],
    coarse: list[float],
    inits: int,
    k: int,
    n_min: int,
    d: int,
    tau: float = 1.0,
    progress: ProgressCallback,
) -> Computed:
    curve, gaps, ratios = [], [], []
    for R in fine:
        sizes = step_imbalance(k, n_min, R)
        problem = Problem.from_class_sizes(sizes, d=d, tau=tau, nonneg=False)
        certifier = Certifier(problem)
        assert certifier.better is not None
        quotient_point = certifier.better.rows / np.linalg.norm(certifier.better.rows, axis=1, keepdims=True)
        point = quotient_point * certifier.better.norms[:, None]
        proof = certifier.certify(point[certifier.orbits.index])
        curve.append(cosines_by_kind(point @ point.T))
        gaps.append(proof.gap if proof.status is Proof.CERTIFIED else np.nan)
        ratios.append(sizes[0] / sizes[-1])
    points = {}
    for name, nonneg in (("ufm", False), ("ufm_plus", True)):
        result = []
        for R in coarse:
            problem = Problem.from_class_sizes(step_imbalance(k, n_min, R), d=d, tau=tau, nonneg=nonneg)
            solution = solve(problem, inits)
            result.append([cosines_by_kind(_class_gram(solution, start)) for start in range(inits)])
        points[name] = (("R", "init", "kind"), np.array(result))
    return xr.Dataset(
        {"curve": (("fine_R", "kind"), np.array(curve)), "certified_gap": ("fine_R", gaps), **points},
        coords={"fine_R": ratios, "R": np.asarray(coarse, float), "kind": list(PAIRS)},
        attrs={"k": k, "d": d, "tau": tau, "n_min": n_min, "inits": inits},
    ), {}


def _between(ratios: Sequence[float], count: int) -> list[float]:
    """So many ratios from the first to the last, evenly on a logarithmic axis; the one, if there is no other."""
    return np.unique(np.round(np.geomspace(ratios[0], ratios[-1], count), 4)).tolist()


def _class_gram(solution: Solution, start: int) -> np.ndarray:
    problem = solution.problem
    metrics = geometry_metrics(jnp.asarray(solution.embedding(start)), problem.labels, k=problem.k)
    return np.asarray(metrics.gram)


def loss_cosines_cell(ratios: Sequence[float] = (1, 10, 100, 1000)) -> Cell:
    """Class-mean cosines of every loss against R: the certified minimiser of UFM, and where the solver ends in UFM+."""
    fine = _between(ratios, 19)
    names = [name for name in NAMES if name != "supcon-in"]
    settings = {"fine": fine, "coarse": list(ratios), "losses": names, "k": K, "n_min": 10, "d": D}
    return Cell("loss-cosines", _loss_cosines, settings)


def _loss_cosines(
    *,
    fine: list[float],
    coarse: list[float],
    losses: list[str],
    k: int,
    n_min: int,
    d: int,
    tau: float = 1.0,
    progress: ProgressCallback,
) -> Computed:
    curve = np.full((len(losses), len(fine), len(KINDS)), np.nan)
    plus = np.full((len(losses), len(coarse), len(KINDS)), np.nan)
    for i, loss in enumerate(losses):
        for j, R in enumerate(fine):
            requested = {"k": k, "n_min": n_min, "d": d, "tau": tau}
            proof = certified_minimiser(collapsed_problem(loss, round(R * n_min), **requested))
            if proof.status is Proof.CERTIFIED:
                rows = proof.point.placed()
                curve[i, j] = cosines_by_kind(rows @ rows.T)
        for j, R in enumerate(coarse):
            sizes = step_imbalance(k, n_min, R)
            problem = Problem.from_class_sizes(sizes, d=d, tau=tau, loss=loss_of(loss, sizes))
            solution = solve(problem, 1)
            if Certifier(problem).certify(solution.shared_rows(0)).status is Proof.CERTIFIED:
                plus[i, j] = cosines_by_kind(_class_gram(solution, 0))
    return xr.Dataset(
        {"ufm": (("loss", "R", "kind"), curve), "ufm_plus": (("loss", "R_plus", "kind"), plus)},
        coords={"loss": losses, "R": fine, "R_plus": np.asarray(coarse, float), "kind": list(KINDS)},
        attrs={"k": k, "d": d, "tau": tau, "n_min": n_min},
    ), {}


def threshold_cell(loss: str, tau: float, most_R: float = 1000.0) -> Cell:
    """The ratio at which the minorities of UFM merge, between two certificates."""
    requested = {"loss": loss, "tau": tau, "k": K, "n_min": 1000, "d": D, "precision": 0.005, "most_R": most_R}
    name = cell_name("star", f"{tau:g}", *in_names(loss), *([] if most_R == 1000 else [f"most{most_R:g}"]))
    return Cell(name, threshold, {**requested, "name": name})


def basin_cell(d: int, R: float, tau: float) -> Cell:
    """Share of starts that reach the optimum: plain projected gradient in class space, and the staircase."""
    parameters = {"d": d, "R": R, "tau": tau, "k": K, "n_min": N_MIN, "starts": 32, "inits": 16, "max_steps": 50_000}
    return Cell(f"basin-d{d}-R{R:g}-tau{tau:g}", _basin, parameters)


def _basin(
    *,
    d: int,
    R: float,
    tau: float,
    k: int,
    n_min: int,
    starts: int,
    inits: int,
    max_steps: int,
    progress: ProgressCallback,
) -> Computed:
    problem = Problem.from_class_sizes(step_imbalance(k, n_min, R), d=d, tau=tau)
    quotient = orbits(problem).quotient
    sizes = np.asarray(problem.class_sizes)
    rng = np.random.default_rng(0)
    method = ProjectedGradient(PerSample(ETA, tuple(sizes.tolist()), MOMENTUM))
    verifier = Verifier(quotient)
    verdicts = [""] * starts

    def finished(outcome: Outcome) -> None:
        verdicts[outcome.key] = str(verifier.verify(outcome.H).verdict)

    begun = [(s, Start(_mean_rows(rng, sizes.astype(int), d))) for s in range(starts)]
    run_slots(method, quotient, begun, RunOptions(starts, every=100, max_steps=max_steps), finished)
    solution = solve(problem, inits)
    whole = Verifier(problem)
    lifted = [str(whole.verify(solution.embedding(s)).verdict) for s in range(inits)]
    return xr.Dataset(
        {"projected_gradient": ("start", verdicts), "staircase": ("init", lifted)},
        attrs={"d": d, "R": R, "tau": tau, "k": k, "n_min": n_min, "starts": starts, "inits": inits},
    ), {}


def _mean_rows(rng: np.random.Generator, sizes: np.ndarray, d: int) -> np.ndarray:
    """Class means of samples uniform on the nonnegative part of the unit sphere: feasible, of norm below 1."""
    means = []
    for size in sizes:
        rows = np.abs(rng.standard_normal((size, d)))
        means.append((rows / np.linalg.norm(rows, axis=1, keepdims=True)).mean(axis=0))
    return np.array(means)


def certificates_cell(ratios: Sequence[float] = (1, 3, 10, 30, 100, 300, 1000, 3000, 10000)) -> Cell:
    """Certificates of one start over R, for UFM+ and UFM, with a conic solver's opinion beside them."""
    return Cell("certificates", _certificates, {"ratios": list(ratios), "k": K, "n_min": N_MIN, "d": D})


def _certificates(
    *, ratios: list[float], k: int, n_min: int, d: int, tau: float = 1.0, progress: ProgressCallback
) -> Computed:
    fields = ("upper", "lower", "gap", "theoretical", "tolerance", "conic", "weakest")
    table = np.full((2, len(ratios), len(fields)), np.nan)
    status = np.full((2, len(ratios)), "", dtype=object)
    for row, nonneg in enumerate((True, False)):
        for column, R in enumerate(ratios):
            problem = Problem.from_class_sizes(step_imbalance(k, n_min, R), d=d, tau=tau, nonneg=nonneg)
            proof = Certifier(problem).certify(solve(problem, 1).embedding(0))
            with ctx.workprec(proof.problem.bits):
                smallest_weight = smallest_pair_weight(proof.problem)
            table[row, column] = [*_numbers(proof), np.nan if smallest_weight is None else float(smallest_weight)]
            status[row, column] = str(proof.status)
    return xr.Dataset(
        {field: (("model", "R"), table[:, :, i]) for i, field in enumerate(fields)}
        | {"status": (("model", "R"), status.astype(str))},
        coords={"model": ["UFM+", "UFM"], "R": np.asarray(ratios, float)},
        attrs={"k": k, "d": d, "tau": tau, "n_min": n_min},
    ), {}


def _numbers(proof: Certificate) -> list[float]:
    theoretical = np.nan if proof.theoretical is None else proof.theoretical
    conic = np.nan if proof.second_opinion is None else proof.second_opinion.value
    return [proof.upper, proof.lower, proof.gap, theoretical, proof.tolerance, conic]
