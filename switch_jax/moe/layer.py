"""The Switch feed-forward layer: router -> slots -> gather -> all-to-all -> experts and back.

Written once, for one device's share of the batch and of the experts, and run under `jax.shard_map`
on whatever mesh there is; a single device is a mesh of one. Shape letters: see `switch_jax.moe`.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec

from switch_jax.errors import UserError
from switch_jax.moe import routing
from switch_jax.moe.dispatch import combine, dispatch, flat_maps
from switch_jax.partitioning.mesh import BATCH, DATA, EXPERT, MODEL, batch_shards, current_mesh

# Rematerialisation saves what carries this name, so that no all-to-all is ever repeated.
EXCHANGED = "exchanged_tokens"
# A TPU lays the last two axes of an array out in tiles of this many rows and lanes.
TILE_ROWS, LANES = 8, 128


@dataclasses.dataclass(frozen=True)
class SwitchConfig:
    """What the routing of a layer depends on beside its weights.

    Attributes:
      num_experts: E.
      group_size: the most tokens routed together; see `routing.group_shape`.
      capacity_factor: see `routing.capacity` (Eq. 3).
      min_capacity: fewest slots of an expert in a group.
      jitter: epsilon of the multiplicative noise uniform(1 - eps, 1 + eps) on the router's input,
        and on nothing else (App. C); 0 = none.
      expert_dropout: rate of dropout on the hidden activation inside the experts (section 2.4).
    """

    num_experts: int
    group_size: int
    capacity_factor: float
    min_capacity: int = 1
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

    # With fewer experts than devices, each device has them all at hand and computes one.
    spread = EXPERT if config.num_experts >= mesh.shape[EXPERT] else None
    wi_spec = PartitionSpec(spread, None, MODEL)
    specs = ExpertParameters(
        router=PartitionSpec(),
        wi=(wi_spec,) * len(parameters.wi),
        wo=PartitionSpec(spread, MODEL, None),
    )
    parameters = ExpertParameters(
        parameters.router.astype(jnp.float32),
        tuple(w.astype(x.dtype) for w in parameters.wi),
        parameters.wo.astype(x.dtype),
    )
    rows = PartitionSpec(BATCH)
    layer = functools.partial(_local_layer, config=config, activation=activation)
    return jax.shard_map(
        layer,
        mesh=mesh,
        in_specs=(rows, rows, specs, PartitionSpec()),
        out_specs=(rows, PartitionSpec()),
        check_vma=True,
    )(x, valid, parameters, key)


def check_divides(
    batch: int, length: int, experts: int, group_size: int, mesh_shape: Mapping[str, int]
) -> None:
    """Raises UserError, with the equation, where experts or groups do not divide over the mesh."""
    ways = mesh_shape[EXPERT]
    if max(experts, ways) % min(experts, ways):
        raise UserError(
            f"{experts} experts do not divide over the expert axis of {ways} devices, nor the "
            f"devices over the experts ({experts} % {ways} = {experts % ways}); set NUM_EXPERTS or "
            "MESH_EXPERT so that one is a multiple of the other"
        )
    groups, tokens = routing.group_shape(batch, length, group_size)
    shards = batch_shards(mesh_shape)
    if groups % shards:
        raise UserError(
            f"group size {group_size} does not fit: a batch of {batch} x {length} tokens makes "
            f"{groups} groups of {tokens}, which do not divide over data x expert = {shards} "
            f"devices; set GROUP_SIZE to {max(1, batch // shards) * length} or less"
        )


def _local_layer(
    x: jax.Array,
    valid: jax.Array,
    parameters: ExpertParameters,
    key: jax.Array | None,
    *,
    config: SwitchConfig,
    activation: Callable[..., jax.Array],
) -> tuple[jax.Array, RouterStatistics]:
    """One device's part: its rows of the batch, its experts, its slice of F."""
    batch, length, dim = x.shape
    groups, tokens = routing.group_shape(batch, length, config.group_size)
    x = x.reshape(groups, tokens, dim)
    valid = valid.reshape(groups, tokens)
    # Numbers of this device's groups in the whole batch: noise follows them, not the device.
    shard = lax.axis_index(DATA) * lax.axis_size(EXPERT) + lax.axis_index(EXPERT)
    group_ids = shard * groups + jnp.arange(groups)
    jitter_key, dropout_key = (None, None) if key is None else jax.random.split(key)

    slots = routing.capacity(
        tokens, config.num_experts, config.capacity_factor, min_capacity=config.min_capacity
    )
    with jax.named_scope("router"):
        logits = _router_logits(x, parameters.router, config.jitter, jitter_key, group_ids)
        assignment = routing.assign(logits, slots, valid)
        statistics = _statistics(assignment, valid, slots)

    with jax.named_scope("dispatch"):
        maps = flat_maps(assignment)
        buffers = dispatch(x.reshape(-1, dim), maps)
        # [hosts, E_local, G_local * C, D]: block i of axis 0 is for the experts of host i.
        hosts = _hosts(config)
        buffers = buffers.reshape(hosts, config.num_experts // hosts, groups * slots, dim)
        buffers = _exchange(buffers)
    with jax.named_scope("experts"):
        dropout = _expert_dropout(dropout_key, config, groups, slots)
        buffers = _experts(buffers, parameters, activation, dropout)
    with jax.named_scope("dispatch"):
        buffers = _exchange(buffers)
        y = combine(buffers.reshape(-1, dim), assignment.gate.reshape(-1), maps)
    return y.reshape(batch, length, dim), statistics


def _router_logits(
    x: jax.Array, router: jax.Array, jitter: float, key: jax.Array | None, group_ids: jax.Array
) -> jax.Array:
    """[G, S, E] float32 logits, computed in float32 whatever the dtype of x (section 2.4)."""
    x = x.astype(jnp.float32)
    if key is not None and jitter > 0:
        x = x * (1 + jitter * _noise(key, group_ids, *x.shape[1:]))
    # Seen as different on each device, so that the gradient is summed over them.
    return _project(x, lax.pcast(router, BATCH, to="varying"))


@jax.custom_vjp
def _project(x: jax.Array, router: jax.Array) -> jax.Array:
    """[G, S, D] x [D, E]; which expert a token gets must not hang on a rounding.

    A TPU multiplies float32 operands as bfloat16, one product for each, unless it is asked for
    more: HIGH is three, an error of 2^-16. Gradients, which become bfloat16 anyway, take one.
    """
    return jnp.einsum("gsd,de->gse", x, router, precision=lax.Precision.HIGH)


def _project_fwd(x: jax.Array, router: jax.Array):
    return _project(x, router), (x, router)


def _project_bwd(residuals: tuple[jax.Array, jax.Array], cotangent: jax.Array):
    x, router = residuals
    by_x = jnp.einsum("gse,de->gsd", cotangent, router)
    return by_x, jnp.einsum("gsd,gse->de", x, cotangent)


_project.defvjp(_project_fwd, _project_bwd)


def _noise(key: jax.Array, group_ids: jax.Array, tokens: int, dim: int) -> jax.Array:
    """[G, S, D] uniform in [-1, 1), a function of the key and the groups' numbers alone.

    A random word for each token and each feature, mixed as hash functions do: a generator that
    makes a word for each element costs a TPU a fifth of the whole layer, and is run three times.
    """
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(group_ids)
    words = jax.vmap(lambda k: jax.random.bits(k, (tokens + dim,)))(keys)
    mixed = words[:, :tokens, None] ^ words[:, None, tokens:]
    mixed = (mixed ^ (mixed >> 16)) * jnp.uint32(0x85EBCA6B)
    mixed = (mixed ^ (mixed >> 13)) * jnp.uint32(0xC2B2AE35)
    # 24 bits, as many as a float32 holds, and none of them a sign.
    return (mixed >> 8).astype(jnp.int32).astype(jnp.float32) * 2.0**-23 - 1


def _statistics(assignment: routing.Assignment, valid: jax.Array, slots: int) -> RouterStatistics:
    """Statistics of the whole batch, from this device's groups and a sum over the batch axes."""
    a = assignment
    real = valid.sum(dtype=jnp.float32)
    sums = RouterStatistics(
        load=a.load.sum(0),
        importance=a.importance.sum(0),
        load_balance_loss=routing.load_balance_loss(a.importance, a.load) * real,
        z_loss=routing.router_z_loss(a.log_normalizer, valid) * real,
        dropped=jnp.sum(valid & (a.slot == slots), dtype=jnp.float32),
        entropy=jnp.sum(jnp.where(valid, a.entropy, 0.0)),
    )
    total = jnp.maximum(lax.psum(real, BATCH), 1.0)
    return jax.tree.map(lambda s: lax.psum(s, BATCH) / total, sums)


def _hosts(config: SwitchConfig) -> int:
    """Neighbours on the expert axis that share out the experts: all, or as many as experts."""
    return min(config.num_experts, lax.axis_size(EXPERT))


def _exchange(buffers: jax.Array) -> jax.Array:
    """Swaps block i of axis 0 with host i; its own inverse.

    Always axis 0 for axis 0: any other pair costs the TPU two transpositions. It keeps rows in
    eights, and would pad, and send, a number of rows that is no multiple of 8: such blocks are
    exchanged as rows of 128 numbers, of which there are more.
    """
    shape = buffers.shape
    if shape[-2] % TILE_ROWS and shape[-1] % LANES == 0:
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
    wi, wo = parameters.wi, parameters.wo
    if hosts < lax.axis_size(EXPERT):
        wi, wo = jax.tree.map(
            lambda w: lax.dynamic_slice_in_dim(w, lax.axis_index(EXPERT) % hosts, 1), (wi, wo)
        )
    # One matrix of rows an expert: a fourth axis would cost the TPU transpositions between the
    # matrix products. With one expert a device this moves nothing.
    x = jnp.swapaxes(buffers, 0, 1).reshape(experts, hosts * rows, dim)
    hidden = activation(*[_matmul(x, w) for w in wi])
    # F is split over the model axis, so each device has a part of the sum over F.
    y = lax.psum(_matmul(dropout(hidden), wo), MODEL)
    return jnp.swapaxes(y.reshape(experts, hosts, rows, dim), 0, 1)


def _matmul(x: jax.Array, w: jax.Array) -> jax.Array:
    """[E_local, rows, D] x [E_local, D, F] -> [E_local, rows, F]."""
    if x.shape[0] == 1:  # a batch axis of 1 makes the TPU copy weights into another layout
        return (x[0] @ w[0])[None]
    return jnp.einsum("erd,edf->erf", x, w)


def _expert_dropout(
    key: jax.Array | None, config: SwitchConfig, groups: int, slots: int
) -> Callable[[jax.Array], jax.Array]:
    """Dropout for hidden activations [E_local, hosts * G_local * C, F_local].

    Drawn for each expert, group and all of F, then cut to this device's F: the same on any mesh.
    """
    rate = config.expert_dropout
    if key is None or rate == 0:
        return lambda hidden: hidden

    def dropout(hidden: jax.Array) -> jax.Array:
        experts, _, features = hidden.shape
        hosts, model_ways = _hosts(config), lax.axis_size(MODEL)
        here = lax.axis_index(EXPERT)
        expert_ids = here % hosts * experts + jnp.arange(experts)
        # Rows came from the hosts that share out the experts with this one.
        first = lax.axis_index(DATA) * lax.axis_size(EXPERT) + here // hosts * hosts
        source_groups = first * groups + jnp.arange(hosts * groups)

        def keep(expert: jax.Array, group: jax.Array) -> jax.Array:
            noise_key = jax.random.fold_in(jax.random.fold_in(key, group), expert)
            mask = jax.random.bernoulli(noise_key, 1 - rate, (slots, features * model_ways))
            start = lax.axis_index(MODEL) * features
            return lax.dynamic_slice_in_dim(mask, start, features, axis=1)

        over_groups = jax.vmap(keep, in_axes=(None, 0))
        mask = jax.vmap(over_groups, in_axes=(0, None))(expert_ids, source_groups)
        return jnp.where(mask.reshape(hidden.shape), hidden / (1 - rate), 0).astype(hidden.dtype)

    return dropout
