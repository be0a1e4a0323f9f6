"""Finds the gin files of the package on this machine."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]

# In a wheel the configs are package data (switch_jax/gin); in a checkout they are beside it.
GIN_DIR = _PACKAGE / "gin" if (_PACKAGE / "gin").is_dir() else _PACKAGE.parent / "gin"
