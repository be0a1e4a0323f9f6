"""The seqio tasks that come with the library, in families; importing one registers its tasks.

`switch_jax.data.catalogue.registry` imports a family when a name is looked up that is not
registered yet. Modules here import seqio and TensorFlow directly, since Python imports this file,
and with it their set-up, before them.
"""

from switch_jax.utils import tensorflow_setup  # noqa: F401

# Searched in this order. The last one is t5's own, with GLUE, SuperGLUE, SQuAD, CNN/DailyMail and
# C4, among others.
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
    "switch_jax.tasks.glue",
    "t5.data.mixtures",
)
