"""The seqio tasks that come with the library; importing a family registers its tasks."""

import switch_jax.data  # noqa: F401, I001  first: TensorFlow starts quietly, off the accelerators
import t5.data.mixtures  # noqa: F401  C4, GLUE, SuperGLUE, SQuAD and more under T5's names
from switch_jax.tasks import english  # noqa: F401
