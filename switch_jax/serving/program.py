"""The function that is exported, from ids of inputs to ids of outputs, for one device."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import export

from switch_jax.config import Config, MeshConfig, ModelConfig
from switch_jax.errors import UserError
from switch_jax.inference.decoding import DecodingConfig, make_decode
from switch_jax.model import abstract_parameters, cast_blocks
from switch_jax.moe import group_shape
from switch_jax.partitioning.mesh import make_mesh

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


class Program(NamedTuple):
    """A program that has been lowered.

    Attributes:
      exported: it takes the parameters by name, tokens [B, M] int32 with 0 for padding, and the
        index of each row's example [B] int32, on which sampling depends; it returns tokens [B, L]
        int32 and their scores [B] float32.
      batch_multiple: B is a symbol, a multiple of this.
    """

    exported: export.Exported
    batch_multiple: int


def export_program(
    config: Config,
    decoding: DecodingConfig,
    platforms: Sequence[str],
    *,
    num_ids: int,
    unknown_id: int,
) -> Program:
    """Traces and lowers decoding.

    Routing groups are those of a batch of `config.run.batch_size` rows: a group is whole rows, and
    B a multiple of them. So a row's result is the same in any batch in which its group is.

    It is traced for a CPU, where none of the kernels for TPU are used, and so any platform's
    compiler takes it. Its products are in the form for a CPU, too.

    Args:
      config: of the run.
      decoding: how sequences are decoded.
      platforms: some of `PLATFORMS`.
      num_ids: of the vocabulary. The logits may have more.
      unknown_id: stands for ids beyond the vocabulary.

    Raises:
      UserError: a platform is not known, or the group size does not fit the inputs.
    """
    unknown = [name for name in platforms if name not in PLATFORMS]
    if unknown or not platforms:
        raise UserError(
            f"platforms = {','.join(platforms)!r}: write one or several of {', '.join(PLATFORMS)}, "
            "separated by commas"
        )
    model, rows = _with_fixed_groups(config)
    decode = make_decode(model, decoding)
    structure = jax.tree.structure(abstract_parameters(model))
    names = list(parameters_by_name(abstract_parameters(model)))

    def predict(
        parameters: Mapping[str, jax.Array], tokens: jax.Array, example_ids: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        nested = jax.tree.unflatten(structure, [parameters[name] for name in names])
        segments = (tokens != 0).astype(jnp.int32)  # [B, M]
        decoded = decode(nested, tokens, segments, example_ids)
        best = decoded.tokens[:, 0]  # [B, L]
        has_ended = jnp.cumsum(best == decoding.eos_id, axis=1) > 0  # [B, L]
        best = jnp.where(has_ended, decoding.eos_id, best)  # [B, L]
        return jnp.where(best < num_ids, best, unknown_id), decoded.scores[:, 0]

    (b,) = export.symbolic_shape("b")
    batch = rows * b
    arguments = (
        parameters_by_name(stored_parameters(model)),
        jax.ShapeDtypeStruct((batch, config.data.lengths[0]), jnp.int32),
        jax.ShapeDtypeStruct((batch,), jnp.int32),
    )
    with jax.set_mesh(make_mesh(MeshConfig(data=1), jax.devices("cpu")[:1])):
        exported = export.export(jax.jit(predict), platforms=platforms)(*arguments)
    return Program(exported, rows)


def stored_parameters(model: ModelConfig) -> Any:
    """Shapes of the parameters, nested, with the dtypes in which decoding computes with them."""
    return jax.eval_shape(lambda p: cast_blocks(model, p), abstract_parameters(model))


def parameters_by_name(parameters: Any) -> dict[str, Any]:
    """The leaves of a nested dict, by names like 'encoder.final_norm.scale'."""
    leaves = jax.tree_util.tree_leaves_with_path(parameters)
    return {".".join(key.key for key in path): leaf for path, leaf in leaves}


def _with_fixed_groups(config: Config) -> tuple[ModelConfig, int]:
    """The model with the group size that it has in the config's batch, and the rows of a group."""
    model, length = config.model, config.data.lengths[0]
    if not model.sparse_layers["encoder"]:
        return model, 1
    _, tokens = group_shape(config.run.batch_size, length, model.group_size, name="GROUP_SIZE")
    return dataclasses.replace(model, group_size=tokens), max(1, tokens // length)
