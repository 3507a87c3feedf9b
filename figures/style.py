"""How every figure looks: page widths, embedded fonts, colours that survive grey and colour blindness."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as MatplotlibFigure
from matplotlib.font_manager import findfont
from matplotlib.legend import Legend
from matplotlib.text import Text
from matplotlib.ticker import LogLocator, NullFormatter

from ufm import InvalidInput
from ufm.deprecated import warn
from ufm.errors import real_number

ONE_COLUMN = 3.4  # inches
TWO_COLUMNS = 7.0
NARROW = 5.0  # below this width panels stand one above the other
SEQUENTIAL = "cividis"
DIVERGING = "RdBu_r"  # for signed values, centred on 0
MARKERS = ("o", "s", "^", "D")
# Smaller values, exact zeros included, are drawn at this value.
SMALLEST_DRAWN = 1e-17

_SETTINGS: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.3,
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "svg.hashsalt": "ufm",
}

# Axis labels of the paper's two metrics, in words (`ufm.geometry_metrics`).
DELTA_GM = "distance from an orthogonal\nframe, $\\Delta_{G_M}$"
BETA_NC = "spread within classes over\nspread between, $\\beta_{NC}$"
# Names of profiles of class sizes in titles.
PROFILES = {"own": "own class sizes", "equal": "equal class sizes"}

# With the dashes and in lightness, lines differ in a grey print as well.
_DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (3, 1, 1, 1, 1, 1)))


class _Look(NamedTuple):
    """The settings of `custom`."""

    settings: Mapping[Any, Any]
    width: float | None
    title: bool


_look: ContextVar[_Look] = ContextVar("look")


def _current() -> _Look:
    return _look.get(_Look({}, None, True))


@contextmanager
def applied() -> Iterator[None]:
    """The context in which figures are drawn."""
    with mpl.rc_context({**_SETTINGS, **_current().settings}):
        yield


@contextmanager
def custom(
    settings: Mapping[str, Any] | None = None, *, width: float | None = None, title: bool | None = None
) -> Iterator[None]:
    """A context that sets the look of figures drawn inside it.

    - settings: Matplotlib's (`rcParams`, such as {"font.size": 9}), which take precedence. `fonts` gives a font's.
    - width: the width of the figure in inches; below 5 panels stand one above the other.
    - title: False leaves the figure's title out. Titles of panels stay.

    Settings that are None do not change. Raises InvalidInput for a width below 2.5 or above 20.
    """
    before = _current()
    look = _Look(
        {**before.settings, **(settings or {})},
        before.width if width is None else real_number("width", width, 2.5, 20.0, "give 2.5 to 20 inches"),
        before.title if title is None else title,
    )
    token = _look.set(look)
    try:
        yield
    finally:
        _look.reset(token)


@contextmanager
def one_column(width: float | None) -> Iterator[None]:
    """`custom(width=...)`; below 5 inches without a title, whose content belongs in the caption."""
    with custom(width=width, title=False if width is not None and width < NARROW else None):
        yield


def fonts(family: str | None = None, size: float | None = None) -> dict[str, Any]:
    """Settings for `custom`: a font family, and the size of labels in points (8); ticks and legends scale with it.

    Raises InvalidInput for a family that is not installed, and for sizes below 4 or above 24.
    """
    settings: dict[str, Any] = {}
    if family is not None:
        try:
            findfont(family, fallback_to_default=False)
        except ValueError:
            raise InvalidInput("font", family, "is not installed; DejaVu Sans and DejaVu Serif always are") from None
        settings["font.family"] = family
    if size is not None:
        scale = real_number("font_size", size, 4.0, 24.0, "give 4 to 24 points") / _SETTINGS["font.size"]
        settings |= {name: scale * value for name, value in _SETTINGS.items() if name.endswith("size")}
    return settings


def points(size: float) -> float:
    """A font size for text inside a figure, scaled with the labels' size; `size` is relative to labels of 8 points."""
    return size * float(mpl.rcParams["font.size"]) / float(_SETTINGS["font.size"])


def width(default: float) -> float:
    """The width in inches that `custom` sets, else the default."""
    custom_width = _current().width
    return default if custom_width is None else custom_width


