"""The gallery as a table: every figure's caption, what draws it, and the cells it is drawn from."""

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
_AXIS = "--tau has no effect, the temperature is its axis"


class Row(NamedTuple):
    """A figure of the gallery. cells: of what is asked for. unmoved: in words, by option, what does not change it."""

    title: str
    caption: str
    draw: Callable[[Sequence[xr.Dataset]], Figure]
    cells: Callable[[Setting], tuple[Cell, ...]]
    unmoved: Mapping[str, str] = MappingProxyType({})


def figures_for(setting: Setting) -> dict[str, Drawing]:
    """All figures of the gallery, by file name, for what is asked of k, R and tau."""
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
    parameters = {"k": s.k, "d": s.k and 2 * s.k, "tau": s.tau, "R": s.R and tuple(map(float, s.ratios(())))}
    parameters |= {"starts": 1, "limit": 3.0, "growth": (10.0, 100.0)} if s.quick else {}
    return (benchmark_cell(**{name: value for name, value in parameters.items() if value is not None}),)


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


def _networks(s: Setting, question: str, *, keep_tau: bool = False, **parameters: Any) -> tuple[Cell, ...]:
    requested = {**parameters, "k": s.k, "R": parameters.get("R") if s.R is None else float(s.ratio(1.0))}
    if not keep_tau and s.tau is not None:
        requested["tau"] = (s.tau,)
    if s.quick:
        requested |= {"epochs": 4, "record": 2, "seeds": 1, "n_maj": 40, "batch_size": 50}
    return question_cells(question, **requested)


