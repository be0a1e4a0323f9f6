"""Counts the text that a model does not see: ends that are cut off, and unknown characters."""

import itertools
from collections.abc import Iterator, Mapping, Sequence

from switch_jax.data.catalogue.configured_tasks import OpenedTasks, ordered_dataset
from switch_jax.data.catalogue.vocabularies import content_tokens, num_unknown
from switch_jax.data.packing import Example
from switch_jax.data.reading import seqio_internals
from switch_jax.data.reading.examples import read_examples
from switch_jax.utils.tensorflow_setup import seqio
from switch_jax.utils.units import counted, percent

_EXAMPLES_READ = 200  # of a task


def lost_text(opened: OpenedTasks) -> list[str]:
    """Lines with how many of the first examples of each task lose their end, and unknown tokens."""
    config = opened.config
    lines: list[str] = []
    for task in opened:
        # Whole, unless a step fits the text to the lengths, as span corruption does.
        lengths = {} if _only_trims(task) else config.task_feature_lengths
        dataset = ordered_dataset(task, config, lengths)
        examples = read_examples(dataset, task, config.split, config.use_cached_tasks)
        first = list(itertools.islice(examples, _EXAMPLES_READ))
        lines += _cut_off(task.name, first, config.task_feature_lengths)
        lines += _unknown(task, first, config.task_feature_lengths)
    return lines


def _only_trims(task: seqio.Task) -> bool:
    """Whether the lengths do nothing but to cut the task's examples off."""
    trim = seqio.preprocessors.append_eos_after_trim
    return not any(
        seqio.utils.add_kwargs_to_transform(step, sequence_length={}) is not step
        for step in task.preprocessors
        if seqio_internals.without_partial(step) is not trim
    )


def _cut_off(task: str, examples: Sequence[Example], lengths: Mapping[str, int]) -> Iterator[str]:
    for feature, length in lengths.items():
        if number := sum(len(example.get(feature, ())) > length for example in examples):
            yield (
                f"{task}: {number} of the first {counted(len(examples), 'example')} have more than "
                f"{counted(length, 'token')} of {feature}, and lose their end"
            )


def _unknown(
    task: seqio.Task, examples: Sequence[Example], features: Mapping[str, object]
) -> Iterator[str]:
    shares = []
    for feature in features:
        vocabulary = task.output_features[feature].vocabulary
        of_feature = [example[feature] for example in examples if feature in example]
        if number := sum(num_unknown(vocabulary, ids) for ids in of_feature):
            is_content = content_tokens(vocabulary)
            total = sum(int(is_content[ids].sum()) for ids in of_feature)
            share = percent(number / total)
            shares.append(f"{number:,} of {total:,} tokens of {feature} ({share})")
    if shares:
        yield (
            f"{task.name}: in the first {counted(len(examples), 'example')} {' and '.join(shares)} "
            "are unknown: the vocabulary lacks their characters"
        )
