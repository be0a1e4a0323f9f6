"""The training step of a run as a program: what `train` executes and what `plan` prices."""

from typing import Any

import jax
import numpy as np
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from switch_jax.config import RunConfig
from switch_jax.data.batch import empty_batch
from switch_jax.data.config import DataConfig
from switch_jax.model import ModelConfig, logical_axes
from switch_jax.optim.optimizer import OptimizerConfig, make_optimizer
from switch_jax.partitioning.mesh import batch_sharding, platform, replicated
from switch_jax.train_step.bad_step_guard import GuardConfig
from switch_jax.train_step.loss import LossConfig
from switch_jax.train_step.state import TrainState
from switch_jax.train_step.step import make_train_step

_MUCH_VMEM = 64 * 2**20  # bytes: v5e, v5p and all since


def lower_train_step(
    state: TrainState,
    mesh: Mesh,
    run: RunConfig,
    model: ModelConfig,
    data: DataConfig,
    optimizer: OptimizerConfig,
    loss: LossConfig,
    guard: GuardConfig = GuardConfig(),  # noqa: B008  frozen
) -> jax.stages.Lowered:
    """The step with its optimiser, microbatches and rematerialisation, ready to be compiled.

    It takes state, batch and signals, and returns the new state and the step's `Metrics`.

    Args:
      state: shapes and shardings; its memory is given to the new state.
      mesh: set by `jax.set_mesh` too.
    """
    shardings = jax.tree.map(lambda s: s.sharding, state)
    step = make_train_step(
        model,
        loss,
        make_optimizer(optimizer, logical_axes(model)),
        num_microbatches=run.num_microbatches,
        seed=run.seed,
        guard=guard,
        shardings=shardings.parameters,
    )
    jitted = jax.jit(
        step,
        donate_argnums=0,
        out_shardings=(shardings, replicated(mesh)),  # every host reads the metrics
        compiler_options=compiler_options(),
    )
    return jitted.lower(state, abstract_batch(run, data, mesh), abstract_signals(mesh))


def abstract_signals(mesh: Mesh) -> jax.ShapeDtypeStruct:
    """int32 [devices], one on each: what a host is told lies on its own."""
    sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    return jax.ShapeDtypeStruct((mesh.size,), np.int32, sharding=sharding)


def compiler_options() -> dict[str, Any]:
    """What the compiler of the mesh's devices is asked for beyond its defaults."""
    if platform() != "tpu" or pltpu.get_tpu_info().vmem_capacity_bytes < _MUCH_VMEM:
        return {}
    # Larger tiles, half as large again as by default: a Switch and a dense layer on v5p take 2 %
    # fewer estimated cycles. Still larger ones leave less room to fetch what comes next.
    return {"xla_tpu_scoped_vmem_limit_kib": 24 * 1024}


def abstract_batch(run: RunConfig, data: DataConfig, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes, dtypes and shardings of the arrays that a step takes."""
    batch = empty_batch(run.batch_size, data.task_feature_lengths)
    place = batch_sharding(mesh)
    return {
        name: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=place)
        for name, array in batch.items()
    }
