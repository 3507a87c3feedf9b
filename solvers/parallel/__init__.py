"""Compiled once a shape, padded to share shapes, dealt out over devices."""
