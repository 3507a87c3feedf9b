"""One module a figure, each a pure function from stored cells to a Matplotlib figure; one style for all.

`draw` draws those that one problem suffices for, from a Solution or from H.
"""

from figures.one_problem import draw

__all__ = ["draw"]
