"""What to see in each figure of the gallery. The gallery page is made from here, and a test keeps the two equal."""

from __future__ import annotations

from typing import NamedTuple


class Caption(NamedTuple):
    """A figure's file name without suffix, its title, and what to see, in a few sentences with the parameters."""

    file: str
    title: str
    text: str


CAPTIONS = {
    "F1": Caption(
        "F1_class_mean_gram",
        "Class-mean geometry with and without the ReLU",
        "Gram matrix of the class means, the start with the largest delta_gm (UFM: of 8, UFM+: of 32; STEP imbalance, "
        "k = 10, n_min = 5, d = 20, tau = 1, certified minimisers). Without the ReLU (top) imbalance splits "
        "majorities from minorities; with it (bottom) every R gives the same orthogonal frame, to rounding.",
    ),
    "F2": Caption(
        "F2_geometry",
        "Convergence of the geometry",
        "Distance from an orthogonal frame, neural collapse and mean cosine of the class means against iterations, "
        "for STEP and long-tail imbalance (UFM+, k = 10, n_min = 5, d = 20, tau = 1, 32 starts). Classes collapse "
        "within twenty iterations whatever R; beta_nc is exactly 0 from where the staircase replaces each class by "
        "its mean. Separating the minorities takes longer the larger R. Values below 1e-17 are drawn there.",
    ),
    "F3": Caption(
        "F3_local_convergence",
        "Excess over the bound, and the local rate",
        "Left: from random starts (R = 10, plain projected gradient on all samples with step 0.1 and momentum 0.9, "
        "and the staircase) the excess falls off a cliff when the last overlap between classes reaches exactly zero; "
        "a start in a spurious point stays on a plateau. Right: near an orthogonal frame, plain projected gradient "
        "with step 0.1, each class in 5 groups of equal samples: theory (thin, excess proportional to rho^(2t) with "
        "rho of ufm.local_rate) over measurement (thick, four starts). 1 - rho measured and predicted agree within "
        "1e-4, far inside 1%. The floor is the rounding of the norms.",
    ),
    "F4": Caption(
        "F4_cosines",
        "The imbalanced geometry of UFM, exact by certificate",
        "Cosines between class means against R without the ReLU (STEP imbalance, k = 10, n_min = 10, d = 20, tau = 1). "
        "Curves: certified minimisers, with a duality gap proved in ball arithmetic at 16 ratios; markers: where four "
        "random starts of the solver end. From the simplex frame at R = 1, majorities move to the simplex frame of "
        "their own, -1/(k/2-1), and minorities crowd together. UFM+ (grey) stays at zero for every pair.",
    ),
    "F5": Caption(
        "F5_interaction_graphs",
        "Which pairs a batch really constrains",
        "Batch interaction graphs of 12 samples in 3 classes (sizes 6, 3, 3), two epochs of batches of 4. Sharing a "
        "batch (left) would promise a unique geometry already as drawn; but an anchor without a positive exerts no "
        "force, so classes 1 and 2 do not repel each other, and another minimiser exists (right). Binding one sample "
        "of each class to every batch makes the orthogonal frame the only minimiser (bottom).",
    ),
    "F6": Caption(
        "F6_batching",
        "Fixed, reshuffled and bound batches",
        "Distance of the class means from an orthogonal frame (UFM+, class sizes 16 16 16 4 4, d = 10, tau = 1, "
        "8 starts). Every start reaches the bound of Theorem 2; what differs is whether the bound forces a frame. "
        "Right: filled markers where the frame is proved to be the only minimiser, open where it is proved not to "
        "be. A fixed partition never suffices here, reshuffling for 10 epochs does from batches of 8 on, and "
        "batch-binding always.",
    ),
    "F7": Caption(
        "F7_temperature",
        "The best temperature",
        "Plain projected-gradient steps (0.1, on the summed loss) for one more decimal digit of the within-class "
        "deviations, against tau (UFM+, STEP imbalance, k = 10, n_min = 5, each class in 5 groups of equal samples). "
        "Lines predicted, open markers measured; rho agrees within 1e-4 relative (1 - rho within 0.1%) at all 40 "
        "points. Stars: the best temperature in closed form, 1/(1 + W((N - n)/((n - 1)e))) with n the largest class "
        "and W Lambert's function.",
    ),
    "F8": Caption(
        "F8_basins",
        "Basins of plain projected gradient, and the staircase",
        "Percentage of 32 random starts from which projected gradient reaches a verified global minimiser, over d/k, "
        "tau and R (UFM+, STEP imbalance, k = 10, n_min = 5; step 0.1, momentum 0.9, at most 50,000 steps; in class "
        "space, from the class means of uniform random samples). Imbalance and small d make spurious points the rule. "
        "Small print: the staircase from 16 starts on all samples; and starts that the step limit stopped, if any.",
    ),
    "F9": Caption(
        "F9_benchmark",
        "The benchmark against peers",
        "Left: seconds until the verifier accepts the optimum, the same starts for every peer, one marker a start "
        "(crosses: not within the time limit); the share of starts that arrive stands beside each name. Right: one "
        "start of the staircase as n grows, solved and certified. Compilation is off the clock.",
    ),
    "F10": Caption(
        "F10_certificate",
        "The certificate at a glance",
        "What is proved, as distances on the loss axis (STEP imbalance, k = 10, n_min = 5, d = 20, tau = 1, one start "
        "for each R). For UFM+ the lower bound is the theoretical optimum itself, and the upper bound of the solver's "
        "point lies within 1e-53 of it; for UFM the two bounds are within 1e-8 of each other. Filled: certified, the "
        "gap is below a ten-thousandth of what the cheapest pair costs; open: not. A relative loss tolerance of 1e-6 "
        "(dotted, rising) exceeds that cost above R = 100 and would accept merged minorities. Crosses: how far the "
        "value that a conic solver reports is off.",
    ),
    "F11": Caption(
        "F11_reshuffling",
        "How often to reshuffle",
        "Share of random reshuffled families (64 a cell) for which the orthogonal frame is proved to be the only "
        "minimiser, over batch size and number of epochs (UFM+, class sizes 16 16 16 4 4, d = 10). Line: where the "
        "expected number of obstructions, samples not joined to their class and classes that never repel, is ln 2, so "
        "that half of the families should be free of them (ufm.reshuffling). With batch-binding one epoch is enough.",
    ),
}

