"""How the devices are laid out."""

import dataclasses

from switch_jax.fields import Range, check_fields


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """How many ways each kind of parallelism splits the work.

    Attributes:
      data: copies of everything, each with its part of the batch; None = all remaining devices.
      expert: ways in which the experts are split; the batch is split over these devices too.
      model: ways in which mlp_dim, the heads and the vocabulary are split.
      fully_sharded_weights: split the weights, their gradients and the optimiser's state over data
        and expert too (experts' own over data). Each layer's weights are gathered when it computes,
        in the activations' dtype. With a remat_policy other than 'none' they are gathered again in
        its backward pass; with 'none' those of all layers are kept until then.
    """

    data: int | None = None
    expert: int = 1
    model: int = 1
    fully_sharded_weights: bool = False

    def __post_init__(self) -> None:
        """Raises FieldError on numbers of devices that no machine has."""
        ways = Range(1, 2**20)
        check_fields(self, data=ways, expert=ways, model=ways)
