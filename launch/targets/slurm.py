"""GPUs of machines that Slurm manages: one process a GPU, started by srun.

Run it where sbatch is, on a file system that all nodes see. `jax.distributed.initialize` finds the
other processes, and each process its GPU, from the variables that srun sets.
"""

import dataclasses
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import psutil

import switch_jax
from switch_jax.config import Config
from switch_jax.exit_codes import ENDED_WITH, PREEMPTED, TERMINATED
from switch_jax.launch.commands import (
    Command,
    File,
    Step,
    check_programs,
    output,
    output_with_retries,
    quote,
    render,
    shell_line,
    start_process,
    write_file,
)
from switch_jax.launch.console import explain_interrupt, log
from switch_jax.launch.restarts import BEFORE_CRASHES, FINAL
from switch_jax.launch.secret_detection import hide_value, looks_secret
from switch_jax.launch.target import Flag, JobName, Target, check_name
from switch_jax.launch.tpu_hosts import FAILURE_GRACE, SAVE_SECONDS
from switch_jax.storage import local_paths
from switch_jax.utils.errors import UserError
from switch_jax.utils.units import counted

_POLL_SECONDS = 10.0  # between two looks at the queue
_SETTLE_SECONDS = 2.0  # after the job has left the queue, until its last lines are in the log
_TAIL_BYTES = 65536  # of the log, which are searched for the exit code
# Options of sbatch that the script sets, or with which the job could not be followed.
_RESERVED = (
    "array chdir clusters error gpus-per-node job-name no-requeue nodes ntasks-per-node open-mode "
    "output requeue signal test-only wait wrap"
).split()
_LOCAL = ("/tmp", "/var/tmp", "/dev/shm", "/scratch/local")  # disks that each node has for itself

