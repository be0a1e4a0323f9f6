"""One slice of TPU VMs, which is created at once or not at all."""

from switch_jax.errors import UserError
from switch_jax.launch import tpu_slices
from switch_jax.launch.job import Job


class TpuVm(tpu_slices.TpuSlicesTarget):
    """A slice that is made by `gcloud compute tpus tpu-vm create`."""

    name = "tpu-vm"
    kind = "tpu-vm"
    give_back = "gives the slice back when you no longer need it"

    def check_job(self, job: Job) -> None:
        super().check_job(job)
        if job.hardware.count > 1:
            raise UserError(
                f"--topology={job.hardware.name}: several slices find each other by "
                "--on=queued-resource, gke or xpk, not by tpu-vm"
            )

    def request(self, job: Job) -> tpu_slices.SliceRequest:
        return tpu_slices.SliceRequest(
            nodes=[job.name],
            describe=self.command(
                job,
                "describe",
                f"repeated every {tpu_slices.POLL_SECONDS:.0f} s until the slice is READY",
                "--format=value(state)",
            ),
            create=self.command(
                job,
                "create",
                "only if there is no slice: creates it",
                f"--accelerator-type={job.hardware.accelerator_type}",
                f"--version={job.hardware.generation.runtime}",
                *tpu_slices.slice_flags(job),
            ),
            delete=self.command(
                job,
                "delete",
                "only after a preemption: deletes what is left of the slice",
                "--quiet",
            ),
            ready="READY",
            gone=("PREEMPTED", "TERMINATED"),
        )
