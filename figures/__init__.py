"""One module for each figure: a pure function from stored cells to a Matplotlib figure, all in one style.

`draw` draws any figure from cells, and the figures of a single problem also from a Solution or from H. Where a module
draws a figure of the gallery, its first line begins with the figure's number: `figures.basins` draws F8. The page of
the gallery names the module of every figure.
"""

import contextlib
import os
import sys

if "matplotlib" not in sys.modules:  # its import fails if MPLBACKEND names no backend; figures need no window
    _named = os.environ.pop("MPLBACKEND", None)
    import matplotlib as mpl

    if _named is not None:
        os.environ["MPLBACKEND"] = _named
        with contextlib.suppress(ValueError):
            mpl.rcParams["backend"] = _named

from figures.one_problem import draw

__all__ = ["draw"]
