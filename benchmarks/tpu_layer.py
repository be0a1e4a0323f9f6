"""Cycles of one Switch feed-forward layer on TPU, from the TPU's own compiler.

    python benchmarks/tpu_layer.py [--topology v5p-256] [--experts 128] [--tokens 8192]
    python benchmarks/tpu_layer.py --curve          # 8 experts on 8 chips to 2048 on 2048
    python benchmarks/tpu_layer.py --routing        # other ways to choose experts
    python benchmarks/tpu_layer.py --block          # as in a model: norms, a dense layer before it

Forward and backward pass of a layer alone: d_model 768, gated GELU with d_ff 2048, bfloat16, one
routing group a chip, capacity factor 1.25, an expert a chip, gradients of weights and input, the
load-balancing loss, no optimiser. The floor is the dense layer on as many rows as the experts have
slots. Both have a loss of their own, the mean of the squared output. --block is of the sizes of
Switch-Base instead: ReLU, d_ff 3072, 16 rows of 512 tokens a chip in groups of 2048, jitter.
"""

import argparse
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from switch_jax.config import MeshConfig, ModelConfig
from switch_jax.hardware.tpus import Slice, parse_slice
from switch_jax.model.activations import gated_gelu
from switch_jax.model.feed_forward import DenseFeedForward, SwitchFeedForward
from switch_jax.model.layer_context import LayerContext
from switch_jax.model.layers import RMSNorm
from switch_jax.moe import (
    LayerKey,
    SwitchWeights,
    Tokens,
    expert_capacity,
    make_router,
    switch_ffn,
)
from switch_jax.partitioning.compiler_options import compiler_options
from switch_jax.partitioning.mesh import BATCH, EXPERT, make_mesh
from switch_jax.planning.compiler import OutOfMemory, compile_program, devices
from switch_jax.planning.plan import Costs, costs_of
from switch_jax.utils.errors import UserError

D, F = 768, 2048
CURVE = (
    "v5p:2x2x2 v5p:2x2x4 v5p:2x4x4 v5p:4x4x4 v5p:4x4x8 v5p:4x8x8 v5p:8x8x8 v5p:8x8x16 v5p:8x16x16"
).split()  # fmt: skip


# What --routing compares.
ROUTING = {
    "one expert": {},
    "one, drawn": {"router_policy": "sample"},
    "one, input dropout": {"router_policy": "input_dropout", "jitter_noise": 0.0},
    "one, balanced by a bias": {"load_balance": "bias"},
    "one, four rounds": {"ntlb_rounds": 4},
    "one, slots by gate": {"encoder_router_type": "batch_prioritized"},
    "experts choose": {"encoder_router_type": "experts_choose"},
    "two experts": {"num_selected_experts": 2},
    "two, the second at random": {"num_selected_experts": 2, "second_expert_policy": "random"},
}


def model_config(experts: int, tokens: int, factor: float, **changes: Any) -> ModelConfig:
    """A model with one such Switch layer in each stack."""
    return ModelConfig(
        num_embeddings=128,
        embed_dim=D,
        mlp_dim=F,
        head_dim=64,
        num_heads=12,
        num_encoder_layers=1,
        num_decoder_layers=1,
        sparse_step=1,
        num_experts=experts,
        group_size=tokens,
        train_expert_capacity_factor=factor,
        min_expert_capacity=1,
        **changes,
    )


