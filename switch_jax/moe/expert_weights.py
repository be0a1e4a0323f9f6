"""The weights of a Switch layer: in which dtype they compute, and how they lie on the mesh."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.sharding import PartitionSpec

from switch_jax.partitioning.mesh import EXPERT, MODEL
from switch_jax.partitioning.rules import splits_experts


class SwitchWeights(NamedTuple):
    """The weights of a Switch layer, or one value, such as a partition spec, for each of them.

    Attributes:
      router: [D, E] float32 (section 2.4), or bfloat16 (Table 2); the router computes in it.
      wi: one or two (gated) of [E, D, F].
      wo: [E, F, D], or with another width than D, as in attention.
      router_bias: [E] float32, added to standardised logits when experts are chosen, to even out
        their load; None = nothing is added.
    """

    router: Any
    wi: tuple[Any, ...]
    wo: Any
    router_bias: Any = None

    @property
    def num_experts(self) -> int:
        """E, or within `jax.shard_map` the number of experts on this device."""
        return self.wo.shape[0]


def cast(weights: SwitchWeights, dtype: jnp.dtype) -> SwitchWeights:
    """The experts' matrices in the activations' dtype; the router keeps its own."""
    return weights._replace(
        wi=tuple(w.astype(dtype) for w in weights.wi),
        wo=weights.wo.astype(dtype),
    )


def partition_specs(weights: SwitchWeights, mesh_shape: Mapping[str, int]) -> SwitchWeights:
    """Experts over the expert axis, F over the model axis; each device has the whole router."""
    experts = expert_axis(weights.num_experts, mesh_shape)
    return SwitchWeights(
        router=PartitionSpec(),  # [D, E]
        wi=(PartitionSpec(experts, None, MODEL),) * len(weights.wi),  # [E, D, F]
        wo=PartitionSpec(experts, MODEL, None),  # [E, F, D]
        router_bias=None if weights.router_bias is None else PartitionSpec(),  # [E]
    )


def expert_axis(num_experts: int, mesh_shape: Mapping[str, int]) -> str | None:
    """The mesh axis that experts are split over; None where each device has all of them."""
    splits = mesh_shape[EXPERT] > 1 and splits_experts(num_experts, mesh_shape)
    return EXPERT if splits else None
