"""From a batch of inputs to decoded sequences, or to the scores of given ones."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from switch_jax.config import ModelConfig
from switch_jax.errors import FieldError, UserError
from switch_jax.inference.beam_search import beam_search
from switch_jax.inference.sampling import Decoded, sample
from switch_jax.model import bind, cast_blocks
from switch_jax.train_step.loss import token_sums

_MOST_TOKENS = 2**20  # of a sequence


@dataclasses.dataclass(frozen=True)
class DecodingConfig:
    """How sequences are decoded: greedily, if nothing else is said.

    Attributes:
      max_tokens: L, most tokens of a sequence, EOS included.
      num_beams: above 1, a beam search.
      length_penalty: of the beam search; see `beam_search.beam_search`.
      temperature: above 0, tokens are drawn.
      top_k, top_p: of those that are drawn; see `sampling.keep_likely`.
      seed: of what is drawn.
      eos_id: ends a sequence; 1 in the vocabularies of T5 and mT5.
    """

    max_tokens: int
    num_beams: int = 1
    length_penalty: float = 0.6
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0
    eos_id: int = 1

    def __post_init__(self) -> None:
        """Raises FieldError on values that decode nothing, UserError on those that contradict."""
        for name in ("max_tokens", "num_beams", "top_k"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise FieldError(name, f"= {value}: it must be at least 1")
        if self.max_tokens > _MOST_TOKENS:
            raise FieldError(
                "max_tokens", f"= {self.max_tokens}: it must be at most {_MOST_TOKENS}"
            )
        for name, most in (("length_penalty", 5.0), ("temperature", 1000.0)):
            value = getattr(self, name)
            if not 0 <= value <= most:  # NaN is not
                raise FieldError(name, f"= {value}: it must be a number from 0 to {most:g}")
        if 0 < self.temperature < 1e-3:
            raise FieldError(
                "temperature",
                f"= {self.temperature}: below 0.001 logits divided by it overflow; write 0, which "
                "takes the most probable token",
            )
        if not 0 <= self.seed < 2**32:
            raise FieldError("seed", f"= {self.seed}: write a number from 0 to {2**32 - 1}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise FieldError("top_p", f"= {self.top_p}: it must be above 0 and at most 1")
        if self.num_beams > 1 and self.temperature > 0:
            raise UserError(
                f"num_beams = {self.num_beams} and temperature = {self.temperature}: a beam search "
                "draws nothing; set one of them, and leave the other out"
            )
        if self.temperature == 0 and (self.top_k or self.top_p):
            raise UserError(
                "top_k and top_p limit what is drawn, and at temperature 0 nothing is: set a "
                "temperature, for example 1.0"
            )

    def describe(self) -> str:
        """In a few words, as 'greedy, at most 62 tokens'; the same for the same."""
        if self.num_beams > 1:
            how = f"{self.num_beams} beams, length penalty {self.length_penalty}"
        elif self.temperature > 0:
            limits = [f"top {self.top_k}"] if self.top_k else []
            limits += [f"top p {self.top_p}"] if self.top_p else []
            how = ", ".join([f"temperature {self.temperature}", *limits, f"seed {self.seed}"])
        else:
            how = "greedy"
        return f"{how}, at most {self.max_tokens} tokens"


def make_decode(
    model: ModelConfig, config: DecodingConfig
) -> Callable[[Any, jax.Array, jax.Array, jax.Array], Decoded]:
    """A function to jit: from parameters, inputs, their segments and numbers to sequences.

    It takes encoder tokens [B, M] int32, their segments [B, M] int32 (1, or 0 for padding; a row
    of padding alone gets no token) and [B] int32 numbers of the rows in all that is decoded: what
    is drawn for a row depends on its number and the seed. The batch may be split over the mesh. The
    encoder has the capacity of evaluation; in the decoder no token is ever dropped, so that what is
    decoded for a row does not depend on how far the others are.
    """

    def decode(
        parameters: Any, tokens: jax.Array, segments: jax.Array, numbers: jax.Array
    ) -> Decoded:
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(config.seed), numbers)
        transformer = bind(model, cast_blocks(model, parameters))
        memory = transformer.encode(tokens, segments)
        start = transformer.start(memory, segments, config.num_beams, config.max_tokens)
        valid = segments.any(axis=1)
        if config.num_beams > 1:
            return beam_search(
                transformer.step, transformer.reorder, start, valid,
                beams=config.num_beams, length=config.max_tokens, eos=config.eos_id,
                length_penalty=config.length_penalty,
            )  # fmt: skip
        return sample(
            transformer.step, start, valid, keys,
            length=config.max_tokens, eos=config.eos_id, temperature=config.temperature,
            top_k=config.top_k, top_p=config.top_p,
        )  # fmt: skip

    return decode


def make_score(model: ModelConfig) -> Callable[[Any, dict[str, jax.Array]], jax.Array]:
    """A function to jit: from parameters and an unpacked batch to log-probabilities [B] float32.

    Of all target tokens of a row, EOS included; teacher-forced, with the capacity of evaluation.
    """

    def score(parameters: Any, batch: dict[str, jax.Array]) -> jax.Array:
        output = bind(model, parameters)(
            batch["encoder_tokens"], batch["decoder_input_tokens"],
            batch["encoder_segments"], batch["decoder_segments"], deterministic=True,
        )  # fmt: skip
        targets, weights = batch["decoder_target_tokens"], batch["decoder_loss_weights"]
        return -jax.vmap(token_sums)(output.logits, targets, weights).cross_entropy

    return score