# The figures that the sweeps draw of their own cells, by file name.
SWEEP_CAPTIONS = {
    "class_mean_gram": Caption(
        "class_mean_gram",
        "Heat maps of the class-mean Gram matrix, one for each R",
        "Gram matrix of the class means for each R, the start with the largest distance delta_gm from an orthogonal "
        "frame: if it is the identity, all are.",
    ),
    "convergence": Caption(
        "convergence",
        "Excess, delta_gm and beta_nc against iterations, one line for each R",
        "Excess over the bound (without the ReLU: loss minus the certified lower bound), distance from an orthogonal "
        "frame and neural collapse against iterations: median over starts, band of the middle half. Values below "
        "1e-17, exact zeros included, are drawn there.",
    ),
    "batching": Caption(
        "batching",
        "Distance from an orthogonal frame against iterations, and shares of unique families and of frames reached",
        "Left: distance of the class means from an orthogonal frame against iterations at the smallest batch size, "
        "median over all starts of all families and band of the middle half; values below 1e-17, exact zeros included, "
        "are drawn there. Right: share of families whose only minimiser is proved to be the frame (lines), and share "
        "of starts that end in one (markers), over the batch size before binding, or over R if there is one size.",
    ),
}


def gallery_page() -> str:
    """The page of the gallery in Markdown, with paths relative to `figures`."""
    lines = [
        "# Gallery",
        "",
        "Drawn by `python -m figures` from stored results; results that are missing are computed first.",
        "One module a figure in this directory, one style for all; `python -m figures --help` says more.",
        "",
    ]
    for number, caption in CAPTIONS.items():
        lines += [f"## {number} {caption.title}", "", f"![{caption.title}](gallery/{caption.file}.png)", ""]
        lines += [caption.text, ""]
    return "\n".join(lines)
