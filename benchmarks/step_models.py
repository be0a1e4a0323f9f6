"""A training step of a model, as a function to be timed: ours, and Hugging Face's in torch.

switch_step.py times them on a CPU, and gpu_step.py on a GPU.
"""

import dataclasses
import importlib.util
import sys
from collections.abc import Callable

import numpy as np

VOCABULARY = 32128
CAPACITY_FACTOR = 1.25
# Of both sides' Adafactor: T5's during its warm-up. It does not change what a step costs.
LEARNING_RATE = 0.01


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of a model and its batch.

    Attributes:
      d_model, d_ff, heads: of each layer.
      layers: of the encoder, and of the decoder; every second one is sparse.
      rows, inputs, targets: of the batch.
      dtype: of activations; parameters are float32.
    """

    d_model: int
    d_ff: int
    heads: int
    layers: int
    rows: int
    inputs: int
    targets: int
    dtype: str = "float32"

    def tokens(self) -> tuple[np.ndarray, np.ndarray]:
        """Random inputs [rows, inputs] and targets [rows, targets], int32, no padding."""
        rng = np.random.default_rng(0)
        shapes = (self.rows, self.inputs), (self.rows, self.targets)
        inputs, targets = (rng.integers(1, 32000, shape, dtype=np.int32) for shape in shapes)
        return inputs, targets


def torch_python(given: str | None) -> str | None:
    """The interpreter to run Hugging Face's models with; None = there is none, which is said."""
    if given is None and all(map(importlib.util.find_spec, ("torch", "transformers"))):
        return sys.executable
    if given is None:
        print("No Hugging Face: give --torch_python a Python that has torch and transformers.")
    return given


def our_config(sizes: Sizes, experts: int, **changes):
    """The config of a run with the model; `changes` are to its ModelConfig."""
    from switch_jax.config import Config, DataConfig, ModelConfig, RunConfig

    # One group for the whole batch; not scanned, as Hugging Face's layers are not.
    model = ModelConfig(
        num_embeddings=VOCABULARY,
        embed_dim=sizes.d_model,
        mlp_dim=sizes.d_ff,
        head_dim=sizes.d_model // sizes.heads,
        num_heads=sizes.heads,
        num_encoder_layers=sizes.layers,
        num_decoder_layers=sizes.layers,
        num_experts=experts,
        group_size=sizes.rows * sizes.inputs,
        train_expert_capacity_factor=CAPACITY_FACTOR,
        min_expert_capacity=1,
        scan_layers=False,
        activation_dtype=sizes.dtype,
        **changes,
    )
    run = RunConfig("unwritten", train_steps=1, batch_size=sizes.rows)
    lengths = {"inputs": sizes.inputs, "targets": sizes.targets}
    return Config(run, model, DataConfig("unread", lengths))


def our_step(sizes: Sizes, experts: int, *, packed: bool = False, **changes) -> Callable[[], float]:
    """A step of our model; each call runs it and returns the loss.

    Args:
      sizes, experts, changes: see `our_config`.
      packed: a row is two examples and, in its last eighth, padding.
    """
    import jax

    from switch_jax.optim.optimizer import make_optimizer
    from switch_jax.partitioning.compiler_options import compiler_options
    from switch_jax.runtime.host_memory import keep_freed_memory, return_freed_memory
    from switch_jax.train_step.state import init_state, state_of_step
    from switch_jax.train_step.step import make_train_step

    keep_freed_memory()  # as `switch_jax train` does
    inputs, targets = sizes.tokens()
    segments = [_segments(*tokens.shape, packed) for tokens in (inputs, targets)]
    inputs, targets = inputs * (segments[0] > 0), targets * (segments[1] > 0)
    batch = {
        "encoder_input_tokens": inputs,
        "encoder_segment_ids": segments[0],
        "decoder_input_tokens": np.pad(targets, ((0, 0), (1, 0)))[:, :-1],
        "decoder_target_tokens": targets,
        "decoder_segment_ids": segments[1],
        "decoder_loss_weights": (segments[1] > 0).astype(np.float32),
    }
    config = our_config(sizes, experts, **changes)
    optimizer = make_optimizer(config)
    init = jax.jit(
        lambda key: init_state(config, optimizer, key), compiler_options=compiler_options()
    )
    state = state_of_step(config, init(jax.random.key(0)))
    del init
    return_freed_memory()  # here and below as `switch_jax train` does
    step = make_train_step(config, optimizer)
    step = jax.jit(step, donate_argnums=0, compiler_options=compiler_options())
    step = step.lower(state, batch).compile()
    return_freed_memory()

    def run() -> float:
        nonlocal state
        state, metrics = step(state, batch)
        jax.block_until_ready(state)
        return float(metrics.loss)

    return run


def _segments(rows: int, length: int, packed: bool) -> np.ndarray:
    """[rows, length] int32: 1 for all, or 1, 2 and 0 for two examples and padding."""
    segments = np.ones((rows, length), np.int32)
    if packed:
        segments[:, length // 2 :] = 2
        segments[:, length - length // 8 :] = 0
    return segments


def hugging_face_step(sizes: Sizes, experts: int, device: str = "cpu") -> Callable[[], float]:
    """A step of Hugging Face's model; each call runs it and returns the loss.

    With bfloat16 activations its products are in bfloat16 by autocast.
    """
    import torch
    from transformers import (
        SwitchTransformersConfig,
        SwitchTransformersForConditionalGeneration,
        T5Config,
        T5ForConditionalGeneration,
    )
    from transformers.optimization import Adafactor

    torch.manual_seed(0)
    config = dict(
        vocab_size=VOCABULARY, d_model=sizes.d_model, d_ff=sizes.d_ff,
        d_kv=sizes.d_model // sizes.heads, num_heads=sizes.heads, num_layers=sizes.layers,
        num_decoder_layers=sizes.layers, dropout_rate=0.0, feed_forward_proj="relu",
        decoder_start_token_id=0, use_cache=False,
    )  # fmt: skip
    if experts:
        # Theirs is the number of tokens an expert takes of one row.
        capacity = -(-int(sizes.inputs * CAPACITY_FACTOR) // experts)
        model = SwitchTransformersForConditionalGeneration(
            SwitchTransformersConfig(
                **config, num_experts=experts, expert_capacity=capacity, output_router_logits=True,
                num_sparse_encoder_layers=sizes.layers // 2,
                num_sparse_decoder_layers=sizes.layers // 2,
            )
        )  # fmt: skip
        # Theirs starts so wide that most tokens go to a few experts; ours, as the paper's, even.
        for name, parameter in model.named_parameters():
            if "router" in name:
                torch.nn.init.normal_(parameter, std=sizes.d_model**-0.5)
    else:
        model = T5ForConditionalGeneration(T5Config(**config))
    model.train().to(device)
    # T5's: relative to each parameter's scale, clipped, not warmed up; as ours.
    optimizer = Adafactor(
        model.parameters(), lr=LEARNING_RATE, relative_step=False, scale_parameter=True
    )
    inputs, targets = (torch.from_numpy(t.astype(np.int64)).to(device) for t in sizes.tokens())
    short = torch.autocast(device, torch.bfloat16, enabled=sizes.dtype == "bfloat16")

    def run() -> float:
        with short:
            loss = model(input_ids=inputs, labels=targets).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return run
