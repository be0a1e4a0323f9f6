"""The loss of a microbatch: what a training step minimises, and the sums that it reports."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from switch_jax.config import Config, LossConfig, ModelConfig
from switch_jax.config.stack import StackConfig
from switch_jax.model import bind, model_inputs
from switch_jax.model.transformer import Output
from switch_jax.moe import RouterStatistics, by_join
from switch_jax.train_step.cross_entropy import TokenSums, soft_cross_entropy, token_sums
from switch_jax.train_step.microbatches import Batch
from switch_jax.train_step.unstacked_layers import stack_layers


class LossSums(NamedTuple):
    """Sums over a microbatch; the means in the routers' statistics have its share of the tokens."""

    loss: jax.Array
    targets: TokenSums
    soft_cross_entropy: jax.Array | None
    routers: dict[str, RouterStatistics]


class TokenTotals(NamedTuple):
    """Real tokens of the whole batch, by which each microbatch is normalised; at least 1.

    `targets` are those in the loss, and `read`, by the name of a stack, those that it reads.
    """

    targets: jax.Array
    read: dict[str, jax.Array]

    @classmethod
    def of(cls, stacks: Sequence[StackConfig], batch: Batch) -> "TokenTotals":
        targets = jnp.maximum(batch[stacks[-1].loss_weights].sum(), 1.0)
        read = {s.name: jnp.maximum(num_real_tokens(batch[s.segment_ids]), 1.0) for s in stacks}
        return cls(targets, read)


class LossWeights(NamedTuple):
    """What the losses beside the cross-entropy are multiplied by in a step."""

    z_loss: float | jax.Array
    load_balance_loss: float | jax.Array
    router_z_loss: float | jax.Array

    @classmethod
    def at(cls, step: int | jax.Array, loss: LossConfig) -> "LossWeights":
        """The weights of a step, given as the number of steps before it.

        Training, its metrics and exports have them from here: a weight that is to change over steps
        becomes a function of `step`, which is an int32 scalar in a compiled program.
        """
        return cls(loss.z_loss, loss.aux_loss_factor, loss.router_z_loss_factor)


def microbatch_loss(
    config: Config,
    parameters: Any,
    part: Batch,
    totals: TokenTotals,
    step: jax.Array,
    key: jax.Array,
    teacher_logits: jax.Array | None,
) -> tuple[jax.Array, LossSums]:
    """The part of a microbatch in the loss of the whole batch, whose `totals` are given.

    `step`, an int32 scalar, counts the steps before this one. `key` is for dropout, jitter and
    routing policies; `teacher_logits` are [B, L, V] float32, None without a teacher.
    """
    model, distillation = config.model, config.distillation
    weights = LossWeights.at(step, config.loss)
    output, targets = forward(model, parameters, part, key)
    shares = {
        stack.name: num_real_tokens(part[stack.segment_ids]) / totals.read[stack.name]
        for stack in model.stacks
    }
    routers = {
        stack: by_join(
            lambda join, s, share=shares[stack]: join.of_microbatch(s, share), statistics
        )
        for stack, statistics in output.routers.items()
    }
    cross_entropy, soft = targets.cross_entropy, None
    if teacher_logits is not None:
        f, t = distillation.fraction_soft, distillation.temperature
        of_targets = part[model.stacks[-1].loss_weights]
        soft = soft_cross_entropy(output.logits, teacher_logits, of_targets, t)
        cross_entropy = (1 - f) * cross_entropy + t**2 * f * soft
    value = (cross_entropy + weights.z_loss * targets.z) / totals.targets
    for router in routers.values():
        balance_loss = router.load_balance_loss.sum()
        if model.load_balance == "loss":
            value += weights.load_balance_loss * balance_loss
        if model.load_balance == "bias":  # adds nothing but the gradient of the biases
            value += balance_loss - jax.lax.stop_gradient(balance_loss)
        value += weights.router_z_loss * router.z_loss.sum()
    return value, LossSums(value, targets, soft, routers)


def forward(
    model: ModelConfig, parameters: Any, batch: Batch, key: jax.Array | None = None
) -> tuple[Output, TokenSums]:
    """The output for a batch, and its sums over the target tokens; no key = evaluation."""
    output = bind(model, stack_layers(parameters))(*model_inputs(model, batch), key=key)
    last = model.stacks[-1]
    with jax.named_scope("logits"):
        sums = token_sums(output.logits, batch[last.target_tokens], batch[last.loss_weights])
    return output, sums


def num_real_tokens(segments: jax.Array) -> jax.Array:
    """How many tokens are not padding, a float32 scalar."""
    return jnp.sum(segments != 0, dtype=jnp.float32)
