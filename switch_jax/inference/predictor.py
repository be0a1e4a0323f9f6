"""A model that decodes, or scores, examples one batch after the other, on any mesh."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from switch_jax.data.batch import Batch, Example, empty_batch, write_row
from switch_jax.inference.decoding import make_decode, make_score
from switch_jax.inference.trained_model import TrainedModel
from switch_jax.partitioning.mesh import replicated
from switch_jax.partitioning.placing import put_batch


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

    def __init__(self, trained: TrainedModel) -> None:
        """Prepares the two programs, which are compiled when they are first needed.

        Args:
          trained: what computes. Inputs and targets beyond the config's lengths are cut off; the
            last batch is filled up with padding.
        """
        config, model = trained.config, trained.config.model
        self._lengths, self._batch_size = config.data.task_feature_lengths, config.run.batch_size
        self._mesh, self._eos = trained.mesh, trained.decoding.eos_id
        everywhere = replicated(trained.mesh)  # every host reads the results
        self._decode = jax.jit(make_decode(model, trained.decoding), out_shardings=everywhere)
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
            on_mesh = put_batch({**batch, "numbers": numbers}, self._mesh)
            names = "encoder_tokens", "encoder_segments", "numbers"
            decoded = self._decode(parameters, *(on_mesh[name] for name in names))
            tokens, scores = jax.device_get((decoded.tokens[:count, 0], decoded.scores[:count, 0]))
            for ids, score in zip(tokens, scores, strict=True):
                ended = np.cumsum(ids == self._eos) > 0
                yield Prediction(np.where(ended, self._eos, ids), float(score))

    def score(self, parameters: Any, examples: Iterable[Example]) -> Iterator[float]:
        """Log-probability of each example's 'targets', given its 'inputs'."""
        for _, batch, count in self._batches(examples):
            scores = self._score(parameters, put_batch(batch, self._mesh))
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
