"""Reads T5X's checkpoints of T5, mT5 and Switch Transformers.

`checkpoint` opens one by its headers, `msgpack_file` reads its file of names, small arrays and
descriptions of large ones, and `tensors` the arrays, one for each layer and expert. `architecture`
finds the model's sizes from their shapes, and `tensor_names` has the names.
"""

from switch_jax.conversion.t5x.checkpoint import open_checkpoint
