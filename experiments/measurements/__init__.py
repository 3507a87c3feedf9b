"""The computations in the cells of each sweep."""
