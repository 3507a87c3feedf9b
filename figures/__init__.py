"""One module a figure, each a pure function from stored cells to a Matplotlib figure; one style for all.

`draw` draws those that one problem suffices for from a Solution or from H, and any from cells. Numbers of the gallery
stand at the beginning of the module's first line: F8, say, is drawn by `figures.basins`; the page of the gallery names
the module of every figure.
"""

import contextlib
import os
import sys

if "matplotlib" not in sys.modules:  # whose import ends where MPLBACKEND does not exist: figures need no window
    _named = os.environ.pop("MPLBACKEND", None)
    import matplotlib as mpl

    if _named is not None:
        os.environ["MPLBACKEND"] = _named
        with contextlib.suppress(ValueError):
            mpl.rcParams["backend"] = _named

from figures.one_problem import draw

__all__ = ["draw"]
