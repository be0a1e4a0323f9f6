"""Starts jobs on this machine and on TPUs, and starts them again after failures."""
