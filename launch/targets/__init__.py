"""The targets: where a job can run, one module each.

To add one, write a class derived from `target.Target` (for TPUs of Google Cloud, from
`google_cloud.GoogleCloudTarget`) in a module here, and add it to TARGETS. `switch_jax launch
--on=NAME` makes its flags from the class's fields.
"""

from collections.abc import Mapping

from switch_jax.launch.target import Target
from switch_jax.launch.targets.gke import Gke
from switch_jax.launch.targets.local import Local
from switch_jax.launch.targets.queued_resource import QueuedResource
from switch_jax.launch.targets.slurm import Slurm
from switch_jax.launch.targets.tpu_vm import TpuVm
from switch_jax.launch.targets.xpk import Xpk

_ALL: tuple[type[Target], ...] = (Local, TpuVm, QueuedResource, Gke, Xpk, Slurm)
TARGETS: Mapping[str, type[Target]] = {target.on: target for target in _ALL}
