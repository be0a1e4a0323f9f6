"""Which feature lengths T5's span corruption can fill."""

import bisect
import functools
import inspect
from collections.abc import Mapping

import numpy as np
import seqio
from t5.data.preprocessors import random_spans_helper, span_corruption

from switch_jax.data.vocabularies import sentinels
from switch_jax.errors import UserError


def check_lengths(task: seqio.Task, lengths: Mapping[str, int]) -> None:
    """Checks the lengths of a task that uses t5's `span_corruption`, and of no other task.

    The inputs' length decides how many tokens are masked, in how many spans, and so how long the
    targets are: each span is one sentinel in the inputs, and the sentinel and its tokens in the
    targets (section 3.1.4 of Raffel et al., https://arxiv.org/abs/1910.10683). t5 itself raises a
    ValueError from the middle of the pipeline for most targets that are too short, cuts the
    targets off where its estimate is 2 tokens short (inputs of 172, 316, 352, ...), and takes
    ordinary pieces of the vocabulary for sentinels where the spans are more than the sentinels.

    Raises:
      UserError: the lengths do not fit, with the numbers and the lengths that would.
    """
    arguments = _arguments(task)
    if arguments is None:
        return
    density, mean_span = arguments["noise_density"], arguments["mean_noise_span_length"]
    reserved = arguments["reserved_for_packing"] or 0

    def masked(inputs: int) -> tuple[int, int, int]:
        """Tokens of text, masked tokens and masked spans in inputs of this length."""
        tokens, _ = random_spans_helper(
            inputs_length=inputs - reserved,
            noise_density=density,
            mean_noise_span_length=mean_span,
            extra_tokens_per_span_inputs=1,
            extra_tokens_per_span_targets=1,
        )
        # In float32, as the mask itself is computed: 0.15 * 190 rounds to 29 there, not to 28.
        noise = np.rint(np.float32(tokens) * np.float32(density))
        return tokens, int(noise), int(np.rint(noise / np.float32(mean_span)))

    inputs = lengths["inputs"]
    tokens, noise, spans = masked(inputs)
    if spans < 1:
        shortest = next(n for n in range(inputs, inputs + 1000) if masked(n)[2] >= 1)
        raise UserError(
            f"inputs of length {inputs} are too short for {task.name} to mask a span: write at "
            f"least {shortest}"
        )
    known = sentinels(task.output_features["inputs"].vocabulary)
    if spans > known:
        # More inputs never have fewer spans.
        longest = bisect.bisect_right(range(inputs), known, key=lambda n: masked(n)[2]) - 1
        raise UserError(
            f"inputs of length {inputs} are too long for {task.name}: it masks {spans} spans in "
            f"them, and its vocabulary has {known} sentinels; write at most {longest}"
        )
    targets = noise + spans + 1
    if lengths["targets"] < targets:
        raise UserError(
            f"targets of length {lengths['targets']} are too short for {task.name}: in inputs of "
            f"length {inputs} it masks {noise} of {tokens} tokens in {spans} spans, which takes "
            f"{noise} + {spans} + 1 = {targets}; write targets of at least {targets}, or shorter "
            "inputs"
        )


def _arguments(task: seqio.Task) -> dict[str, float | None] | None:
    """The arguments of the task's span corruption, or None where it has none."""
    for step in task.preprocessors:
        partial = step if isinstance(step, functools.partial) else functools.partial(step)
        if partial.func is span_corruption:
            given = inspect.signature(span_corruption).bind_partial(**partial.keywords)
            given.apply_defaults()
            return given.arguments
    return None