_SCRIPT = """\
#!/bin/bash
{options}
# JAX gives each process the GPU of its number on the node. One without a GPU ends with an error.
export JAX_PLATFORMS=cuda,cpu PYTHONUNBUFFERED=1
export {ended_with}="$PWD/launched/{name}_$SLURM_JOB_ID.code_"
for ((restart = 0; ; restart++)); do
  rm -f "${ended_with}"*
  {srun}
  code=$?  # the highest of the processes, as of one that was killed after others had stopped
  # But a mistake counts, and then one that a signal has stopped: each process that ended by itself
  # has made a file with its code in the name.
  for own in {before_crashes}; do
    if [ -e "${ended_with}$own" ]; then
      code=$own
      break
    fi
  done
  case $code in
    {final}) break ;;
    {preempted} | {terminated})  # a job that Slurm preempts goes back into the queue by itself
      if scontrol show job "$SLURM_JOB_ID" | grep --quiet 'PreemptTime=[0-9]'; then
        exit {preempted}
      fi
      scontrol requeue "$SLURM_JOB_ID" && exit
      break
      ;;
  esac
  if ((restart == {max_restarts})); then break; fi
  echo "switch_jax launch: crashed (exit code $code): starting again, at most {max_restarts} times"
done
echo "switch_jax launch: job $SLURM_JOB_ID: exit code $code"
exit "$code"
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slurm(Target):
    """A job on the GPUs of a cluster that Slurm manages; `python` is a path on all nodes."""

    on = "slurm"

    job_name: JobName
    nodes: Annotated[int, Flag("machines of --on=slurm", "N")]
    gpus_per_node: Annotated[int, Flag("GPUs of each, one process a GPU", "N")]
    sbatch_option: Annotated[
        tuple[str, ...],
        Flag("an option of sbatch, as --sbatch_option=--partition=a100; repeat it", "OPTION"),
    ] = ()
    python: str = dataclasses.field(default_factory=lambda: sys.executable)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_name(self.job_name)
        for flag in ("nodes", "gpus_per_node"):
            if getattr(self, flag) < 1:
                raise UserError(f"--{flag}={getattr(self, flag)}: write 1 or more")
        for option in self.sbatch_option:
            value = option.partition("=")[2]
            variables = (variable.partition("=") for variable in value.split(","))
            if looks_secret("", value) or any(looks_secret(v[0], v[2]) for v in variables):
                raise UserError(
                    f"--sbatch_option={hide_value(option)}: this looks like a secret, and every "
                    "printed command would show it; the job has the variables of your shell"
                )
            name = option.partition("=")[0]
            # The beginning of a name counts: sbatch takes it for the name.
            if name[:2] != "--" or any(reserved.startswith(name[2:]) for reserved in _RESERVED):
                raise UserError(
                    f"--sbatch_option={quote(name)}: write an option of sbatch that begins with "
                    f"--, but none of those that the job needs itself: {', '.join(_RESERVED)}"
                )

    @property
    def script(self) -> File:
        """The script that sbatch is given; it runs on the first node."""
        options = [
            f"--job-name={self.job_name}",
            f"--nodes={self.nodes}",
            f"--ntasks-per-node={self.gpus_per_node}",
            f"--gpus-per-node={self.gpus_per_node}",
            f"--output={self.log_path('%j')}",
            "--open-mode=append",  # a job that starts again keeps its number
            "--requeue" if self.subcommand == "train" else "--no-requeue",
            f"--signal=TERM@{SAVE_SECONDS}",  # to the processes, before the time limit
        ]
        # Without a binding of CPUs each process may use all those of the job on its node. Those
        # that wait for one that has ended are ended, too, so that srun returns.
        grace = ("--kill-on-bad-exit=0", f"--wait={FAILURE_GRACE}")
        srun = ("srun", "--label", "--cpu-bind=none", *grace)
        command = (self.python, "-m", "switch_jax", self.subcommand, "--multihost")
        text = _SCRIPT.format(
            options="\n".join(f"#SBATCH {option}" for option in options),
            srun=" \\\n    ".join([*map(shell_line, (srun, command)), *map(quote, self.arguments)]),
            final=" | ".join(map(str, FINAL)),
            ended_with=ENDED_WITH,
            name=self.job_name,
            before_crashes=" ".join(map(str, BEFORE_CRASHES)),
            preempted=PREEMPTED,
            terminated=TERMINATED,  # before the first step
            max_restarts=self.restarts,
        )
        return File(f"launched/{self.job_name}.sbatch", text, "the script of the job")

    def log_path(self, number: str) -> str:
        """The file that the processes of the job of this number print to."""
        return f"launched/{self.job_name}_{number}.log"

    @property
    def queue(self) -> Command:
        """Prints the number and state of the job, and why it waits; nothing if it has ended."""
        argv = ("squeue", "--me", f"--name={self.job_name}", "--noheader", "--format=%i %T %r")
        return Command(
            argv, f"prints the job if it is in the queue; repeated every {_POLL_SECONDS:.0f} s"
        )

    @property
    def submit(self) -> Command:
        """Puts the job into the queue, and prints its number."""
        argv = ("sbatch", "--parsable", *self.sbatch_option, self.script.path)
        return Command(argv, "only if there is no such job: puts it into the queue")

    def print_output(self, number: str) -> Command:
        """Prints what the processes of the job have printed and will print."""
        argv = ("tail", "--lines=+1", "--follow=name", "--retry", self.log_path(number))
        return Command(argv, "prints the output of all processes; JOB_ID is the job's number")

    @property
    def steps(self) -> list[Step]:
        return [self.script, self.queue, self.submit, self.print_output("JOB_ID")]

    @property
    def end_commands(self) -> tuple[Command, Command]:
        """Commands for a person, who ends the job with a checkpoint or without one."""
        cancel = ("scancel", "--me", f"--name={self.job_name}")
        later = "later, run it yourself: "
        return (
            Command((*cancel, "--signal=INT"), f"{later}ends the job with a checkpoint"),
            Command(cancel, f"{later}takes the job out of the queue, or ends it at once"),
        )

    def end_command(self, state: str) -> str:
        """The command that ends the job in this state: with a checkpoint, if it runs."""
        with_checkpoint, at_once = self.end_commands
        return shell_line((with_checkpoint if "RUNNING" in state else at_once).argv)

    def check(self, config: Config) -> list[str]:
        from switch_jax.launch import preflight  # loads JAX

        warnings = preflight.check_gpus(config, self.nodes, self.gpus_per_node)
        shared = self._shared_folders(config)
        warnings += [
            f"warning: {what} {path} looks like a disk of this machine alone: all nodes have to "
            "see the same folder there"
            for path, what in shared.items()
            if what == "MODEL_DIR" and _is_of_one_machine(path)
        ]
        listed = ", ".join(f"{path} ({what})" for path, what in shared.items())
        warnings.append(f"note: all nodes have to see these folders at the same paths: {listed}")
        if found := _buckets(config):
            warnings.append(
                f"note: the nodes need credentials for {', '.join(found)}: the file that "
                "GOOGLE_APPLICATION_CREDENTIALS names, or that `gcloud auth application-default "
                "login` writes, has to be there on all of them (docs/slurm.md)"
            )
        return warnings

    def describe(self) -> str:
        nodes, gpus = counted(self.nodes, "node"), counted(self.nodes * self.gpus_per_node, "GPU")
        return render(f"{self.job_name}: {nodes}, {gpus}", [*self.steps, *self.end_commands])

    def _shared_folders(self, config: Config) -> dict[Path, str]:
        """What each folder is that the job reads or writes, but for those in buckets."""
        from switch_jax.launch import task_files  # loads TensorFlow

        code = Path(switch_jax.__file__).parents[1]
        files = map(Path, local_paths(task_files.sources(config)))
        found = {file.absolute().parent: "data" for file in files if code not in file.parents}
        found |= {self._environment: "environment", code: "code", Path.cwd(): "current folder"}
        run = local_paths([config.run.model_dir])
        return found | {Path(folder).resolve(): "MODEL_DIR" for folder in run}

    @property
    def _environment(self) -> Path:
        return Path(self.python).absolute().parents[1]

    def preflight(self, config: Config, skip_plan: bool) -> None:
        """Looks for Slurm's programs; `switch_jax plan` compiles for GPUs of a known kind.

        UserError where no other machine can see the environment.
        """
        if _is_of_one_machine(self._environment):
            raise UserError(
                f"the environment {self._environment} is on a disk of this machine alone, and the "
                "nodes start its Python: make it in a folder that all nodes see"
            )
        check_programs(self.steps)

    def run(self) -> int:
        """Puts the job into the queue unless it is there, and prints its output to its end."""
        with explain_interrupt(self.job_name, self.end_command("")):
            state = output(self.queue)
            if not state:
                write_file(self.script)
                return _follow(self, output(self.submit).partition(";")[0])
            number = state.split()[0]
            script, named = Path(self.script.path), f"in the queue has the name {self.job_name}"
            if not script.exists():
                raise UserError(
                    f"job {number} {named}, and this folder has no {script}: follow it from the "
                    "folder where it was launched, or launch under another name"
                )
            if script.read_text("utf-8") != self.script.text:
                raise UserError(
                    f"job {number} {named} and another script: end it first "
                    f"(`{self.end_command(state)}`), or launch under another name"
                )
            return _follow(self, number)


def _is_of_one_machine(path: Path) -> bool:
    """Says whether a folder is certainly on a disk, or in the memory, of this machine alone."""
    if any(path.is_relative_to(local) for local in _LOCAL):
        return True
    mounts = {Path(part.mountpoint): part.fstype for part in psutil.disk_partitions(all=True)}
    mount = next((folder for folder in (path, *path.parents) if folder in mounts), None)
    return mount is not None and mounts[mount] in ("tmpfs", "ramfs")


def _buckets(config: Config) -> list[str]:
    """Returns the buckets in gs:// that the run names, but for those of vocabularies of tasks."""
    from switch_jax.launch import task_files  # loads TensorFlow

    run = config.run.model_dir, config.run.initial_checkpoint_path, config.distillation.teacher_dir
    named = [*run, config.data.vocabulary, *task_files.in_buckets(config)]
    found = (re.match("gs://[^/]+", path or "") for path in named)
    return sorted({bucket[0] for bucket in found if bucket})


def _follow(job: Slurm, number: str) -> int:
    """Prints the output of the job until it has left the queue; returns its exit code."""
    tail, before = start_process(job.print_output(number), stderr=subprocess.DEVNULL), number
    try:
        while state := output_with_retries(job.queue):
            if state != before:
                log(f"{job.job_name}: job {state}")
            before = state
            time.sleep(_POLL_SECONDS)
        time.sleep(_SETTLE_SECONDS)
    except KeyboardInterrupt:
        end = job.end_command(before)
        raise KeyboardInterrupt(f"goes on ({before}); `{end}` ends it") from None
    finally:
        tail.terminate()
        tail.wait()
    codes = re.findall(
        rf"^switch_jax launch: job {number}: exit code (\d+)$", _last_lines(job, number), re.M
    )
    if not codes:
        raise UserError(
            f"job {number} has left the queue without an exit code: somebody, its time limit or "
            f"the cluster has ended it (`sacct --jobs={number}` says which)"
        )
    return int(codes[-1])


def _last_lines(job: Slurm, number: str) -> str:
    path = Path(job.log_path(number))
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        return file.read().decode(errors="replace")
