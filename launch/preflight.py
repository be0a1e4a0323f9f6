"""Checks on this machine before a job starts on machines that cost money."""

import math

from jax.sharding import AbstractMesh, AxisType

from switch_jax.config import Config
from switch_jax.errors import UserError
from switch_jax.hardware import Slice
from switch_jax.launch import setup_commands
from switch_jax.launch.commands import shell_line
from switch_jax.launch.job import Job
from switch_jax.partitioning.mesh import AXES, mesh_shape, mesh_sizes
from switch_jax.run_folder import check_run_folder
from switch_jax.trainer.prepare import check_for_slices, check_paths, open_data
from switch_jax.units import counted, memory_size

_MOST_PROCESSES = 256  # each takes half a gigabyte before it has a model


def check(config: Config, hardware: Slice) -> None:
    """Checks that a run fits its slices. Uses no network.

    Args:
      config: the run.
      hardware: the slices.

    Raises:
      UserError: what does not fit, with the numbers.
    """
    try:
        shape = mesh_shape(config.mesh, hardware.devices, hardware.count, "TPU")
    except UserError as error:
        raise UserError(f"{hardware.name} is {counted(hardware.chips, 'chip')}: {error}") from None
    _check_memory(_check_on(config, shape), hardware)


def check_rehearsal(config: Config, process_count: int) -> None:
    """Checks a run of several processes on this machine.

    Raises:
      UserError: what does not fit, with the numbers; or the processes cannot share the devices of
        the mesh equally.
    """
    mesh = config.mesh
    if not 1 <= process_count <= _MOST_PROCESSES:
        raise UserError(
            f"--process_count={process_count}: write 1 to {_MOST_PROCESSES}, which share this "
            "machine's memory and cores"
        )
    size = math.prod(mesh_sizes(mesh, process_count))
    if size % process_count:
        raise UserError(
            f"{process_count} processes cannot share the {size} devices of the mesh data x expert "
            f"x model = {mesh.data} x {mesh.expert} x {mesh.model} equally ({size} % "
            f"{process_count} = {size % process_count}): take a number of processes that divides "
            f"{size}, or set MESH_DATA, MESH_EXPERT or MESH_MODEL"
        )
    _check_on(config, mesh_shape(mesh, size, platform="cpu"))


def check_gpus(config: Config, nodes: int, gpus_per_node: int) -> None:
    """Checks that a run fits the GPUs of several machines, but for their memory.

    Raises:
      UserError: what does not fit, with the numbers.
    """
    try:
        shape = mesh_shape(config.mesh, nodes * gpus_per_node, nodes, "GPU")
    except UserError as error:
        each = counted(gpus_per_node, "GPU")
        raise UserError(f"{counted(nodes, 'node')} of {each}: {error}") from None
    _check_on(config, shape)


def _check_on(config: Config, shape: tuple[int, int, int]) -> int:
    """Checks the run on devices of this shape; returns the bytes that each holds of its state."""
    return check_for_slices(config, AbstractMesh(shape, AXES, axis_types=(AxisType.Auto,) * 3))


def _check_memory(held: int, hardware: Slice) -> None:
    """Raises UserError if a chip has no room for what its devices hold of the state alone."""
    needed = held * hardware.generation.devices_per_chip
    limit = hardware.generation.hbm_bytes
    if needed > limit:
        raise UserError(
            f"parameters and optimiser state alone take {memory_size(needed)} of each chip of "
            f"{hardware.name}, which has {memory_size(limit)}: take a larger slice, or split them "
            "over more chips by MESH_EXPERT (of a model with experts), MESH_MODEL, or "
            "FULLY_SHARDED_WEIGHTS = True"
        )


def check_here(config: Config) -> None:
    """Checks that MODEL_DIR can be written, and reads an example of the run's data.

    On a disk this changes nothing. In a bucket it writes an object and removes it.

    Raises:
      UserError: what this machine cannot write or read.
    """
    check_paths(config)
    check_run_folder(config.run.model_dir)
    open_data(config)


def check_storage(job: Job, config: Config) -> None:
    """As `check_here`, for a job in Google Cloud.

    Raises:
      UserError: what this machine's account cannot write or read.
    """
    try:
        check_here(config)
    except UserError as error:
        roles = setup_commands.bucket_roles(job, "user:ADDRESS")
        allow = " and ".join(f"`{shell_line(role)}`" for role in roles)
        raise UserError(
            f"{error}; this machine's account (`gcloud auth application-default login` chooses it) "
            f"gets its rights by {allow}; --skip_storage leaves this check out"
        ) from error


def check_fits(config: Config, hardware: Slice) -> str:
    """Compiles the training step for the slices. Takes some minutes.

    Returns:
      A line for the user: the memory that the step needs, and the speed to expect.

    Raises:
      UserError: it does not fit, or libtpu is not installed.
    """
    from switch_jax.planning.plan import make_plan

    try:
        plan = make_plan(config, hardware)
    except UserError as error:
        raise UserError(f"{error}; --skip_plan starts the job without compiling it here") from error
    memory = f"{plan.hbm_bytes / 2**30:.1f} of {plan.hbm_limit_bytes / 2**30:.1f} GiB a chip"
    if not plan.fits:
        raise UserError(
            f"the step does not fit on {hardware.name}: {memory}; `switch_jax plan` with the same "
            "gin files looks for a change that would fit (--skip_plan starts the job all the same)"
        )
    return f"the step fits on {hardware.name}: {memory}, {plan.tokens_per_second:,.0f} tokens/s"
