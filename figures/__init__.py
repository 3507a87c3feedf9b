"""One module a figure, each a pure function from stored cells to a Matplotlib figure; one style for all."""
