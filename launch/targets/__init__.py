"""The targets: where a job can run, one module each.

To add one, write a module in this folder with a class derived from `target.Target`, and add it to
TARGETS. `switch_jax launch --on=NAME` finds it there. For TPUs of Google Cloud, start from
`google_cloud.GoogleCloudTarget`, which has what those targets share. New flags go into
cli/launch.py, under the names that the target lists.
"""

from collections.abc import Mapping
from typing import Any

from switch_jax.launch.target import Target
from switch_jax.launch.targets.gke import Gke
from switch_jax.launch.targets.local import Local
from switch_jax.launch.targets.queued_resource import QueuedResource
from switch_jax.launch.targets.slurm import Slurm
from switch_jax.launch.targets.tpu_vm import TpuVm
from switch_jax.launch.targets.xpk import Xpk

_ALL: tuple[Target[Any], ...] = (Local(), TpuVm(), QueuedResource(), Gke(), Xpk(), Slurm())
TARGETS: Mapping[str, Target[Any]] = {target.name: target for target in _ALL}
