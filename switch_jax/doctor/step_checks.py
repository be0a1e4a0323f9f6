"""Checks a small model on all devices of a mesh: a layer, a step, collectives, a checkpoint."""

import contextlib
import functools
import math
import statistics
import time
import uuid
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from switch_jax.checkpointing import Checkpoints
from switch_jax.config import Config, DataConfig, LossConfig, MeshConfig, ModelConfig, RunConfig
from switch_jax.data.packing import Batch, empty_batch, write_row
from switch_jax.doctor.checks import Failed, check_close, data_mesh, local_bytes
from switch_jax.hardware.tpus import slice_from_devices
from switch_jax.moe import LayerKey, SwitchWeights, Tokens, make_router, switch_ffn
from switch_jax.optim.optimizer import make_optimizer
from switch_jax.partitioning.mesh import AXES, EXPERT, MODEL, batch_shards, make_mesh, replicated
from switch_jax.partitioning.placing import put_batch
from switch_jax.planning.collective_costs import seconds_of
from switch_jax.run_folder import RunFolder
from switch_jax.runtime.multihost import gather, is_first
from switch_jax.train_step.lowering import lower_train_step, put_signals
from switch_jax.train_step.state import abstract_state, init_state, state_of_step
from switch_jax.train_step.step import Metrics

# The first step in float32 on any mesh, as `python -m tools.doctor_reference` prints it.
REFERENCE = {
    "loss": 8.007308006286621,
    "gradient_norm": 6.067276477813721,
    "embedding_gradient_norm": 0.22563005983829498,
}
# CPUs may add in another order. Others round the factors of a product, TPUs to bfloat16 and GPUs to
# TF32; on a CPU bfloat16 activations change the loss by 1.3e-4, the norm of the gradient by 9e-4.
CPU_TOLERANCE, TOLERANCE = 1e-4, 1e-2
ROWS, INPUTS, TARGETS = 2, 64, 32  # rows that are repeated, until each device has some
EXPERTS = HEADS = 8
SLOW = 0.5  # a collective fails below this share of the bandwidth that `plan` assumes
_EXCHANGES: dict[str, Any] = {
    "all-to-all": functools.partial(lax.all_to_all, split_axis=1, concat_axis=1, tiled=True),
    "all-reduce": lax.psum,
}


def small_config(mesh: Mesh, microbatches: int = 1) -> Config:
    """Makes a model whose groups are rows, so that repeated rows do not change the loss.

    With several microbatches the weights are fully sharded: each microbatch gathers them, and adds
    gradients to shards, also those of the embedding, whose vocabulary shares its mesh axes with the
    batch.
    """
    model = ModelConfig(
        num_embeddings=512,
        embed_dim=128,
        mlp_dim=256,
        head_dim=32,
        num_heads=HEADS,
        num_encoder_layers=2,
        num_decoder_layers=2,
        num_experts=EXPERTS,
        jitter_noise=0.0,  # which differs from row to row
        group_size=INPUTS,
        decoder_group_size=TARGETS,
        activation_dtype="float32",
    )
    rows = ROWS * batch_shards(mesh.shape)
    return Config(
        run=RunConfig("doctor", 1, rows, num_microbatches=microbatches),
        model=model,
        data=DataConfig("none", {"inputs": INPUTS, "targets": TARGETS}),
        mesh=MeshConfig(**mesh.shape, fully_sharded_weights=microbatches > 1),
        loss=LossConfig(aux_loss_factor=0.01, router_z_loss_factor=0.001),
    )


def repeated_batch(config: Config) -> Batch:
    """Makes a batch of two random rows, repeated; one is full, one has 5 tokens of padding."""
    rng = np.random.default_rng(0)
    inputs, targets = (rng.integers(2, 512, (ROWS, length)) for length in (INPUTS, TARGETS))
    full = {"inputs": inputs[0], "targets": targets[0]}
    padded = {"inputs": inputs[1, :-5], "targets": targets[1, :-5]}
    stacks = config.model.stacks
    batch = empty_batch(stacks, config.run.batch_size, config.data.task_feature_lengths)
    for row in range(config.run.batch_size):
        write_row(stacks, batch, row, [padded if row % ROWS else full])
    return batch


