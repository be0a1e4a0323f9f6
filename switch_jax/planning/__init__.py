"""Memory and time of a training step on a TPU slice, by the TPU's compiler, without a TPU."""