class Figure(MatplotlibFigure):
    """Matplotlib's figure, saved in the style in which it was drawn: fonts in a PDF are TrueType.

    Its legend takes as many columns as fit its width; its title is wrapped to the width, or left out if
    `custom` says so.
    """

    @property
    def narrow(self) -> bool:
        """Whether panels stand one above the other."""
        return self.get_figwidth() < NARROW

    def suptitle(self, t: str, **options: Any) -> Text | None:
        """As in Matplotlib; None if titles are left out."""
        if not _current().title:
            return None
        text = super().suptitle(t, **{**options, "fontsize": mpl.rcParams["axes.titlesize"]})
        text.set_text("\n".join(self._wrapped(line, text) for line in t.split("\n")))
        return text

    def _wrapped(self, words: str, text: Text) -> str:
        """The text with line breaks after commas, semicolons and colons where a line would be too wide."""
        renderer, lines = FigureCanvasAgg(self).get_renderer(), [""]
        for part in re.split(r"(?<=[,;:]) ", words):
            joined = f"{lines[-1]} {part}".strip()
            text.set_text(joined)
            if lines[-1] and text.get_window_extent(renderer).width > 0.97 * self.bbox.width:
                lines.append(part)
            else:
                lines[-1] = joined
        return "\n".join(lines)

    def legend(self, *args: Any, ncols: int = 1, **options: Any) -> Legend:
        """As in Matplotlib, with at most `ncols` columns."""
        renderer = FigureCanvasAgg(self).get_renderer()
        while True:
            made = super().legend(*args, ncols=ncols, **options)
            if ncols == 1 or made.get_window_extent(renderer).width <= self.bbox.width:
                return made
            made.remove()
            ncols -= 1

    def savefig(self, fname: Any, **options: Any) -> None:
        """As in Matplotlib."""
        logging.getLogger("fontTools").setLevel(logging.ERROR)  # it warns about dates of fonts
        with applied():
            super().savefig(fname, **options)


def panels(count: int, height: float, **options: Any) -> tuple[Figure, list[Any]]:
    """A two-column figure with panels side by side; in a narrow figure they stand one above the other.

    height: inches, of the figure with panels side by side. options: those of Matplotlib's `subplots`.
    """
    narrow = width(TWO_COLUMNS) < NARROW
    tall = height if not narrow else 0.5 + 0.85 * count * height
    figure = Figure(figsize=(width(TWO_COLUMNS), tall), layout="constrained")
    if narrow:
        options.pop("width_ratios", None)
    axes = figure.subplots(count if narrow else 1, 1 if narrow else count, squeeze=False, **options)
    return figure, list(axes.flat)


def single(cells: Sequence[xr.Dataset], needed: str) -> xr.Dataset:
    """The only dataset of the cells. Raises InvalidInput if there are more, or if `needed` is not in it."""
    if len(cells) != 1 or needed not in cells[0]:
        raise InvalidInput("cells", f"{len(cells)} datasets", f"give one dataset, with {needed!r} in it")
    return cells[0]


def steps_axis(axis: Axes, last: float) -> None:
    """A logarithmic axis of steps from 1 on; if it spans less than two decades its labels are 1, 2, 5, 10, ..."""
    axis.set_xscale("log")
    if last < 100:
        axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter(NullFormatter())


def line(index: int, count: int) -> dict[str, Any]:
    """Colour and dashes of line `index` of `count`, ordered from dark to light."""
    shade = 0.0 if count < 2 else 0.85 * index / (count - 1)
    return {"color": mpl.colormaps["viridis"](shade), "linestyle": _DASHES[index % len(_DASHES)]}


def draw_band(
    axis: Axes, grid: np.ndarray, values: np.ndarray, look: Mapping[str, Any], label: str = "", outside: float = 0.25
) -> None:
    """The median over starts (starts, grid) as a line, and a band without the fraction `outside` on either side."""
    lower, middle, upper = np.quantile(values, (outside, 0.5, 1 - outside), axis=0)
    axis.fill_between(grid, lower, upper, color=look["color"], alpha=0.13, lw=0)
    axis.plot(grid, middle, label=label or None, **look)


def strip(axis: Axes) -> None:
    """Remove frame and ticks, for heat maps."""
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)


def problem(cells: Sequence[xr.Dataset]) -> str:
    """The model and its parameters except R, as every figure states them."""
    attrs = cells[0].attrs
    model = "UFM+" if attrs["nonneg"] else "UFM"
    return (
        f"{model}, {profile(str(attrs['imbalance']))}, k = {attrs['k']}, d = {attrs['d']}, "
        f"$\\tau$ = {temperatures(cells)}"
    )


def profile(imbalance: str) -> str:
    """The name of a profile of class sizes in titles."""
    return PROFILES.get(imbalance, f"{imbalance} imbalance")


def ratios(cells: Sequence[xr.Dataset]) -> list[str]:
    """The names of the cells of a sweep: R, and the temperature if there are several."""
    several = len({float(cell.attrs["tau"]) for cell in cells}) > 1
    return [f"R = {cell.attrs['R']:g}" + (f", $\\tau$ = {cell.attrs['tau']:g}" if several else "") for cell in cells]


