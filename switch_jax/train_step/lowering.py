"""The training step of a run as a program: `train` runs it, and `plan` estimates its cost."""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from switch_jax.config import Config
from switch_jax.data.packing import empty_batch
from switch_jax.optim.optimizer import make_optimizer
from switch_jax.partitioning.compiler_options import compiler_options
from switch_jax.partitioning.mesh import batch_sharding, replicated
from switch_jax.train_step.state import TrainState, abstract_model, state_of_step
from switch_jax.train_step.step import HostSignals, make_train_step


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
        compiler_options=compiler_options(config.mesh.fully_sharded_weights),
    )
    teacher = {}
    if config.teacher_model is not None:
        teacher = {"teacher": abstract_model(config.teacher_model, config.mesh, mesh)}
    return jitted.lower(state, abstract_batch(config, mesh), abstract_signals(mesh), **teacher)


def abstract_signals(mesh: Mesh) -> HostSignals:
    """Shapes, dtypes and shardings of the signals that a step takes, one on each device."""
    sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    shape = jax.ShapeDtypeStruct((mesh.size,), np.int32, sharding=sharding)
    return HostSignals(shape, shape)


def put_signals(mesh: Mesh, signal: int = 0, no_batch: int = 0) -> HostSignals:
    """This host's two numbers on its own devices."""
    shape = abstract_signals(mesh).signal

    def put(number: int) -> jax.Array:
        values = np.full(shape.shape, number, shape.dtype)
        return jax.make_array_from_callback(values.shape, shape.sharding, lambda i: values[i])

    return HostSignals(put(signal), put(no_batch))


def abstract_batch(config: Config, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes, dtypes and shardings of the arrays that a step takes."""
    lengths = config.data.task_feature_lengths
    batch = empty_batch(config.model.stacks, config.run.batch_size, lengths)
    sharding = batch_sharding(mesh)
    return {
        name: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding)
        for name, array in batch.items()
    }
