"""The gallery as a table: for every figure its title, its caption, its function and its cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import xarray as xr

from experiments.benchmark import benchmark_cell
from experiments.gallery_figures.activations import leaving_cell, transition_cell
from experiments.gallery_figures.batches import FAMILIES, batching_cell, graphs_cell, reshuffling_cell
from experiments.gallery_figures.cells import (
    RATIOS,
    K,
    basin_cell,
    certificates_cell,
    cosines_cell,
    local_cell,
    loss_cosines_cell,
    random_starts_cell,
    sweep_cell,
    temperature_cell,
    threshold_cell,
)
from experiments.gallery_figures.dynamics import emergence_cells, rate_cells
from experiments.gallery_figures.networks import question_cells
from experiments.gallery_figures.setting import Setting
from experiments.harness.cells import Cell
from experiments.harness.drawing import Drawing
from figures import (
    activations,
    autopsy,
    basins,
    batching,
    benchmark,
    certificate,
    class_mean_gram,
    cosines,
    emergence,
    gelu_transition,
    geometry,
    interaction_graphs,
    landscape,
    local_convergence,
    loss_cosines,
    recycled,
    reshuffling,
    stochastic_rate,
    temperature,
    thresholds,
    trained_geometry,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CURES = ("class-weights", "class-averaging", "logit-adjustment")
_AUTOPSY: dict[str, Any] = {"tau": (0.2, 0.5, 1.0), "epochs": 50, "record": 10, "seeds": 2}
_AXIS = "--tau has no effect: the temperature is an axis of the figure"


class Row(NamedTuple):
    """A figure of the gallery. cells: those of a setting. unmoved: by option, why it does not change the figure."""

    title: str
    caption: str
    draw: Callable[[Sequence[xr.Dataset]], Figure]
    cells: Callable[[Setting], tuple[Cell, ...]]
    unmoved: Mapping[str, str] = MappingProxyType({})


def figures_for(setting: Setting) -> dict[str, Drawing]:
    """All figures of the gallery, by file name, for a setting of k, R and tau."""
    return {name: Drawing(row.title, row.caption, row.draw, row.cells(setting)) for name, row in FIGURE_ROWS.items()}


def _sweeps(s: Setting, imbalance: str = "step", *, nonneg: bool = True, inits: int = 32) -> tuple[Cell, ...]:
    cells = [sweep_cell(R, imbalance=imbalance, nonneg=nonneg, inits=inits) for R in s.ratios(RATIOS)]
    return tuple(s.of(cell, "k", "tau") for cell in cells)


def _basins(s: Setting) -> tuple[Cell, ...]:
    """Two maps: d at one temperature, the temperature at one d, each at every R."""
    tau, k = s.tau or 1.0, K
    maps = [(d, tau) for d in (k, 2 * k, 4 * k, 10 * k)] + [(2 * k, at) for at in (0.2, 0.5, 2.0, 5.0) if at != tau]
    return tuple(s.of(basin_cell(d, R, at), "k") for d, at in maps for R in s.ratios(RATIOS))


def _benchmark(s: Setting) -> tuple[Cell, ...]:
    fields = {"k": s.k, "d": s.k and 2 * s.k, "tau": s.tau, "R": s.R and tuple(map(float, s.ratios(())))}
    fields |= {"starts": 1, "limit": 3.0, "growth": (10.0, 100.0)} if s.quick else {}
    return (benchmark_cell(**{name: value for name, value in fields.items() if value is not None}),)


def _near_and_far(s: Setting) -> tuple[Cell, ...]:
    ratios = s.ratios(RATIOS)
    far = random_starts_cell(ratios[min(1, len(ratios) - 1)])
    return tuple(s.of(cell, "k", "tau") for cell in (far, *map(local_cell, ratios)))


def _transitions(s: Setting) -> tuple[Cell, ...]:
    k, imbalanced = s.k or 4, tuple(R for R in s.ratios((10, 100)) if R > 1)
    balanced = (transition_cell(2, 1, 40),) if s.k is None else ()
    cells = (*balanced, *(transition_cell(k, R, 10 * k, inits=16) for R in (1, *imbalanced)))
    return tuple(s.of(cell, "tau") for cell in cells)


def _thresholds(s: Setting) -> tuple[Cell, ...]:
    taus = (0.5, 2.0) if s.quick else (0.2, 0.3, 0.5, 1.0, 2.0, 5.0)
    return tuple(s.of(threshold_cell(loss, tau, s.ratio(1000.0)), "k") for loss in _CURES for tau in taus)


def _networks(s: Setting, question: str, *, keep_tau: bool = False, **fields: Any) -> tuple[Cell, ...]:
    chosen = {**fields, "k": s.k, "R": fields.get("R") if s.R is None else float(s.ratio(1.0))}
    if not keep_tau and s.tau is not None:
        chosen["tau"] = (s.tau,)
    if s.quick:
        chosen |= {"epochs": 4, "record": 2, "seeds": 1, "n_maj": 40, "batch_size": 50}
    return question_cells(question, **chosen)


# By file name, which joins the number and the module in `figures` that draws it: `figures.basins` draws F8.
FIGURE_ROWS = {
    "F1_class_mean_gram": Row(
        "Class-mean geometry with and without the ReLU",
        "Gram matrices of the class means of the start that ended furthest from an orthogonal frame, among 8 starts "
        "of UFM (top) and 32 of UFM+ (bottom). All starts are certified minimisers (STEP imbalance, k = 10, n_min = "
        "5, d = 20, tau = 1). Without the ReLU imbalance separates majorities from minorities. With the ReLU every "
        "R gives the same orthogonal frame, to rounding.",
        class_mean_gram.draw,
        lambda s: (*_sweeps(s, nonneg=False, inits=8), *_sweeps(s)),
    ),
    "F2_geometry": Row(
        "Convergence of the geometry",
        "Distance from an orthogonal frame, within-class spread and mean cosine of the class means against "
        "iterations, for STEP and long-tail imbalance (UFM+, k = 10, n_min = 5, d = 20, tau = 1, 32 starts). "
        "Classes collapse within twenty iterations at every R. beta_nc is exactly 0 from the iteration at which the "
        "staircase replaces each class by its mean. The larger R is, the longer the minorities take to separate. "
        "Values below 1e-17 are shown at 1e-17.",
        geometry.draw,
        lambda s: (*_sweeps(s), *_sweeps(s, "long-tail")),
    ),
    "F3_local_convergence": Row(
        "Excess over the bound, and the local rate",
        "Left: the excess from random starts under the staircase and under plain projected gradient on all samples "
        "(R = 10, step 0.1, momentum 0.9). It drops at once when the last overlap between classes reaches exactly "
        "zero; a start at a spurious point stays on a plateau. Right: plain projected gradient with step 0.1 near "
        "an orthogonal frame, each class in 5 groups of equal samples. Theory (thin; the excess is proportional to "
        "rho^(2t) with rho of ufm.theory.local_rate) is drawn over the measurement (thick; four starts). The "
        "measured and the predicted 1 - rho agree within 1e-4. The curves end where the rounding of the norms "
        "begins.",
        local_convergence.draw,
        _near_and_far,
    ),
    "F4_cosines": Row(
        "The imbalanced geometry of UFM, with certificates",
        "Cosines between class means against R without the ReLU (STEP imbalance, k = 10, n_min = 10, d = 20, tau = "
        "1). Curves: certified minimisers, with a duality gap proved in ball arithmetic at 16 ratios. Markers: the "
        "ends of four random starts of the solver. From the simplex frame at R = 1 the majorities move to their own "
        "simplex frame, with cosine -1/(k/2-1), and the minorities move together. Under UFM+ (grey) the cosine of "
        "every pair stays at zero.",
        cosines.draw,
        lambda s: (s.of(cosines_cell(s.ratios((1, 3, 10, 30, 100, 300, 1000))), "k", "tau"),),
    ),
    "F5_interaction_graphs": Row(
        "The pairs that batches constrain",
        "Batch interaction graphs of 12 samples in 3 classes (sizes 6, 3, 3), in two epochs of batches of 4. If all "
        "pairs that share a batch (left) were constrained, the batch family as drawn would force the frame. But an "
        "anchor without a positive has no loss, so that classes 1 and 2 do not repel each other, and another "
        "minimiser exists (right). Batch-binding adds one sample of each class to every batch and makes the "
        "orthogonal frame the only minimiser (bottom).",
        interaction_graphs.draw,
        lambda s: (graphs_cell(s.k or 3),),
        {"R": "--R has no effect: the figure is a scheme", "tau": "--tau has no effect: the figure is a scheme"},
    ),
    "F6_batching": Row(
        "Fixed, reshuffled and bound batches",
        "Distance of the class means from an orthogonal frame (UFM+, class sizes 16 16 16 4 4, d = 10, tau = 1, 8 "
        "starts). Every start reaches the bound of Theorem 2; the batch families differ in whether the bound forces "
        "a frame. Right: markers are filled where the frame is proved to be the only minimiser, and open where it "
        "is proved not to be. Here a fixed partition never suffices, reshuffling for 10 epochs suffices from "
        "batches of 8 on, and batch-binding always suffices.",
        batching.draw,
        lambda s: tuple(
            s.of(batching_cell(family, size, s.k or 5, s.ratio(4)), "tau")
            for family in FAMILIES
            for size in (4, 8, 14, 28)
        ),
    ),
    "F7_temperature": Row(
        "The best temperature",
        "Steps of plain projected gradient (step 0.1, on the summed loss) in which the within-class deviations fall "
        "by a factor of ten, against tau (UFM+, STEP imbalance, k = 10, n_min = 5, each class in 5 groups of equal "
        "samples). Lines are predicted, open markers measured; rho agrees within 1e-4 relative (1 - rho within "
        "0.1%) at all 40 points. Stars: the best temperature in closed form, 1/(1 + W((N - n)/((n - 1)e))), where n "
        "is the size of the largest class and W is Lambert's function.",
        temperature.draw,
        lambda s: tuple(s.of(temperature_cell(R), "k") for R in s.ratios(RATIOS)),
        {"tau": _AXIS},
    ),
    "F8_basins": Row(
        "Basins of plain projected gradient, and the staircase",
        "Percentage of 32 random starts from which projected gradient reaches a verified global minimiser, over "
        "d/k, tau and R (UFM+, STEP imbalance, k = 10, n_min = 5; step 0.1, momentum 0.9, at most 50,000 steps; in "
        "class space, from the class means of uniform random samples). With imbalance and small d most starts end "
        "in spurious points. Small print: the percentage for the staircase, from 16 starts on all samples, and the "
        "percentage of starts that the step limit stopped, if there are any.",
        basins.draw,
        _basins,
    ),
    "F9_benchmark": Row(
        "The benchmark against peers",
        "Left: seconds until the verifier accepts the optimum, from the same starts for every peer, with one marker "
        "for each start (crosses: not within the time limit). The fraction of starts that reach the optimum stands "
        "beside each name. Right: one start of the staircase, solved and certified, as n grows. Compilation is not "
        "counted.",
        benchmark.draw,
        _benchmark,
    ),
    "F10_certificate": Row(
        "Certified bounds over R",
        "Proved distances on the loss axis (STEP imbalance, k = 10, n_min = 5, d = 20, tau = 1, one start for each "
        "R). For UFM+ the lower bound is the theoretical optimum itself, and the upper bound of the solver's point "
        "lies within 1e-53 of it. For UFM the two bounds are within 1e-8 of each other. Filled: certified, with a "
        "gap below a ten-thousandth of the smallest increase of the loss when two classes merge; open: not "
        "certified. Above R = 100 a relative loss tolerance of 1e-6 (rising dotted line) exceeds that increase and "
        "would accept merged minorities. Crosses: the error of the value that a conic solver reports.",
        certificate.draw,
        lambda s: (s.of(certificates_cell(s.ratios((1, 3, 10, 30, 100, 300, 1000, 3000, 10000))), "k", "tau"),),
    ),
    "F11_reshuffling": Row(
        "How often to reshuffle",
        "Fraction of random reshuffled batch families (64 in each cell) for which the orthogonal frame is proved to "
        "be the only minimiser, over batch size and number of epochs (UFM+, class sizes 16 16 16 4 4, d = 10). An "
        "obstruction is a sample that is not joined to its class, or a pair of classes that never repel each other. "
        "Line: where the expected number of obstructions is ln 2, so that about half of the families should have "
        "none (ufm.theory.reshuffling). With batch-binding one epoch is enough.",
        reshuffling.draw,
        lambda s: (s.of(reshuffling_cell(s.k or 5, s.ratio(4))),),
        {"tau": "--tau has no effect: the same families force the frame at every temperature"},
    ),
    "F12_loss_cosines": Row(
        "The geometry under reweighted losses",
        "Cosines between class means against R (STEP imbalance, k = 10, n_min = 10, d = 20, tau = 1). Lines: "
        "certified minimisers of UFM. Class weights 1/n, averaging over classes and logit adjustment are each meant "
        "as a remedy, but each merges the minorities into one vector above some R; plain SCL does not. Weights and "
        "averaging together give the simplex frame again. Grey: with the ReLU a certified start of every loss has "
        "all cosines at zero.",
        loss_cosines.draw,
        lambda s: (s.of(loss_cosines_cell(s.ratios(RATIOS)), "k", "tau"),),
    ),
    "F13_thresholds": Row(
        "Where minorities merge",
        "The ratio R* at which all minorities become one vector without the ReLU, against tau (STEP imbalance, k = "
        "10, n_min = 1000, d = 20). Each point is an interval of half a per cent between two certificates. At its "
        "lower end every minimiser keeps all minorities apart by a stated angle; at its upper end every minimiser "
        "has all minorities within a stated angle of at most a hundredth of a radian. The smaller the temperature, "
        "the larger R*. Arrows: certified to be apart up to R = 1000.",
        thresholds.draw,
        _thresholds,
        {"tau": _AXIS},
    ),
    "F14_emergence": Row(
        "How fast the frame emerges",
        "Steps of projected gradient (step 0.1, summed loss of a batch) from random starts until delta_gm < 0.001, "
        "against R (UFM+, STEP imbalance, k = 10, n_min = 5, d = 20, tau = 1, batches of 32, 32 starts, at most "
        "5,000 steps). Markers: medians over the starts whose frame emerged; bars: the middle half of them. Where "
        "not all starts reach a frame, their fraction stands beside the marker; the other starts are stuck in "
        "spurious points or need more steps. There is no marker where no start reaches a frame. Lines: theory "
        "without a fit. Solid: until two of the smallest classes, without the others, have separated "
        "(ufm.theory.separation). Dotted: until deviations within the slowest class have fallen by a thousand "
        "(ufm.theory.local_rate, ufm.theory.stochastic_rate). The steps until minorities separate grow like R^3 "
        "with uniform batches and like R with the full batch. With balanced batches they do not depend on R, and "
        "only the time until every sample has been drawn still grows.",
        emergence.draw,
        emergence_cells,
    ),
    "F15_stochastic_rate": Row(
        "The local rate under random batches",
        "Steps in which the mean squares of the slowest class's within-class deviations fall by a factor e near a "
        "frame, against the temperature (left) and the step (right); plain stochastic projected gradient, UFM+, "
        "STEP imbalance, k = 4, R = 4, n_min = 8, batches of 16. Lines are predicted from the law of the count "
        "vectors; markers are measured over 256 to 4,096 starts. Stars: the best step. Faint horizontal lines: the "
        "limit that no step and no temperature improves on, since samples must meet positives to move.",
        stochastic_rate.draw,
        rate_cells,
        {"tau": _AXIS},
    ),
    "F16_activations": Row(
        "Leaving the frame under a leaky slope",
        "Gradient descent in free z through LeakyReLU, h = sigma(z)/||sigma(z)||, from random positive starts (k = "
        "4, n_min = 5, d = 16, tau = 1, STEP imbalance; steps are those of one sample of each class). Left: the "
        "smaller the slope is, the closer the descent comes to an orthogonal frame. It then leaves the frame, "
        "abruptly at the end, for the geometry of UFM. Right: steps in which the first pair of class means goes "
        "from a right angle to a cosine of -0.02 (open) or -0.2 (filled). Lines: theory, without a fit "
        "(ufm.theory.local_rate.leaving_time). The time grows like slope^-2 while the cosine is small against the "
        "slope and like slope^-1 until the frame is left altogether; it hardly depends on R.",
        activations.draw,
        lambda s: tuple(s.of(leaving_cell(R), "k", "tau") for R in s.ratios((10, 1, 100))),
    ),
    "F17_gelu_transition": Row(
        "GELU without normalisation: a transition in d",
        "Features of GELU that are not normalised have no entry below -0.17. The figure shows the loss of the best "
        "computed point with that entry lower bound, minus the certified minimum of UFM without it, against the "
        "dimension (STEP imbalance, n_min = 5, tau = 1). Left: equal classes, with the theoretical lower bound in "
        "closed form, which is attained where k divides d. Right: under imbalance, with a convex relaxation that "
        "depends on d (values of a conic solver). Filled markers: certified global minimisers of UFM; from that "
        "dimension on the entry lower bound does not increase the minimum. Vertical lines: theory proves that it "
        "does increase the minimum below this dimension. Values below 1e-6 are shown at 1e-6.",
        gelu_transition.draw,
        _transitions,
    ),
    "F18_landscape": Row(
        "Landscape or network?",
        "Features of trained MLPs as starts of free embeddings. Left: proved upper bounds of the loss minus the "
        "minimum, relative to the loss of a frame, for the trained network and for the ends of two descents from "
        "its features, by plain projected gradient and by the staircase. Hollow: verified not to be a global "
        "minimiser. Right: plain projected gradient, step by step. Base: 256-256-256-64, batches of 100; every "
        "other row changes one option (synthetic images, classes of 60 and 6, 80 epochs, one seed). If the network "
        "is too simple for the frame, the network is the obstacle and not the landscape; at d = 12, with k = 10, "
        "the landscape is the obstacle. Other activations and sizes: experiments/network_questions.py.",
        landscape.draw,
        lambda s: _networks(
            s,
            "landscape",
            n_maj=60,
            batch_size=100,
            epochs=80,
            seeds=1,
            d=(64, 12),
            width=(256, 16),
            activation=("relu",),
        ),
    ),
    "F19_autopsy": Row(
        "Wrong labels, found by their contributions to the excess",
        "Two per cent of the labels (22 of 1,100) are wrong. They are looked for among the 22 samples with the "
        "largest contributions to the excess, and among the 22 samples furthest from the mean of their class (MLP "
        "256-512-512-128, synthetic images, classes of 200 and 20, 50 epochs, two seeds: median, and band from the "
        "smallest to the largest). Grey: by chance. At tau = 0.5 contributions still find nine of ten when the "
        "network has learned the labels by heart, where distances miss some or all of them. At small temperatures "
        "or early in the training distances are as good or better.",
        autopsy.draw,
        lambda s: _networks(s, "autopsy", keep_tau=True, **_AUTOPSY),
        {"tau": "--tau has no effect: each panel has a temperature of its own"},
    ),
    "F20_recycled": Row(
        "Networks on recycled partitions",
        "An MLP (256-256-256-128) whose epochs take turns among E partitions (synthetic images, classes of 100 and "
        "10, 40 epochs, three seeds). Every network minimises the loss of its own batches (squares). Its excess on "
        "all images (circles) falls by a factor of thirty, and no further once the partitions prove the frame "
        "unique (filled). ufm.theory.reshuffling predicts this for half of random batch families from 5.3 "
        "partitions on (dashed). Class means become orthogonal before single images are determined.",
        recycled.draw,
        lambda s: _networks(s, "batches", n_maj=100, R=10.0, epochs=40),
    ),
    "F21_trained_geometry": Row(
        "Trained geometry against the certified one",
        "Left: cosines of class means for each final activation. Bars: the certified minimiser of its model, UFM+ "
        "for the ReLU and UFM for the others. Right: distance of the Gram matrix from both certified ones; filled: "
        "the distance from that of the activation's model (MLP 256-256-256-64, synthetic images, classes of 100 and "
        "10, batches of 250, 500 epochs, one seed). With the ReLU the geometry is the frame; without an activation "
        "it is that of UFM's minimiser up to 0.04. With LeakyReLU and GELU it is nearer to UFM's minimiser than to "
        "the frame, as predicted, but it has not reached it.",
        trained_geometry.draw,
        lambda s: _networks(s, "activations", n_maj=100, width=(256,), d=(64,), epochs=500, record=50, seeds=1),
    ),
}

FIGURES = figures_for(Setting())
