"""The figures of the gallery: the table of all of them, and the cells that they draw."""
