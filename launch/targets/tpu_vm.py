"""One slice of TPU VMs, which is created at once or not at all."""

import dataclasses

from switch_jax.errors import UserError
from switch_jax.launch import tpu_slices


@dataclasses.dataclass(frozen=True, kw_only=True)
class TpuVm(tpu_slices.TpuSlicesTarget):
    """A slice that is made by `gcloud compute tpus tpu-vm create`."""

    on = "tpu-vm"
    kind = "tpu-vm"
    give_back = "gives the slice back when you no longer need it"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hardware.count > 1:
            raise UserError(
                f"--topology={self.hardware.name}: several slices find each other by "
                "--on=queued-resource, gke or xpk, not by tpu-vm"
            )

    def request(self) -> tpu_slices.SliceRequest:
        return tpu_slices.SliceRequest(
            nodes=[self.job_name],
            describe=self.gcloud(
                "describe",
                f"repeated every {tpu_slices.POLL_SECONDS:.0f} s until the slice is READY",
                "--format=value(state)",
            ),
            create=self.gcloud(
                "create",
                "only if there is no slice: creates it",
                f"--accelerator-type={self.hardware.accelerator_type}",
                f"--version={self.hardware.generation.cloud.runtime}",
                *tpu_slices.slice_flags(self),
            ),
            delete=self.gcloud(
                "delete",
                "only after a preemption: deletes what is left of the slice",
                "--quiet",
            ),
            ready="READY",
            gone=("PREEMPTED", "TERMINATED"),
        )
