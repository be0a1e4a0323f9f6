"""What several tests of the data share."""

import dataclasses

import numpy as np

from switch_jax.config import DataConfig
from switch_jax.data.checks import open_tasks
from switch_jax.data.configured_tasks import OpenedTasks


def validation(config: DataConfig) -> OpenedTasks:
    """The tasks of a config, opened at their validation split."""
    return open_tasks(dataclasses.replace(config, split="validation"))


def assert_same(one, other):
    """Checks that two batches have the same arrays."""
    assert one.keys() == other.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], other[key], err_msg=key)
