"""Figures from small results: nothing clipped, the same bytes again, and the command that draws the gallery."""

import functools
import logging
import os
import re
import shlex
import struct
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from matplotlib import colors
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

import figures
import solvers
import ufm
from experiments import benchmark as benchmarks
from experiments import gallery
from experiments.gallery_figures import table as gallery_table
from experiments.gallery_figures.batches import graphs_cell
from experiments.gallery_figures.cells import basin_cell
from experiments.gallery_figures.setting import Setting
from experiments.gallery_figures.table import FIGURES
from experiments.harness import command_line
from experiments.harness.cells import Cell
from experiments.harness.drawing import Drawing
from experiments.harness.store import Store
from figures import (
    activation_ends,
    activations,
    autopsy,
    basins,
    batch_sweep,
    batching,
    benchmark,
    certificate,
    class_mean_gram,
    convergence,
    cosines,
    emergence,
    gelu_transition,
    geometry,
    interaction_graphs,
    landscape,
    local_convergence,
    loss_cosines,
    one_problem,
    path,
    recycled,
    stochastic_rate,
    style,
    temperature,
    thresholds,
    trained_geometry,
)

GALLERY = Path(__file__).parent.parent / "figures" / "gallery"
RATIOS = (1, 10, 100, 1000)


def sweep_cell(R, nonneg=1, imbalance="step", k=10):
    """A cell of the shape that `run_cell` gives, with a history that falls from 1 to 0."""
    starts, records = 3, 6
    falling = np.tile(np.geomspace(1, 1e-15, records), (starts, 1))
    falling[:, -1] = 0
    data = {
        f"history_{name}": (("init", "record"), falling) for name in ("excess", "delta_gm", "beta_nc", "mean_cosine")
    }
    data["history_iteration"] = (("init", "record"), np.tile(np.arange(records) * int(R) + 1, (starts, 1)))
    data["gram"] = (("init", "class", "class_"), np.tile(np.eye(k), (starts, 1, 1)))
    data["delta_gm"] = ("init", np.array([1e-16, 3e-16, 0.0]))
    attrs = {"R": R, "k": k, "d": 20, "tau": 1.0, "nonneg": nonneg, "imbalance": imbalance, "inits": starts}
    return xr.Dataset(data, attrs={**attrs, "method": "staircase", "loss_bound": 100.0, "lower_bound": 90.0})


def local_cell(R):
    excess = 1e-4 * 0.9 ** (2.0 * np.arange(1, 201))[None]
    return xr.Dataset(
        {"excess": (("start", "step"), excess), "measured": ("start", [0.9]), "predicted": 0.9},
        coords={"step": np.arange(1, 201)},
        attrs={"R": R, "k": 10, "d": 20, "tau": 1.0, "eta": 0.1},
    )


def random_starts():
    data = {}
    for method in ("projected-gradient", "staircase"):
        dims = ("init", f"{method}_record")
        data[f"{method}_iteration"] = (dims, np.tile(np.arange(4) * 10, (2, 1)))
        data[f"{method}_excess"] = (dims, np.array([[1, 1e-3, 1e-9, 1e-15], [1, -1e-3, 1e-4, 1e-4]]))
    return xr.Dataset(data, attrs={"R": 10, "n": 275, "inits": 2, "loss_bound": 10.0})


def cosine_data():
    R = np.geomspace(1, 1000, 5)
    return xr.Dataset(
        {
            "curve": (("fine_R", "kind"), np.linspace(-0.25, 0.25, 15).reshape(5, 3)),
            "certified_gap": ("fine_R", [1e-12, np.nan, 1e-12, 1e-12, 1e-12]),
            "ufm": (("R", "init", "kind"), np.zeros((5, 2, 3))),
            "ufm_plus": (("R", "init", "kind"), np.zeros((5, 2, 3))),
        },
        coords={"fine_R": R, "R": R, "kind": ["majority-majority", "majority-minority", "minority-minority"]},
        attrs={"k": 10, "d": 20, "tau": 1.0},
    )


def batching_data(family, size):
    cell = sweep_cell(1, k=5)
    attrs = {"family": family, "batch_size": size, "unique": str(family == "bound"), "epochs": 10, "m": 1}
    return cell.assign_attrs(**attrs, sizes=np.array([16, 16, 4]), n=36)


def family_data(R, tau, size, bound, nonneg=1):
    cell = sweep_cell(R, nonneg, k=5)
    for name in ("loss_bound", "lower_bound"):
        cell[name] = ("init", np.full(3, cell.attrs.pop(name)))
    cell["unique"] = ("init", [str(bool(bound))] * 3)
    cell["orthogonal_frame"] = ("init", [bool(bound)] * 3)
    return cell.assign_attrs(tau=tau, batch_size=size, bound=bound, partitions=3, family="partition")


def temperature_data(R):
    fine = np.geomspace(0.15, 5, 20)
    return xr.Dataset(
        {
            "measured": (("tau", "start"), np.full((3, 2), 0.9)),
            "predicted": ("tau", np.full(3, 0.9)),
            "curve": ("fine_tau", 0.9 + 0.01 * np.log(fine / 0.5) ** 2),
            "best_tau": 0.5,
            "best_rate": 0.9,
        },
        coords={"tau": [0.2, 1, 5], "fine_tau": fine},
        attrs={"R": R, "k": 10, "eta": 0.1},
    )


def basin_data(d, R, tau):
    plain = ["global minimiser", "stationary but spurious", "not converged"]
    attrs = {"d": d, "R": R, "tau": tau, "k": 10, "starts": 3, "inits": 1}
    return xr.Dataset({"projected_gradient": ("start", plain), "staircase": ("init", plain[:1])}, attrs=attrs)


