"""Microbatches: which rows each has, whether a batch divides into them, and gradients over all."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from switch_jax.config import Config, ModelConfig
from switch_jax.model.groups import Groups, training_groups
from switch_jax.moe import RouterStatistics, by_join, group_shape
from switch_jax.moe.capacity import check_divisibility, check_experts
from switch_jax.partitioning.mesh import batch_shards
from switch_jax.utils.errors import UserError

Batch = dict[str, jax.Array]


def rows_together(model: ModelConfig, batch: Batch) -> int:
    """Consecutive rows that stay together in a microbatch: those of whole routing groups."""
    rows = 1
    for stack in model.stacks:
        batch_size, length = batch[stack.segment_ids].shape
        if stack.sparse_layers:
            rows = math.lcm(rows, _group_rows(batch_size, length, stack.group_size))
    return rows


def _group_rows(batch_size: int, length: int, group_size: int) -> int:
    """Rows of a routing group; 1 where a row consists of several groups."""
    return max(1, group_shape(batch_size, length, group_size)[1] // length)


def check_batch(config: Config, mesh_shape: Mapping[str, int]) -> None:
    """Raises UserError, with the equation, where the batch or a teacher's groups do not divide."""
    batch_size, shards = config.run.batch_size, batch_shards(mesh_shape)
    parts = config.run.num_microbatches * shards
    models = {"": config.model, "TEACHER_": config.teacher_model}
    sparse = {start: model for start, model in models.items() if model and model.num_experts}
    for model in sparse.values():
        check_experts(model.num_experts, mesh_shape)
    if batch_size % parts:
        raise UserError(
            f"batch size {batch_size} does not divide over data x expert = {shards} devices and "
            f"{config.run.num_microbatches} microbatches ({batch_size} % {parts} = "
            f"{batch_size % parts}); set BATCH_SIZE to a multiple of {parts}"
        )
    for start, model in sparse.items():
        for stack in model.stacks:
            if stack.sparse_layers:
                length = stack.length(config.data.task_feature_lengths)
                size, name = stack.group_size, start + stack.group_size_macro
                check_divisibility(batch_size, length, model.num_experts, size, mesh_shape, name)
                _check_rows(batch_size, length, size, parts, name)


def _check_rows(batch_size: int, length: int, group_size: int, parts: int, macro: str) -> None:
    """Raises UserError where groups do not divide over the microbatches of all devices."""
    rows = _group_rows(batch_size, length, group_size)
    if batch_size % (rows * parts):
        raise UserError(
            f"{macro} = {group_size} does not fit: groups take {rows} whole rows of {length} "
            f"tokens, and {rows} x {parts} (microbatches x devices) does not divide the batch "
            f"size {batch_size}; set {macro} to {batch_size // parts * length} or less, or "
            "NUM_MICROBATCHES lower"
        )


def routing_groups(config: Config) -> dict[str, Groups]:
    """The routing groups of each stack in training; `check_batch` has passed the run."""
    return training_groups(config.model, config.run.batch_size, config.data.task_feature_lengths)


def split(models: Sequence[ModelConfig], batch: Batch, parts: int) -> Batch:
    """[B, ...] -> [parts, B / parts, ...], by whole groups of rows, those of all `models`.

    Microbatch i takes every `parts`-th group, from the i-th on: no device needs rows of another.
    """
    batch_size = len(batch[models[0].stacks[0].segment_ids])
    rows = math.lcm(*(rows_together(model, batch) for model in models))

    def split_array(x: jax.Array) -> jax.Array:
        groups = batch_size // (parts * rows)
        x = x.reshape(groups, parts, rows, *x.shape[1:])  # [groups, parts, rows, ...]
        x = jnp.swapaxes(x, 0, 1)  # [parts, groups, rows, ...]
        return x.reshape(parts, batch_size // parts, *x.shape[3:])  # [parts, B / parts, ...]

    return jax.tree.map(split_array, batch)


def accumulate(gradient: Callable[[Batch, jax.Array], Any], parts: Batch, key: jax.Array) -> Any:
    """The sums over all microbatches of what `gradient` gives, nested arrays, in their dtypes.

    Statistics of routers are joined as each is declared.

    `parts` are [parts, B / parts, ...], see `split`. Each microbatch has a key made of `key` and of
    its index.
    """

    def one(part: Batch, index: jax.Array) -> Any:
        return gradient(part, jax.random.fold_in(key, index))

    def body(carry: Any, part_and_index: tuple[Batch, jax.Array]):
        return _map(_add, carry, one(*part_and_index)), None

    number = jax.tree.leaves(parts)[0].shape[0]
    first = jax.tree.map(lambda x: x[0], parts)
    nothing = _map(_nothing, jax.eval_shape(one, first, jnp.int32(0)))
    return jax.lax.scan(body, nothing, (parts, jnp.arange(number)))[0]


def _map(function: Callable[..., Any], *trees: Any) -> Any:
    """`jax.tree.map`, with the statistics of routers whole."""
    return jax.tree.map(function, *trees, is_leaf=lambda x: isinstance(x, RouterStatistics))


def _add(so_far: Any, new: Any) -> Any:
    if isinstance(so_far, RouterStatistics):
        return by_join(lambda join, *both: join.add(*both), so_far, new)
    return jnp.add(so_far, new)


def _nothing(shape: Any) -> Any:
    """What leaves any value of this shape as it is, when it is joined with it."""
    if isinstance(shape, RouterStatistics):
        return by_join(lambda join, s: jnp.full(s.shape, join.start, s.dtype), shape)
    return jnp.zeros(shape.shape, shape.dtype)
