"""The devices, the batch and the routing groups of a model that is asked, and not trained."""

import dataclasses
import itertools
import math
from collections.abc import Mapping

import jax
from jax.sharding import Mesh

from switch_jax.config import Config, MeshConfig
from switch_jax.config.stack import StackConfig
from switch_jax.hardware.tpus import num_slices
from switch_jax.partitioning.mesh import batch_shards, make_mesh
from switch_jax.train_step.microbatches import check_batch
from switch_jax.utils.errors import UserError


def mesh_for_inference(config: Config, *, is_given: bool) -> Mesh:
    """The mesh of the config, where it `is_given` for this machine; otherwise one for its devices.

    That is the run's where it fits them. Where not, the experts are split over as many devices as
    they divide by, and the batch over all. UserError: the given mesh does not fit the devices.
    """
    if is_given:
        return make_mesh(config.mesh)
    devices = jax.devices()
    try:
        return make_mesh(config.mesh, devices)
    except UserError:
        in_a_slice = len(devices) // num_slices(devices)
        ways = math.gcd(max(1, config.model.num_experts), in_a_slice)
        sharded = config.mesh.fully_sharded_weights
        return make_mesh(MeshConfig(None, ways, 1, fully_sharded_weights=sharded), devices)


def fit_batch(config: Config, mesh_shape: Mapping[str, int], batch_size: int | None) -> Config:
    """The config with at least `batch_size` rows, in routing groups that divide over a mesh.

    None is the config's own number, and that is left as it is where it fits the mesh. Otherwise the
    groups may have fewer rows than in training, and experts keep the slots of a whole group. So
    what a token gets does not depend on how many rows there are, or are empty, unless experts
    choose: they choose among the tokens of the group.

    There are no microbatches, and there is no teacher. Raises FieldError where `batch_size` is out
    of range, UserError where the experts do not divide over the mesh.
    """
    own, config = config.run.batch_size, dataclasses.replace(config, teacher=None)
    config = config.replace("run", num_microbatches=1)
    if batch_size is not None:
        config = config.replace("run", batch_size=batch_size)
    if config.run.batch_size == own:
        try:
            check_batch(config, mesh_shape)
            return config
        except UserError:  # it was for other devices
            pass
    model, shards = config.model, batch_shards(mesh_shape)
    lengths = {s: s.length(config.data.task_feature_lengths) for s in model.stacks}
    # Rows of a whole group; 1 where a row is several groups.
    whole = {s: max(1, s.group_size // lengths[s]) for s in model.stacks if s.sparse_layers}

    def group_rows(rows: int) -> dict[StackConfig, int]:
        return {s: _largest_divisor(rows, most) for s, most in whole.items()}

    # The rows of a device: the fewest whose groups are more than half of a whole one, or all rows.
    rows = next(
        rows
        for rows in itertools.count(-(-config.run.batch_size // shards))
        if all(2 * g > min(rows, whole[s]) for s, g in group_rows(rows).items())
    )
    parts = group_rows(rows)
    missing = [whole[s] / g for s, g in parts.items() if s.router_type != "experts_choose"]
    config = config.replace(
        "model",
        **{s.group_size_field: min(s.group_size, g * lengths[s]) for s, g in parts.items()},
        eval_expert_capacity_factor=model.eval_expert_capacity_factor * max(missing, default=1),
    ).replace("run", batch_size=rows * shards)
    check_batch(config, mesh_shape)
    return config


def _largest_divisor(number: int, most: int) -> int:
    return max(n for n in range(1, min(number, most) + 1) if number % n == 0)
