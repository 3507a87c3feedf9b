"""The animation of the octant: what is left out of a path, what is drawn, and that folding keeps inner products."""

import io

import numpy as np
import pytest
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from experiments.octant import _folded, _nearest
from figures import octant, style
from ufm import InvalidInput

LABELS = np.repeat([0, 1, 2], [3, 2, 2])


def on_the_arc(angles):
    """A path that turns from e_1 to e_2, the other classes at e_3."""
    rows = np.zeros((len(angles), len(LABELS), 3))
    rows[:, :3, 0], rows[:, :3, 1], rows[:, 3:, 2] = np.cos(angles)[:, None], np.sin(angles)[:, None], 1.0
    return rows


@pytest.fixture
def cell():
    down, merged = on_the_arc(np.linspace(0, 0.8, 100)), on_the_arc([0.0])
    lifted = np.repeat(merged, 40, axis=0)
    s = np.linspace(0.6, 1, 40)
    lifted[:, 5:, 1], lifted[:, 5:, 2] = s[:, None], np.sqrt(1 - s**2)[:, None]
    path = np.concatenate([down, merged, lifted])
    phase = ["descent"] * 100 + ["columns merged"] + ["lifted"] * 40
    excess = np.geomspace(10, 1e-20, len(path))
    data = {
        "path": (("line", "sample", "coordinate"), path),
        "excess": ("line", excess),
        "step": ("line", np.arange(len(path))),
        "phase": ("line", phase),
        "label": ("sample", LABELS),
    }
    return xr.Dataset(data)


def test_scenes_are_lines_of_the_path_no_further_apart_than_said(cell):
    every = octant.scenes(cell)
    path = cell["path"].values
    assert [every[0].line, every[-1].line] == [0, len(path) - 1]
    drawn = [scene for scene in every if scene.line != 100]
    for scene in drawn:
        np.testing.assert_array_equal(scene.H, path[scene.line])
    turn = [scene for scene in every if scene.line == 100]
    assert len(turn) == octant.TURN
    np.testing.assert_allclose(turn[-1].H, path[100], atol=1e-15)
    for scene in turn:  # a turn keeps all inner products
        np.testing.assert_allclose(scene.H @ scene.H.T, path[99] @ path[99].T, atol=1e-12)
    before = [scene.H for scene in every if scene.line < 100]
    finest = np.linalg.norm(np.diff(path[:100], axis=0), axis=2).max()
    assert np.linalg.norm(np.diff(before, axis=0), axis=2).max() <= octant.FASTEST + finest
    assert len(every) < len(path)


@pytest.mark.thorough
def test_the_still_is_not_clipped_and_the_animation_moves(cell):
    figure = octant.draw([cell])
    canvas = FigureCanvasAgg(figure)
    with style.applied():
        canvas.draw()
        drawn = figure.get_tightbbox(canvas.get_renderer())
    width, height = figure.get_size_inches()
    assert width == style.TWO_COLUMNS
    assert drawn.x0 > -0.02
    assert drawn.y0 > -0.02
    assert drawn.x1 < width + 0.02
    assert drawn.y1 < height + 0.02
    few = cell.isel(line=[0, 50, 99, 100, 101, 140])
    content = octant.animation(few)
    assert content == octant.animation(few)
    with Image.open(io.BytesIO(content)) as animation:
        assert animation.n_frames == len(octant.scenes(few))
        animation.seek(0)
        first = np.asarray(animation.convert("RGB")).astype(int)
        animation.seek(animation.n_frames - 1)
        assert (np.abs(np.asarray(animation.convert("RGB")) - first).max(axis=2) > 60).sum() > 100


def test_paths_that_are_none(cell):
    for bad in (cell.isel(coordinate=[0, 1]), cell.isel(line=slice(0, 50)), cell.isel(line=slice(101, 140))):
        with pytest.raises(InvalidInput, match="cell"):
            octant.scenes(bad)


def test_fresh_coordinates_fold_into_one_axis_and_keep_inner_products():
    rng = np.random.default_rng(0)
    direction = rng.uniform(size=5)
    H = np.concatenate([rng.uniform(size=(6, 2)), rng.uniform(size=(6, 1)) * direction], axis=1)
    drawn = _folded(H, 2)
    assert drawn.shape == (6, 3)
    np.testing.assert_allclose(drawn @ drawn.T, H @ H.T, atol=1e-12)
    H[0, 3] += 0.5  # no longer parallel: three axes do not hold it
    with pytest.raises(InvalidInput, match="three axes"):
        _folded(H, 2)


def test_axes_keep_their_names():
    H = np.random.default_rng(1).uniform(size=(5, 3))
    turn = _nearest(H[:, [2, 0, 1]], H)
    np.testing.assert_array_equal(H[:, [2, 0, 1]][:, turn], H)
