"""Whether experts and routing groups divide over a mesh; the messages name the gin macros."""

from collections.abc import Mapping

from switch_jax.errors import UserError
from switch_jax.moe.capacity import group_shape
from switch_jax.partitioning.mesh import EXPERT, batch_shards


def check_divisibility(
    batch: int,
    length: int,
    num_experts: int,
    group_size: int,
    mesh_shape: Mapping[str, int],
    name: str,
) -> None:
    """Checks that experts and groups divide over the mesh.

    Args:
      batch: B.
      length: L.
      num_experts: E.
      group_size: the largest number of tokens in a group.
      mesh_shape: devices by mesh axis.
      name: what messages call `group_size`: the encoder has one gin macro, the decoder another.

    Raises:
      UserError: they do not; the message has the equation with the numbers.
    """
    check_experts(num_experts, mesh_shape)
    groups, tokens = group_shape(batch, length, group_size, name=name)
    shards = batch_shards(mesh_shape)
    if groups % shards:
        made = "1 group" if groups == 1 else f"{groups} groups"
        raise UserError(
            f"{name} = {group_size} does not fit: a batch of {batch} x {length} tokens makes "
            f"{made} of {tokens}, to be divided over data x expert = {shards} devices; set {name} "
            f"to {max(1, batch // shards) * length} or less: whole rows of {length} tokens, or a "
            f"divisor of {length}; or BATCH_SIZE to a multiple of "
            f"{shards * max(1, group_size // length)}"
        )


def check_experts(num_experts: int, mesh_shape: Mapping[str, int]) -> None:
    """Raises UserError, with the equation, where experts do not divide over the expert axis.

    Args:
      num_experts: E.
      mesh_shape: devices by mesh axis.
    """
    devices = mesh_shape[EXPERT]
    if max(num_experts, devices) % min(num_experts, devices):
        raise UserError(
            f"{num_experts} experts do not divide over MESH_EXPERT = {devices} devices, nor "
            f"the devices over the experts ({num_experts} % {devices} = {num_experts % devices}); "
            "set NUM_EXPERTS or MESH_EXPERT so that one is a multiple of the other"
        )
