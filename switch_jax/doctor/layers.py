"""A Switch layer on the whole mesh against one device."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from switch_jax.config import ModelConfig
from switch_jax.doctor.checks import Finding
from switch_jax.doctor.compare import difference, judged, mesh_of
from switch_jax.moe import SwitchWeights, switch_ffn
from switch_jax.partitioning.mesh import EXPERT, MODEL, batch_shards, replicated

ADVICE = (
    "the exchange between devices, or a device, gives wrong numbers: run it on fewer devices "
    "(MESH_EXPERT=1) to find which"
)


def experts_over(devices: int) -> int:
    """At least 8 experts in all, and the same number on each device."""
    return devices * -(-8 // devices)


def switch_layer(mesh: Mesh) -> Finding:
    """Output, losses and all gradients on the mesh, which is that of `jax.set_mesh`.

    Each process computes those of one device by itself.
    """
    experts = experts_over(mesh.shape[EXPERT])
    rows, length, dim, hidden = 2 * batch_shards(mesh.shape), 64, 128, 128 * mesh.shape[MODEL]
    config = ModelConfig(
        128, dim, hidden, 64, 2, 1, 1, num_experts=experts, sparse_step=1, jitter_noise=0.01
    )
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return (rng.normal(size=shape) / shape[-2] ** 0.5).astype(np.float32)

    x = rng.normal(size=(rows, length, dim)).astype(np.float32)
    valid = rng.random((rows, length)) < 0.9
    weights = SwitchWeights(
        normal(dim, experts), (normal(experts, dim, hidden),), normal(experts, hidden, dim)
    )

    def results(x: Any, valid: Any, weights: SwitchWeights) -> Any:
        def loss(x: Any, weights: SwitchWeights) -> Any:
            y, statistics = switch_ffn(
                x, valid, weights, config, jax.nn.relu, group_size=length, capacity_factor=1.25,
                key=jax.random.key(0),
            )  # fmt: skip
            whole = jnp.mean(jnp.square(y)) + statistics.load_balance_loss + statistics.z_loss
            return whole, (y, statistics.load)

        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(x, weights)

    found = jax.jit(results, out_shardings=replicated(mesh))(x, valid, weights)
    found = jax.tree.map(lambda array: np.asarray(array.addressable_data(0)), found)
    with jax.set_mesh(mesh_of(mesh.local_devices[:1])):
        expected = jax.device_get(jax.jit(results)(x, valid, weights))
    tolerance = 1e-5 if mesh.devices.flat[0].platform == "cpu" else 2e-2  # products in bfloat16
    worst = difference(found, expected)
    return judged(worst, tolerance, against="one device", advice=ADVICE)
