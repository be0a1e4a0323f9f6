"""Slices of TPU VMs from Google's queue, which are requested again after a preemption."""

from switch_jax.launch import tpu_slices
from switch_jax.launch.job import Job


class QueuedResource(tpu_slices.TpuSlicesTarget):
    """Slices that are requested by `gcloud compute tpus queued-resources create`."""

    name = "queued-resource"
    kind = "queued-resources"
    give_back = "gives the slices back when you no longer need them"

    def request(self, job: Job) -> tpu_slices.SliceRequest:
        count, one = job.hardware.count, job.hardware.count == 1
        several = (f"--node-count={count}", f"--node-prefix={job.name}")
        return tpu_slices.SliceRequest(
            nodes=[job.name] if one else [f"{job.name}-{i}" for i in range(count)],
            describe=self.command(
                job,
                "describe",
                f"repeated every {tpu_slices.POLL_SECONDS:.0f} s until the request is ACTIVE",
                "--format=value(state.state)",
            ),
            create=self.command(
                job,
                "create",
                "only if there is no request: requests the slices",
                *((f"--node-id={job.name}",) if one else several),
                f"--accelerator-type={job.hardware.accelerator_type}",
                f"--runtime-version={job.hardware.generation.runtime}",
                *tpu_slices.slice_flags(job),
            ),
            delete=self.command(
                job,
                "delete",
                "only if the request is SUSPENDED (after a preemption) or FAILED: deletes it",
                "--force",
                "--quiet",
            ),
            ready="ACTIVE",
            gone=("SUSPENDED",),
        )
