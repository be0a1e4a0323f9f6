"""What the tests of data share."""

import dataclasses

from switch_jax.config import DataConfig
from switch_jax.data.checks import open_tasks
from switch_jax.data.configured_tasks import OpenedTasks


def validation(config: DataConfig) -> OpenedTasks:
    """The tasks of a config, opened at their validation split."""
    return open_tasks(dataclasses.replace(config, split="validation"))