def benchmark_data():
    peers = ["staircase", "staircase", "torch-supcon", "torch-supcon"]
    runs = xr.Dataset(
        {
            "peer": ("run", peers),
            "R": ("run", [10.0, 100.0] * 2),
            "n": ("run", [275.0, 2525.0] * 2),
            "reached": ("run", [True, True, True, False]),
            "seconds": ("run", [0.01, 0.1, 10.0, 60.0]),
        }
    )
    grown = {"n": [1e3, 1e4], "seconds_solve": [0.1, 1.0], "seconds_certify": [0.01, 0.01]}
    return runs.assign({f"growth_{name}": ("size", values) for name, values in grown.items()})


def certificate_data():
    fields = ("upper", "lower", "gap", "theoretical", "conic", "weakest")
    data = {field: (("model", "R"), np.full((2, 4), 100.0)) for field in fields}
    data["gap"] = (("model", "R"), np.tile([1e-50, 1e-12], (4, 1)).T)
    data["tolerance"] = (("model", "R"), np.full((2, 4), 1e-4))
    data["status"] = (("model", "R"), np.array([["certified"] * 4, ["certified"] * 3 + ["inconclusive"]]))
    attrs = {"k": 10, "d": 20, "tau": 1.0, "n_min": 5}
    return xr.Dataset(data, coords={"model": ["UFM+", "UFM"], "R": np.array(RATIOS, float)}, attrs=attrs)


def path_data(d, *, nonneg=1, k=3, starts=1):
    """Paths of six samples, every other class after class, from random points of the sphere; one point is padding."""
    rng = np.random.default_rng(d)
    walk = rng.standard_normal((starts, 5, 7, d)).cumsum(axis=1)
    walk = np.abs(walk) if nonneg else walk
    data = {
        "history_H": (("init", "record", "sample", "coordinate"), walk / np.linalg.norm(walk, axis=-1, keepdims=True)),
        "history_iteration": (("init", "record"), np.tile([0, 1, 2, 30, 4000], (starts, 1))),
        "label": ("sample", np.arange(7) % k),
        "multiplicity": ("sample", [1.0] * 6 + [0.0]),
    }
    return xr.Dataset(data, attrs={"k": k, "d": d, "tau": 1.0, "n": 6, "nonneg": nonneg, "inits": starts})


def loss_data(plus=True):
    """Two losses, one interrupted; with the ReLU at other ratios, or not at all."""
    curve = np.linspace(-0.1, 1.0, 24).reshape(2, 4, 3)
    curve[1, 2] = np.nan
    data = {
        "ufm": (("loss", "R", "kind"), curve),
        "ufm_plus": (("loss", "R_plus", "kind"), np.full((2, 2, 3), 0.0 if plus else np.nan)),
    }
    coords = {"loss": ["class-weights", "weights-and-averaging"], "R": [1.0, 10, 100, 1000], "R_plus": [1.0, 1000]}
    kinds = ["majority", "between", "minority"]
    return xr.Dataset(data, coords=coords | {"kind": kinds}, attrs={"k": 10, "d": 20, "tau": 1.0})


def threshold_data(loss, tau, low, high):
    attrs = {"loss": loss, "tau": tau, "R_apart": low, "R_merged": high, "most_R": 1000.0, "k": 10}
    return xr.Dataset(attrs=attrs)


def emergence_data(sampler, R, tau, batch_size, steps=100.0):
    """One start in four is stuck."""
    attrs = {"sampler": sampler, "batch_size": batch_size, "R": R, "tau": tau, "k": 10, "d": 20, "eta": 0.1, "inits": 4}
    attrs |= {"max_steps": 1000, "steps_separate": 9.0 * R, "steps_collapse": 80.0 if sampler == "full" else np.inf}
    first = np.array([steps, 1.2 * steps, 1.5 * steps, np.nan])
    return xr.Dataset({"steps": ("init", first), "stuck": ("init", np.isnan(first))}, attrs=attrs)


def rate_data(sampler, rate=0.97):
    taus, fine = [0.2, 1.0, 5.0], np.geomspace(0.2, 5, 9)
    return xr.Dataset(
        {
            **{f"of_{over}": ((over, "which"), np.full((3, 2), rate)) for over in ("tau", "eta")},
            **{f"curve_of_{over}": (f"fine_{over}", np.full(9, rate)) for over in ("tau", "eta")},
            "best_step": 1.0,
            "best_rate": rate - 0.01,
            "least_rate": rate - 0.02,
        },
        coords={"tau": taus, "eta": taus, "fine_tau": fine, "fine_eta": fine, "which": ["predicted", "measured"]},
        attrs={"sampler": sampler, "batch_size": 16, "R": 4.0, "k": 4, "n_min": 8, "step": 0.3, "fixed": 0.5},
    )


def network(seed=0, k=6, **changes):
    """A cell of `experiments.network_questions`; what the questions add comes after."""
    attrs = {"width": 512, "depth": 2, "d": 128, "batch_norm": "off", "activation": "relu", "tau": 0.2}
    attrs |= {"batching": "reshuffled", "dataset": "synthetic", "imbalance": "step", "R": 10.0, "n": 330, "epochs": 80}
    attrs |= {"seed": seed, "nonneg": int(changes.get("activation", "relu") == "relu")}
    attrs |= {"loss_bound": 1000.0, "gap": 30.0, "excess_upper": 30.0}
    gram = np.eye(k) + 0.1 * (seed + 1) * (1 - np.eye(k))
    history = {f"history_{name}": ("record", np.linspace(0.9, 0.1, 5)) for name in ("delta_gm", *autopsy.JUDGES)}
    history["history_epoch"] = ("record", np.arange(5) * 20.0)
    return xr.Dataset({"gram": (("class", "class_"), gram), **history}, attrs={**attrs, **changes})


