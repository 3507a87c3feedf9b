"""A call of every public name, with what it needs: for tests that ask all of them the same question."""

import dataclasses
import enum
from collections.abc import Mapping

import flint
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg

import figures
import networks
import solvers
import ufm
from solvers.loop.slots import Limits
from ufm import activations, batching, losses, samplers

LABELS = np.repeat(np.arange(3), [4, 3, 2])
TAU = 0.3  # no float32
SEED = 2**40 + 1  # no 32-bit number


ADAM = optax.adam(0.3)


def row_function(cosines, samples, positive, tau):
    return jnp.sum(samples * jnp.where(positive, 1 - cosines, cosines) ** 2) / tau


def doubles(rows):
    """On the device, whatever the setting."""
    with jax.enable_x64(True):
        return jnp.asarray(rows)


class World:
    """Problems, points, and what comes of solving and judging them, each made when it is first read.

    labels (n,), of k classes; rows (n, 3): the point, by default feasible and positive; batches: those of the problem.
    """

    def __init__(self, folder, labels=LABELS, rows=None, k=None, batches=None):
        self.folder, self.labels, self.batches = folder, np.asarray(labels), batches
        self.k, self.known_k = k or int(self.labels.max()) + 1, k
        self.n = len(self.labels)
        self.sizes = np.bincount(self.labels, minlength=self.k)
        self.H = positive_rows(self.n) if rows is None else np.asarray(rows)
        self.states = {}

    def posed(self, **options):
        return ufm.Problem(self.labels, 3, TAU, self.batches, k=self.known_k, **options)

    def __getattr__(self, name):
        if name not in MADE:
            raise AttributeError(name)
        made = MADE[name](self)
        setattr(self, name, made)
        return made


def positive_rows(n):
    """Rows on the unit sphere, but for rounding."""
    H = np.abs(np.random.default_rng(0).standard_normal((n, 3)))
    return H / (np.linalg.norm(H, axis=1, keepdims=True) * (1 + 2.0**-50))


