"""The Switch feed-forward layer (Fig. 2): router, all-to-all, experts, all-to-all, gate.

Written once, for one device's share of the batch and of the experts, and run under `jax.shard_map`
on whatever mesh there is; a single device is a mesh of one. The shape letters are those of
`switch_jax.moe`. A suffix `_local` marks one device's share of an axis.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from switch_jax.kernels.tiles import SUBLANES
from switch_jax.moe.capacity import check_divisibility, expert_capacity, group_shape
from switch_jax.moe.choices import choice_scores, top_choices
from switch_jax.moe.dispatch import combine, dispatch, dispatch_indices
from switch_jax.moe.exchange import all_to_all, num_chunks, num_expert_shards
from switch_jax.moe.expert_dropout import expert_dropout
from switch_jax.moe.expert_mlp import expert_mlp, local_experts
from switch_jax.moe.expert_weights import SwitchWeights, cast, partition_specs
from switch_jax.moe.no_token_left_behind import assign_in_rounds
from switch_jax.moe.router import router_logits
from switch_jax.moe.router_noise import gumbel, noise, noise_bits
from switch_jax.moe.routing import Assignment, assign, assign_choices, by_choice
from switch_jax.moe.statistics import RouterStatistics, router_statistics
from switch_jax.partitioning.collectives import axis_index, drop_axes_of_one, mark_varying
from switch_jax.partitioning.mesh import BATCH, DATA, EXPERT, current_mesh


@dataclasses.dataclass(frozen=True)
class SwitchConfig:
    """What a Switch layer depends on besides its weights.

    Attributes:
      num_experts: E.
      group_size: the largest number of tokens routed together; see `capacity.group_shape`.
      capacity_factor: see `capacity.expert_capacity` (Eq. 3).
      min_expert_capacity: the smallest number of slots of an expert in a group.
      expert_capacity_multiple: what slots are rounded up to; see `capacity.expert_capacity`.
      jitter_noise: epsilon of the noise uniform(1 - eps, 1 + eps) that multiplies the router's
        input, and nothing else (App. C); 0 = none.
      router_policy: of training (App. C): 'argmax'; 'sample', an expert is drawn from the router's
        softmax; 'input_dropout', the router's input has dropout in place of jitter.
      router_input_dropout_rate: of 'input_dropout'.
      num_selected_experts: k, the experts of a token.
      second_expert_policy: which choices after the first ask for a slot in training: 'all'; or
        'random', each with the probability min(1, gate / `second_expert_threshold`), as in Mesh
        TensorFlow. In evaluation all do.
      second_expert_threshold: of 'random'.
      ntlb_rounds: how many experts a token may ask for, one after another, until one has a free
        slot (No-Token-Left-Behind, App. B); 1 = only the first.
      expert_dropout_rate: of dropout on the hidden activation in the experts (section 2.4).
    """

    num_experts: int
    group_size: int
    capacity_factor: float
    min_expert_capacity: int = 1
    expert_capacity_multiple: int = SUBLANES
    jitter_noise: float = 0.0
    router_policy: str = "argmax"
    router_input_dropout_rate: float = 0.1
    num_selected_experts: int = 1
    second_expert_policy: str = "all"
    second_expert_threshold: float = 0.2
    ntlb_rounds: int = 1
    expert_dropout_rate: float = 0.0

    @property
    def input_dropout_rate(self) -> float:
        """Of dropout on the router's input under the policy; 0 = none."""
        is_used = self.router_policy == "input_dropout"
        return self.router_input_dropout_rate if is_used else 0.0


def switch_ffn(
    x: jax.Array,
    valid: jax.Array,
    weights: SwitchWeights,
    config: SwitchConfig,
    activation: Callable[..., jax.Array],
    key: jax.Array | None = None,
    layer_index: Any = 0,
) -> tuple[jax.Array, RouterStatistics]:
    """Sends each token through its most probable expert (sections 2.1 and 2.2).

    With the policy 'sample' it is an expert that is drawn (App. C). With `num_selected_experts`
    above 1 it is several, whose outputs are added.

    The result is the same on every mesh: groups depend on the batch alone, and noise on the
    indices of layer, group and expert alone.

    Args:
      x: [B, L, D] activations; the exchanged rows and the experts have the same dtype.
      valid: [B, L] bool, False on padding, which takes no slot and counts in no statistic.
      weights: `wi` and `wo` are cast to x's dtype; the router computes in the dtype of its own.
        With a `router_bias` the gradient of the statistic `load_balance_loss` is not that of the
        loss, but what the bias is updated by; see `auxiliary_losses.with_bias_gradient`.
      config: see `SwitchConfig`.
      activation: from the projections by each `wi` to the hidden activation, elementwise.
      key: for the policies, jitter and expert dropout; None = argmax, all choices, and no noise
        (evaluation).
      layer_index: routers with the same key and different indices have different noise.

    Returns:
      [B, L, D], or as wide as `wo` gives it, exactly 0 for dropped tokens and padding (the residual
      connection carries them), and the router's statistics.

    Raises:
      UserError: the experts or the groups do not divide over the mesh, or `group_size` does not
        fit the rows.
      ValueError: B does not divide over data x expert devices (from `jax.shard_map`).
    """
    mesh = current_mesh()
    batch, length, _ = x.shape
    size = config.group_size
    check_divisibility(batch, length, config.num_experts, size, mesh.shape, "group_size")
    rows, whole = PartitionSpec(BATCH), PartitionSpec()
    in_specs = rows, rows, partition_specs(weights, mesh.shape), whole, whole
    layer = jax.shard_map(
        functools.partial(_switch_ffn_local, config=config, activation=activation),
        mesh=mesh,
        in_specs=drop_axes_of_one(in_specs, mesh.shape),
        out_specs=drop_axes_of_one((rows, whole), mesh.shape),
        check_vma=True,
    )
    return layer(x, valid, cast(weights, x.dtype), key, jnp.asarray(layer_index, jnp.int32))