def released_network(seed, verdict="global minimiser", **changes):
    cell = network(seed, **changes)
    falling = np.geomspace(30, 1e-12, 40) - (0.0 if cell.attrs["nonneg"] else 50.0)
    ends = {"plain_gap": 2e-13, "staircase_gap": 0.0, "minimum": 0.0 if cell.attrs["nonneg"] else -50.0}
    verdicts = {"plain_verdict": verdict, "staircase_verdict": "global minimiser"}
    way = {"plain_iteration": ("step", 4 * np.arange(1, 41)), "plain_excess": ("step", falling)}
    return cell.assign(way).assign_attrs(**ends, **verdicts)


def recycling_network(seed, pool, **changes):
    result = {"pool": pool, "unique": str(pool > 4), "half": 5.3, "pool_excess": 3.0, "pool_bound": 200.0}
    return network(seed, batching=f"recycled:{pool}", batch_size=50, **result, **changes)


def compared_network(seed, activation):
    predicted = (("class", "class_"), 1.2 * np.eye(6) - 0.2)
    return network(seed, activation=activation, to_frame=0.1, to_ufm=0.4 + 0.1 * seed).assign(predicted=predicted)


SETTINGS = ({}, {"width": 32}, {"depth": 0}, {"depth": 4}, {"d": 16}, {"batch_norm": "on"}, {"activation": "none"})


def graph_data():
    cell = graphs_cell()
    return cell.compute(**cell.arguments, progress=lambda ended: None)[0]


@functools.cache
def solved(nonneg=True):
    """Two starts in d = 3, their paths kept."""
    problem = ufm.Problem.from_class_sizes([4, 4, 2], d=3, nonneg=nonneg)
    return solvers.solve(problem, inits=2, method="accelerated", record_H=True)


SAMPLERS = ("uniform", "class-balanced")


def ends_data(name, R, lifted=0):
    distance = np.geomspace(1e-12, 0.5, 4)
    data = {"distance": ("init", distance), "lifted": ("init", np.arange(4) < lifted)}
    return xr.Dataset(data, attrs={"activation": name, "R": R, "k": 10, "d": 20, "tau": 1.0})


def leaving_data(R):
    slopes, fine, levels = np.array([0.01, 0.1]), np.geomspace(0.009, 0.11, 5), np.array([0.02, 0.2])
    left = levels[:, None, None] / slopes[:, None] ** 2 * np.ones(3)
    data = {
        "left": (("level", "slope", "start"), left),
        "predicted": (("level", "fine"), levels[:, None] / fine**2),
        "delta_gm": (("slope", "start", "record"), np.tile(np.geomspace(1, 1e-3, 6), (2, 3, 1))),
    }
    coords = {"slope": slopes, "fine": fine, "level": levels, "record": np.arange(1, 7)}
    return xr.Dataset(data, coords, {"R": R, "k": 4, "d": 16, "tau": 1.0, "step": 0.05, "starts": 3})


def transition_data(k, R):
    d = np.arange(k, 20)
    gap = np.where(d < 12, 1.0 / d, 1e-14)
    data = {"gap": ("d", gap), "certified": ("d", d >= 12), "relaxed": ("d", gap / 2), "balanced": ("d", gap / 2)}
    attrs = {"k": k, "R": R, "n_min": 5, "tau": 1.0, "inits": 8, "floor": -0.17, "necessary": 12, "sufficient": 104}
    return xr.Dataset(data, {"d": d}, attrs)


