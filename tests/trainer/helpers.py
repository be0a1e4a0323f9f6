"""A tiny model, config and batch for the tests of training."""

import dataclasses

import numpy as np
import optax

from switch_jax.config import Config, DataConfig, LossConfig, ModelConfig, RunConfig
from switch_jax.optim.apply import with_step
from switch_jax.train_step.loss import LossWeights

# Its state is the gradients, unrounded by what they are subtracted from.
KEPT = optax.GradientTransformationExtraArgs(
    init=lambda parameters: parameters,
    update=lambda gradients, state, parameters, **unused: (gradients, gradients),
)
GRADIENTS = with_step(KEPT)


def tiny_model(**changes) -> ModelConfig:
    sizes = {
        "num_embeddings": 64, "embed_dim": 16, "mlp_dim": 32, "head_dim": 8, "num_heads": 2,
        "num_encoder_layers": 2, "num_decoder_layers": 2, "num_experts": 4, "group_size": 32,
        "min_expert_capacity": 1, "activation_dtype": "float32",
    }  # fmt: skip
    return ModelConfig(**{**sizes, **changes})


STACKS = tiny_model().stacks  # those of every model, but for what the data do not ask for
ONE_STACK = tiny_model(num_encoder_layers=0).stacks  # those of a decoder alone


def tiny_config(
    model: ModelConfig, batch_size: int = 8, lengths: tuple[int, int] = (16, 8), **parts
) -> Config:
    """A run of a model; `parts`: fields of Config, or of its RunConfig."""
    fields = {f.name for f in dataclasses.fields(RunConfig)} & set(parts)
    run = RunConfig("run", 10, batch_size, **{name: parts.pop(name) for name in fields})
    data = DataConfig("tiny_copy", {"inputs": lengths[0], "targets": lengths[1]})
    return Config(run, model, data, **parts)


def rising_weights(step, loss: LossConfig) -> LossWeights:
    """In place of `LossWeights.at`: all of them are 1, 2, 3 ... times as large."""
    weights = (loss.z_loss, loss.aux_loss_factor, loss.router_z_loss_factor)
    return LossWeights(*(weight * (step + 1) for weight in weights))


def by_stack(encoder, decoder):
    """What `Transformer` takes of the two stacks, tokens or segments."""
    return {"encoder": encoder, "decoder": decoder}


def random_batch(rows: int, inputs: int = 16, targets: int = 8, seed: int = 0) -> dict:
    """Rows with very unequal padding: from almost none to almost all."""
    rng = np.random.default_rng(seed)

    def segments(length: int) -> np.ndarray:
        real = rng.integers(1, length + 1, (rows, 1))
        return (np.arange(length) < real).astype(np.int32)

    encoder, decoder = segments(inputs), segments(targets)
    tokens = rng.integers(1, 64, (rows, targets), dtype=np.int32) * decoder
    return {
        "encoder_input_tokens": rng.integers(1, 64, (rows, inputs), dtype=np.int32) * encoder,
        "encoder_segment_ids": encoder,
        "decoder_input_tokens": np.pad(tokens, ((0, 0), (1, 0)))[:, :-1],
        "decoder_target_tokens": tokens,
        "decoder_segment_ids": decoder,
        "decoder_loss_weights": decoder.astype(np.float32),
    }
