"""One slice of TPU VMs, which is created at once or not at all."""

import dataclasses

from switch_jax.launch import tpu_slices
from switch_jax.utils.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class TpuVm(tpu_slices.TpuSlicesTarget):
    """A slice that is made by `gcloud compute tpus tpu-vm create`."""

    on = resource = "tpu-vm"
    state, ready, gone = "state", "READY", ("PREEMPTED", "TERMINATED")
    delete_flags = ("--quiet",)
    when_querying = "the slice is READY"
    when_creating = "only if there is no slice: creates it"
    when_deleting = "only after a preemption: deletes what is left of the slice"
    give_back = "gives the slice back when you no longer need it"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hardware.count > 1:
            raise UserError(
                f"--topology={self.hardware.name}: several slices find each other by "
                "--on=queued-resource, gke or xpk, not by tpu-vm"
            )

    @property
    def slice_flags(self) -> tuple[str, ...]:
        return (
            f"--accelerator-type={self.hardware.accelerator_type}",
            f"--version={self.hardware.generation.runtime}",
        )
