"""One step of evaluation, as a pure function of parameters and batch."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from switch_jax.config import ModelConfig
from switch_jax.model.transformer import Output
from switch_jax.train_step.cross_entropy import TokenSums, token_sums
from switch_jax.train_step.loss import forward, num_real_tokens
from switch_jax.train_step.microbatches import Batch, split


class RoutedTokens(NamedTuple):
    """What the routers of all layers do with the tokens of a batch; float32 scalars.

    `tokens` counts a real token once for each router that it meets; `dropped` are those of them
    that have no slot in any of their experts.
    """

    tokens: Any
    dropped: Any


class EvalSums(NamedTuple):
    """Sums of a batch: over all target tokens, over those with content, and over the routers.

    `routed` is None in a dense model.
    """

    targets: TokenSums
    content: TokenSums
    routed: RoutedTokens | None


def make_eval_step(
    model: ModelConfig, is_content: np.ndarray, num_microbatches: int = 1
) -> Callable[[Any, Batch], EvalSums]:
    """Teacher-forced evaluation of one batch: parameters, batch -> sums over its target tokens.

    `is_content` is bool [V'], V' <= V, by token id; ids beyond V' are never a target.
    """

    def of_part(parameters: Any, batch: Batch) -> EvalSums:
        output, all_targets = forward(model, parameters, batch)
        targets = batch[model.stacks[-1].target_tokens]
        weights = batch[model.stacks[-1].loss_weights] * jnp.asarray(is_content)[targets]
        content = token_sums(output.logits, targets, weights)
        return EvalSums(all_targets, content, _routed(model, output, batch))

    def eval_step(parameters: Any, batch: Batch) -> EvalSums:
        parts = split([model], batch, num_microbatches)
        sums = jax.lax.map(functools.partial(of_part, parameters), parts)
        return jax.tree.map(lambda x: x.sum(axis=0), sums)  # [parts] -> scalar

    return of_part if num_microbatches == 1 else eval_step


def _routed(model: ModelConfig, output: Output, batch: Batch) -> RoutedTokens | None:
    """Of the routers of all stacks."""
    routed = [
        (output.routers[stack.name], num_real_tokens(batch[stack.segment_ids]))
        for stack in model.stacks
        if stack.name in output.routers
    ]
    if not routed:
        return None
    return RoutedTokens(
        tokens=sum(router.dropped.size * tokens for router, tokens in routed),  # dropped: [N]
        dropped=sum(router.dropped.sum() * tokens for router, tokens in routed),
    )