DRAWN = {
    "activation_ends": lambda: activation_ends.draw(
        [ends_data(name, R, R > 1) for name in ("relu", "abs", "softplus", "leaky-relu:0.1", "gelu") for R in (1, 10)]
    ),
    "activation_ends, one": lambda: activation_ends.draw([ends_data("relu", 1)]),
    "activations": lambda: activations.draw([leaving_data(R) for R in (10, 1, 100)]),
    "gelu_transition": lambda: gelu_transition.draw(
        [transition_data(2, 1), transition_data(4, 1), transition_data(4, 10), transition_data(4, 100)]
    ),
    "class_mean_gram": lambda: class_mean_gram.draw([sweep_cell(R, nonneg) for nonneg in (0, 1) for R in RATIOS]),
    "class_mean_gram, six ratios": lambda: class_mean_gram.draw([sweep_cell(R) for R in range(1, 7)]),
    "class_mean_gram, two": lambda: class_mean_gram.draw([sweep_cell(R) for R in (1, 10)]),
    "class_mean_gram, three": lambda: class_mean_gram.draw([sweep_cell(R) for R in (1, 10, 100)]),
    "batch_sweep": lambda: batch_sweep.draw([family_data(R, 1.0, 6, b) for R in (1, 10) for b in (0, 1)]),
    "batch_sweep, sizes": lambda: batch_sweep.draw(
        [family_data(R, t, s, b) for R in (1, 10, 30) for t in (0.5, 1.0) for s in (6, 12) for b in (0, 1)]
    ),
    "batch_sweep, UFM": lambda: batch_sweep.draw([family_data(R, 1.0, 6, b, 0) for R in (1, 10) for b in (0, 1)]),
    "class_mean_gram, one": lambda: class_mean_gram.draw([sweep_cell(10, k=30)]),
    "convergence": lambda: convergence.draw([sweep_cell(R) for R in RATIOS]),
    "convergence, UFM": lambda: convergence.draw([sweep_cell(R, 0) for R in RATIOS]),
    "geometry": lambda: geometry.draw([sweep_cell(R, imbalance=i) for i in ("step", "long-tail") for R in RATIOS]),
    "local_convergence": lambda: local_convergence.draw([random_starts(), *map(local_cell, RATIOS)]),
    "cosines": lambda: cosines.draw([cosine_data()]),
    "interaction_graphs": lambda: interaction_graphs.draw([graph_data()]),
    "batching": lambda: batching.draw([batching_data(f, s) for f in ("fixed", "reshuffled", "bound") for s in (4, 8)]),
    "temperature": lambda: temperature.draw([temperature_data(R) for R in RATIOS]),
    "basins": lambda: basins.draw(
        [basin_data(d, R, 1.0) for d in (10, 20) for R in RATIOS] + [basin_data(20, R, 0.2) for R in RATIOS]
    ),
    "benchmark": lambda: benchmark.draw([benchmark_data()]),
    "loss_cosines": lambda: loss_cosines.draw([loss_data()]),
    "loss_cosines, UFM alone": lambda: loss_cosines.draw([loss_data(plus=False)]),
    "thresholds": lambda: thresholds.draw(
        [threshold_data("class-weights", tau, 5 / tau, 5.1 / tau) for tau in (0.2, 1.0, 5.0)]
        + [threshold_data("class-averaging", 1.0, 10, 10.05), threshold_data("class-averaging", 0.2, 1000, np.nan)]
        + [threshold_data("scl", 1.0, 1000, np.nan)]
    ),
    "thresholds, one": lambda: thresholds.draw([threshold_data("class-weights", 1.0, 16.8, 16.9)]),
    "thresholds, none": lambda: thresholds.draw([threshold_data("scl", 1.0, 1000, np.nan)]),
    "emergence": lambda: emergence.draw(
        [emergence_data("full", R, t, 0) for R, t in ((1, 1), (10, 1), (100, 1), (10, 0.2))]
        + [
            emergence_data(s, R, t, b)
            for s in SAMPLERS
            for R, t, b in ((1, 1, 32), (10, 1, 32), (10, 1, 64), (10, 0.2, 32))
        ]
    ),
    "emergence, one": lambda: emergence.draw([emergence_data("uniform", 10, 1, 32)]),
    "emergence, none there": lambda: emergence.draw([emergence_data("full", R, 1, 0, np.nan) for R in (1, 10)]),
    "stochastic_rate": lambda: stochastic_rate.draw([rate_data(sampler) for sampler in SAMPLERS]),
    "stochastic_rate, nothing contracts": lambda: stochastic_rate.draw([rate_data("uniform", 1.0)]),
    "landscape": lambda: landscape.draw([released_network(seed, **setting) for setting in SETTINGS for seed in (0, 1)]),
    "landscape, one": lambda: landscape.draw([released_network(0, "stationary but spurious")]),
    "autopsy": lambda: autopsy.draw(
        [network(seed, tau=tau, label_noise=0.02) for tau in (0.1, 0.2, 0.5, 1.0, 2.0) for seed in (0, 1)]
    ),
    "autopsy, one": lambda: autopsy.draw([network(label_noise=0.02)]),
    "recycled": lambda: recycled.draw([recycling_network(seed, p) for p in (1, 2, 5, 10, 20, 40) for seed in (0, 1)]),
    "recycled, one": lambda: recycled.draw([recycling_network(0, 3)]),
    "recycled, never": lambda: recycled.draw([recycling_network(0, p).assign_attrs(half=np.inf) for p in (1, 2)]),
    "trained_geometry": lambda: trained_geometry.draw(
        [compared_network(seed, name) for name in ("relu", "none", "leaky-relu", "gelu", "silu") for seed in (0, 1)]
    ),
    "certificate": lambda: certificate.draw([certificate_data()]),
    "path, quarter of the disc": lambda: path.draw([path_data(2)]),
    "path, disc": lambda: path.draw([path_data(2, nonneg=0, starts=3)]),
    "path, octant": lambda: path.draw([path_data(3, k=7, starts=5)]),
    "path, sphere": lambda: path.draw([path_data(3, nonneg=0, starts=2)]),
    "of H, class_mean_gram": lambda: figures.draw("class_mean_gram", np.eye(7, 9), ufm.Problem(range(7), 9)),
    "of a solution, convergence, UFM": lambda: figures.draw("convergence", solved(nonneg=False)),
    "of a solution, geometry, UFM": lambda: figures.draw("geometry", solved(nonneg=False)),
    "of a solution, path": lambda: figures.draw("path", solved()),
}


@pytest.mark.few(10)
@pytest.mark.parametrize("name", DRAWN)
def test_nothing_is_clipped(name):
    figure = DRAWN[name]()
    assert figure.get_figwidth() in (style.ONE_COLUMN, style.TWO_COLUMNS)
    assert_nothing_is_clipped(figure)


@pytest.mark.few(4)
@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize("width", [3.25, 6.75])
def test_every_figure_has_the_width_asked_for_and_no_title(name, width):
    with style.custom(width=width, title=False):
        figure = DRAWN[name]()
    assert figure.get_figwidth() == width
    assert figure._suptitle is None
    assert_nothing_is_clipped(figure)
    with style.custom(style.fonts("DejaVu Serif", 7), width=width):
        titled = DRAWN[name]()
    assert_nothing_is_clipped(titled)
    assert {text.get_fontfamily()[0] for text in titled.findobj(Text)} == {"DejaVu Serif"}


def assert_nothing_is_clipped(figure):
    canvas = FigureCanvasAgg(figure)
    with style.applied():
        canvas.draw()
        drawn = figure.get_tightbbox(canvas.get_renderer())
        title = figure._suptitle
        above = title.get_window_extent() if title else None
    width, height = figure.get_size_inches()
    margin = 0.02
    assert drawn.x0 > -margin
    assert drawn.y0 > -margin
    assert drawn.x1 < width + margin
    assert drawn.y1 < height + margin
    if above is not None:
        assert not any(above.overlaps(axis.get_tightbbox()) for axis in figure.axes if axis.get_visible())


@pytest.mark.parametrize("name", ["basins", "local_convergence"])
def test_the_same_results_give_the_same_bytes(name):
    first, again = style.rendered(DRAWN[name]()), style.rendered(DRAWN[name]())
    assert first == again
    assert first["png"][:4] == b"\x89PNG"
    assert first["pdf"][:4] == b"%PDF"