MADE = {
    "problem": lambda w: w.posed(),
    "ufm": lambda w: w.posed(nonneg=False),
    "expected": lambda w: ufm.Problem.expected((6, 4), samplers.uniform(4), 3, TAU),
    "frame": lambda w: np.eye(w.k)[w.labels][:, :3],
    "point": lambda w: doubles(w.H),
    "merged": lambda w: np.eye(3)[np.minimum(w.labels, 1)],
    "signed": lambda w: w.H * np.where(np.arange(3) == 1, -1.0, 1.0),
    "loss": lambda w: losses.log_sum_exp(
        weights=np.linspace(0.1, 1.3, w.k), margins=np.eye(w.k) / 3, strength=0.1
    ),
    "orbits": lambda w: ufm.orbits(w.problem),
    "interaction": lambda w: ufm.interaction(w.problem),
    "uniqueness": lambda w: ufm.uniqueness(
        ufm.Problem(w.labels, 3, TAU, [np.arange((2 * w.n + 2) // 3), np.arange((w.n - 1) // 2, w.n)])
    ),
    "solution": lambda w: solvers.solve(w.problem, inits=1, seed=SEED),
    "certifier": lambda w: solvers.Certifier(w.ufm, conic=False),
    "certificate": lambda w: solvers.certify(w.merged, w.problem, conic=False),
    "verification": lambda w: solvers.verify(w.merged, w.problem),
    "suboptimality": lambda w: solvers.suboptimality(w.H, w.problem),
    "population": lambda w: samplers.Population(w.labels),
    "views": lambda w: samplers.Population(np.tile(w.labels, 2)),
    "key": lambda w: jax.random.key(5),
    "samples": lambda w: networks.synthetic((6, 4)).train,
    "built": lambda w: networks.build("mlp", w.samples.shape, width=8),
    "network": lambda w: w.built[0],
    "running": lambda w: w.built[1],
    "training": lambda w: training(w),
    "epoch": lambda w: networks.epoch_of("fixed", w.samples.labels, 6, 0, 0),
}  # fmt: skip


def world(folder):
    """A world of nine samples of three classes with all there is in it, made under the setting that is now."""
    w = World(folder)
    for name in MADE:
        getattr(w, name)
    return w


def training(w):
    return networks.Training(w.network, w.running, w.samples, tau=TAU, schedule=networks.Schedule(epochs=2))


def stochastic(**arguments):
    return solvers.StochasticProjectedGradient(samplers.uniform(4), every=2, **arguments)


def named(prefix, calls):
    return {f"{prefix}.{name}": call for name, call in calls.items()}


def fields(prefix, of, *names):
    """Properties, and methods without arguments, of what `of` finds in the world."""

    def call(name):
        def called(w):
            result = getattr(of(w), name)
            return result() if callable(result) else result

        return called

    return named(prefix, {name: call(name) for name in names})


def descents(name, made):
    """The four steps of a method, and a solution by it."""

    def state(w):
        # Uncompiled loops are compiled anew at every call: one state for all four.
        key = name, jax.config.jax_enable_x64
        if key not in w.states:
            begun = made().init(w.point, w.problem)
            w.states[key] = begun, made().step(begun, w.problem)
        return w.states[key]

    steps = {
        "init": lambda w: state(w)[0],
        "step": lambda w: state(w)[1],
        "iterate": lambda w: made().iterate(state(w)[1]),
        "converged": lambda w: made().converged(state(w)[1]),
    }
    solved = {f"solvers.{name}": lambda w: solvers.solve(w.problem, H0=w.H, method=made(), max_steps=5)}
    return solved | named(f"solvers.{name}", steps)


def draws(name, made, population="population", without=()):
    """What a sampler says and draws."""

    def labels(w):
        return w.labels if population == "population" else np.tile(w.labels, 2)

    calls = {
        "slots": lambda w: made().slots(3),
        "begin": lambda w: made().begin(w.key, getattr(w, population)),
        "next": lambda w: made().next(made().begin(w.key, getattr(w, population)), getattr(w, population)),
        "check": lambda w: made().check(np.bincount(labels(w))),
        "law": lambda w: made().law(np.bincount(labels(w))).counts,
        "bound": lambda w: refused(lambda: made().bound(1)),
        "population": lambda w: made().population(labels(w)),
        "draw": lambda w: made().draw(labels(w), SEED, 4),
    }
    return named(f"ufm.samplers.{name}", {name: call for name, call in calls.items() if name not in without})


def refused(call):
    """What comes of it, a refusal too."""
    try:
        return call()
    except ufm.InvalidInput as error:
        return str(error)


def saved(thing, path):
    thing.save(path)
    return type(thing).load(path)


def picture(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def of_ufm():
    calls = {
        "InvalidInput": lambda w: str(ufm.InvalidInput("tau", TAU, "give another")),
        "GeometryMetrics": lambda w: ufm.geometry_metrics(w.H, w.labels, multiplicity=np.arange(w.n) + TAU),
        "geometry_metrics": lambda w: ufm.geometry_metrics(w.H, w.labels),
        "Interaction": lambda w: w.interaction,
        "interaction": lambda w: ufm.interaction(w.problem),
        "Orbits": lambda w: w.orbits,
        "orbits": lambda w: ufm.orbits(w.problem),
        "Orbits.mean": lambda w: w.orbits.mean(w.H, np.asarray(w.problem.multiplicity)),
        "Orbits.shared": lambda w: w.orbits.shared(w.frame),
        "SharedRows": lambda w: np.asarray(ufm.SharedRows(w.H, w.labels)),
        "Uniqueness": lambda w: w.uniqueness,
        "uniqueness": lambda w: [ufm.uniqueness(w.problem), ufm.uniqueness(w.problem, samplers.uniform(4))],
        "Problem": lambda w: w.posed(multiplicity=np.arange(w.n) + 2**40, loss=w.loss),
        "Problem.from_class_sizes": lambda w: ufm.Problem.from_class_sizes(w.sizes, 3, TAU),
        "Problem.expected": lambda w: ufm.Problem.expected((6, 4), samplers.uniform(4), 3, TAU),
        "Problem.samples_in": lambda w: [p.samples_in(p.all_batches) for p in (w.problem, w.expected)],
        "scl_loss": lambda w: [ufm.scl_loss(w.H, w.problem), ufm.scl_loss(w.H[:2], w.expected)],
        "excess": lambda w: [ufm.excess(H, w.problem) for H in (w.H, w.frame, w.merged)],
        "loss_bound": lambda w: [ufm.loss_bound(p) for p in (w.problem, w.expected)],
        "project": lambda w: ufm.project(doubles(3 * w.signed), True),
        "project_ball": lambda w: ufm.project_ball(doubles(3 * w.signed)),
        "project_nonnegative_ball": lambda w: ufm.project_nonnegative_ball(doubles(3 * w.signed)),
        "step_imbalance": lambda w: ufm.step_imbalance(4, 5, 10 * TAU),
        "long_tail_imbalance": lambda w: ufm.long_tail_imbalance(4, 5, 10 * TAU),
    }
    of_problem = [
        "all_batches",
        "is_expected",
        "num_points",
        "class_sizes",
        "num_samples",
        "is_full_batch",
        "smallest_temperature",
    ]
    of_graph = ["is_unit", "components_of_class", "class_cross", "ties", "plain_claims_unique"]
    return (
        named("ufm", calls)
        | fields(
            "ufm.Problem",
            lambda w: w.problem,
            *of_problem,
            "fewer_dimensions_than_classes",
            "bound_is_attained",
            "summary",
        )
        | fields("ufm.Interaction", lambda w: w.interaction, *of_graph)
        | fields("ufm.Uniqueness", lambda w: w.uniqueness, "summary")
    )


def of_solvers():
    calls = {
        "solve": lambda w: solvers.solve(w.ufm, inits=1, seed=SEED),
        "verify": lambda w: [solvers.verify(H, w.problem) for H in (w.frame, w.merged, w.H)],
        "certify": lambda w: [solvers.certify(w.merged, w.problem), solvers.certify(w.signed, w.ufm, conic=False)],
        "suboptimality": lambda w: [solvers.suboptimality(w.H, w.problem), solvers.suboptimality(w.signed, w.ufm)],
        "Certificate": lambda w: w.certificate,
        "Certificate.cosine_bounds": lambda w: w.certificate.cosine_bounds(),
        "Certificate.save": lambda w: saved(w.certificate, w.folder / "certificate.json"),
        "Certificate.load": lambda w: saved(w.certificate, w.folder / "certificate.json"),
        "Certifier": lambda w: solvers.Certifier(w.ufm).lower_bound,
        "Certifier.consider": lambda w: considered(w),
        "Certifier.certify": lambda w: w.certifier.certify(w.signed),
        "Certifier.states_of": lambda w: w.certifier.states_of(w.signed, w.certifier.certify(w.signed)),
        "Activated.transformation": lambda w: solvers.Activated().transformation(),
        "ProjectedGradient.transformation": lambda w: solvers.ProjectedGradient().transformation(),
        "Solution": lambda w: w.solution,
        "Solution.embedding": lambda w: w.solution.embedding(0),
        "Solution.shared_rows": lambda w: w.solution.shared_rows(0),
        "Solution.gram": lambda w: w.solution.gram(0),
        "Solution.save": lambda w: saved(w.solution, w.folder / "solution.nc"),
        "Solution.load": lambda w: saved(w.solution, w.folder / "solution.nc"),
        "Staircase": lambda w: solvers.solve(w.problem, H0=w.H, method=solvers.Staircase(max_lifts=3)),
        "Staircase.solve": lambda w: solvers.Staircase().solve([w.problem], [SEED], 1, Limits(50), lambda ended: None),
        "Staircase.prepare": lambda w: solvers.Staircase().prepare(w.problem, 1),
        "StochasticProjectedGradient": lambda w: solvers.solve(
            w.problem, H0=w.H, seed=SEED, method=stochastic(transformation=ADAM), max_steps=4
        ),
        "StochasticProjectedGradient.solve": lambda w: stochastic().solve(w.problem, [w.H], SEED, Limits(4)),
        "StochasticProjectedGradient.run": lambda w: stochastic().run(w.problem, [w.H], SEED, Limits(4)),
        "Suboptimality": lambda w: w.suboptimality,
        "Suboptimality.implied_cosine": lambda w: w.suboptimality.implied_cosine(0, w.n - 1),
        "Verification": lambda w: w.verification,
        "Proof": lambda w: list(solvers.Proof),
        "Verdict": lambda w: list(solvers.Verdict),
        "Status": lambda w: list(solvers.Status),
        "Status.sentence": lambda w: [status.sentence for status in solvers.Status],
    }
    return (
        named("solvers", calls)
        | descents("Accelerated", solvers.Accelerated)
        | descents("Activated", lambda: solvers.Activated("softplus"))
        | fields("solvers.Activated", lambda w: solvers.Activated("gelu", normalised=False), "entry_bound")
        | descents("ProjectedGradient", solvers.ProjectedGradient)
        | descents("QuasiNewton", solvers.QuasiNewton)
        | fields("solvers.Certificate", lambda w: w.certificate, "summary", "relative_gap", "serialised")
        | fields("solvers.Solution", lambda w: w.solution, "H", "best", "summary", "to_xarray")
        | fields("solvers.Suboptimality", lambda w: w.suboptimality, "summary")
        | fields("solvers.Verification", lambda w: w.verification, "is_orthogonal_frame", "worst_pair", "summary")
    )


def considered(w):
    certifier = solvers.Certifier(w.ufm, conic=False)
    certifier.consider([w.signed])
    return certifier.better, certifier.lower_bound


def of_networks():
    calls = {
        "Dataset": lambda w: networks.synthetic((6, 4)),
        "Epoch": lambda w: w.epoch,
        "Samples": lambda w: w.samples,
        "Samples.shape": lambda w: w.samples.shape,
        "Schedule": lambda w: networks.Schedule(),
        "Schedule.rate_of": lambda w: networks.Schedule().rate_of(200),
        "State": lambda w: w.training.start,
        "Training": lambda w: training(w).start,
        "Training.epoch": lambda w: w.training.epoch(w.training.start, 0, w.epoch),
        "Training.features": lambda w: w.training.features(w.training.start, w.samples.images),
        "build": lambda w: networks.build("mlp", w.samples.shape, width=8, seed=SEED),
        "epoch_of": lambda w: networks.epoch_of("fixed", w.samples.labels, 6, 0, SEED),
        "features": lambda w: networks.features(w.network, w.running, jnp.ones((2, *w.samples.shape), jnp.float32)),
        "imbalanced": lambda w: networks.imbalanced(w.samples, (3, 2), SEED),
        "law_of": lambda w: networks.law_of("recycled:3")(w.samples.labels, 4, 5, SEED),
        "mislabelled": lambda w: networks.mislabelled(w.samples, TAU, SEED),
        "read": lambda w: refused(lambda: networks.read("mnist", w.folder / "none")),
        "synthetic": lambda w: networks.synthetic((6, 4), SEED),
    }
    drawn = {"draw": lambda w: picture(figures.draw("class_mean_gram", w.solution))}
    return named("networks", calls) | named("figures", drawn)


def of_modules():
    properties = ["is_plain", "structure", "has_margins", "is_convex", "is_custom", "ties_alone", "merges_alone"]
    of_losses = {
        "AnchorLoss": lambda w: ufm.scl_loss(w.H, w.posed(loss=losses.custom(row_function, name="own"))),
        "Loss": lambda w: ufm.scl_loss(w.H, w.posed(loss=w.loss)),
        "Loss.of_description": lambda w: losses.Loss.of_description(w.loss.to_dict()),
        "scl": lambda w: losses.scl(),
        "log_sum_exp": lambda w: losses.log_sum_exp(margins=np.eye(w.k) / 3, strength=TAU),
        "class_weighted": lambda w: losses.class_weighted([0.1, 0.2, 0.3]),
        "logit_adjusted": lambda w: losses.logit_adjusted(0.1),
        "class_averaged": lambda w: losses.class_averaged(),
        "decoupled": lambda w: losses.decoupled(),
        "class_temperatures": lambda w: losses.class_temperatures([0.7, 1.1, 1.3]),
        "sigmoid": lambda w: losses.sigmoid(0.7, 0.1),
        "supcon_in": lambda w: losses.supcon_in(),
        "custom": lambda w: losses.custom(row_function, name="own").name,
    }
    of_batching = {
        "partition": lambda w: batching.partition(w.n, 4, SEED),
        "stratified_partition": lambda w: batching.stratified_partition(w.labels, 4, SEED),
        "reshuffled": lambda w: batching.reshuffled(w.n, 4, 2, SEED),
        "bind": lambda w: batching.bind(batching.partition(w.n, 4, 0), w.labels, 1, SEED),
    }
    of_activations = {
        "Activation": lambda w: activations.activation("gelu").function(
            jnp.asarray(np.clip(w.signed, -1e3, 1e3), jnp.float32)
        ),
        "Activation.entry_bound": lambda w: activations.activation("gelu").entry_bound(normalised=False),
        "Activation.embedding": lambda w: [
            activations.activation(name).embedding(doubles(w.signed), normalised=normalised)
            for name in activations.ACTIVATIONS
            for normalised in (True, False)
        ],
        "activation": lambda w: activations.activation("leaky-relu:0.3").embedding(doubles(w.signed), normalised=True),
    }
    made = {
        "class_balanced": lambda w: samplers.class_balanced(4).draw(w.labels, SEED, 3),
        "m_per_class": lambda w: samplers.m_per_class(2, 2).draw(w.labels, SEED, 3),
        "reshuffled": lambda w: samplers.reshuffled(4).draw(w.labels, SEED, 5),
        "two_views": lambda w: samplers.two_views(samplers.uniform(4)).draw(np.tile(w.labels, 2), SEED, 3),
        "uniform": lambda w: samplers.uniform(4).draw(w.labels, SEED, 3),
        "Bound": lambda w: samplers.uniform(4).bound(1).draw(w.labels, SEED, 3),
        "TwoViews": lambda w: samplers.two_views(samplers.uniform(2).bound(1)).draw(np.tile(w.labels, 2), SEED, 3),
        "Sampler": lambda w: samplers.uniform(4),
        "State": lambda w: samplers.reshuffled(4).begin(w.key, w.population),
        "Population": lambda w: samplers.Population(w.labels),
    }
    return (
        named("ufm.losses", of_losses)
        | fields("ufm.losses.Loss", lambda w: w.loss, *properties, "temperatures", "name", "to_dict", "summary")
        | named("ufm.batching", of_batching)
        | named("ufm.activations", of_activations)
        | draws("Sampler", lambda: samplers.class_balanced(4))
        | draws("Bound", lambda: samplers.uniform(4).bound(1), without=("population", "draw"))
        | draws("TwoViews", lambda: samplers.two_views(samplers.reshuffled(4)), "views", ("draw",))
        | named("ufm.samplers", made)
        | fields("ufm.samplers.Population", lambda w: w.views, "k", "images")
    )


CALLS = of_ufm() | of_solvers() | of_networks() | of_modules()


def plain(thing):
    """A result to the last bit, and the types of its numbers; seconds apart, which differ from run to run."""
    if isinstance(thing, jax.Array) and jnp.issubdtype(thing.dtype, jax.dtypes.prng_key):
        thing = jax.random.key_data(thing)
    if isinstance(thing, (np.ndarray, np.generic, jax.Array)):
        result = np.asarray(thing)
        return str(result.dtype), result.shape, result.tolist() if result.dtype == object else result.tobytes()
    if isinstance(thing, xr.Dataset):
        attributes = {name: value for name, value in thing.attrs.items() if not name.startswith("seconds")}
        return plain({name: column.values for name, column in thing.items()} | attributes)
    if isinstance(thing, enum.Enum) or thing is None or isinstance(thing, (bool, int, str, bytes)):
        return thing
    if isinstance(thing, float):
        return thing.hex()
    if isinstance(thing, (flint.arb, flint.arb_mat)):
        return str(thing)
    if hasattr(thing, "toarray"):  # sparse
        return plain(thing.toarray())
    if dataclasses.is_dataclass(thing):
        stored = [field.name for field in dataclasses.fields(thing) if field.name not in ("timings", "seconds")]
        return type(thing).__name__, [plain(getattr(thing, name)) for name in stored]
    if isinstance(thing, Mapping):
        return {key: plain(value) for key, value in thing.items() if key != "seconds"}
    if isinstance(thing, (tuple, list, set, frozenset)):
        return [plain(part) for part in thing]
    return type(thing).__name__
