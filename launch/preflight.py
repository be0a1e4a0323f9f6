"""Checks on this machine before a job starts on machines that cost money."""

import math

from jax.sharding import AbstractMesh, AxisType

from switch_jax.config import Config
from switch_jax.data.catalogue.checks import check_vocabulary
from switch_jax.data.catalogue.configured_tasks import vocabulary_is_here
from switch_jax.hardware.prices import usd
from switch_jax.hardware.tpus import GIB, Slice
from switch_jax.launch.console import log
from switch_jax.partitioning.mesh import AXES, mesh_shape, mesh_sizes, readers
from switch_jax.planning import host_memory
from switch_jax.run_folder import check_run_folder
from switch_jax.trainer.start.prepare import check_for_slices, check_paths, check_run, open_data
from switch_jax.utils.errors import UserError
from switch_jax.utils.units import counted, memory_size

_MOST_PROCESSES = 256  # each takes half a gigabyte before it has a model


def check(config: Config, hardware: Slice) -> list[str]:
    """Warnings about a run on its slices; UserError where it does not fit. Uses no network."""
    held, warnings = _check_on_slices(config, hardware)
    needed = held * hardware.generation.devices_per_chip
    limit = hardware.generation.hbm_bytes
    if needed > limit:
        raise UserError(
            f"parameters and optimiser state alone take {memory_size(needed)} of each chip of "
            f"{hardware.name}, which has {memory_size(limit)}"
        )
    return warnings


def host_bytes(config: Config, hardware: Slice) -> int:
    """What a run that `check` accepts takes of each host's memory."""
    return host_memory.host_bytes(_check_on_slices(config, hardware)[0], hardware)


def _check_on_slices(config: Config, hardware: Slice) -> tuple[int, list[str]]:
    try:
        shape = mesh_shape(config.mesh, hardware.devices, hardware.count, "TPU")
    except UserError as error:
        raise UserError(f"{hardware.name} is {counted(hardware.chips, 'chip')}: {error}") from None
    return _check_on(config, shape, hardware.hosts, hardware.count)


def check_local(config: Config, process_count: int) -> list[str]:
    """Warnings about several processes on this machine; UserError where the run does not fit."""
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
            f"{process_count} = {size % process_count})"
        )
    return _check_on(config, mesh_shape(mesh, size, platform="cpu"), process_count)[1]


def check_gpus(config: Config, nodes: int, gpus_per_node: int) -> list[str]:
    """Warnings about a run on GPUs of several machines; UserError where it does not divide."""
    gpus = nodes * gpus_per_node
    try:
        shape = mesh_shape(config.mesh, gpus, nodes, "GPU")
    except UserError as error:
        each = counted(gpus_per_node, "GPU")
        raise UserError(f"{counted(nodes, 'node')} of {each}: {error}") from None
    return _check_on(config, shape, gpus, nodes)[1]


def _check_on(
    config: Config, shape: tuple[int, int, int], processes: int, slices: int = 1
) -> tuple[int, list[str]]:
    """The bytes that each of the devices holds of the run's state, and warnings."""
    devices = AbstractMesh(shape, AXES, axis_types=(AxisType.Auto,) * 3)
    warnings = check_run(config, readers(processes, devices.shape))
    return check_for_slices(config, devices, slices), warnings


def check_storage(config: Config) -> None:
    """Checks that MODEL_DIR can be written, and reads an example of the run's data; else UserError.

    In a bucket it writes an object and removes it; on a disk it changes nothing. Warns of a
    vocabulary in a bucket that is small for the embedding, which only the network tells.
    """
    check_paths(config)
    check_run_folder(config.run.model_dir)
    open_data(config)
    if not vocabulary_is_here(config.data):  # otherwise `check_run` has looked
        for warning in check_vocabulary(config):
            log(warning)


def check_fits(config: Config, hardware: Slice, price_per_chip_hour: float | None = None) -> str:
    """Compiles the step in minutes; returns memory, speed and, with a price, what the run costs.

    UserError where the step does not fit.
    """
    from switch_jax.planning.plan import make_plan

    try:
        plan = make_plan(config, hardware)
    except UserError as error:
        raise UserError(f"{error}; --skip_plan starts the job without compiling it here") from error
    needed, limit = plan.hbm_bytes_per_chip / GIB, plan.hbm_limit_bytes / GIB
    memory = f"{needed:.1f} of {limit:.1f} GiB a chip"
    if not plan.fits:
        raise UserError(
            f"the step does not fit on {hardware.name}: {memory}; `switch_jax plan` with the same "
            "gin files looks for a change that would fit (--skip_plan starts the job all the same)"
        )
    speed = f"{plan.tokens_per_second:,.0f} tokens/s"
    cost = ""
    if price_per_chip_hour is not None:
        cost = f"; {plan.train_steps:,} steps cost {usd(price_per_chip_hour * plan.chip_hours)}"
    return f"the step fits on {hardware.name}: {memory}, {speed}{cost}"
