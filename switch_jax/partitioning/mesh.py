"""The mesh ('data', 'expert', 'model'): the paper's n, its experts, and m (section 5)."""

import math
import os
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from switch_jax.config import MeshConfig
from switch_jax.hardware.tpus import has_accelerator, has_cuda_plugin, num_slices
from switch_jax.utils.errors import UserError

DATA, EXPERT, MODEL = AXES = ("data", "expert", "model")
BATCH = (DATA, EXPERT)  # the batch is split over both
ACTIVATIONS = PartitionSpec(BATCH, None, MODEL)  # [B, L, D] between sublayers

# A process makes this many in half a second; a million would take it days.
MAX_VIRTUAL_CPUS = 1024

# jax's CUDA plugin prints a stack trace where there is no GPU, as on a cluster's login node.
if has_cuda_plugin() and not has_accelerator() and not jax.config.jax_platforms:  # type: ignore[attr-defined]
    jax.config.update("jax_platforms", "cpu")


def batch_shards(shape: Mapping[str, int]) -> int:
    """The number of parts into which a mesh splits the batch; `shape` is devices by mesh axis."""
    return shape[DATA] * shape[EXPERT]


def readers(hosts: int, mesh_shape: Mapping[str, int]) -> int:
    """Into how many parts hosts split the rows of a batch on a mesh of this shape."""
    return min(hosts, batch_shards(mesh_shape))


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Lays the devices out as a mesh: neighbours side by side, and slices along data alone.

    On a machine that has only CPUs, JAX gets the virtual devices that the mesh needs, if it has not
    started yet. So any mesh can be tried on a laptop. Raises UserError as `mesh_shape`.
    """
    if devices is None:
        if not jax.distributed.is_initialized():  # `processes.connect` offers each its own
            sizes = (config.data, config.expert, config.model)
            offer_virtual_cpus(math.prod(size or 1 for size in sizes))
        devices = jax.devices()
    platform = devices[0].platform
    if platform == "cpu":
        devices = devices[: math.prod(mesh_sizes(config, len(devices)))]
    slices = num_slices(devices)
    shape = mesh_shape(config, len(devices), slices, platform)
    # With the default axis type, Explicit, sharding constraints would be errors.
    return Mesh(_lay_out(shape, slices, devices), AXES, axis_types=(AxisType.Auto,) * 3)


def mesh_shape(
    config: MeshConfig, count: int, slices: int = 1, platform: str = "tpu"
) -> tuple[int, int, int]:
    """The number of devices along each axis, of `count` in all.

    Between slices there is only data parallelism. Raises UserError where the sizes do not multiply
    up to `count`, or `slices` does not divide the data axis.
    """
    shape = data, expert, model = mesh_sizes(config, count)
    if math.prod(shape) != count:
        raise UserError(
            f"mesh data x expert x model = {data} x {expert} x {model} = {math.prod(shape)}, but "
            f"the number of {platform} devices is {count}; set MESH_DATA, MESH_EXPERT and "
            f"MESH_MODEL, or the --mesh of `switch_jax plan`, to sizes whose product is {count}"
        )
    if data % slices:
        parts = "slices" if platform.lower() == "tpu" else "machines"
        raise UserError(
            f"mesh data = {data} does not divide over {slices} {parts} ({data} % {slices} = "
            f"{data % slices}): only data parallelism crosses {parts}; set MESH_DATA to a multiple "
            f"of {slices}"
        )
    return shape


def mesh_sizes(config: MeshConfig, count: int) -> tuple[int, int, int]:
    """The configured sizes; data = None becomes what the other axes leave of `count` devices."""
    data = config.data or max(1, count // (config.expert * config.model))
    return data, config.expert, config.model


def _lay_out(shape: tuple[int, int, int], slices: int, devices: Sequence[jax.Device]) -> np.ndarray:
    """The devices in this shape along the TPU's torus, whose axes may serve several of the mesh."""
    if slices == 1:
        return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    data, expert, model = shape
    return mesh_utils.create_hybrid_device_mesh(
        (data // slices, expert, model), (slices, 1, 1), devices, allow_split_physical_axes=True
    )


def offer_virtual_cpus(count: int) -> None:
    """Asks JAX for CPU devices, unless set or too late; UserError above MAX_VIRTUAL_CPUS."""
    if count > MAX_VIRTUAL_CPUS:
        raise UserError(
            f"the mesh data x expert x model asks one process for {count} devices; it makes "
            f"{MAX_VIRTUAL_CPUS} virtual CPU devices at most: set MESH_DATA, MESH_EXPERT or "
            "MESH_MODEL lower, or start more processes"
        )
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    try:
        if count > 1:
            jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:  # JAX has started; make_mesh reports the devices
        pass


def current_mesh() -> Mesh | AbstractMesh:
    """The mesh set by `jax.set_mesh`; where there is none, a mesh of one device."""
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.empty:
        return mesh
    return jax.make_mesh(
        (1, 1, 1), AXES, axis_types=(AxisType.Auto,) * 3, devices=jax.devices()[:1]
    )


def constrain_batch(x: jax.Array, axis: int = 0) -> jax.Array:
    """Splits one axis of an activation over the batch axes of the mesh, and no other axis."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*[None] * axis, BATCH))


def constrain_activations(x: jax.Array) -> jax.Array:
    """Splits [B, L, D] as it lies between sublayers: B over the batch axes, D over the model axis.

    So nothing is computed, kept or exchanged twice along the model axis.
    """
    if _model_devices() == 1:
        return constrain_batch(x)
    return jax.lax.with_sharding_constraint(x, ACTIVATIONS)


def gather_activations(x: jax.Array) -> jax.Array:
    """[B, L, D] activations with all of D on each device, for products with a part of a matrix.

    Each device has a gradient of its own from these: a reduce-scatter sums and splits them at once.
    """
    return x if _model_devices() == 1 else _gather(x)


@jax.custom_vjp
def _gather(x: jax.Array) -> jax.Array:
    return constrain_batch(x)


_gather.defvjp(lambda x: (_gather(x), None), lambda _, x_grad: (constrain_activations(x_grad),))


def _model_devices() -> int:
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else mesh.shape[MODEL]


def constrain_heads(x: jax.Array) -> jax.Array:
    """Splits [B, L, H * K] over the batch axes, and its heads over the model axis."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(BATCH, None, MODEL))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Axis 0 over the batch axes."""
    return NamedSharding(mesh, PartitionSpec(BATCH))


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """Whole on every device, so that every host can read it."""
    return NamedSharding(mesh, PartitionSpec())
