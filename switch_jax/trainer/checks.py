"""Whether the parts of a run fit together, before anything is written or compiled."""

from collections.abc import Mapping

from jax.sharding import AbstractMesh, Mesh

from switch_jax.config import RunConfig
from switch_jax.data.checks import (
    check_config,
    check_data,
    check_readable,
    check_streams,
    check_vocabulary,
)
from switch_jax.data.config import DataConfig
from switch_jax.data.configured_tasks import vocabulary_is_here
from switch_jax.errors import UserError
from switch_jax.model import ModelConfig
from switch_jax.model.groups import Groups, training_groups
from switch_jax.optim.optimizer import OptimizerConfig
from switch_jax.partitioning.mesh import MeshConfig, batch_shards, make_mesh
from switch_jax.paths import check_path
from switch_jax.train_step.state import abstract_state
from switch_jax.train_step.step import check_batch
from switch_jax.trainer.evaluation import check_metric
from switch_jax.trainer.warm_start import initial_checkpoint


def check(
    run: RunConfig,
    model: ModelConfig,
    data: DataConfig,
    mesh: MeshConfig,
    optimizer: OptimizerConfig,
) -> Mesh:
    """Checks a run on this machine: its devices, paths and data, and what it starts from.

    Returns:
      The mesh.

    Raises:
      UserError: what does not fit, with the numbers.
    """
    check_paths_of(run)
    check_data_of(run, model, data)
    devices = make_mesh(mesh)  # starts JAX, with as many CPU devices as the mesh asks for
    _check_sizes(run, model, data, mesh, devices)
    state = abstract_state(model, optimizer, devices, fully_sharded=mesh.fully_sharded_weights)
    initial_checkpoint(run, state.parameters)
    return devices


def check_paths_of(run: RunConfig) -> None:
    """Raises UserError where there can be no such folder as the run is to write or start from."""
    check_path(run.model_dir, "MODEL_DIR")
    if run.initial_checkpoint is not None:
        check_path(run.initial_checkpoint, "INITIAL_CHECKPOINT_PATH")


def check_data_of(run: RunConfig, model: ModelConfig, data: DataConfig) -> None:
    """Checks what a run reads: tasks, their files, lengths, vocabulary, and what is the best.

    Raises:
      UserError: what is not there, or does not fit.
    """
    check_data(data)
    check_metric(run.best_metric, data)
    check_readable(data)
    check_vocabulary(data, model.vocab_size)


def check_elsewhere(
    run: RunConfig,
    model: ModelConfig,
    data: DataConfig,
    mesh: MeshConfig,
    optimizer: OptimizerConfig,
    devices: AbstractMesh,
) -> None:
    """Checks a run that other machines will make, without a network.

    Raises:
      UserError: what does not fit, with the numbers.
    """
    if vocabulary_is_here(data):
        check_config(data)
        check_vocabulary(data, model.vocab_size)
    _check_sizes(run, model, data, mesh, devices)
    abstract_state(model, optimizer, devices, fully_sharded=mesh.fully_sharded_weights)


def _check_sizes(
    run: RunConfig,
    model: ModelConfig,
    data: DataConfig,
    mesh: MeshConfig,
    devices: Mesh | AbstractMesh,
) -> None:
    """Raises UserError where batch, groups, streams and devices do not divide."""
    shape: Mapping[str, int] = devices.shape
    check_batch(model, run.batch_size, _lengths(data), run.num_microbatches, shape)
    check_streams(data, run.batch_size)
    if mesh.fully_sharded_weights and model.remat_policy == "none":
        raise UserError(
            "with REMAT_POLICY = 'none' the gathered weights of all layers are saved for the "
            "backward pass, so FULLY_SHARDED_WEIGHTS = True would save no memory; set REMAT_POLICY "
            "to 'minimal' or 'full'"
        )


def routing_groups(
    run: RunConfig, model: ModelConfig, data: DataConfig, devices: Mesh
) -> dict[str, Groups]:
    """The routing groups of each stack of a run that was checked; see `training_groups`."""
    parts = run.num_microbatches * batch_shards(devices.shape)
    return training_groups(model, run.batch_size, _lengths(data), parts)


def _lengths(data: DataConfig) -> tuple[int, int]:
    return data.task_feature_lengths["inputs"], data.task_feature_lengths["targets"]
