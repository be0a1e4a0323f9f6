"""Slices of TPU VMs from Google's queue, which are requested again after a preemption."""

import dataclasses

from switch_jax.launch import tpu_slices


@dataclasses.dataclass(frozen=True, kw_only=True)
class QueuedResource(tpu_slices.TpuSlicesTarget):
    """Slices that are requested by `gcloud compute tpus queued-resources create`."""

    on, resource = "queued-resource", "queued-resources"
    state, ready, gone = "state.state", "ACTIVE", ("SUSPENDED",)
    delete_flags = ("--force", "--quiet")
    when_querying = "the request is ACTIVE"
    when_creating = "only if there is no request: requests the slices"
    when_deleting = "only if the request is SUSPENDED (after a preemption) or FAILED: deletes it"
    give_back = "gives the slices back when you no longer need them"

    @property
    def slice_flags(self) -> tuple[str, ...]:
        count = self.hardware.count
        several = (f"--node-count={count}", f"--node-prefix={self.job_name}")
        return (
            *((f"--node-id={self.job_name}",) if count == 1 else several),
            f"--accelerator-type={self.hardware.accelerator_type}",
            f"--runtime-version={self.hardware.generation.runtime}",
        )
