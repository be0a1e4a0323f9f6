"""GLUE with WNLI, and GLUE and SuperGLUE mixed by tokens, of T5's tasks.

The paper lists WNLI among GLUE's tasks, and mixes tasks by tokens (section 4.1). T5 leaves WNLI
out, and mixes by examples: `glue_v002_proportional` and `super_glue_v102_proportional`. Tokens are
those of all training examples; seqio counts them as it makes caches, so the mixtures by tokens need
these (docs/prepare_data.md).
"""

import seqio
import t5.data.mixtures  # noqa: F401  registers the tasks
from t5.data import glue_utils

from switch_jax.utils.errors import UserError

# By task: training examples; 0.0 for those that are evaluated only. WNLI: TFDS glue/wnli:1.0.0.
GLUE = glue_utils.get_glue_weight_mapping() | {"glue_wnli_v002": 635.0}
SUPER_GLUE = glue_utils.get_super_glue_weight_mapping()


def training_tokens(task: seqio.Task) -> float:
    """Tokens of inputs and targets of all training examples, from the task's cache."""
    if not task.cache_dir:
        raise UserError(
            f"a mixture by tokens reads their number from the cache of {task.name}, which is not "
            f"there: make it with `switch_jax tasks cache {task.name} --output DIR`, and give the "
            "folder with --seqio_additional_cache_dirs"
        )
    stats = task.get_cached_stats("train")
    return float(stats["inputs_tokens"] + stats["targets_tokens"])


seqio.MixtureRegistry.add("glue_with_wnli", list(GLUE.items()))
for name, examples in {"glue": GLUE, "super_glue": SUPER_GLUE}.items():
    seqio.MixtureRegistry.add(
        f"{name}_by_tokens",
        [(task, training_tokens if rate else 0.0) for task, rate in examples.items()],
    )
