"""How objects print: a title and a few named lines; in a notebook a table, with a picture of a Gram matrix."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from html import escape
from itertools import groupby
from textwrap import wrap
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ufm.model.geometry import class_means

# Characters of a line.
COLUMNS = 120
# Pixels of a thumbnail, and the largest matrix that is drawn cell by cell.
SIDE = 120
MOST_CELLS = 64
# Ends of the diverging map, and its middle: -1 blue, 0 white, 1 red.
COLD, MIDDLE, HOT = (33, 102, 172), (247, 247, 247), (178, 24, 43)


class Summary(NamedTuple):
    """How an object is summarised. gram: a matrix of cosines to be drawn, or None."""

    title: str
    lines: Mapping[str, str]
    gram: Float[np.ndarray, "k k"] | None = None


class Readable:
    """Prints as its `summary`: plain text, and HTML in a notebook."""

    def summary(self) -> Summary:
        """A title and a few named lines."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return plain(self.summary())

    def _repr_html_(self) -> str:
        return page(self.summary())


def plain(summary: Summary) -> str:
    """A line for the title and an aligned line for each name; a text too long for its line continues on the next."""
    width = max((len(name) for name in summary.lines), default=0)
    lines = [summary.title]
    for name, text in summary.lines.items():
        lines += wrap(text, COLUMNS, initial_indent=f"  {name:<{width}}  ", subsequent_indent=" " * (width + 4))
    return "\n".join(lines)


def page(summary: Summary) -> str:
    """The same as an HTML table, with the Gram matrix beside it."""
    rows = "".join(
        f'<tr><th style="text-align:left">{escape(name)}</th><td style="text-align:left">{escape(text)}</td></tr>'
        for name, text in summary.lines.items()
    )
    table = f"<table><caption><b>{escape(summary.title)}</b></caption>{rows}</table>"
    picture = "" if summary.gram is None else f"<div>{thumbnail(summary.gram)}</div>"
    return f'<div style="display:flex;gap:1em;align-items:center">{table}{picture}</div>'


def thumbnail(gram: Float[np.ndarray, "k k"]) -> str:
    """A Gram matrix as SVG: blue below 0, white at 0, red above. Of more than MOST_CELLS rows, MOST_CELLS evenly spaced
    ones are drawn."""
    chosen = np.linspace(0, len(gram) - 1, min(len(gram), MOST_CELLS)).round().astype(int)
    cells = np.clip(np.asarray(gram)[np.ix_(chosen, chosen)], -1.0, 1.0)
    size = SIDE / len(cells)
    squares = "".join(
        f'<rect x="{b * size:.2f}" y="{a * size:.2f}" width="{size:.2f}" height="{size:.2f}" fill="{_colour(cell)}"/>'
        for a, row in enumerate(cells.tolist())
        for b, cell in enumerate(row)
    )
    label = "Gram matrix of class means, -1 blue to 1 red"
    return f'<svg role="img" aria-label="{label}" width="{SIDE}" height="{SIDE}">{squares}</svg>'


def cosines_of_class_means(
    rows: Float[np.ndarray, "m d"], labels: Int[np.ndarray, " m"], weight: Float[np.ndarray, " m"]
) -> Float[np.ndarray, "k k"]:
    """The cosines that the picture shows. weight: samples that a row stands for. A mean of norm 0 has cosine 0 with
    all others."""
    means = class_means(rows, labels, weight)
    norms = np.linalg.norm(means, axis=1, keepdims=True)
    directions = means / np.where(norms > 0, norms, 1.0)
    return directions @ directions.T


def _colour(cosine: float) -> str:
    end = HOT if cosine > 0 else COLD
    mixed = (round(middle + abs(cosine) * (far - middle)) for middle, far in zip(MIDDLE, end, strict=True))
    return f"rgb({','.join(map(str, mixed))})"


def count(noun: str, number: int) -> str:
    """A number with its noun: count("batch", 1) is "1 batch", count("batch", 3) is "3 batches"."""
    if number == 1:
        return f"1 {noun}"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{number:,} {noun[:-1]}ies"
    return f"{number:,} {noun}{'es' if noun.endswith(('s', 'x', 'ch', 'sh')) else 's'}"


def counted(values: Iterable[object]) -> str:
    """How often each value occurs, most often first: "30 converged, 2 out of steps"."""
    return ", ".join(f"{times} {name}" for name, times in Counter(map(str, values)).most_common())


def between(values: Float[np.ndarray, " n"]) -> str:
    """The range of some numbers, or the one number that they are."""
    low, high = (f"{float(edge):.3g}" for edge in (np.min(values), np.max(values)))
    return low if low == high else f"{low} to {high}"


def in_runs(values: Int[np.ndarray, " n"], most: int = 6) -> str:
    """Whole numbers with their repetitions: "5 x 25000, 5 x 25"; of more than `most` runs the first ones and the
    last."""
    runs = [(len(list(run)), value) for value, run in groupby(values.tolist())]
    texts = [f"{length} x {value}" if length > 1 else f"{value}" for length, value in runs]
    return ", ".join(texts if len(texts) <= most else [*texts[: most - 2], "...", texts[-1]])
