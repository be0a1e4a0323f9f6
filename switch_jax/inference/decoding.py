"""Decoding of a batch of inputs, and scoring of given targets."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from switch_jax.config import ModelConfig
from switch_jax.inference.beam_search import beam_search
from switch_jax.inference.sampling import Decoded, sample
from switch_jax.model import bind, cast_and_gather_once, model_inputs
from switch_jax.train_step.cross_entropy import token_sums
from switch_jax.utils.errors import UserError, did_you_mean
from switch_jax.utils.fields import COUNT, Count, Range, Seed, With, check_fields


@dataclasses.dataclass(frozen=True)
class DecodingConfig:
    """How sequences are decoded; greedily by default. Raises FieldError on values that do not fit.

    Attributes:
      max_new_tokens: L, the most tokens of a sequence, EOS included.
      num_beams: above 1 selects beam search.
      length_penalty: of beam search; see `beam_search.beam_search`.
      temperature: above 0 selects sampling.
      top_k, top_p: limits of sampling; see `sampling.truncate_logits`.
      seed: of sampling.
      eos_id: ends a sequence; 1 in the vocabularies of T5 and mT5, -1 where there is none.
    """

    max_new_tokens: Annotated[int, Range(1, 2**20)]
    num_beams: Count = 1
    length_penalty: Annotated[float, Range(0, 5)] = 0.6
    temperature: Annotated[float, Range(0, 1000), With("num_beams", (1,))] = 0.0
    top_k: Annotated[int, COUNT, With("temperature")] | None = None
    top_p: Annotated[float, Range(0, 1, "least"), With("temperature")] | None = None
    seed: Seed = 0
    eos_id: Annotated[int, Range(-1, COUNT.most)] = 1

    def __post_init__(self) -> None:
        check_fields(self, name_of=str)  # no macro sets them

    def describe(self) -> str:
        """A short text, as 'greedy, at most 62 tokens'; equal configs give equal texts."""
        if self.num_beams > 1:
            method = f"{self.num_beams} beams, length penalty {self.length_penalty}"
        elif self.temperature > 0:
            limits = [f"top {self.top_k}"] if self.top_k else []
            limits += [f"top p {self.top_p}"] if self.top_p else []
            method = ", ".join([f"temperature {self.temperature}", *limits, f"seed {self.seed}"])
        else:
            method = "greedy"
        return f"{method}, at most {self.max_new_tokens} tokens"


# What a user may set.
OPTIONS = tuple(f.name for f in dataclasses.fields(DecodingConfig) if f.name != "eos_id")

_OUR_WAY = {  # to say what Hugging Face's `generate` has other names for
    "max_length": "it is max_new_tokens",
    "do_sample": "a temperature above 0 samples",
    "num_return_sequences": "a text has one output; repeat it in the list to sample several",
    "return_dict_in_generate": "it is return_scores",
    "output_scores": "it is return_scores",
}


def check_options(names: Iterable[str]) -> None:
    """Raises UserError, which names ours, where one of the names is no option of decoding."""
    for name in names:
        if name in _OUR_WAY:
            raise UserError(f"decoding has no option {name!r}: {_OUR_WAY[name]}")
        if name not in OPTIONS:
            similar, options = did_you_mean(name, OPTIONS), ", ".join(OPTIONS)
            raise UserError(f"decoding has no option {name!r}{similar}: the options are {options}")


def make_decode(
    model: ModelConfig, config: DecodingConfig
) -> Callable[[Any, dict[str, jax.Array], dict[str, jax.Array], jax.Array], Decoded]:
    """Returns a function to jit, `decode(parameters, tokens, segments, example_ids)`.

    Its arguments are the model's parameters; by the name of a stack the tokens before the first new
    one, [B, M] int32, and their segments [B, M] int32 (1, or 0 for padding): of an encoder the
    inputs, of a stack that reads them before the targets the prompts, which end at the right; and
    the index of each row's example [B] int32 among all: what is sampled depends on it and the seed
    only. A row of padding gets no tokens: it has nothing to encode or, without an encoder, the
    index -1. The batch may be sharded over the mesh.

    An encoder has the capacity factor of evaluation. The last stack never drops a token, so that a
    row's result does not depend on how far the other rows of the batch are.
    """
    *others, last = (stack.name for stack in model.stacks)

    def decode(
        parameters: Any,
        tokens: dict[str, jax.Array],
        segments: dict[str, jax.Array],
        example_ids: jax.Array,
    ) -> Decoded:
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(config.seed), example_ids)
        transformer, first = bind(model, cast_and_gather_once(model, parameters)), None
        if last in tokens:  # as in training, it reads them shifted right
            first = tokens[last][:, -1]  # [B]
            shifted = jnp.pad(tokens[last][:, :-1], ((0, 0), (1, 0)))  # [B, P]
            tokens = {**tokens, last: shifted}
        cache = transformer.init_decoding(tokens, segments, config.num_beams, config.max_new_tokens)
        valid = segments[others[0]].any(axis=1) if others else example_ids >= 0  # [B]
        if config.num_beams > 1:
            return beam_search(
                transformer.decode_step,
                transformer.reorder,
                cache,
                valid,
                first=first,
                num_beams=config.num_beams,
                max_new_tokens=config.max_new_tokens,
                eos_id=config.eos_id,
                length_penalty=config.length_penalty,
            )
        return sample(
            transformer.decode_step,
            cache,
            valid,
            keys,
            first=first,
            max_new_tokens=config.max_new_tokens,
            eos_id=config.eos_id,
            temperature=config.temperature,
            top_k=config.top_k,
            top_p=config.top_p,
        )

    return decode


def make_score(model: ModelConfig) -> Callable[[Any, dict[str, jax.Array]], jax.Array]:
    """Returns a function to jit, `score(parameters, batch)`, for unpacked batches.

    It returns the log-probability [B] float32 of each row's target tokens, EOS included, with
    teacher forcing and the capacity factor of evaluation.
    """

    def score(parameters: Any, batch: dict[str, jax.Array]) -> jax.Array:
        output = bind(model, parameters)(*model_inputs(model, batch))
        last = model.stacks[-1]
        targets, weights = batch[last.target_tokens], batch[last.loss_weights]
        return -jax.vmap(token_sums)(output.logits, targets, weights).cross_entropy

    return score
