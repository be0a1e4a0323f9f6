"""The model as functions of its parameters: the nested dict of arrays that checkpoints hold."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

from switch_jax.config import ModelConfig
from switch_jax.model.mixed_precision import is_cast
from switch_jax.model.transformer import Transformer
from switch_jax.partitioning.rules import gather_fully_sharded

Parameters = dict[str, Any]


@functools.cache  # a run asks for it ten times, and tracing all initialisers takes a while
def _abstract(config: ModelConfig) -> tuple[nnx.GraphDef, nnx.State]:
    """The module's structure and its state without numbers; the state must not be changed."""
    return nnx.split(nnx.eval_shape(lambda: Transformer(config, nnx.Rngs(0))))


def init_parameters(config: ModelConfig, key: jax.Array) -> Parameters:
    """Fresh float32 parameters."""
    return nnx.to_pure_dict(nnx.state(Transformer(config, nnx.Rngs(params=key))))


def abstract_parameters(config: ModelConfig) -> Parameters:
    """Shapes and dtypes of the parameters, without allocating any."""
    return nnx.to_pure_dict(_abstract(config)[1])


def logical_axes(config: ModelConfig) -> Parameters:
    """The same nested dict, with a tuple of logical axis names for each parameter."""
    state = _abstract(config)[1]
    axes = jax.tree.map(lambda p: p.axes, state, is_leaf=lambda p: isinstance(p, nnx.Variable))
    return nnx.to_pure_dict(axes)


def bind(config: ModelConfig, parameters: Parameters) -> Transformer:
    """The module with these parameters."""
    graph, state = _abstract(config)
    state = jax.tree.map(lambda leaf: leaf, state)  # a copy
    nnx.replace_by_pure_dict(state, parameters)
    return nnx.merge(graph, state)


def model_inputs(
    config: ModelConfig, batch: Mapping[str, jax.Array]
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """The tokens and the segments of a batch, by stack, as `Transformer` takes them."""
    tokens = {stack.name: batch[stack.input_tokens] for stack in config.stacks}
    segments = {stack.name: batch[stack.segment_ids] for stack in config.stacks}
    return tokens, segments


def cast_and_gather_once(config: ModelConfig, parameters: Parameters) -> Parameters:
    """The parameters as all tokens of decoding use them.

    Those of the blocks are cast (`mixed_precision.is_cast`); fully sharded, all are gathered.
    """

    def prepare(parameter: jax.Array, axes: tuple[str, ...]) -> jax.Array:
        if axes[0] == "layers" and is_cast(axes[1:]):
            parameter = parameter.astype(config.activation_dtype)
        return gather_fully_sharded(parameter, axes)

    return jax.tree.map(prepare, parameters, logical_axes(config))