# By file name, the number and the module in `figures` that draws it: F8 is drawn by `figures.basins`.
FIGURE_ROWS = {
    "F1_class_mean_gram": Row(
        "Class-mean geometry with and without the ReLU",
        "Gram matrix of the class means of the start that ended furthest from an orthogonal frame (of 8 starts of "
        "UFM, of 32 of UFM+; STEP imbalance, k = 10, n_min = 5, d = 20, tau = 1; all are certified minimisers). "
        "Without the ReLU (top) imbalance splits majorities from minorities; with it (bottom) every R gives the same "
        "orthogonal frame, to rounding.",
        class_mean_gram.draw,
        lambda s: (*_sweeps(s, nonneg=False, inits=8), *_sweeps(s)),
    ),
    "F2_geometry": Row(
        "Convergence of the geometry",
        "Distance from an orthogonal frame, within-class spread and mean cosine of the class means against iterations, "
        "for STEP and long-tail imbalance (UFM+, k = 10, n_min = 5, d = 20, tau = 1, 32 starts). Classes collapse "
        "within twenty iterations whatever R; beta_nc is exactly 0 from where the staircase replaces each class by "
        "its mean. The larger R, the longer the minorities take to separate. Values below 1e-17 are shown at 1e-17.",
        geometry.draw,
        lambda s: (*_sweeps(s), *_sweeps(s, "long-tail")),
    ),
    "F3_local_convergence": Row(
        "Excess over the bound, and the local rate",
        "Left: from random starts (R = 10, plain projected gradient on all samples with step 0.1 and momentum 0.9, "
        "and the staircase) the excess drops at once when the last overlap between classes reaches exactly zero; a "
        "start caught in a spurious point stays on a plateau. Right: near an orthogonal frame, plain projected "
        "gradient with step 0.1, each class in 5 groups of equal samples: theory (thin, excess proportional to "
        "rho^(2t) with rho of ufm.theory.local_rate) over measurement (thick, four starts). The measured and the "
        "predicted 1 "
        "- rho agree within 1e-4. The curves end where the rounding of the norms begins.",
        local_convergence.draw,
        _near_and_far,
    ),
    "F4_cosines": Row(
        "The imbalanced geometry of UFM, exact by certificate",
        "Cosines between class means against R without the ReLU (STEP imbalance, k = 10, n_min = 10, d = 20, tau = 1). "
        "Curves: certified minimisers, with a duality gap proved in ball arithmetic at 16 ratios; markers: where four "
        "random starts of the solver end. From the simplex frame at R = 1, majorities move to the simplex frame of "
        "their own, -1/(k/2-1), and minorities crowd together. UFM+ (grey) stays at zero for every pair.",
        cosines.draw,
        lambda s: (s.of(cosines_cell(s.ratios((1, 3, 10, 30, 100, 300, 1000))), "k", "tau"),),
    ),
    "F5_interaction_graphs": Row(
        "Which pairs a batch really constrains",
        "Batch interaction graphs of 12 samples in 3 classes (sizes 6, 3, 3), two epochs of batches of 4. If all "
        "pairs that share a batch (left) were constrained, the family as drawn would force the frame. But an anchor "
        "without a positive has no loss, so classes 1 and 2 do not repel each other, and another minimiser exists "
        "(right). Binding one sample of each class to every batch makes the orthogonal frame the only minimiser "
        "(bottom).",
        interaction_graphs.draw,
        lambda s: (graphs_cell(s.k or 3),),
        {"R": "--R has no effect, it is a scheme", "tau": "--tau has no effect, it is a scheme"},
    ),
    "F6_batching": Row(
        "Fixed, reshuffled and bound batches",
        "Distance of the class means from an orthogonal frame (UFM+, class sizes 16 16 16 4 4, d = 10, tau = 1, "
        "8 starts). Every start reaches the bound of Theorem 2; what differs is whether the bound forces a frame. "
        "Right: filled markers where the frame is proved to be the only minimiser, open where it is proved not to "
        "be. A fixed partition never suffices here, reshuffling for 10 epochs does from batches of 8 on, and "
        "batch-binding always.",
        batching.draw,
        lambda s: tuple(
            s.of(batching_cell(family, size, s.k or 5, s.ratio(4)), "tau")
            for family in FAMILIES
            for size in (4, 8, 14, 28)
        ),
    ),
    "F7_temperature": Row(
        "The best temperature",
        "Plain projected-gradient steps (0.1, on the summed loss) for one more decimal digit of the within-class "
        "deviations, against tau (UFM+, STEP imbalance, k = 10, n_min = 5, each class in 5 groups of equal samples). "
        "Lines predicted, open markers measured; rho agrees within 1e-4 relative (1 - rho within 0.1%) at all 40 "
        "points. Stars: the best temperature in closed form, 1/(1 + W((N - n)/((n - 1)e))) with n the largest class "
        "and W Lambert's function.",
        temperature.draw,
        lambda s: tuple(s.of(temperature_cell(R), "k") for R in s.ratios(RATIOS)),
        {"tau": _AXIS},
    ),
    "F8_basins": Row(
        "Basins of plain projected gradient, and the staircase",
        "Percentage of 32 random starts from which projected gradient reaches a verified global minimiser, over d/k, "
        "tau and R (UFM+, STEP imbalance, k = 10, n_min = 5; step 0.1, momentum 0.9, at most 50,000 steps; in class "
        "space, from the class means of uniform random samples). Imbalance and small d make spurious points the rule. "
        "Small letters: the same percentage for the staircase, from 16 starts on all samples, and the percentage of "
        "starts that the step limit stopped, if there are any.",
        basins.draw,
        _basins,
    ),
    "F9_benchmark": Row(
        "The benchmark against peers",
        "Left: seconds until the verifier accepts the optimum, the same starts for every peer, one marker a start "
        "(crosses: not within the time limit). Beside each name stands the share of starts that arrive. Right: one "
        "start of the staircase as n grows, solved and certified. Compilation is not counted.",
        benchmark.draw,
        _benchmark,
    ),
    "F10_certificate": Row(
        "The certificate at a glance",
        "What is proved, as distances on the loss axis (STEP imbalance, k = 10, n_min = 5, d = 20, tau = 1, one start "
        "for each R). For UFM+ the lower bound is the theoretical optimum itself, and the upper bound of the solver's "
        "point lies within 1e-53 of it; for UFM the two bounds are within 1e-8 of each other. Filled: certified, the "
        "gap is below a ten-thousandth of the smallest rise of the loss when two classes merge; open: not certified. "
        "A relative loss tolerance of 1e-6 (dotted, rising) exceeds that rise above R = 100 and would accept merged "
        "minorities. Crosses: how far the value that a conic solver reports is off.",
        certificate.draw,
        lambda s: (s.of(certificates_cell(s.ratios((1, 3, 10, 30, 100, 300, 1000, 3000, 10000))), "k", "tau"),),
    ),
    "F11_reshuffling": Row(
        "How often to reshuffle",
        "Share of random reshuffled families (64 a cell) for which the orthogonal frame is proved to be the only "
        "minimiser, over batch size and number of epochs (UFM+, class sizes 16 16 16 4 4, d = 10). Line: where the "
        "expected number of obstructions, samples not joined to their class and classes that never repel, is ln 2, so "
        "that half of the families should be free of them (ufm.theory.reshuffling). With batch-binding one epoch "
        "is enough.",
        reshuffling.draw,
        lambda s: (s.of(reshuffling_cell(s.k or 5, s.ratio(4))),),
        {"tau": "--tau has no effect, at every temperature the same families force the frame"},
    ),
    "F12_loss_cosines": Row(
        "What reweighting does to the geometry",
        "Cosines between class means against R (STEP imbalance, k = 10, n_min = 10, d = 20, tau = 1). Lines: certified "
        "minimisers of UFM. Class weights 1/n, averaging over classes and logit adjustment, each meant as a cure, "
        "merge the minorities into one vector beyond an R of their own; plain SCL does not; weights and averaging "
        "together give the simplex frame back. Grey: with the ReLU a certified start of every loss is at zero.",
        loss_cosines.draw,
        lambda s: (s.of(loss_cosines_cell(s.ratios(RATIOS)), "k", "tau"),),
    ),
    "F13_thresholds": Row(
        "Where minorities merge",
        "The ratio R* at which all minorities become one vector without the ReLU, against tau (STEP imbalance, k = 10, "
        "n_min = 1000, d = 20). Each point is a bracket of half a per cent between two certificates: below, every "
        "minimiser keeps all minorities apart by a stated angle; above, it has them within one of at most a hundredth "
        "of a radian. The smaller the temperature, the larger R*. Arrows: certified to be apart up to R = 1000.",
        thresholds.draw,
        _thresholds,
        {"tau": _AXIS},
    ),
    "F14_emergence": Row(
        "How fast the frame emerges",
        "Steps of projected gradient (step 0.1, summed loss of a batch) from random starts until delta_gm < 0.001, "
        "against R (UFM+, STEP imbalance, k = 10, n_min = 5, d = 20, tau = 1, batches of 32, 32 starts, at most "
        "5,000 steps). Markers: medians over the starts whose frame emerged, bars the middle half, beside them the "
        "share of starts where it is not all; the others are stuck in spurious points or not there yet; no marker "
        "where none got there. Lines: theory, no fit: solid, until two of the smallest classes, alone, have parted "
        "(ufm.theory.separation); dotted, until deviations within the slowest class have fallen by a thousand "
        "(ufm.theory.local_rate, ufm.theory.stochastic_rate). With uniform batches minorities part like R^3, with "
        "the full batch "
        "like R, with balanced ones at one speed, and what is left there is that every sample must be drawn.",
        emergence.draw,
        emergence_cells,
    ),
    "F15_stochastic_rate": Row(
        "The local rate under random batches",
        "Steps in which the mean squares of within-class deviations fall by a factor e near a frame, of the slowest "
        "class, against the temperature (left) and the step (right); plain stochastic projected gradient, UFM+, STEP "
        "imbalance, k = 4, R = 4, n_min = 8, batches of 16. Lines predicted from the law of the counts, markers "
        "measured over 256 to 4,096 starts. Stars: the best step; faint horizontal lines: what no step and no "
        "temperature beats, since samples must meet positives to move.",
        stochastic_rate.draw,
        rate_cells,
        {"tau": _AXIS},
    ),
    "F16_activations": Row(
        "Leaving the frame under a leaky slope",
        "Gradient descent through LeakyReLU, h = sigma(z)/||sigma(z)||, z free, from random positive starts (k = 4, "
        "n_min = 5, d = 16, tau = 1, STEP imbalance; steps are those of one sample of each class). Left: it comes near "
        "an orthogonal frame, the smaller the slope the nearer, and leaves it, in the end at once, for the geometry "
        "of UFM. Right: steps in which the first pair of class means goes from a right angle to a cosine, -0.02 (open) "
        "or -0.2 (filled). Lines: theory, nothing fitted (ufm.theory.local_rate.leaving_time): slope^-2 while the "
        "cosine is "
        "small against the slope, slope^-1 for leaving altogether, and hardly any R.",
        activations.draw,
        lambda s: tuple(s.of(leaving_cell(R), "k", "tau") for R in s.ratios((10, 1, 100))),
    ),
    "F17_gelu_transition": Row(
        "GELU without normalisation: a transition in d",
        "Features of GELU that are not normalised have no entry below -0.17. Loss of the best point found with that "
        "floor, above the certified minimum of UFM without it, against the dimension (STEP imbalance, n_min = 5, "
        "tau = 1). Left: equal classes, over the lower bound in closed form that theory gives, attained where k "
        "divides d. Right: under imbalance, over a convex relaxation that knows d (a conic solver's values). Filled "
        "marks: certified global minimisers of UFM; from there on the floor costs nothing. Vertical lines: the "
        "dimension below which theory proves that it costs something. Values below 1e-6 are shown at 1e-6.",
        gelu_transition.draw,
        _transitions,
    ),
    "F18_landscape": Row(
        "Landscape or network?",
        "Features of trained MLPs, released as free embeddings. Left: how far above the minimum, proved, relative to "
        "a frame's loss, are the trained network and the ends of two descents from its features: plain projected "
        "gradient and the staircase; hollow: verified not to be a global minimiser. Right: plain projected gradient, "
        "step by step. Base: 256-256-256-64, batches of 100; each other row changes one thing (synthetic images, "
        "classes of 60 and 6, 80 epochs, one seed). A network too simple for the frame is the obstacle, not the "
        "landscape; at d = 12, with k = 10, it is the landscape. Other activations and sizes: "
        "experiments/network_questions.py.",
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
        "Wrong labels, found by their shares of the excess",
        "Two per cent wrong labels (22 of 1,100) are looked for among as many samples: those with the largest shares "
        "in the excess, and those furthest from the mean of their class (MLP 256-512-512-128, synthetic images, "
        "classes of 200 and 20, 50 epochs, two seeds: median, and band from the smallest to the largest). Grey: by "
        "chance. At tau = 0.5 shares still find nine of ten when the network has learned the labels by heart, where "
        "distance misses some or all of them. At small temperatures or early in the training distance is as good or "
        "better.",
        autopsy.draw,
        lambda s: _networks(s, "autopsy", keep_tau=True, **_AUTOPSY),
        {"tau": "--tau has no effect, the temperatures are its panels"},
    ),
    "F20_recycled": Row(
        "Networks on recycled partitions",
        "An MLP (256-256-256-128) whose epochs take turns among E partitions (synthetic images, classes of 100 and "
        "10, 40 epochs, three seeds). Every network minimises what it is given (squares). Its excess on all "
        "images (circles) falls by a factor of thirty, and no further once the partitions prove the frame unique "
        "(filled), as ufm.theory.reshuffling predicts of half of random families from 5.3 partitions on (dashed). "
        "Class "
        "means become orthogonal earlier; single images are determined last.",
        recycled.draw,
        lambda s: _networks(s, "batches", n_maj=100, R=10.0, epochs=40),
    ),
    "F21_trained_geometry": Row(
        "Trained geometry against the certified one",
        "Left: cosines of class means by final activation; bars: the certified minimiser of its model, UFM+ for the "
        "ReLU, UFM for the others. Right: distance of the Gram matrix from both certified ones; filled: the model's "
        "own (MLP 256-256-256-64, synthetic images, classes of 100 and 10, batches of 250, 500 epochs, one seed). "
        "The ReLU's is the frame, without an activation it is UFM's minimiser to 0.04; after LeakyReLU and GELU it "
        "is nearer to that than to the frame, as predicted, and has not arrived.",
        trained_geometry.draw,
        lambda s: _networks(s, "activations", n_maj=100, width=(256,), d=(64,), epochs=500, record=50, seeds=1),
    ),
}

FIGURES = figures_for(Setting())
