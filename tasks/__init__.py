"""The seqio tasks that come with the library, in families; importing one registers its tasks.

`switch_jax.data.registry` imports the families as names are asked for, so that none has to be
imported by hand, and none costs anything before it is needed.
"""

import switch_jax.data  # noqa: F401  first: TensorFlow starts quietly, off the accelerators

# Looked through in this order; last what t5 itself registers: GLUE, SuperGLUE, SQuAD, CNN/DailyMail
# and C4, among others.
FAMILIES = (
    "switch_jax.tasks.english",
    "switch_jax.tasks.multilingual",
    "switch_jax.tasks.offline",
    "switch_jax.tasks.c4",
    "switch_jax.tasks.mc4",
    "switch_jax.tasks.xsum",
    "switch_jax.tasks.anli",
    "switch_jax.tasks.winogrande",
    "switch_jax.tasks.arc",
    "switch_jax.tasks.closed_book",
    "t5.data.mixtures",
)
