"""The loop around the training step: data, evaluation, checkpoints, signals and records."""
