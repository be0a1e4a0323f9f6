"""A model that decodes, or scores, examples one batch after the other, on any mesh."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from switch_jax.data.batch import Batch, Example, empty_batch, write_row
from switch_jax.inference.decoding import DecodingConfig, make_decode, make_score
from switch_jax.model import ModelConfig
from switch_jax.partitioning.mesh import replicated
from switch_jax.trainer.device_batches import to_devices


class Prediction(NamedTuple):
    """The best sequence for an example.

    Attributes:
      tokens: [max_tokens] int32 ids; EOS, if it came, everywhere behind the last.
      score: its log-probability; of a beam search, divided by the length penalty.
    """

    tokens: np.ndarray
    score: float


class Predictor:
    """Takes any number of examples and gives a result for each, in their order.

    With several processes each of them gives all examples and gets all results.
    """

    def __init__(
        self,
        model: ModelConfig,
        mesh: Mesh,
        lengths: Mapping[str, int],
        batch_size: int,
        decoding: DecodingConfig,
    ) -> None:
        """Prepares the two programs, which are compiled when they are first needed.

        Args:
          model, mesh: what computes; `mesh` is also the one of `jax.set_mesh`.
          lengths: tokens of 'inputs' and 'targets', EOS included; what is longer is cut off.
          batch_size: examples of a batch; the last is filled up with padding.
          decoding: see `DecodingConfig`.
        """
        self._mesh, self._lengths, self._batch_size = mesh, lengths, batch_size
        self._eos = decoding.eos_id
        everywhere = replicated(mesh)  # every host reads the results
        self._decode = jax.jit(make_decode(model, decoding), out_shardings=everywhere)
        self._score = jax.jit(make_score(model), out_shardings=everywhere)

    def predict(
        self, parameters: Any, examples: Iterable[Example], first: int = 0
    ) -> Iterator[Prediction]:
        """Decodes for each example's 'inputs', int ids.

        Args:
          parameters: of the model, on the mesh.
          examples: with 'inputs' and 'targets' each; the latter may be empty.
          first: number of the first in all that is decoded; what is drawn depends on the number.
        """
        for number, batch, count in self._batches(examples):
            numbers = first + number + np.arange(self._batch_size, dtype=np.int32)
            on_mesh = to_devices({**batch, "numbers": numbers}, self._mesh)
            names = "encoder_tokens", "encoder_segments", "numbers"
            decoded = self._decode(parameters, *(on_mesh[name] for name in names))
            tokens, scores = jax.device_get((decoded.tokens[:count, 0], decoded.scores[:count, 0]))
            for ids, score in zip(tokens, scores, strict=True):
                ended = np.cumsum(ids == self._eos) > 0
                yield Prediction(np.where(ended, self._eos, ids), float(score))

    def score(self, parameters: Any, examples: Iterable[Example]) -> Iterator[float]:
        """Log-probability of each example's 'targets', given its 'inputs'."""
        for _, batch, count in self._batches(examples):
            scores = self._score(parameters, to_devices(batch, self._mesh))
            yield from map(float, jax.device_get(scores)[:count])

    def _batches(self, examples: Iterable[Example]) -> Iterator[tuple[int, Batch, int]]:
        """Number of the first example, the batch, and how many of its rows are examples."""
        remaining, number = iter(examples), 0
        while some := list(itertools.islice(remaining, self._batch_size)):
            batch = empty_batch(self._batch_size, self._lengths)
            for row, example in enumerate(some):
                write_row(batch, row, [example])
            yield number, batch, len(some)
            number += len(some)
