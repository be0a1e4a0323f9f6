"""T5's span corruption in NumPy, many rows at a time.

t5 masks each row in a graph of some sixty small operations, which takes most of the time of the
input pipeline. Here the rows of a batch are masked together, with the same random numbers: the
examples are t5's to the last token. t5 and TensorFlow still read, tokenize, merge and cut.
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from switch_jax.data.span_corruption import stateless_random
from switch_jax.tasks.building_blocks import in_mode
from switch_jax.utils.tensorflow_setup import seqio, t5, tf

Example = Mapping[str, np.ndarray]

_MAX_DENSITY, _MIN_MEAN_SPAN = 0.5, 2.0  # within them tokens are left between any two spans


class SpanMasking(NamedTuple):
    """The arguments by which the rows of a task are masked.

    Attributes:
      noise_density: share of the tokens that are masked.
      mean_span: tokens of a span, on average.
      vocab_size: sentinels are counted down from it.
      eos: the id that ends 'inputs' and 'targets'; None ends them with nothing.
      lengths: tokens of 'inputs' and 'targets'.
      row_length: tokens of text of which a row of these inputs is made.
      merges: whether examples are put together before they are cut into rows.
      word: the tokens before the inputs, which name the kind of masking.
    """

    noise_density: float
    mean_span: float
    vocab_size: int
    eos: Mapping[str, int | None]
    lengths: Mapping[str, int]
    row_length: int
    merges: bool
    word: Sequence[int] = ()

    def examples(self, rows: Mapping[str, np.ndarray]) -> list[Example]:
        """The example of each row of a padded batch of what `rows` makes.

        That is: 'targets' int32 [N, L], 'length' int32 [N], 'seed' int64 [N, 2].
        """
        found: list[Example] = [{}] * len(rows["length"])
        for length in np.unique(rows["length"]):
            (alike,) = np.nonzero(rows["length"] == length)
            tokens, seeds = rows["targets"][alike, :length], rows["seed"][alike]
            noise = self.noise(int(length), seeds)
            words = np.tile(np.array(self.word, np.int32), (len(alike), 1))  # [N, w]
            inputs = np.concatenate([words, self._with_sentinels(tokens, noise)], 1)
            inputs = self._ended("inputs", inputs)
            targets = self._ended("targets", self._with_sentinels(tokens, ~noise))
            for row, *example in zip(alike, inputs, targets, strict=True):
                found[row] = dict(zip(("inputs", "targets"), example, strict=True))
        return found

    def rows(
        self, dataset: tf.data.Dataset, output_features: Mapping[str, seqio.Feature]
    ) -> tf.data.Dataset:
        """Makes rows as t5's `span_corruption` does before it masks, each with its seed."""
        steps = t5.data.preprocessors
        dataset = steps.select_random_chunk(
            dataset, output_features=output_features, feature_key="targets", max_length=65536
        )
        if self.merges:
            dataset = steps.reduce_concat_tokens(dataset, feature_key="targets", batch_size=128)
        dataset = steps.split_tokens(
            dataset,
            feature_key="targets",
            min_tokens_per_segment=None,
            max_tokens_per_segment=self.row_length,
        )
        return _with_seed(dataset)

    def noise(self, length: int, seeds: np.ndarray) -> np.ndarray:
        """Chooses the tokens that are masked: bool [N, length], for seeds int64 [N, 2].

        They are those of `t5.data.preprocessors.random_spans_noise_mask`, as `denoise` calls it.
        """
        seeds = stateless_random.split(seeds, 6)  # [N, 6, 2]
        total = max(length, 2)
        masked, spans = masked_spans(total, self.noise_density, self.mean_span)
        masked, spans = max(masked, 1), max(spans, 1)
        sizes = [_cut(total - masked, spans, seeds[:, 1]), _cut(masked, spans, seeds[:, 0])]
        ends = np.cumsum(np.stack(sizes, 2).reshape(len(seeds), 2 * spans), 1)  # [N, 2 * spans]
        changes = np.zeros((len(seeds), total), np.int32)
        np.put_along_axis(changes, ends[:, :-1], 1, 1)
        return np.cumsum(changes, 1)[:, :length] % 2 == 1

    def _with_sentinels(self, tokens: np.ndarray, masked: np.ndarray) -> np.ndarray:
        """A sentinel for each masked span: int32 [N, L] to [N, l]; all rows mask equally many."""
        begins = masked.copy()  # [N, L]
        begins[:, 1:] &= ~masked[:, :-1]
        sentinels = np.int32(self.vocab_size) - np.cumsum(begins, 1, np.int32)
        kept = begins | ~masked
        return np.where(begins, sentinels, tokens)[kept].reshape(len(tokens), -1)

    def _ended(self, name: str, tokens: np.ndarray) -> np.ndarray:
        """The tokens with EOS, if there is one, cut off to the length of the feature."""
        eos, length = self.eos[name], self.lengths[name]
        if eos is None:
            return tokens[:, :length]
        ends = np.full((len(tokens), 1), eos, np.int32)
        return np.concatenate([tokens[:, : length - 1], ends], 1)


