"""Starts jobs on this machine, TPUs and GPUs, and starts them again after failures."""