def switch_costs(hardware: Slice, config: ModelConfig) -> Costs:
    """Of the Switch layer, each chip with one group of tokens."""
    mesh = make_mesh(MeshConfig(1, hardware.devices, 1), devices(hardware))
    experts, tokens, batch = config.num_experts, config.group_size, hardware.devices
    x = _abstract(mesh, (batch, tokens, D), jnp.bfloat16, PartitionSpec(BATCH))
    over_experts = PartitionSpec(EXPERT if experts >= hardware.devices else None)
    kernel, bias = _abstract(mesh, (D, experts), jnp.float32, PartitionSpec()), None
    if config.load_balance == "bias":
        bias = _abstract(mesh, (experts,), jnp.float32, PartitionSpec())
    parameters = SwitchWeights(
        router=kernel,
        wi=(_abstract(mesh, (experts, D, F), jnp.bfloat16, over_experts),) * 2,
        wo=_abstract(mesh, (experts, F, D), jnp.bfloat16, over_experts),
        router_bias=bias,
    )

    router = make_router(config, config.stacks[0])

    def loss(x, parameters):
        key = LayerKey(jax.random.key(0))
        y, statistics = switch_ffn(
            x, text_tokens(x), parameters, router, gated_gelu, training=True, key=key
        )
        return jnp.mean(jnp.square(y.astype(jnp.float32))) + 0.01 * statistics.load_balance_loss

    return _costs(loss, mesh, hardware, x, parameters)


def text_tokens(x) -> Tokens:
    """Of one text without padding in each row of [B, L, D]."""
    ids = jnp.zeros(x.shape[:2], jnp.int32)
    return Tokens(ids, ids + 1)


def dense_costs(hardware: Slice, rows: int) -> Costs:
    """Of the dense layer on that many rows a chip."""
    mesh = make_mesh(MeshConfig(hardware.devices, 1, 1), devices(hardware))
    x = _abstract(mesh, (hardware.devices, rows, D), jnp.bfloat16, PartitionSpec(BATCH))
    # One matrix a device, as of an expert: no gradient is summed over devices.
    each = PartitionSpec(BATCH)
    wi = (_abstract(mesh, (hardware.devices, D, F), jnp.bfloat16, each),) * 2
    wo = _abstract(mesh, (hardware.devices, F, D), jnp.bfloat16, each)

    @functools.partial(jax.shard_map, mesh=mesh, in_specs=each, out_specs=each)
    def layer(x, wi, wo):
        return (gated_gelu(x[0] @ wi[0][0], x[0] @ wi[1][0]) @ wo[0])[None]

    def loss(x, weights):
        return jnp.mean(jnp.square(layer(x, *weights).astype(jnp.float32)))

    return _costs(loss, mesh, hardware, x, (wi, wo))


