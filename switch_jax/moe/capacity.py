"""Sizes that routing follows from: the tokens of a group and the capacity of an expert (Eq. 3).

All of it is computed, and checked, from the sizes of a run before anything is compiled.
"""

import math
from collections.abc import Mapping

from scipy.special import bdtrc

from switch_jax.config import ModelConfig
from switch_jax.kernels.tiles import SUBLANES
from switch_jax.partitioning.mesh import EXPERT, batch_shards
from switch_jax.utils.errors import UserError


def group_shape(
    batch: int, length: int, group_size: int, *, name: str = "group_size"
) -> tuple[int, int]:
    """Splits [B, L] tokens into the fewest equal groups of at most `group_size` tokens.

    A group is a run of whole consecutive rows, or, where a row is longer than `group_size`, an
    equal part of one row. It depends on these three numbers alone, never on the number of devices.

    Args:
      batch: B, the number of rows.
      length: L, the tokens of a row, padding included.
      group_size: the largest number of tokens in a group, which messages call `name`.

    Returns:
      (G, S): the number of groups and the tokens in each.

    Raises:
      UserError: `group_size` does not divide a row that is longer than it.
    """
    if length > group_size:
        if length % group_size:
            raise UserError(
                f"{name} = {group_size} does not fit: it is shorter than a row of {length} "
                f"tokens and does not divide it ({length} % {group_size} = {length % group_size}); "
                f"set {name} to a divisor of {length}, or to {length} or more"
            )
        return batch * length // group_size, group_size
    rows = group_size // length
    if batch % rows:
        rows = max(r for r in range(1, min(rows, batch + 1)) if batch % r == 0)
    return batch // rows, rows * length


def expert_capacity(
    tokens_per_group: int,
    num_experts: int,
    capacity_factor: float,
    *,
    min_capacity: int = 1,
    multiple: int = SUBLANES,
) -> int:
    """C, the slots of one expert in one group (Eq. 3): tokens / experts x capacity factor.

    The result is rounded up, so that perfectly even routing drops nothing at a factor of 1.0. It
    is at least `min_capacity`, and at most `tokens_per_group`, since no expert can receive more.
    It is rounded up further, to a multiple of `multiple`, where that adds at most one fifteenth: a
    TPU lays rows out in eights, and moving other numbers of rows costs it more than those slots.
    Equation 3 does not say how to round: Mesh TensorFlow rounds down, Flaxformer to the nearest.

    Args:
      tokens_per_group: S, padding included.
      num_experts: E.
      capacity_factor: 1.0 leaves room for exactly even routing.
      min_capacity: a lower limit for very small groups.
      multiple: 8 for speed on a TPU; 1 rounds to a whole slot only.
    """
    # Slightly less, so that 10 x 1.1 = 11.000000000000002 is 11.
    exact = tokens_per_group * capacity_factor / num_experts
    capacity = max(min_capacity, math.ceil(exact - 1e-6))
    aligned = -(-capacity // multiple) * multiple
    return min(tokens_per_group, aligned if 15 * aligned <= 16 * capacity else capacity)


def capacity_of(model: ModelConfig, tokens_per_group: int, capacity_factor: float) -> int:
    """`expert_capacity` with a model's experts, least capacity and multiple."""
    return expert_capacity(
        tokens_per_group,
        model.num_experts,
        capacity_factor,
        min_capacity=model.min_expert_capacity,
        multiple=model.expert_capacity_multiple,
    )


def expected_drop(
    tokens_per_group: int, num_experts: int, capacity: int, choices: int = 1
) -> float:
    """The fraction of choices that find their expert full where routing is even on average.

    Each of a group's S tokens, all real, picks k of E experts at random, each with the probability
    p = k / E. So the number n of tokens that pick a given expert is binomial(S, p), and the dropped
    fraction is E[max(0, n - C)] / (S p). With n P(n) = S p P'(n - 1), where P' is the distribution
    for one token fewer, the sum over n > C becomes two tails: P'(n >= C) - C / (S p) P(n > C).
    """
    share = choices / num_experts
    tail_of_one_fewer = bdtrc(capacity - 1, tokens_per_group - 1, share)
    tail = bdtrc(capacity, tokens_per_group, share)
    return max(0.0, float(tail_of_one_fewer - capacity / (tokens_per_group * share) * tail))


def check_divisibility(
    batch: int,
    length: int,
    num_experts: int,
    group_size: int,
    mesh_shape: Mapping[str, int],
    name: str,
) -> None:
    """Raises UserError, with the equation, where experts or groups do not divide over the mesh.

    `mesh_shape` has devices by mesh axis, and `name` is what messages call `group_size`: the
    encoder has one gin macro, the decoder another.
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
    """Raises UserError where neither experts nor devices of the expert axis divide by the other."""
    devices = mesh_shape[EXPERT]
    if max(num_experts, devices) % min(num_experts, devices):
        raise UserError(
            f"NUM_EXPERTS = {num_experts} and MESH_EXPERT = {devices}: neither divides by the "
            "other; set one of them to a multiple or a divisor of the other"
        )
