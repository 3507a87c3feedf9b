"""Samplers of batches and their laws."""
