"""Pretraining: loss, optimiser, step, loop."""
