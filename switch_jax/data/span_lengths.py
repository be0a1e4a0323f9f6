"""Which lengths of inputs and targets T5's span corruption can fill."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from switch_jax.data.vocabularies import sentinels
from switch_jax.errors import UserError
from switch_jax.tensorflow_setup import seqio, t5


def check_lengths(task: seqio.Task, lengths: Mapping[str, int]) -> None:
    """Checks the lengths of a task that uses t5's `span_corruption`; other tasks pass.

    The length of the inputs determines how many tokens are masked, in how many spans, and so the
    length of the targets: each span is one sentinel in the inputs, and the sentinel followed by the
    span's tokens in the targets (section 3.1.4 of Raffel et al., https://arxiv.org/abs/1910.10683).

    t5 itself raises a ValueError inside the pipeline for most targets that are too short. It cuts
    the targets off where its estimate is 2 tokens too low (inputs of 172, 316, 352, ...), and uses
    ordinary pieces of the vocabulary as sentinels if there are more spans than sentinels.

    Args:
      task: with or without span corruption.
      lengths: tokens of 'inputs' and 'targets'.

    Raises:
      UserError: the lengths do not fit.
    """
    arguments = next(filter(None, map(arguments_of, task.preprocessors)), None)
    if arguments is None:
        return
    density, mean_span = arguments["noise_density"], arguments["mean_noise_span_length"]
    inputs = lengths["inputs"]
    tokens, _ = t5.data.preprocessors.random_spans_helper(
        inputs_length=inputs - (arguments["reserved_for_packing"] or 0),
        noise_density=density,
        mean_noise_span_length=mean_span,
        extra_tokens_per_span_inputs=1,
        extra_tokens_per_span_targets=1,
    )
    # In float32, as t5 computes the mask: there 0.15 * 190 rounds to 29, not to 28.
    noise = int(np.rint(np.float32(tokens) * np.float32(density)))
    spans = int(np.rint(np.float32(noise) / np.float32(mean_span)))
    num_sentinels = sentinels(task.output_features["inputs"].vocabulary)
    if not 1 <= spans <= num_sentinels:
        raise UserError(
            f"inputs of length {inputs} do not fit {task.name}: it masks {spans} spans in them, "
            f"and its vocabulary has {num_sentinels} sentinels"
        )
    targets = noise + spans + 1
    if lengths["targets"] < targets:
        raise UserError(
            f"targets of length {lengths['targets']} are too short for {task.name}: in inputs of "
            f"length {inputs} it masks {noise} of {tokens} tokens in {spans} spans, which takes "
            f"{noise} + {spans} + 1 = {targets}"
        )


def arguments_of(step: Callable[..., Any]) -> dict[str, Any] | None:
    """The arguments of a step by name; None where it is not t5's `span_corruption`."""
    span_corruption = t5.data.preprocessors.span_corruption
    partial = step if isinstance(step, functools.partial) else functools.partial(step)
    if partial.func is not span_corruption:
        return None
    given = inspect.signature(span_corruption).bind_partial(**partial.keywords)
    given.apply_defaults()
    return given.arguments