def switch_layer(mesh: Mesh) -> str:
    """Compares a layer's output, losses and gradients on the mesh with those of one device."""
    experts = mesh.shape[EXPERT] * -(-8 // mesh.shape[EXPERT])  # at least 8
    rows, length, dim = 2 * batch_shards(mesh.shape), 64, 128 * mesh.shape[MODEL]
    changes = {"num_experts": experts, "jitter_noise": 0.01, "group_size": length}
    config = small_config(mesh).replace("model", **changes).model
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Any:
        return (rng.normal(size=shape) / shape[-2] ** 0.5).astype(np.float32)

    x = normal(rows, length, dim) * 8
    segments: Any = (rng.random((rows, length)) < 0.9).astype(np.int32)
    router = make_router(config, config.stacks[0])
    kernel, wi = normal(dim, experts), normal(experts, dim, dim)
    weights = SwitchWeights(kernel, (wi,), normal(experts, dim, dim))

    def loss(x: Any, weights: SwitchWeights) -> Any:
        tokens, key = Tokens(jnp.zeros_like(segments), segments), LayerKey(jax.random.key(0))
        y, statistics = switch_ffn(x, tokens, weights, router, jax.nn.relu, training=True, key=key)
        whole = jnp.mean(jnp.square(y)) + statistics.load_balance_loss + statistics.z_loss
        return whole, (y, statistics.load)

    results = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    found = jax.jit(results, out_shardings=replicated(mesh))(x, weights)
    found = jax.tree.map(lambda array: np.asarray(array.addressable_data(0)), found)
    with jax.set_mesh(data_mesh(mesh.local_devices[:1])):
        expected = jax.jit(results)(x, weights)
    tolerance = 1e-5 if mesh.devices.flat[0].platform == "cpu" else 2e-2  # products in bfloat16
    return check_close(found, expected, tolerance, "one device")


def step(mesh: Mesh, microbatches: int = 1) -> str:
    """Compares loss and gradients of a step with REFERENCE, and the bits after doing it twice.

    The norm of the embedding's gradient is compared by itself: half of it would change the norm of
    all gradients by 0.05 % only.
    """
    (found, first), (_, second) = first_steps(mesh, microbatches)
    tolerance = CPU_TOLERANCE if mesh.devices.flat[0].platform == "cpu" else TOLERANCE
    numbers = (
        "loss {loss:.4f}, norm of the gradient {gradient_norm:.4f}, of the embedding's "
        "{embedding_gradient_norm:.4f}: this"
    )
    against = (
        "the shipped {loss:.4f}, {gradient_norm:.4f} and {embedding_gradient_norm:.4f}"
    ).format(**REFERENCE)
    text = check_close(found, REFERENCE, tolerance, against, numbers.format(**found))
    differing = sum(a != b for a, b in zip(first, second, strict=True))
    if differing:
        raise Failed(f"done twice, it gives other bits in {differing} of {len(first)} arrays")
    return f"{text}; the same bits twice"


def first_steps(mesh: Mesh, microbatches: int = 1) -> list[tuple[dict[str, float], list[bytes]]]:
    """Does the first step twice; returns its loss and norms, and the bits of the parameters.

    Expert and model axes that experts and heads do not divide over are made shorter.
    """
    expert, model = math.gcd(mesh.shape[EXPERT], EXPERTS), math.gcd(mesh.shape[MODEL], HEADS)
    if (expert, model) != (mesh.shape[EXPERT], mesh.shape[MODEL]):
        sizes = MeshConfig(mesh.size // (expert * model), expert, model)
        mesh = make_mesh(sizes, list(mesh.devices.flat))
    config, results = small_config(mesh, microbatches), []
    with jax.set_mesh(mesh):
        shapes = abstract_state(config, mesh)
        draw = functools.partial(init_state, config, make_optimizer(config))
        init = jax.jit(draw, out_shardings=jax.tree.map(lambda s: s.sharding, shapes))
        on_gpus = mesh.devices.flat[0].platform == "gpu"  # where sums have no fixed order else
        options: Any = {"xla_gpu_deterministic_ops": True} if on_gpus else {}
        compiled = lower_train_step(config, mesh, shapes).compile(options)
        batch = put_batch(repeated_batch(config), mesh)
        signals = put_signals(mesh)
        for _ in range(2):
            state = state_of_step(config, init(jax.random.key(0)))
            state, metrics = compiled(state, batch, signals)
            results.append((reference_numbers(metrics), local_bytes(state.parameters)))
    return results


def reference_numbers(metrics: Metrics) -> dict[str, float]:
    """Returns the numbers of a step that are in REFERENCE."""
    return {
        "loss": float(metrics.loss),
        "gradient_norm": float(metrics.gradient_norm),
        "embedding_gradient_norm": float(metrics.gradient_norms["embedding"]),
    }


def exchanges(mesh: Mesh, axis: str) -> str:
    """Measures the collectives along an axis; Failed below half of what `plan` assumes."""
    devices, slices = mesh.shape[axis], slice_from_devices(mesh.devices.flat)
    rows = -(-(2**14 if mesh.devices.flat[0].platform == "cpu" else 2**17) // devices) * devices
    size = rows * 128 * 4  # 8 or 64 MiB of float32 on each device
    indices = np.arange(mesh.size).reshape(mesh.devices.shape)
    group = np.moveaxis(indices, AXES.index(axis), -1).reshape(-1, devices)[0].tolist()
    spec = PartitionSpec(AXES)
    make = functools.partial(jnp.ones, (mesh.size, rows, 128))
    x, found, is_slow = jax.jit(make, out_shardings=NamedSharding(mesh, spec))(), [], False
    for op, local in _EXCHANGES.items():
        local = functools.partial(local, axis_name=axis)
        run = jax.jit(jax.shard_map(local, in_specs=spec, out_specs=spec, check_vma=False))
        times = []
        for _ in range(12):  # the first compiles, the second warms up
            start = time.perf_counter()
            jax.block_until_ready(run(x))
            times.append(time.perf_counter() - start)
        seconds, beside = statistics.median(times[2:]), ""
        if slices is not None:
            share = seconds_of(op, size, group, mesh, slices) / seconds
            beside, is_slow = f", {share:.0%} of what plan assumes", is_slow or share < SLOW
        found.append(f"{op} {size / seconds / 1e9:.3g} GB/s a device{beside}")
    if is_slow:
        raise Failed("; ".join(found))
    return "; ".join(found)


def checkpoint(mesh: Mesh, model_dir: epath.Path) -> str:
    """Saves 1 MiB a device beside MODEL_DIR, restores it, and compares the bits."""
    # A name that no run has, since the folder is removed; the first process draws it for all.
    folder = model_dir.parent / f"{model_dir.name}_doctor_{gather(uuid.uuid4().hex[:8])[0]}"
    sharding = NamedSharding(mesh, PartitionSpec(AXES))
    shape = jax.ShapeDtypeStruct((mesh.size, 256, 1024), np.uint32, sharding=sharding)
    key = jax.random.key(0)
    state = jax.jit(lambda: jax.random.bits(key, shape.shape), out_shardings=sharding)()
    try:
        with contextlib.closing(Checkpoints(RunFolder(folder), 1)) as checkpoints:
            checkpoints.save(1, {"bits": state}, {}, None)
            checkpoints.wait()
            restored = checkpoints.restore({"bits": shape})
    finally:
        gather(None)  # all processes have read it
        if is_first():
            folder.rmtree(missing_ok=True)
    if restored is None or local_bytes(restored.state) != local_bytes(state):
        raise Failed(f"in {folder.parent} what was read is not what was written")
    return f"{mesh.size} MiB beside {model_dir} come back bit for bit"
