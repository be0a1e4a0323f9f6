"""T5X's checkpoints of T5, mT5 and Switch Transformers: reading them.

checkpoint    a checkpoint, opened and checked by its headers
msgpack_file  its file of names, small arrays and descriptions of large ones
tensors       the arrays, one for each layer and expert
architecture  the sizes of the model, from the shapes
tensor_names  the names of the tensors
"""

from switch_jax.conversion.t5x.checkpoint import open_checkpoint