def test_a_solution_is_drawn_as_a_cell_of_a_sweep_is():
    solution = solved()
    cell = one_problem.cell_of(solution)
    again = one_problem.cell_of(solution.H, solution.problem)
    assert {name: cell.attrs[name] for name in ("R", "k", "d", "tau", "n", "nonneg", "inits", "imbalance")} == {
        **{"R": 2.0, "k": 3, "d": 3, "tau": 1.0, "n": 10, "nonneg": 1, "inits": 2, "imbalance": "step"}
    }
    assert cell.attrs["loss_bound"] == cell.attrs["lower_bound"] == float(ufm.loss_bound(solution.problem))
    for name in ("excess", "gram", "delta_gm", "beta_nc", "class_means"):
        np.testing.assert_allclose(cell[name], again[name], atol=1e-12)
    means = [[H[np.asarray(solution.problem.labels) == c].mean(axis=0) for c in range(3)] for H in solution.H]
    np.testing.assert_allclose(cell["class_means"], means, atol=1e-15)
    np.testing.assert_allclose(cell["gram"], np.einsum("icx,idx->icd", means, means), atol=1e-15)
    np.testing.assert_array_equal(cell["history_H"][:, 0], [history.H[0] for history in solution.history])


def test_what_is_shown_of_ufm_without_a_certificate_is_said():
    """The loss above the lowest one that was found; of the start that found it the last record is not lost."""
    cell = one_problem.cell_of(solved(nonneg=False))
    lowest = float(cell["excess"].min())
    assert cell.attrs["lower_bound"] == pytest.approx(cell.attrs["loss_bound"] + lowest)
    axes = figures.draw("convergence", solved(nonneg=False)).axes
    assert axes[0].get_ylabel() == "loss minus the lowest\nloss found, relative to it"
    assert axes[0].lines[0].get_ydata()[-1] < 1e-6
    cosines_of_ufm = figures.draw("geometry", solved(nonneg=False)).axes[2]
    assert cosines_of_ufm.get_ylabel() == "minus the mean cosine\nof class means"
    assert cosines_of_ufm.lines[0].get_ydata()[-1] > 0.1


def test_the_path_is_drawn_from_the_start_to_the_end_of_every_sample():
    solution = solved()
    axis = figures.draw("path", solution).axes[0]
    stored = np.asarray(solution.history[0].H)
    view = path._view(nonneg=True)
    np.testing.assert_allclose(view @ view.T, np.eye(3), atol=1e-15)
    ends = [line for line in axis.lines if len(line.get_xdata()) == 1]
    assert len(ends) == 2 * solution.problem.num_points
    np.testing.assert_allclose([np.ravel(line.get_xydata()) for line in ends[::2]], stored[0] @ view[:2].T)
    np.testing.assert_allclose([np.ravel(line.get_xydata()) for line in ends[1::2]], stored[-1] @ view[:2].T)
    named = {text.get_text(): handle.get_color() for text, handle in legend_of(axis.figure)}
    for line, label in zip(ends[::2], solution.problem.labels.tolist(), strict=True):
        assert colors.same_color(line.get_color(), named[f"class {label}"])


def legend_of(figure):
    (legend,) = figure.legends
    return zip(legend.get_texts(), legend.legend_handles, strict=True)


def test_a_path_across_180_degrees_is_broken_there():
    cell = path_data(2, nonneg=0)
    turn = np.deg2rad([170, 179, 181, 190, 200])
    walk = np.stack([np.cos(turn), np.sin(turn)], axis=-1)[None, :, None].repeat(7, axis=2)
    angles = path.draw([cell.assign(history_H=(cell["history_H"].dims, walk))]).axes[1]
    drawn = np.concatenate([np.ravel(line.get_ydata()) for line in angles.lines if len(line.get_xdata()) > 3])
    steps = drawn.reshape(-1, 3)[:, :2]
    assert len(steps) == 6 * 3
    assert np.abs(np.diff(steps, axis=1)).max() < 11


