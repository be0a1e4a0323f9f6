"""What is minimised."""

import dataclasses

from switch_jax.fields import COEFFICIENT, check_fields


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Coefficients of what is added to the cross-entropy.

    Attributes:
      z_loss: of logsumexp^2 of the output logits (T5: 1e-4).
      aux_loss_factor: alpha of Eq. 4, for each router; their losses are summed. Only with
        `ModelConfig.load_balance` = 'loss'.
      router_z_loss_factor: of `moe.router_z_loss` (ST-MoE uses 1e-3; not in the paper, so 0).
    """

    z_loss: float = 1e-4
    aux_loss_factor: float = 1e-2
    router_z_loss_factor: float = 0.0

    def __post_init__(self) -> None:
        """Raises FieldError on values that are no coefficients."""
        check_fields(
            self, z_loss=COEFFICIENT, aux_loss_factor=COEFFICIENT, router_z_loss_factor=COEFFICIENT
        )
