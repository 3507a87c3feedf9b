"""Sweeps and benchmarks from the command line. Each is a configuration, a grid of cells, and a store."""
