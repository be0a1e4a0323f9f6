"""Decoding and scoring of any number of examples, batch by batch, on any mesh."""

import functools
import itertools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from switch_jax.config import Config
from switch_jax.data.packing import Example, empty_batch, prompt_batch, write_row
from switch_jax.inference.decoding import DecodingConfig, make_decode, make_score
from switch_jax.partitioning.compiler_options import compiler_options
from switch_jax.partitioning.mesh import replicated
from switch_jax.partitioning.placing import put_batch


class Prediction(NamedTuple):
    """An example's best sequence: tokens [max_new_tokens] int32, EOS to the end, and its score.

    The score is a log-probability; a beam search divides it by the length penalty.
    """

    tokens: np.ndarray
    score: float


class Predictor:
    """Decodes or scores examples and yields the results in their order.

    With several processes, each of them passes all examples and gets all results.

    Attributes:
      stacks: those of the model.
    """

    def __init__(self, config: Config, mesh: Mesh, decoding: DecodingConfig) -> None:
        """Prepares the two programs; each is compiled at its first use.

        Inputs and targets that are too long for the config are cut off.
        """
        self._lengths, self._batch_size = config.data.task_feature_lengths, config.run.batch_size
        # Without a length of their own, prompts have the rest of a row; an array has a place.
        most = max(1, self._lengths["targets"] - decoding.max_new_tokens)
        self._prompts = {"inputs": most, **self._lengths}
        self._mesh, self._eos_id = mesh, decoding.eos_id
        self.stacks = config.model.stacks
        jit = functools.partial(
            jax.jit,
            out_shardings=replicated(mesh),  # since every host reads the results
            compiler_options=compiler_options(config.mesh.fully_sharded_weights),
        )
        self._decode = jit(make_decode(config.model, decoding))
        self._score = jit(make_score(config.model))

    def predict(
        self, parameters: Any, examples: Iterable[Example], first_id: int = 0
    ) -> Iterator[Prediction]:
        """Decodes each example: int ids of 'inputs', and of 'targets', which are not read.

        `parameters` are on the mesh. `first_id` is the index of the first example among all that
        are decoded: what is sampled for an example depends on its index and the seed only.
        """
        for start, chunk in self._chunks(examples):
            count, row = len(chunk), np.arange(self._batch_size, dtype=np.int32)
            rows = [*chunk, *[{}] * (self._batch_size - count)]
            ids = {"ids": np.where(row < count, first_id + start + row, -1)}
            arrays = (*prompt_batch(self.stacks, self._prompts, rows), ids)
            tokens, segments, example_ids = (put_batch(each, self._mesh) for each in arrays)
            decoded = self._decode(parameters, tokens, segments, example_ids["ids"])
            best = decoded.tokens[:count, 0], decoded.scores[:count, 0]  # [count, L], [count]
            for tokens, score in zip(*jax.device_get(best), strict=True):
                has_ended = np.cumsum(tokens == self._eos_id) > 0
                yield Prediction(np.where(has_ended, self._eos_id, tokens), float(score))

    def score(self, parameters: Any, examples: Iterable[Example]) -> Iterator[float]:
        """Log-probability of each example's 'targets', given its 'inputs'."""
        for _, chunk in self._chunks(examples):
            batch = empty_batch(self.stacks, self._batch_size, self._lengths)
            for row, example in enumerate(chunk):
                write_row(self.stacks, batch, row, [example])
            scores = self._score(parameters, put_batch(batch, self._mesh))
            yield from map(float, jax.device_get(scores)[: len(chunk)])

    def _chunks(self, examples: Iterable[Example]) -> Iterator[tuple[int, list[Example]]]:
        """Yields the examples of each batch, with the index of the first one."""
        remaining, start = iter(examples), 0
        while chunk := list(itertools.islice(remaining, self._batch_size)):
            yield start, chunk
            start += len(chunk)
