"""Functions compiled once per shape, and their cache on disk."""
