"""Rigorous bounds of the loss, in ball arithmetic, and what they imply."""
