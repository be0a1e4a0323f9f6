"""One step of the optimiser, as a pure function of state and batch."""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from switch_jax.config import Config
from switch_jax.config.stack import StackConfig
from switch_jax.model import bind, logical_axes, model_inputs
from switch_jax.moe import RouterStatistics, join_devices
from switch_jax.optim.apply import Optimizer, sum_of_squares
from switch_jax.train_step.bad_step_guard import judge
from switch_jax.train_step.loss import LossSums, LossWeights, TokenTotals, microbatch_loss
from switch_jax.train_step.microbatches import Batch, accumulate, split
from switch_jax.train_step.norms import Norms
from switch_jax.train_step.state import TrainState


class HostSignals(NamedTuple):
    """What each host brings to a step, int32 [devices] each; or the largest of all, int32 scalars.

    Attributes:
      signal: the one that the host got, see `trainer.signals`; 0 = none.
      no_batch: 1 if the host has no batch, else 0. If any host has none, which then brings padding,
        no host does the step.
    """

    signal: Any
    no_batch: Any


class Metrics(NamedTuple):
    """What a step reports; means over the real tokens of the whole batch, float32.

    Attributes:
      loss: what was minimised: cross-entropy (with a teacher, both kinds mixed), z-loss and the
        losses of the routers.
      cross_entropy: nats per target token.
      soft_cross_entropy: that with the teacher's probabilities at the config's temperature T, nats
        per target token, without the factor T^2; None without a teacher.
      z_loss: already multiplied by its coefficient.
      accuracy: of the teacher-forced predictions.
      load_balance_loss, router_z_loss: summed over Switch layers, without their coefficients.
      gradient_norm: L2, of all gradients together, those of frozen parameters too; not clipped.
      parameter_norm: L2, after the update.
      gradient_norms, parameter_norms, update_norms: L2, by group of parameters.
      loss_limit, gradient_norm_limit: the step is bad above them; infinite where there is no limit.
      skipped: 1 if the step was bad and changed nothing, else 0.
      bad_in_a_row: int32, number of bad steps in a row up to this one.
      updates: int32, number of steps so far that were not bad.
      batch_hash: uint32 of the batch's tokens.
      signals: the largest of all hosts. With `no_batch` the step was not done: the state is
        unchanged, and the other metrics mean nothing.
      routers: of each stack with experts, by router.
      tokens: real tokens of the batch, of all stacks.
    """

    loss: jax.Array
    cross_entropy: jax.Array
    soft_cross_entropy: jax.Array | None
    z_loss: jax.Array
    accuracy: jax.Array
    load_balance_loss: jax.Array
    router_z_loss: jax.Array
    gradient_norm: jax.Array
    parameter_norm: jax.Array
    gradient_norms: dict[str, jax.Array]
    parameter_norms: dict[str, jax.Array]
    update_norms: dict[str, jax.Array]
    loss_limit: jax.Array
    gradient_norm_limit: jax.Array
    skipped: jax.Array
    bad_in_a_row: jax.Array
    updates: jax.Array
    batch_hash: jax.Array
    signals: HostSignals
    routers: dict[str, RouterStatistics]
    tokens: jax.Array


