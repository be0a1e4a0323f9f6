"""Memory and time of a training step on TPUs, GPUs and CPUs, by their compilers, without them."""
