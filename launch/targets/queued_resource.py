"""Slices of TPU VMs from Google's queue, which are requested again after a preemption."""

import dataclasses

from switch_jax.launch import tpu_slices
from switch_jax.launch.commands import Command


@dataclasses.dataclass(frozen=True, kw_only=True)
class QueuedResource(tpu_slices.TpuSlicesTarget):
    """Slices that are requested by `gcloud compute tpus queued-resources create`."""

    on, kind = "queued-resource", "queued-resources"
    ready = "ACTIVE"
    gone = ("SUSPENDED",)
    give_back = "gives the slices back when you no longer need them"

    @property
    def nodes(self) -> list[str]:
        count = self.hardware.count
        return [self.job_name] if count == 1 else [f"{self.job_name}-{i}" for i in range(count)]

    @property
    def look(self) -> Command:
        why = f"repeated every {tpu_slices.POLL_SECONDS:.0f} s until the request is ACTIVE"
        return self.gcloud("describe", why, "--format=value(state.state)")

    @property
    def create(self) -> Command:
        count = self.hardware.count
        several = (f"--node-count={count}", f"--node-prefix={self.job_name}")
        return self.gcloud(
            "create",
            "only if there is no request: requests the slices",
            *((f"--node-id={self.job_name}",) if count == 1 else several),
            f"--accelerator-type={self.hardware.accelerator_type}",
            f"--runtime-version={self.hardware.generation.runtime}",
            *self.slice_flags,
        )

    @property
    def delete(self) -> Command:
        why = "only if the request is SUSPENDED (after a preemption) or FAILED: deletes it"
        return self.gcloud("delete", why, "--force", "--quiet")
