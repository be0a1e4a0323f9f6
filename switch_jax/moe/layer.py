"""The Switch feed-forward layer: router -> slots -> gather -> all-to-all -> experts and back.

Written once, for one device's share of the batch and of the experts, and run under `jax.shard_map`
on whatever mesh there is; a single device is a mesh of one. Shape letters: see `switch_jax.moe`.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec

from switch_jax.errors import UserError
from switch_jax.moe import routing
from switch_jax.moe.dispatch import combine, dispatch, flat_maps
from switch_jax.moe.router import noise_words, router_logits
from switch_jax.partitioning.mesh import (
    BATCH,
    DATA,
    EXPERT,
    MODEL,
    batch_shards,
    current_mesh,
    platform,
)

# Rematerialisation saves what carries this name, so that no all-to-all is ever repeated.
EXCHANGED = "exchanged_tokens"
LANES = 128  # numbers in a row of a TPU's tiles


@dataclasses.dataclass(frozen=True)
class SwitchConfig:
    """What the routing of a layer depends on beside its weights.

    Attributes:
      num_experts: E.
      group_size: the most tokens routed together; see `routing.group_shape`.
      capacity_factor: see `routing.capacity` (Eq. 3).
      min_capacity: fewest slots of an expert in a group.
      capacity_multiple: what slots are rounded up to; see `routing.capacity`.
      jitter: epsilon of the multiplicative noise uniform(1 - eps, 1 + eps) on the router's input,
        and on nothing else (App. C); 0 = none.
      expert_dropout: rate of dropout on the hidden activation inside the experts (section 2.4).
    """

    num_experts: int
    group_size: int
    capacity_factor: float
    min_capacity: int = 1
    capacity_multiple: int = routing.TILE_ROWS
    jitter: float = 0.0
    expert_dropout: float = 0.0


class ExpertParameters(NamedTuple):
    """Weights of a Switch layer.

    Attributes:
      router: [D, E] float32.
      wi: one or two (gated) of [E, D, F].
      wo: [E, F, D].
    """

    router: Any
    wi: tuple[Any, ...]
    wo: Any


class RouterStatistics(NamedTuple):
    """What a layer's router did, over all real tokens of the batch; float32.

    Attributes:
      load: [E] fraction of tokens whose argmax is the expert, before any is dropped (f, Eq. 5).
      importance: [E] mean router probability (P, Eq. 6).
      load_balance_loss: scalar, 1.0 at balance (Eq. 4 without alpha).
      z_loss: scalar, mean logsumexp^2 of the logits.
      dropped: scalar, fraction of tokens that found their expert full.
      entropy: scalar, mean entropy of the router's distribution, in nats.
    """

    load: jax.Array
    importance: jax.Array
    load_balance_loss: jax.Array
    z_loss: jax.Array
    dropped: jax.Array
    entropy: jax.Array


def switch_ffn(
    x: jax.Array,
    valid: jax.Array,
    parameters: ExpertParameters,
    config: SwitchConfig,
    activation: Callable[..., jax.Array],
    key: jax.Array | None = None,
    number: Any = 0,
) -> tuple[jax.Array, RouterStatistics]:
    """Sends each token through its most probable expert (sections 2.1 and 2.2).

    The result is the same on every mesh: groups depend on the batch alone, and noise on the
    numbers of group and expert alone.

    Args:
      x: [B, L, D] activations; their dtype is the dtype of everything exchanged and of the experts.
      valid: [B, L] bool, False on padding, which takes no slot and counts in no statistic.
      parameters: the weights; `wi` and `wo` are cast to x's dtype, the router stays float32.
      config: see `SwitchConfig`.
      activation: from the projections by each `wi` to the hidden activation, elementwise.
      key: for jitter and expert dropout; None = neither (evaluation).
      number: of the layer; layers with the same key and other numbers have other noise.

    Returns:
      [B, L, D], exactly 0 for dropped tokens and padding (the residual carries them), and
      the statistics.

    Raises:
      UserError: the experts or the groups do not divide over the mesh, or `group_size` does not
        fit the rows.
    """
    mesh = current_mesh()
    batch, length, _ = x.shape
    check_divides(batch, length, config.num_experts, config.group_size, mesh.shape)

    spread = expert_axis(config.num_experts, mesh.shape)
    # Nothing is said to vary along an axis of one device: a CPU would copy it all for the sums.
    model = MODEL if mesh.shape[MODEL] > 1 else None
    wi_spec = PartitionSpec(spread, None, model)
    specs = ExpertParameters(
        router=PartitionSpec(),
        wi=(wi_spec,) * len(parameters.wi),
        wo=PartitionSpec(spread, model, None),
    )
    parameters = ExpertParameters(
        parameters.router.astype(jnp.float32),
        tuple(w.astype(x.dtype) for w in parameters.wi),
        parameters.wo.astype(x.dtype),
    )
    rows = PartitionSpec(tuple(axis for axis in BATCH if mesh.shape[axis] > 1))
    layer = functools.partial(_local_layer, config=config, activation=activation)
    return jax.shard_map(
        layer,
        mesh=mesh,
        in_specs=(rows, rows, specs, PartitionSpec(), PartitionSpec()),
        out_specs=(rows, PartitionSpec()),
        check_vma=True,
    )(x, valid, parameters, key, jnp.asarray(number, jnp.int32))


def expert_axis(experts: int, mesh_shape: Mapping[str, int]) -> str | None:
    """The mesh axis that experts are split over; None where each device has them all at hand.

    With fewer experts than devices a device computes one of those that it has.
    """
    return EXPERT if 1 < mesh_shape[EXPERT] <= experts else None


def check_divides(
    batch: int,
    length: int,
    experts: int,
    group_size: int,
    mesh_shape: Mapping[str, int],
    macro: str = "GROUP_SIZE",
) -> None:
    """Raises UserError, with the equation, where experts or groups do not divide over the mesh.

    `macro` is what sets `group_size`: the encoder has one, the decoder another.
    """
    ways = mesh_shape[EXPERT]
    if max(experts, ways) % min(experts, ways):
        raise UserError(
            f"{experts} experts do not divide over the expert axis of {ways} devices, nor the "
            f"devices over the experts ({experts} % {ways} = {experts % ways}); set NUM_EXPERTS or "
            "MESH_EXPERT so that one is a multiple of the other"
        )
    groups, tokens = routing.group_shape(batch, length, group_size, macro=macro)
    shards = batch_shards(mesh_shape)
    if groups % shards:
        raise UserError(
            f"{macro} = {group_size} does not fit: a batch of {batch} x {length} tokens makes "
            f"{groups} groups of {tokens}, which do not divide over data x expert = {shards} "
            f"devices; set {macro} to {max(1, batch // shards) * length} or less: whole rows of "
            f"{length} tokens, or a divisor of {length}"
        )


def _local_layer(
    x: jax.Array,
    valid: jax.Array,
    parameters: ExpertParameters,
    key: jax.Array | None,
    number: jax.Array,
    *,
    config: SwitchConfig,
    activation: Callable[..., jax.Array],
) -> tuple[jax.Array, RouterStatistics]:
    """One device's part: its rows of the batch, its experts, its slice of F."""
    batch, length, dim = x.shape
    groups, tokens = routing.group_shape(batch, length, config.group_size)
    # Rows of the batch, or, where a row is several groups, the groups as rows.
    rows = (batch * length // min(length, tokens), min(length, tokens))
    x = x.reshape(*rows, dim)
    valid = valid.reshape(groups, tokens)
    # Numbers of this device's groups in the whole batch: noise follows them, not the device.
    shard = _index(DATA) * lax.axis_size(EXPERT) + _index(EXPERT)
    first_group = shard * groups

    slots = routing.capacity(
        tokens,
        config.num_experts,
        config.capacity_factor,
        min_capacity=config.min_capacity,
        multiple=config.capacity_multiple,
    )
    with jax.named_scope("router"):
        words = None
        if key is not None and config.jitter > 0:
            words = noise_words(key, number, first_group, tokens, x.shape)
        router = _varying(parameters.router, BATCH)
        logits = router_logits(x, router, config.jitter, words)
        assignment = routing.assign(logits.reshape(groups, tokens, -1), slots, valid)
        statistics = _statistics(assignment, valid, slots)

    with jax.named_scope("dispatch"):
        maps = flat_maps(assignment, rows)
        buffers = dispatch(x, maps)
        # [hosts, E_local, G_local * C, D]: block i of axis 0 is for the experts of host i.
        hosts = _hosts(config)
        buffers = buffers.reshape(hosts, config.num_experts // hosts, groups * slots, dim)
        buffers = _exchange(buffers)
    with jax.named_scope("experts"):
        dropout = _expert_dropout(key, number, config, groups, slots)
        buffers = _experts(buffers, parameters, activation, dropout)
    with jax.named_scope("dispatch"):
        buffers = _exchange(buffers)
        y = combine(buffers.reshape(-1, dim), assignment.gate.reshape(rows), maps)
    return y.reshape(batch, length, dim), statistics


def _statistics(assignment: routing.Assignment, valid: jax.Array, slots: int) -> RouterStatistics:
    """Statistics of the whole batch, from this device's groups and a sum over the batch axes."""
    a = assignment
    real = valid.sum(dtype=jnp.float32)
    total = jnp.maximum(_sum(real, BATCH), 1.0)
    # Divided first and summed then: after a sum, a division would be an operation of its own.
    share = real / total
    sums = RouterStatistics(
        load=jnp.sum(a.load / total, axis=0),
        importance=jnp.sum(a.importance / total, axis=0),
        load_balance_loss=routing.load_balance_loss(a.importance, a.load) * share,
        z_loss=routing.router_z_loss(a.log_normalizer, valid) * share,
        dropped=jnp.sum(jnp.where(valid & (a.slot == slots), 1 / total, 0.0)),
        entropy=jnp.sum(jnp.where(valid, a.entropy / total, 0.0)),
    )
    return jax.tree.map(lambda s: _sum(s, BATCH), sums)


def _sum(x: jax.Array, axes: Iterable[str]) -> jax.Array:
    """Over the devices along the axes; a CPU would copy even what only one device has."""
    axes = tuple(axis for axis in axes if lax.axis_size(axis) > 1)
    return lax.psum(x, axes) if axes else x


def _index(axis: str) -> jax.Array | int:
    return lax.axis_index(axis) if lax.axis_size(axis) > 1 else 0


def _varying(x: jax.Array, axes: Iterable[str]) -> jax.Array:
    """Seen as different along the axes, so that its gradient is summed over them."""
    axes = tuple(axis for axis in axes if lax.axis_size(axis) > 1)
    return lax.pcast(x, axes, to="varying") if axes else x


def _hosts(config: SwitchConfig) -> int:
    """Neighbours on the expert axis that share out the experts: all, or as many as experts."""
    return min(config.num_experts, lax.axis_size(EXPERT))


def _exchange(buffers: jax.Array) -> jax.Array:
    """Swaps block i of axis 0 with host i; its own inverse.

    Always axis 0 for axis 0: any other pair costs the TPU two transpositions. It keeps rows in
    eights, and would pad, and send, a number of rows that is no multiple of 8: such blocks are
    exchanged as rows of 128 numbers, of which there are more.
    """
    if lax.axis_size(EXPERT) == 1:
        return checkpoint_name(buffers, EXCHANGED)
    shape = buffers.shape
    if shape[-2] % routing.TILE_ROWS and shape[-1] % LANES == 0:
        buffers = buffers.reshape(shape[0], -1, LANES)
    ways, hosts = lax.axis_size(EXPERT), shape[0]
    teams = [list(range(first, first + hosts)) for first in range(0, ways, hosts)]
    exchanged = lax.all_to_all(
        buffers, EXPERT, split_axis=0, concat_axis=0, tiled=True,
        axis_index_groups=teams if len(teams) > 1 else None,
    )  # fmt: skip
    return checkpoint_name(exchanged, EXCHANGED).reshape(shape)


def _experts(
    buffers: jax.Array,
    parameters: ExpertParameters,
    activation: Callable[..., jax.Array],
    dropout: Callable[[jax.Array], jax.Array],
) -> jax.Array:
    """[hosts, E_local, G_local * C, D] -> the same, each row through its expert's two layers."""
    hosts, experts, rows, dim = buffers.shape
    wi, wo = jax.tree.map(lambda w: _varying(w, (DATA,)), (parameters.wi, parameters.wo))
    if hosts < lax.axis_size(EXPERT):
        wi, wo = jax.tree.map(
            lambda w: lax.dynamic_slice_in_dim(w, _index(EXPERT) % hosts, 1), (wi, wo)
        )
    # One matrix of rows an expert: a fourth axis would cost the TPU transpositions between the
    # matrix products. With one expert a device this moves nothing.
    x = _varying(buffers, (MODEL,))
    x = jnp.swapaxes(x, 0, 1).reshape(experts, hosts * rows, dim)
    hidden = activation(*[_matmul(x, w) for w in wi])
    # F is split over the model axis, so each device has a part of the sum over F.
    y = _sum(_matmul(dropout(hidden), wo), (MODEL,))
    return jnp.swapaxes(y.reshape(experts, hosts, rows, dim), 0, 1)


def _matmul(x: jax.Array, w: jax.Array) -> jax.Array:
    """[E_local, rows, D] x [E_local, D, F] -> [E_local, rows, F]."""
    if x.shape[0] == 1:  # a batch axis of 1 makes the TPU copy weights into another layout
        return (x[0] @ w[0])[None]
    return _few_rows_matmul(x, w) if platform() == "cpu" else jnp.einsum("erd,edf->erf", x, w)


@jax.custom_vjp
def _few_rows_matmul(x: jax.Array, w: jax.Array) -> jax.Array:
    """As `_matmul`, with a gradient for a CPU."""
    return jnp.einsum("erd,edf->erf", x, w)


def _few_rows_matmul_fwd(x: jax.Array, w: jax.Array):
    return _few_rows_matmul(x, w), (x, w)


def _few_rows_matmul_bwd(residuals: tuple[jax.Array, jax.Array], cotangent: jax.Array):
    x, w = residuals
    # The weights first: few rows times a transposed matrix takes a CPU five times as long. Behind
    # a barrier: else the compiler would turn the product round again to save the transposition.
    by_x = lax.optimization_barrier(jnp.einsum("edf,erf->edr", w, cotangent))
    return jnp.swapaxes(by_x, 1, 2), jnp.einsum("erd,erf->edf", x, cotangent)


_few_rows_matmul.defvjp(_few_rows_matmul_fwd, _few_rows_matmul_bwd)


def _expert_dropout(
    key: jax.Array | None, number: jax.Array, config: SwitchConfig, groups: int, slots: int
) -> Callable[[jax.Array], jax.Array]:
    """Dropout for hidden activations [E_local, hosts * G_local * C, F_local].

    Drawn for each expert, group and all of F, then cut to this device's F: the same on any mesh.
    """
    rate = config.expert_dropout
    if key is None or rate == 0:
        return lambda hidden: hidden
    layer_key = jax.random.fold_in(key, ~number)  # the model takes those of the numbers themselves

    def dropout(hidden: jax.Array) -> jax.Array:
        experts, _, features = hidden.shape
        hosts, model_ways = _hosts(config), lax.axis_size(MODEL)
        here = _index(EXPERT)
        expert_ids = here % hosts * experts + jnp.arange(experts)
        # Rows came from the hosts that share out the experts with this one.
        first = _index(DATA) * lax.axis_size(EXPERT) + here // hosts * hosts
        source_groups = first * groups + jnp.arange(hosts * groups)

        def keep(expert: jax.Array, group: jax.Array) -> jax.Array:
            noise_key = jax.random.fold_in(jax.random.fold_in(layer_key, group), expert)
            mask = jax.random.bernoulli(noise_key, 1 - rate, (slots, features * model_ways))
            start = _index(MODEL) * features
            return lax.dynamic_slice_in_dim(mask, start, features, axis=1)

        over_groups = jax.vmap(keep, in_axes=(None, 0))
        mask = jax.vmap(over_groups, in_axes=(0, None))(expert_ids, source_groups)
        return jnp.where(mask.reshape(hidden.shape), hidden / (1 - rate), 0).astype(hidden.dtype)

    return dropout