@pytest.mark.parametrize(
    ("name", "subject", "said"),
    [
        (
            "basins",
            solved,
            "name = 'basins': it compares several problems: give their cells, or run ufm-gallery --only basins",
        ),
        (
            "style",
            solved,
            "name = 'style': no such figure; of one problem there are class_mean_gram, convergence, geometry",
        ),
        ("convergence", lambda: np.eye(3), "name = 'convergence': it shows a history: give the Solution"),
        ("path", lambda: np.eye(3), "name = 'path': it shows the path of H: give a Solution of .*record_H=True"),
        ("class_mean_gram", lambda: np.eye(2), r"H = 'array of shape \(2, 2\)': give one row a sample, shape \(3, 3\)"),
        ("class_mean_gram", lambda: np.full((3, 3), np.nan), "H = 'array with NaN or infinite entries'"),
        ("class_mean_gram", lambda: np.eye(3) * 1j, "H = 'ndarray': give a Solution, or a real array"),
        ("class_mean_gram", lambda: "H", "H = 'str': give a Solution, or a real array"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(name, subject, said):
    subject = subject()
    problem = None if isinstance(subject, solvers.Solution) else ufm.Problem(range(3), 3)
    with pytest.raises(ufm.InvalidInput, match=f"^{said}"):
        figures.draw(name, subject, problem)


@pytest.mark.parametrize("name", ["convergence", "geometry"])
def test_in_one_column_panels_stand_one_above_the_other(name):
    figure = figures.draw(name, solved(), width=style.ONE_COLUMN)
    assert figure.get_size_inches()[0] == style.ONE_COLUMN
    assert len({axis.get_position().x0 for axis in figure.axes}) == 1
    assert figure._suptitle is None
    with pytest.raises(ufm.InvalidInput, match=r"^width = 1\.0"):
        figures.draw(name, solved(), width=1.0)


def test_saved_as_the_page_says_fonts_are_truetype_and_settings_of_ones_own_count(tmp_path):
    with style.custom({"axes.labelsize": 11}):
        figure = figures.draw("class_mean_gram", solved())
    figures.draw("convergence", solved()).savefig(tmp_path / "convergence.pdf")
    content = (tmp_path / "convergence.pdf").read_bytes()
    assert b"/Type3" not in content
    assert b"/CIDFontType2" in content
    assert figure.axes[0].xaxis.label.get_size() == 11
    assert figures.draw("convergence", solved()).axes[0].xaxis.label.get_size() == 8


def test_a_width_below_five_leaves_the_title_to_the_caption_unless_it_is_asked_for():
    for name in ("class_mean_gram", "convergence"):
        assert figures.draw(name, solved(), width=3.25)._suptitle is None
        assert figures.draw(name, solved(), width=3.25, title=True)._suptitle is not None
        assert figures.draw(name, solved())._suptitle is not None
        assert figures.draw(name, solved(), title=False)._suptitle is None
    with pytest.raises(ufm.InvalidInput, match=r"^font = 'No Such Font': is not installed"):
        style.fonts("No Such Font")


def test_a_gram_matrix_is_square_at_every_width():
    for width in (2.5, 3.25, 6.75, 12.0):
        figure = figures.draw("class_mean_gram", solved(), width=width)
        FigureCanvasAgg(figure).draw()
        box = figure.axes[0].get_window_extent()
        assert box.width == pytest.approx(box.height)


def test_any_figure_is_drawn_from_cells_in_one_call():
    cells = [sweep_cell(R, nonneg) for nonneg in (0, 1) for R in RATIOS]
    for cell in cells:
        gram = 1.5 * np.eye(10) - 0.05 if cell.attrs["nonneg"] else np.eye(10) - 0.1
        cell["gram"] = (("init", "class", "class_"), np.tile(gram, (3, 1, 1)))
    axis = figures.draw("cosines", cells, width=3.25, title=False).axes[0]
    points = [line for line in axis.lines if line.get_marker() == "o" and len(line.get_xdata())]
    np.testing.assert_allclose(points[0].get_ydata(), -1 / 9)
    assert figures.draw("basins", [basin_data(10, R, 1.0) for R in RATIOS]).axes
    assert figures.draw("cosines", cosine_data()).axes
    for name, subject in (("cosines", [local_cell(1)]), ("certificate", cells), ("temperature", [sweep_cell(1)])):
        with pytest.raises(ufm.InvalidInput, match=r"^cells = "):
            figures.draw(name, subject)


@pytest.mark.parametrize(
    ("sizes", "profile"),
    [
        ([20, 20, 2, 2], "step imbalance"),
        ([2, 20, 20], "step imbalance"),
        ([1000, 100, 10], "long-tail imbalance"),
        ([5, 5, 5], "equal class sizes"),
        ([5, 4, 1], "own class sizes"),
    ],
)
def test_titles_name_the_profile_of_the_class_sizes(sizes, profile):
    problem = ufm.Problem.from_class_sizes(sizes, d=len(sizes))
    labels = np.asarray(problem.labels)
    figure = figures.draw("class_mean_gram", np.eye(len(sizes))[labels], problem)
    assert profile in figure._suptitle.get_text()


def test_ufm_has_no_panel_that_shows_nothing():
    """On a logarithmic axis down to 1e-17 the distance of UFM from a frame, about 1, is a line along the edge."""
    labels = [axis.get_ylabel() for axis in figures.draw("convergence", solved(nonneg=False)).axes]
    assert len(labels) == 2
    assert style.DELTA_GM not in labels
    assert figures.draw("geometry", solved(nonneg=False)).axes[0].get_yscale() == "linear"


def test_a_problem_is_given_with_h_alone():
    with pytest.raises(ufm.InvalidInput, match=r"^problem = 'NoneType': give the ufm.Problem of H"):
        figures.draw("class_mean_gram", np.eye(3))
    with pytest.raises(ufm.InvalidInput, match=r"^problem = 'Problem': leave it out: a solution holds"):
        figures.draw("class_mean_gram", solved(), solved().problem)
    with pytest.raises(ufm.InvalidInput, match=r"^d = 4: the path of H can be drawn for d = 2 and d = 3"):
        path.draw([path_data(4)])


def test_records_that_are_not_positive_repeat_the_last_one():
    excess = np.array([[3.0, -1.0, 0.0, 2.0], [1.0, 0.5, 0.25, -0.1]])
    np.testing.assert_array_equal(style.positive(excess, exact=False), [[3, 3, 3, 2], [1, 0.5, 0.25, 0.25]])
    np.testing.assert_array_equal(style.positive(excess), [[3, 3, 0, 2], [1, 0.5, 0.25, 0.25]])


def test_an_excess_that_ends_at_zero_is_drawn_at_the_floor():
    assert convergence.draw([sweep_cell(10)]).axes[0].lines[0].get_ydata()[-1] == style.SMALLEST_DRAWN


def test_losses_of_ufm_are_shown_above_the_certified_lower_bound():
    """The frame's loss is no bound there: an excess of -8 over it is 2 above a lower bound that lies 10 below it."""
    cell = sweep_cell(10, nonneg=0)
    cell["history_excess"] = (("init", "record"), np.tile([3.0, -8.0, -9.0, -9.5, -10.0, -10.0 - 1e-14], (3, 1)))
    np.testing.assert_allclose(style.history(cell, "excess")[1][:, [0, -1]], np.tile([13.0, 0.5], (3, 1)))
    axis = convergence.draw([cell]).axes[0]
    assert "certified\nlower bound" in axis.get_ylabel()
    assert axis.lines[0].get_ydata()[-1] == pytest.approx(0.5 / 90)
    never = cell.assign(history_excess=(("init", "record"), np.full((3, 6), -11.0)))
    assert np.isnan(convergence.draw([never]).axes[0].lines[0].get_ydata()).all()


def test_values_are_carried_along_a_grid():
    steps, values = np.array([[2, 5]]), np.array([[7.0, 8.0]])
    np.testing.assert_array_equal(style.carried(steps, values, np.array([1, 2, 4, 5, 9])), [[7, 7, 7, 8, 8]])


@pytest.mark.parametrize(("value", "text"), [(0.417, "0.42"), (0, "0"), (3.2e-16, r"$3 \cdot 10^{-16}$")])
def test_numbers_in_labels(value, text):
    assert style.scientific(value) == text


def test_the_page_of_the_gallery_is_the_captions():
    assert (GALLERY / "README.md").read_text() == gallery.gallery_page(FIGURES)


def test_the_gallery_is_complete():
    assert [name.partition("_")[0] for name in FIGURES] == [f"F{number}" for number in range(1, len(FIGURES) + 1)]
    for name in FIGURES:
        content = (GALLERY / f"{name}.png").read_bytes()
        width, height = struct.unpack(">II", content[16:24])
        assert len(content) < 300_000
        assert 600 <= width <= 1500
        assert 300 <= height <= 1500


def test_figures_know_nothing_of_experiments():
    modules = [path.read_text() for path in GALLERY.parent.glob("*.py")]
    assert len(modules) > len(FIGURES)
    assert not any("experiments" in source for source in modules)


def test_cells_of_different_parameters_have_different_files():
    cells = {cell.file: cell for drawing in FIGURES.values() for cell in drawing.cells}
    assert len(cells) == len({cell.name for cell in cells.values()})
    assert basin_cell(10, 1, 1.0).file != basin_cell(20, 1, 1.0).file
    one, other = (Cell("same", print, {"R": R}) for R in (1, 2))
    assert one.file != other.file
    assert re.fullmatch("cells/same-[0-9a-f]{16}.nc", one.file)


calls, failing = [], []


def small_cell(*, R, progress):
    calls.append(R)
    if R in failing:
        raise ArithmeticError(f"no cell\nfor R = {R}")
    return sweep_cell(R), {f"certificates/R{R}.json": b"{}"}


@pytest.fixture
def small_gallery(monkeypatch):
    """Two figures that share their cells; how often each was computed."""
    cells = tuple(Cell(f"small-R{R}", small_cell, {"R": R}) for R in (1, 10))
    small = {
        "F1_one": Drawing("One", "The first.", lambda data: class_mean_gram.draw(data[:1]), cells),
        "F2_two": Drawing("Two", "The second.", lambda data: class_mean_gram.draw(data[1:]), cells[::-1]),
    }
    monkeypatch.setattr(gallery, "FIGURES", small)
    calls.clear()
    failing.clear()
    return calls


def test_missing_results_are_computed_once(small_gallery, tmp_path, capsys):
    arguments = ["--out", str(tmp_path / "out"), "--results", str(tmp_path / "results")]
    assert gallery.main(arguments) == 0
    assert small_gallery == [1, 10]
    first = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert set(first) == {"README.md", *(f"{name}.{kind}" for name in ("F1_one", "F2_two") for kind in ("png", "pdf"))}
    assert first["README.md"].decode() == gallery.gallery_page(gallery.FIGURES)
    assert (tmp_path / "results" / "certificates" / "R10.json").read_bytes() == b"{}"
    assert "2 of 2 results computed" in capsys.readouterr().out
    assert gallery.main(arguments) == 0
    assert small_gallery == [1, 10]
    assert "0 of 2 results computed" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == first
    assert gallery.main([*arguments, "--only", "F2", "--fresh"]) == 0
    assert small_gallery == [1, 10, 10, 1]


def test_a_damaged_result_is_computed_again(small_gallery, tmp_path):
    arguments = ["--out", str(tmp_path / "out"), "--results", str(tmp_path / "results"), "--only", "F1"]
    assert gallery.main(arguments) == 0
    next((tmp_path / "results" / "cells").glob("small-R1-*.nc")).write_bytes(b"broken")
    assert gallery.main(arguments) == 0
    assert small_gallery == [1, 10, 1]
    (tmp_path / "results" / "certificates" / "R10.json").unlink()
    assert gallery.main(arguments) == 0
    assert small_gallery == [1, 10, 1, 10]


def test_a_result_that_fails_is_said_and_its_figures_are_left_out(small_gallery, tmp_path, capsys, monkeypatch):
    lone = gallery.FIGURES["F1_one"]._replace(cells=gallery.FIGURES["F1_one"].cells[:1])
    monkeypatch.setitem(gallery.FIGURES, "F1_one", lone)
    failing.append(10)
    arguments = ["--out", str(tmp_path / "out"), "--results", str(tmp_path / "results")]
    assert gallery.main(arguments) == 1
    said = capsys.readouterr().out
    assert "failed  small-R10: ArithmeticError: no cell for R = 10\n" in said
    program = shlex.join(command_line.program("experiments.gallery"))
    command = f"{program} --only F2 --out {tmp_path / 'out'} --results {tmp_path / 'results'}"
    assert f"alone: {command}\n" in said
    assert "1 figures in" in said
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"README.md", "F1_one.png", "F1_one.pdf"}
    failing.clear()
    assert gallery.main(command.removeprefix(program).split()) == 0
    assert small_gallery == [1, 10, 10]
    assert (tmp_path / "out" / "F2_two.png").exists()


def test_a_setting_changes_what_is_computed():
    assert gallery_table.figures_for(Setting()) == FIGURES
    assert (
        gallery_table.figures_for(Setting(R=(10.0, 1.0, 100.0, 1000.0)))["F1_class_mean_gram"]
        == FIGURES["F1_class_mean_gram"]
    )
    drawings = gallery_table.figures_for(Setting(k=6, R=(1, 10), tau=0.5, quick=True))
    by_command = gallery_table.figures_for(Setting(k=6, R=(1.0, 10.0), tau=0.5, quick=True))
    assert [cell.file for d in drawings.values() for cell in d.cells] == [
        c.file for d in by_command.values() for c in d.cells
    ]
    for name, drawing in drawings.items():
        for cell in drawing.cells:
            known = dict(cell.arguments)
            known |= vars(known["training"]) if "training" in known else {}
            assert known.get("k", len(known.get("sizes", ()))) == 6, cell.name
            if "tau" not in gallery_table.FIGURE_ROWS[name].unmoved and name != "F8_basins":
                assert known["tau"] in (0.5, (0.5,)), cell.name
        assert not {cell.file for cell in drawing.cells} & {cell.file for cell in FIGURES[name].cells}
    assert {cell.arguments["tau"] for cell in drawings["F8_basins"].cells} == {0.2, 0.5, 2.0, 5.0}


def test_what_an_option_does_not_change_is_said(capsys, tmp_path):
    places = ["--out", str(tmp_path / "out"), "--results", str(tmp_path / "results")]
    assert gallery.main(["--only", "F5", "--k", "6", "--tau", "0.5", "--width", "3.25", "--no-title", *places]) == 0
    assert "F5: --tau has no effect: the figure is a scheme\n" in capsys.readouterr().out
    page = (tmp_path / "out" / "README.md").read_text()
    assert "for k = 6, tau = 0.5." in page
    assert "12 samples" not in page  # the caption's, of k = 3
    content = (tmp_path / "out" / "F5_interaction_graphs.png").read_bytes()
    assert struct.unpack(">I", content[16:20]) == (650,)
    figure = gallery.draw("interaction_graphs", k=6, width=3.25, title=False, results=tmp_path / "results")
    assert style.rendered(figure)["png"] == content


@pytest.mark.slow
def test_every_figure_is_drawn_for_six_classes_at_two_widths_by_call_and_by_command(tmp_path):
    """Where the images go can be given, to look at them: UFM_SCL_FIGURES=DIRECTORY."""
    place = Path(os.environ.get("UFM_SCL_FIGURES", tmp_path))
    flags = ["--k", "6", "--R", "1", "10", "--tau", "0.5", "--quick", "--no-title", "--results", str(place / "results")]
    for width in (3.25, 6.75):
        out = place / f"{width}"
        assert gallery.main([*flags, "--width", str(width), "--out", str(out)]) == 0
        for name in FIGURES:
            content = (out / f"{name}.png").read_bytes()
            assert struct.unpack(">I", content[16:20]) == (round(200 * width),)
            options = {"k": 6, "R": (1, 10), "tau": 0.5, "quick": True, "results": place / "results"}
            figure = gallery.draw(name.partition("_")[0], **options, width=width, title=False)
            assert_nothing_is_clipped(figure)
            assert figure.get_figwidth() == width


@pytest.mark.slow
def test_results_computed_on_dask_workers(small_gallery, tmp_path):
    arguments = ["--out", str(tmp_path / "out"), "--results", str(tmp_path / "results")]
    assert gallery.main([*arguments, "--dask", "local:2"]) == 0
    assert small_gallery == []  # not in this process
    assert gallery.main(arguments) == 0
    assert small_gallery == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["--only", "F12"],
        ["--out", "/dev/null/gallery"],
        ["--nonsense"],
        ["--k", "3"],
        ["--R"],
        ["--R", "0.5"],
        ["--tau", "0"],
        ["--width", "1"],
        ["--font", "No Such Font"],
        ["--font-size", "2"],
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, small_gallery, capsys):
    with pytest.raises(SystemExit) as stopped:
        command_line.run(lambda: gallery.main(arguments))
    assert stopped.value.code == command_line.BAD_INPUT
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert small_gallery == []


@pytest.mark.thorough
def test_the_benchmark_leaves_what_its_figure_is_drawn_from(tmp_path, monkeypatch):
    small = ["--R", "2", "--k", "3", "--n-min", "2", "--d", "4", "--starts", "1", "--peers", "staircase"]
    assert benchmarks.main([*small, "--growth", "2", "--stochastic", "--out", str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"benchmark.csv", "growth.csv", "cells"}
    data = Store(tmp_path).read_cell(benchmarks.benchmark_cell().file)
    assert data["peer"].values.tolist() == ["staircase"]
    assert data["reached"].values.tolist() == [True]
    assert data["growth_n"].values.tolist() == [10]
    monkeypatch.setattr(gallery, "FIGURES", {"F9_benchmark": FIGURES["F9_benchmark"]})
    assert gallery.main(["--results", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "F9_benchmark.png").exists()
    assert Store(tmp_path).read_cell(benchmarks.benchmark_cell().file).identical(data)


def test_a_pdf_is_saved_without_remarks_on_dates_of_fonts(tmp_path, monkeypatch, caplog):
    """fontTools takes a date before 1970 for one of another epoch, and says so for every font it reads."""
    from fontTools.ttLib.tables._h_e_a_d import table__h_e_a_d as head

    decompiled, logger = head.decompile, logging.getLogger("fontTools.ttLib.tables._h_e_a_d")

    def low(self, data, font):
        decompiled(self, data, font)
        logger.warning("'created' timestamp seems very low")
        read.append(1)

    read = []
    monkeypatch.setattr(head, "decompile", low)
    monkeypatch.setattr(logging.getLogger("fontTools"), "level", logging.NOTSET)
    logger.manager._clear_cache()
    figure = style.Figure()
    figure.gca().set_title("a")
    figure.savefig(tmp_path / "a.pdf")
    assert read
    assert not [record for record in caplog.records if record.name.startswith("fontTools")]