def _cut(items: int, pieces: int, seeds: np.ndarray) -> np.ndarray:
    """Cuts `items` into pieces at random: their sizes, at least 1, [N, pieces]."""
    order = np.argsort(stateless_random.uniform(seeds, items - 1), 1, kind="stable")
    cuts = np.nonzero(order < pieces - 1)[1].reshape(len(seeds), pieces - 1) + 1
    return np.diff(cuts, prepend=0, append=items)


def t5_arguments(step: Callable[..., Any], of: Callable[..., Any]) -> dict[str, Any] | None:
    """The arguments of a step by name; None where it is not t5's function `of`.

    It may be the step of an `in_mode`, whose word takes some of the inputs: see `mode_word`.
    """
    partial = _with_arguments(step)
    if partial.func is in_mode:
        return t5_arguments(partial.keywords["step"], of)
    if partial.func is not of:
        return None
    given = inspect.signature(of).bind_partial(**partial.keywords)
    given.apply_defaults()
    return given.arguments


def mode_word(step: Callable[..., Any]) -> str:
    """The word that a step puts before the inputs; "" unless it is an `in_mode`."""
    partial = _with_arguments(step)
    return partial.keywords["word"] if partial.func is in_mode else ""


def _with_arguments(step: Callable[..., Any]) -> functools.partial:
    return step if isinstance(step, functools.partial) else functools.partial(step)


def row_length(arguments: Mapping[str, Any], inputs: int) -> int:
    """Tokens of text of which t5 makes a row with inputs of this length."""
    tokens, _ = t5.data.preprocessors.random_spans_helper(
        inputs_length=inputs - (arguments["reserved_for_packing"] or 0),
        noise_density=arguments["noise_density"],
        mean_noise_span_length=arguments["mean_noise_span_length"],
        extra_tokens_per_span_inputs=1,
        extra_tokens_per_span_targets=1,
    )
    return tokens


def masked_spans(tokens: int, noise_density: float, mean_span: float) -> tuple[int, int]:
    """Number of tokens of a row that t5 masks, and of spans; where one is 0, t5 takes 1."""
    # In float32, as in TensorFlow: there 0.15 * 190 rounds to 29, not to 28.
    masked = int(np.rint(np.float32(tokens) * np.float32(noise_density)))
    return masked, int(np.rint(np.float32(masked) / np.float32(mean_span)))


def span_masking(task: seqio.Task, lengths: Mapping[str, int]) -> SpanMasking | None:
    """Returns the masking of a task's rows; None where t5 has to mask them.

    The last two steps have to be `span_corruption` and `append_eos_after_trim`. One example is made
    by them and here, too: where t5 or TensorFlow draw other numbers, or gin has changed what t5
    does, they go on to make all.
    """
    steps = task.preprocessors[-2:]
    if len(steps) < 2 or steps[1] is not seqio.preprocessors.append_eos_after_trim:
        return None
    arguments = t5_arguments(steps[0], t5.data.preprocessors.span_corruption)
    if arguments is None or lengths.keys() != {"inputs", "targets"}:
        return None
    inputs, targets = (task.output_features.get(name) for name in ("inputs", "targets"))
    if (
        inputs is None
        or {inputs.dtype, targets.dtype} != {tf.int32}
        or inputs.vocabulary != targets.vocabulary
        or arguments["input_feature_key"] != "inputs"
        or arguments["passthrough_feature_keys"]
        or {"sequence_length", "output_features"} & arguments.keys()
        or not 0 < arguments["noise_density"] <= _MAX_DENSITY
        or arguments["mean_noise_span_length"] < _MIN_MEAN_SPAN
    ):
        return None
    word = tuple(inputs.vocabulary.encode(mode_word(steps[0])))
    found = SpanMasking(
        arguments["noise_density"],
        arguments["mean_noise_span_length"],
        targets.vocabulary.vocab_size,
        {"inputs": _eos(inputs), "targets": _eos(targets)},
        dict(lengths),
        row_length(arguments, lengths["inputs"] - len(word)),
        arguments["merge_examples_to_reduce_padding"],
        word,
    )
    return found if _as_t5_does(found, task) else None


def _eos(feature: seqio.Feature) -> int | None:
    return feature.vocabulary.eos_id if feature.add_eos else None


@seqio.map_over_dataset(num_seeds=1)
def _with_seed(row: dict[str, tf.Tensor], seed: tuple[tf.Tensor, tf.Tensor]) -> dict[str, Any]:
    tokens = row["targets"]
    return {"targets": tokens, "length": tf.size(tokens), "seed": tf.stack(seed)}


def _as_t5_does(masking: SpanMasking, task: seqio.Task) -> bool:
    """Whether the examples of some tokens are the same with t5's steps and with `masking`."""
    tokens = tf.range(2, masking.row_length + 20)  # a row, and some of a second one
    source = tf.data.Dataset.from_tensors({"targets": tokens})

    def examples(*steps: Callable[..., Any]) -> list[Example]:
        of_steps = task.replace(preprocessors=steps)
        dataset = of_steps.preprocess_postcache(source, masking.lengths, seed=1)
        return list(dataset.as_numpy_iterator())

    expected = examples(*task.preprocessors[-2:])
    rows = [
        masking.examples({name: array[None] for name, array in row.items()})[0]
        for row in examples(masking.rows)
    ]
    return len(rows) == len(expected) and all(
        np.array_equal(row[name], example[name])
        for row, example in zip(rows, expected, strict=True)
        for name in masking.lengths
    )
