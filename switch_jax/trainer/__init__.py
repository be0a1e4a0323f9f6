"""The loop around the training step: data, evaluation, checkpoints, signals and records.

`train` calls all others: `start` prepares what a run begins with, and `loop` trains.
"""
