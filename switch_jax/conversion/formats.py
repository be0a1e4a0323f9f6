"""Finds the format of a checkpoint that switch_jax has not written."""

from etils import epath

from switch_jax.conversion import hugging_face, t5x
from switch_jax.conversion.source import Source


def open_source(path: epath.Path) -> Source | None:
    """Opens a checkpoint of another format by its headers, if it is one; raises as `Source`."""
    if hugging_face.is_hugging_face(path):
        return hugging_face.open_folder(path)
    return t5x.open_checkpoint(path)
