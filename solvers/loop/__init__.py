"""Descents over feasible embeddings: one protocol, its methods, what leads to them and what leads out of saddles."""