class Block(nnx.Module):
    """Norm, dense layer, norm, Switch layer, norm; with residuals."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs) -> None:
        self.norms = nnx.List([RMSNorm(config) for _ in range(3)])
        self.dense = DenseFeedForward(config, rngs)
        self.switch = SwitchFeedForward(config, config.stacks[0], rngs=rngs)

    def __call__(self, x, key):
        tokens, context = text_tokens(x), LayerContext(LayerKey(key))
        x += self.dense(self.norms[0](x), tokens, context)[0]
        y, (statistics, _) = self.switch(self.norms[1](x), tokens, context)
        return self.norms[2](x + y), statistics


def block_costs(hardware: Slice, experts: int) -> Costs:
    """Of a `Block`, its matrices in bfloat16."""
    mesh = make_mesh(MeshConfig(1, hardware.devices, 1), devices(hardware))
    config = ModelConfig(
        num_embeddings=128,
        embed_dim=D,
        mlp_dim=3072,
        head_dim=64,
        num_heads=12,
        num_encoder_layers=2,
        num_decoder_layers=2,
        num_experts=experts,
        group_size=2048,
    )
    graph, state = nnx.split(nnx.eval_shape(lambda: Block(config, nnx.Rngs(0))))

    def abstract(p):
        cast = len(p.shape) > 1 and "router" not in p.axes
        spec = PartitionSpec(EXPERT) if "expert" in p.axes else PartitionSpec()
        return p.replace(_abstract(mesh, p.shape, jnp.bfloat16 if cast else jnp.float32, spec))

    weights = jax.tree.map(abstract, state, is_leaf=lambda p: isinstance(p, nnx.Variable))
    rows = (16 * hardware.devices, 512, D)
    x = _abstract(mesh, rows, jnp.bfloat16, PartitionSpec(BATCH))

    def loss(x, weights):
        y, statistics = nnx.merge(graph, weights)(x, jax.random.key(0))
        return jnp.mean(jnp.square(y.astype(jnp.float32))) + 0.01 * statistics.load_balance_loss

    return _costs(loss, mesh, hardware, x, weights)


def _abstract(mesh: Mesh, shape: tuple[int, ...], dtype, spec: PartitionSpec):
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))


def _costs(loss, mesh: Mesh, hardware: Slice, x, weights) -> Costs:
    with jax.set_mesh(mesh):
        gradients = jax.jit(jax.grad(loss, argnums=(0, 1)), compiler_options=compiler_options())
        compiled = compile_program(gradients.lower(x, weights))
    if isinstance(compiled, OutOfMemory):
        raise MemoryError(compiled.message)
    return costs_of(compiled, mesh, hardware)


def row(topology: str, config: ModelConfig) -> str:
    """A row of the table."""
    hardware = parse_slice(topology)
    experts, tokens = config.num_experts, config.group_size
    slots = expert_capacity(tokens, experts, config.train_expert_capacity_factor) * experts
    switch = switch_costs(hardware, config)
    floor = dense_costs(hardware, slots)
    return (
        "| "
        + " | ".join(
            (
                f"{hardware.name} | {experts} | {tokens} | {slots}",
                f"{switch.estimated_cycles - switch.scheduled_cycles:,}",
                f"{switch.estimated_cycles:,}",
                f"{floor.estimated_cycles:,}",
                f"{switch.estimated_cycles / floor.estimated_cycles:.2f}",
                waiting(switch),
                parts(switch),
            )
        )
        + " |"
    )


def print_routing(topology: str, config: ModelConfig) -> None:
    """A table with a row for each of ROUTING."""
    print("| routing | cycles | ratio | ms of waiting | parts |\n|---|---|---|---|---|")
    first = None
    for label, options in ROUTING.items():
        routing = dataclasses.replace(config, **{"jitter_noise": 0.01, **options})
        costs = switch_costs(parse_slice(topology), routing)
        first = first or costs
        ratio = costs.estimated_cycles / first.estimated_cycles
        print(
            f"| {label} | {costs.estimated_cycles:,} | {ratio:.2f} | {waiting(costs)} "
            f"| {parts(costs)} |",
            flush=True,
        )


def waiting(costs: Costs) -> str:
    """Milliseconds of waiting for exchanges, of those that exchanges take."""
    return f"{costs.waiting_seconds * 1e3:.3f} of {costs.collective_seconds * 1e3:.3f}"


def parts(costs: Costs) -> str:
    return ", ".join(f"{part} {cycles:,}" for part, cycles in costs.cycles_by_part.items())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--topology", default="v5p-256")
    parser.add_argument("--experts", type=int, help="default: one a chip")
    parser.add_argument("--tokens", type=int, default=8192, help="a chip")
    parser.add_argument("--factor", type=float, default=1.25, help="the capacity factor")
    parser.add_argument("--jitter", type=float, default=0.0)
    parser.add_argument("--curve", action="store_true", help="from 8 chips to 2048, an expert each")
    parser.add_argument("--routing", action="store_true", help="other ways to choose experts")
    parser.add_argument("--block", action="store_true", help="with norms, and a dense layer before")
    args = parser.parse_args()
    if args.block:
        hardware = parse_slice(args.topology)
        costs = block_costs(hardware, args.experts or hardware.devices)
        print(f"{costs.estimated_cycles:,} cycles: {parts(costs)}")
        return
    if args.routing:
        experts = args.experts or parse_slice(args.topology).devices
        print_routing(args.topology, model_config(experts, args.tokens, args.factor))
        return
    print(
        "| slice | experts | tokens | slots | estimated cycles | with counted ones | floor | ratio "
        "| ms of waiting | parts |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    for topology in CURVE if args.curve else [args.topology]:
        experts = args.experts or parse_slice(topology).devices
        config = model_config(experts, args.tokens, args.factor, jitter_noise=args.jitter)
        print(row(topology, config), flush=True)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(str(error)) from error
