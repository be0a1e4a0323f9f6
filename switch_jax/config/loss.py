"""What is minimised."""

import dataclasses
from typing import Annotated

from switch_jax.utils.fields import Checked, Coefficient, Inherited, With


@dataclasses.dataclass(frozen=True)
class LossConfig(Checked):
    """Coefficients of what is added to the cross-entropy.

    Attributes:
      z_loss: coefficient of the mean square of the logsumexp of the output logits (T5: 1e-4).
      aux_loss_factor: coefficient of the load-balancing loss of each router (alpha of Eq. 4); the
        losses of all routers are summed. Only with `ModelConfig.load_balance` = 'loss'.
      router_z_loss_factor: coefficient of the z-loss of each router's logits, `moe.router_z_loss`
        (ST-MoE uses 1e-3; not in the paper, so 0).
    """

    z_loss: Coefficient = 1e-4
    aux_loss_factor: Annotated[Coefficient, With("load_balance", ("loss",)), Inherited()] = 1e-2
    router_z_loss_factor: Annotated[Coefficient, Inherited()] = 0.0
