"""Projected gradient on random batches: trajectories, and the file from which they resume."""
