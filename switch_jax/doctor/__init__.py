"""Checks whether a machine, or all hosts of a run together, compute the right numbers."""
