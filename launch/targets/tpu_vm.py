"""One slice of TPU VMs, which is created at once or not at all."""

import dataclasses

from switch_jax.errors import UserError
from switch_jax.launch import tpu_slices
from switch_jax.launch.commands import Command


@dataclasses.dataclass(frozen=True, kw_only=True)
class TpuVm(tpu_slices.TpuSlicesTarget):
    """A slice that is made by `gcloud compute tpus tpu-vm create`."""

    on = kind = "tpu-vm"
    ready = "READY"
    gone = ("PREEMPTED", "TERMINATED")
    give_back = "gives the slice back when you no longer need it"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hardware.count > 1:
            raise UserError(
                f"--topology={self.hardware.name}: several slices find each other by "
                "--on=queued-resource, gke or xpk, not by tpu-vm"
            )

    @property
    def nodes(self) -> list[str]:
        return [self.job_name]

    @property
    def look(self) -> Command:
        why = f"repeated every {tpu_slices.POLL_SECONDS:.0f} s until the slice is READY"
        return self.gcloud("describe", why, "--format=value(state)")

    @property
    def create(self) -> Command:
        return self.gcloud(
            "create",
            "only if there is no slice: creates it",
            f"--accelerator-type={self.hardware.accelerator_type}",
            f"--version={self.hardware.generation.runtime}",
            *self.slice_flags,
        )

    @property
    def delete(self) -> Command:
        why = "only after a preemption: deletes what is left of the slice"
        return self.gcloud("delete", why, "--quiet")