def make_train_step(
    config: Config,
    optimizer: Optimizer,
    shardings: Any = None,
) -> Callable[..., tuple[TrainState, Metrics]]:
    """Builds the function that one `jax.jit` with donated state runs.

    It takes state, batch, `HostSignals` (or None) and the parameters of `config.teacher_model`, if
    any, and gives the new state and the step's metrics.

    The gradients of the microbatches are summed, each normalised by the tokens of the whole batch,
    so, apart from noise, they are those of the one large batch. Noise is drawn from the run's seed,
    the step and the microbatch's index.

    `optimizer` leaves out a bad step itself: choosing between old and new arrays afterwards would
    be one more pass, 5 % of a step of T5-Base on a TPU. `shardings` are of the parameters and their
    gradients; None leaves those to the compiler.
    """
    model, teacher_model = config.model, config.teacher_model
    num_microbatches = config.run.num_microbatches
    axes = logical_axes(model)
    loss_and_sums = functools.partial(microbatch_loss, config)

    def gradient(
        state: TrainState, teacher: Any, totals: TokenTotals, part: Batch, key: jax.Array
    ) -> tuple[Any, LossSums]:
        logits = None
        if teacher_model is not None:  # outside of the gradient, so that nothing is saved for it
            with jax.named_scope("teacher"):
                logits = bind(teacher_model, teacher)(*model_inputs(teacher_model, part)).logits
        gradients, sums = jax.grad(loss_and_sums, has_aux=True)(
            state.parameters, part, totals, state.step, key, logits
        )
        if shardings is not None:
            gradients = jax.lax.with_sharding_constraint(gradients, shardings)
        return gradients, sums

    def train_step(
        state: TrainState,
        batch: Batch,
        signals: HostSignals | None = None,
        teacher: Any = None,
    ) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(config.run.random_seed), state.step)
        totals = TokenTotals.of(model.stacks, batch)
        of_part = functools.partial(gradient, state, teacher, totals)
        if num_microbatches == 1:
            gradients, sums = of_part(batch, key)
        else:
            models = [model] if teacher_model is None else [model, teacher_model]
            parts = split(models, batch, num_microbatches)
            gradients, sums = accumulate(of_part, parts, key)
        with jax.named_scope("optimizer"):
            gradient_norms = Norms.of(jax.tree.map(sum_of_squares, gradients), axes)
            bad, limits, guarded = judge(state.guard, config.guard, sums.loss, gradient_norms.all)
            if signals is None:
                signals = HostSignals(signal=jnp.int32(0), no_batch=jnp.int32(0))
            largest = jax.tree.map(jnp.max, signals)
            done = largest.no_batch == 0
            guarded = jax.tree.map(lambda n, o: jnp.where(done, n, o), guarded, state.guard)
            updated, optimizer_state = optimizer.step(
                gradients, state.optimizer, state.parameters, bad | ~done
            )
            step = state.step + done.astype(jnp.int32)
            new = TrainState(step, updated.parameter, optimizer_state, guarded)
            parameter_norms = Norms.of(updated.square_sum, axes)
            update_norms = Norms.of(updated.update_square_sum, axes)
        metrics = Metrics(
            loss=sums.loss,
            **_loss_metrics(LossWeights.at(state.step, config.loss), sums, totals),
            gradient_norm=gradient_norms.all,
            parameter_norm=parameter_norms.all,
            gradient_norms=gradient_norms.groups,
            parameter_norms=parameter_norms.groups,
            update_norms=update_norms.groups,
            loss_limit=limits[0],
            gradient_norm_limit=limits[1],
            skipped=bad.astype(jnp.float32),
            bad_in_a_row=guarded.in_a_row,
            updates=guarded.good,
            batch_hash=batch_hash(model.stacks, batch),
            signals=largest,
            routers={stack: join_devices(s) for stack, s in sums.routers.items()},
            tokens=functools.reduce(operator.add, totals.read.values()),
        )
        return new, metrics

    return train_step


def batch_hash(stacks: Sequence[StackConfig], batch: Batch) -> jax.Array:
    """uint32 of all tokens and their positions; does not depend on the mesh or the hosts."""
    *others, last = stacks
    names = [*(stack.input_tokens for stack in others), last.target_tokens]

    def mixed(tokens: jax.Array, salt: int) -> jax.Array:
        position = jax.lax.broadcasted_iota(jnp.uint32, tokens.shape, 0) * jnp.uint32(
            tokens.shape[1]
        )
        position += jax.lax.broadcasted_iota(jnp.uint32, tokens.shape, 1)
        # The last steps of MurmurHash3; a plain sum would not change if tokens changed places.
        x = tokens.astype(jnp.uint32) * jnp.uint32(0xCC9E2D51) + position * jnp.uint32(0x1B873593)
        x = (x ^ jnp.uint32(salt)) * jnp.uint32(0x85EBCA6B)
        x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
        return jnp.sum(x ^ (x >> 16), dtype=jnp.uint32)

    hashes = (mixed(batch[name], salt) for salt, name in enumerate(names, start=1))
    return functools.reduce(operator.add, hashes)


def _loss_metrics(
    weights: LossWeights, sums: LossSums, totals: TokenTotals
) -> dict[str, jax.Array]:
    """The parts of the loss, and the accuracy: fields of `Metrics`."""
    routers, zero = sums.routers.values(), jnp.zeros([], jnp.float32)
    soft = sums.soft_cross_entropy
    return {
        "soft_cross_entropy": None if soft is None else soft / totals.targets,
        "cross_entropy": sums.targets.cross_entropy / totals.targets,
        "z_loss": weights.z_loss * sums.targets.z / totals.targets,
        "accuracy": sums.targets.correct / totals.targets,
        "load_balance_loss": sum((r.load_balance_loss.sum() for r in routers), zero),
        "router_z_loss": sum((r.z_loss.sum() for r in routers), zero),
    }
