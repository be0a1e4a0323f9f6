"""Plans memory and time of a training step on TPU slices, by the TPU's compiler, without a TPU."""
