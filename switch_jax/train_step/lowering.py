"""The training step of a run as a program: `train` runs it, and `plan` estimates its cost."""

from typing import Any

import jax
import numpy as np
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from switch_jax.config import Config
from switch_jax.data.packing import empty_batch
from switch_jax.optim.optimizer import make_optimizer
from switch_jax.partitioning.mesh import (
    batch_sharding,
    has_async_all_to_all,
    platform,
    replicated,
)
from switch_jax.train_step.state import TrainState, abstract_model, state_of_step
from switch_jax.train_step.step import make_train_step

_MUCH_VMEM = 64 * 2**20  # bytes: v5e, v5p and all since


def lower_train_step(config: Config, mesh: Mesh, state: TrainState) -> jax.stages.Lowered:
    """The step with its optimiser, microbatches and rematerialisation, ready to be compiled.

    It takes a state as `state_of_step` makes it, whose memory it reuses, batch, signals and, by the
    name `teacher`, the parameters of a `teacher_model`; it returns the new state and `Metrics`. The
    mesh must also be set with `jax.set_mesh`; `state` is as of `abstract_state`.
    """
    state = state_of_step(config, state)
    shardings = jax.tree.map(lambda s: s.sharding, state)
    optimizer = make_optimizer(config)
    step = make_train_step(config, optimizer, shardings.parameters)
    jitted = jax.jit(
        step,
        donate_argnums=0,
        out_shardings=(shardings, replicated(mesh)),  # every host reads the metrics
        compiler_options=compiler_options(),
    )
    teacher = {}
    if config.teacher_model is not None:
        teacher = {"teacher": abstract_model(config.teacher_model, config.mesh, mesh)}
    return jitted.lower(state, abstract_batch(config, mesh), abstract_signals(mesh), **teacher)


def abstract_signals(mesh: Mesh) -> jax.ShapeDtypeStruct:
    """int32 [devices, 2], a row on each device: a host puts its signals on its own devices."""
    sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    return jax.ShapeDtypeStruct((mesh.size, 2), np.int32, sharding=sharding)


def compiler_options() -> dict[str, Any]:
    """Options for the compiler of the mesh's devices, beyond its defaults."""
    if platform() != "tpu":
        return {}
    options: dict[str, Any] = {}
    if has_async_all_to_all():
        # All-to-alls run while other operations compute, where there are some that do not need
        # their result: docs/performance.md says how much that saves.
        options["xla_tpu_enable_async_all_to_all"] = True
    if pltpu.get_tpu_info().vmem_capacity_bytes >= _MUCH_VMEM:
        # Tiles half as large again as by default take 2 % fewer estimated cycles of a layer on v5p.
        options["xla_tpu_scoped_vmem_limit_kib"] = 24 * 1024
    return options


def abstract_batch(config: Config, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes, dtypes and shardings of the arrays that a step takes."""
    lengths = config.data.task_feature_lengths
    batch = empty_batch(config.model.stacks, config.run.batch_size, lengths)
    sharding = batch_sharding(mesh)
    return {
        name: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding)
        for name, array in batch.items()
    }