def temperatures(cells: Sequence[xr.Dataset]) -> str:
    """The temperature of the cells, all of them if there are several."""
    return ", ".join(f"{tau:g}" for tau in dict.fromkeys(float(cell.attrs["tau"]) for cell in cells))


def parameters(cells: Sequence[xr.Dataset]) -> str:
    """The parameters without the model, for figures that compare models or profiles."""
    attrs = cells[0].attrs
    sizes = f"{profile(str(attrs['imbalance']))}, " if "imbalance" in attrs else ""
    return f"{sizes}k = {attrs['k']}, d = {attrs['d']}, $\\tau$ = {temperatures(cells)}"


def run(cells: Sequence[xr.Dataset]) -> str:
    """The method, if the cells state it, and the meaning of lines and bands."""
    attrs = cells[0].attrs
    method = f", {attrs['method']}" if "method" in attrs else ""
    random = "random " if "seed" in attrs else ""  # else they may be custom starts
    band = f"median of {attrs['inits']} {random}starts, band of the middle half"
    return f"{method}: {band if attrs['inits'] > 1 else f'one {random}start'}"


def above_bound(cell: xr.Dataset) -> str:
    """The axis label for UFM, where the frame's loss is no bound: the loss minus a lower bound, relative to it."""
    first, *rest = str(cell.attrs.get("lower_bound_is", "certified lower bound")).split()
    return f"loss minus the {first}\n{' '.join(rest)}, relative to it"


def scientific(value: float) -> str:
    """A number for a label: 0.41 as it is, 3e-16 as a power of ten."""
    if value == 0 or 1e-3 <= abs(value) < 1e3:
        return f"{value:.2g}"
    mantissa, exponent = f"{value:.0e}".split("e")
    return f"${mantissa} \\cdot 10^{{{int(exponent)}}}$"


def span(counts: Sequence[int]) -> str:
    """The different counts in words: "32", "8 or 32"."""
    return " or ".join(str(count) for count in sorted(set(counts)))


def rendered(figure: MatplotlibFigure) -> dict[str, bytes]:
    """The figure as PNG and PDF, without dates: the same figure gives the same bytes."""
    FigureCanvasAgg(figure)
    content = {}
    with applied():
        for suffix, metadata in (("png", {"Software": None}), ("pdf", {"CreationDate": None})):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=suffix, metadata=metadata)
            content[suffix] = buffer.getvalue()
            figure.set_layout_engine("none")  # the layout takes longer than the drawing, so it is computed once
    return content


def carried(iterations: np.ndarray, values: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """(starts, grid): the value of each start at its last record up to each grid point, or at its first record."""
    rows = []
    for steps, row in zip(iterations, values, strict=True):
        position = np.searchsorted(steps, grid, side="right") - 1
        rows.append(row[np.clip(position, 0, len(row) - 1)])
    return np.array(rows)


def history(cell: xr.Dataset, name: str) -> tuple[np.ndarray, np.ndarray]:
    """A grid of iterations, even on a logarithmic axis, and the values of each start there (starts, grid).

    For a cell of UFM, "excess" means its loss minus the certified lower bound.
    """
    iterations = cell["history_iteration"].values
    grid = np.unique(np.geomspace(1, max(2, iterations.max()), 200).astype(int))
    values = cell[f"history_{name}"].values
    if name == "excess":
        if not cell.attrs["nonneg"]:  # the frame's loss does not bound UFM: use the certified bound
            values = values + (bound(cell, "loss_bound") - bound(cell, "lower_bound"))
        values = positive(values, exact=bool(cell.attrs["nonneg"]))
    return grid, carried(iterations, values, grid)


def bound(cell: xr.Dataset, name: str) -> np.ndarray:
    """A bound on the loss of every start, to broadcast with (starts, records): one for each start, or one for all."""
    return cell[name].values[:, None] if name in cell else np.array(cell.attrs[name])


def positive(excess: np.ndarray, *, exact: bool = True) -> np.ndarray:
    """(starts, records) with negative values replaced by the last nonnegative one before them, if there is one.

    No loss is below its bound, but while classes collapse the record is an estimate by moments, which may be too low.
    Unless `exact`, zeros are replaced too: a difference of two losses within their rounding has no sign, whereas an
    exact excess of 0 means a frame.
    """
    known = np.where((excess >= 0) if exact else (excess > 0), np.arange(excess.shape[1]), 0)
    return np.take_along_axis(excess, np.maximum.accumulate(known, axis=1), axis=1)


def own(*arguments: Any, **named: Any) -> Any:
    """The former name of `custom`."""
    warn("figures.style.own", "figures.style.custom")
    return custom(*arguments, **named)
