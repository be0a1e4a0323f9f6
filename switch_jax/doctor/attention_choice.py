"""GPU_ATTENTION = 'auto': cuDNN's attention where it is right and faster, or else XLA's."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from switch_jax.config import Config, ModelConfig
from switch_jax.doctor.checks import first_line
from switch_jax.doctor.compare import difference
from switch_jax.doctor.kernels import TOLERANCES, AttentionCase, arguments_of, attention_program
from switch_jax.doctor.speed import seconds_of
from switch_jax.errors import has_no_room
from switch_jax.model.dot_product_attention import dot_product_attention
from switch_jax.model.fused_attention import cudnn_attention, suits_cudnn
from switch_jax.partitioning.mesh import MODEL, batch_shards
from switch_jax.runtime.processes import gather
from switch_jax.units import milliseconds

_COMPARED = 4  # rows of a device; scores of all might have no room in float32

ATTENTIONS: dict[str, Callable[..., jax.Array]] = {
    "xla": dot_product_attention,
    "cudnn": cudnn_attention,
}


class Choice(NamedTuple):
    """The attention of a run on GPUs, 'xla' or 'cudnn', and a line that says why."""

    attention: str
    reason: str


def choose_attention(config: Config, mesh_shape: Mapping[str, int]) -> Choice:
    """Compares and times both on a GPU of each process, all of which choose the same.

    Args:
      config: of the run, whose shapes are measured.
      mesh_shape: devices by mesh axis.
    """
    model = config.model
    if model.dropout_rate > 0:
        return _choice("xla", "cuDNN's attention is not used with dropout")
    cases = {c: n for c, n in _layers(config).items() if suits_cudnn(model, c.length, c.memory)}
    if not cases:
        return _choice("xla", "cuDNN has no attention of these lengths, heads and dtype")
    model = dataclasses.replace(model, num_heads=model.num_heads // mesh_shape[MODEL])
    rows = config.run.batch_size // config.run.num_microbatches // batch_shards(mesh_shape)
    tolerance, worst = TOLERANCES[model.activation_dtype], 0.0
    for case in cases:
        found = _difference(model, case, min(rows, _COMPARED))
        for apart, error in gather(found):  # of each process
            if error:
                return _choice("xla", f"cuDNN's attention fails ({case.name}): {error}", True)
            if not apart <= tolerance:  # it may be NaN
                why = (
                    f"cuDNN's attention is wrong ({case.name}): it differs by {apart:.1e} from "
                    f"XLA's in float32, {tolerance:.0e} is allowed; do not take 'cudnn' here"
                )
                return _choice("xla", why, True)
            worst = max(worst, apart)
    xla, cudnn = (  # of the slowest process
        max(gather(sum(layers * _seconds(f, model, c, rows) for c, layers in cases.items())))
        for f in ATTENTIONS.values()
    )
    why = (
        f"all layers, forward and backward, take {milliseconds(cudnn)} with 'cudnn' and "
        f"{milliseconds(xla)} with 'xla'; the results differ by {worst:.1e}, {tolerance:.0e} is "
        "allowed"
    )
    return _choice("cudnn" if cudnn < xla else "xla", why)


def _choice(attention: str, why: str, is_warning: bool = False) -> Choice:
    warning = "warning: " if is_warning else ""
    return Choice(attention, f"{warning}GPU_ATTENTION = 'auto' is {attention!r} here: {why}")


def _layers(config: Config) -> dict[AttentionCase, int]:
    """The kinds of attention in a model, and how many layers have each."""
    inputs, targets = config.data.lengths
    encoder, decoder = config.model.num_encoder_layers, config.model.num_decoder_layers
    return {
        AttentionCase("encoder", inputs, inputs, causal=False, has_bias=True): encoder,
        AttentionCase("decoder", targets, targets, causal=True, has_bias=True): decoder,
        AttentionCase("cross-attention", targets, inputs, causal=False, has_bias=False): decoder,
    }


def _difference(model: ModelConfig, case: AttentionCase, rows: int) -> tuple[float, str]:
    """Of cuDNN's from XLA's in float32, and what cuDNN's raised; '': nothing."""
    arrays, segments = arguments_of(model, case, model.activation_dtype, 1, rows)

    def run(attend: Callable[..., jax.Array], arrays: Any) -> Any:
        program = attention_program(attend, model.num_heads, case.causal)
        return jax.device_get(jax.jit(program)(arrays, segments))

    with jax.default_matmul_precision("highest"):
        expected = run(ATTENTIONS["xla"], tuple(array.astype(np.float32) for array in arrays))
    try:
        return difference(run(ATTENTIONS["cudnn"], arrays), expected), ""
    except Exception as error:  # cuDNN is missing, or too old for this GPU
        return math.inf, first_line(error)


def _seconds(
    attend: Callable[..., jax.Array], model: ModelConfig, case: AttentionCase, rows: int
) -> float:
    """Of one layer on a device of this process, forward and backward; inf: it has no room."""
    arguments = jax.device_put(arguments_of(model, case, model.activation_dtype, 1, rows))
    program = jax.jit(attention_program(attend, model.num_heads, case.causal))
    try:
        return seconds_of(lambda: program(*arguments))
    except jax.errors.JaxRuntimeError as error:
        if not has_no_room(error):
            raise
        return math.inf
