"""How a job gets onto its hosts, from this machine to TPU pods, and starts again after faults."""