def _switch_ffn_local(
    x: jax.Array,
    valid: jax.Array,
    weights: SwitchWeights,
    key: jax.Array | None,
    layer_index: jax.Array,
    *,
    config: SwitchConfig,
    activation: Callable[..., jax.Array],
) -> tuple[jax.Array, RouterStatistics]:
    """One device's part: its rows of the batch, its experts, its slice of F."""
    batch, length, dim = x.shape
    groups, tokens = group_shape(batch, length, config.group_size)  # G_local, S
    # Rows of the batch or, where a row is several groups, the groups as rows, of S tokens.
    row_length = min(length, tokens)
    batch_shape = batch * length // row_length, row_length
    x = x.reshape(*batch_shape, dim)  # [rows, row_length, D]
    valid = valid.reshape(groups, tokens)  # [G_local, S]
    # The index of the first group in the whole batch: noise depends on it, not on the device.
    device = axis_index(DATA) * lax.axis_size(EXPERT) + axis_index(EXPERT)
    first_group = device * groups
    expert_shards = num_expert_shards(config.num_experts)
    capacity = expert_capacity(
        tokens,
        config.num_experts,
        config.capacity_factor,
        min_capacity=config.min_expert_capacity,
        multiple=config.expert_capacity_multiple,
    )
    dropout_key = key if config.expert_dropout_rate > 0 else None
    chunks = num_chunks(expert_shards, groups * capacity)
    if dropout_key is not None:
        chunks = 1  # dropout is drawn for all slots of an expert at once

    with jax.named_scope("router"):
        jitter, dropout_rate, bits = config.jitter_noise, config.input_dropout_rate, None
        if key is not None and (jitter > 0 or dropout_rate > 0):
            bits = noise_bits(key, layer_index, first_group, tokens, x.shape)
        router = mark_varying(weights.router, BATCH)  # [D, E]
        logits = router_logits(x, router, jitter, bits, dropout_rate)  # [rows, row_length, E]
        logits = logits.reshape(groups, tokens, -1)  # [G_local, S, E]
        bias = weights.router_bias  # [E] or None
        if bias is not None:
            bias = mark_varying(bias, BATCH)
        assignment = _route(logits, bias, valid, capacity, config, key, layer_index, first_group)
        statistics = router_statistics(assignment, valid, capacity, bias)

    with jax.named_scope("dispatch"):
        indices = dispatch_indices(assignment, batch_shape, chunks)
        # Block i of axis 0 is for the experts of the i-th device.
        rows = groups * capacity // chunks
        shape = expert_shards, config.num_experts // expert_shards, rows, dim
        # After the exchange, block i of axis 0 is from the i-th device.
        buffers = [
            all_to_all(slots.reshape(shape)) for slots in dispatch(x, indices)
        ]  # [expert_shards, E_local, G_local * C / chunks, D] each

    with jax.named_scope("experts"):
        dropout = None
        if dropout_key is not None:
            dropout = expert_dropout(
                config.expert_dropout_rate,
                dropout_key,
                layer_index,
                expert_shards=expert_shards,
                groups=groups,
                capacity=capacity,
            )
        weights = local_experts(weights, expert_shards)
        buffers = [expert_mlp(chunk, weights, activation, dropout) for chunk in buffers]

    with jax.named_scope("dispatch"):
        buffers = [all_to_all(chunk) for chunk in buffers]
        slots = tuple(
            chunk.reshape(-1, chunk.shape[-1]) for chunk in buffers
        )  # [E * G_local * C / chunks, D] each
        gates = tuple(gate.reshape(batch_shape) for gate in by_choice(assignment.gate))
        y = combine(slots, gates, indices)  # [rows, row_length, D]
    return y.reshape(batch, length, y.shape[-1]), statistics


def _route(
    logits: jax.Array,
    bias: jax.Array | None,
    valid: jax.Array,
    capacity: int,
    config: SwitchConfig,
    key: jax.Array | None,
    layer_index: jax.Array,
    first_group: jax.Array | int,
) -> Assignment:
    """[G_local, S, E] logits -> the experts and slots of this device's tokens, by the policies."""
    tokens, chosen = logits.shape[1], config.num_selected_experts
    sample_key = key if config.router_policy == "sample" else None
    is_plain = chosen == config.ntlb_rounds == 1 and sample_key is None and bias is None
    if is_plain and logits.dtype == jnp.float32:
        return assign(logits, capacity, valid)
    scores = choice_scores(logits, bias)  # [G_local, S, E]
    if sample_key is not None:
        # The layer's index is complemented, so that the noise is not that of the input.
        bits = noise_bits(sample_key, ~layer_index, first_group, tokens, logits.shape)
        scores += gumbel(bits)
    if config.ntlb_rounds > 1:
        return assign_in_rounds(top_choices(scores, config.ntlb_rounds), logits, capacity, valid)
    choices = top_choices(scores, chosen)  # [G_local, k, S]
    least_gate = None
    if key is not None and config.second_expert_policy == "random":
        other_key = jax.random.fold_in(key, 1)
        bits = noise_bits(other_key, layer_index, first_group, tokens, (*logits.shape[:2], chosen))
        uniform = jnp.swapaxes(noise(bits) + 1, 1, 2) / 2  # [G_local, k, S], in [0, 1)
        is_later = jnp.arange(chosen)[:, None] > 0  # [k, 1]
        least_gate = jnp.where(is_later, config.second_expert_threshold * uniform, -1.0)
    return assign_choices(choices, logits, capacity, valid, least_gate)
