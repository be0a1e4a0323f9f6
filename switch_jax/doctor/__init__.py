"""Checks of a machine, or of all hosts of a run: whether they compute the right thing."""
