"""How the devices are laid out."""

import dataclasses
from typing import Annotated

from switch_jax.utils.fields import Checked, Range

Ways = Annotated[int, Range(1, 2**20)]


@dataclasses.dataclass(frozen=True)
class MeshConfig(Checked):
    """How many ways each kind of parallelism splits the work.

    Attributes:
      data: number of copies of the model, each with its part of the batch; None = all remaining
        devices.
      expert: ways in which the experts are split; the batch is split over these devices too.
      model: ways in which mlp_dim, the heads, the vocabulary and the width of activations,
        embed_dim, are split.
      fully_sharded_weights: split the weights, their gradients and the optimiser's state over data
        and expert too (experts' own over data); on several slices over expert alone. Each layer's
        weights are gathered when it computes, in the activations' dtype. With a remat_policy other
        than 'none' they are gathered again in its backward pass; with 'none' those of all layers
        are kept until then.
    """

    data: Ways | None = None
    expert: Ways = 1
    model: Ways = 1
    fully_sharded_weights: bool = False
