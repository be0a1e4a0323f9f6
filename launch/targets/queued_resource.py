"""Slices of TPU VMs from Google's queue, which are requested again after a preemption."""

import dataclasses

from switch_jax.launch import tpu_slices


@dataclasses.dataclass(frozen=True, kw_only=True)
class QueuedResource(tpu_slices.TpuSlicesTarget):
    """Slices that are requested by `gcloud compute tpus queued-resources create`."""

    on = "queued-resource"
    kind = "queued-resources"
    give_back = "gives the slices back when you no longer need them"

    def request(self) -> tpu_slices.SliceRequest:
        count, one = self.hardware.count, self.hardware.count == 1
        several = (f"--node-count={count}", f"--node-prefix={self.job_name}")
        return tpu_slices.SliceRequest(
            nodes=[self.job_name] if one else [f"{self.job_name}-{i}" for i in range(count)],
            describe=self.gcloud(
                "describe",
                f"repeated every {tpu_slices.POLL_SECONDS:.0f} s until the request is ACTIVE",
                "--format=value(state.state)",
            ),
            create=self.gcloud(
                "create",
                "only if there is no request: requests the slices",
                *((f"--node-id={self.job_name}",) if one else several),
                f"--accelerator-type={self.hardware.accelerator_type}",
                f"--runtime-version={self.hardware.generation.cloud.runtime}",
                *tpu_slices.slice_flags(self),
            ),
            delete=self.gcloud(
                "delete",
                "only if the request is SUSPENDED (after a preemption) or FAILED: deletes it",
                "--force",
                "--quiet",
            ),
            ready="ACTIVE",
            gone=("SUSPENDED",),
        )
