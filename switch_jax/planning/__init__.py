"""What a training step costs on a TPU slice, from the TPU's own compiler, without a TPU."""
