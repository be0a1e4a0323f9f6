"""Held-out examples as several models go on with them, for people to read."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from switch_jax.config.stack import StackConfig
from switch_jax.data.catalogue.checks import check_examples, open_tasks
from switch_jax.data.catalogue.configured_tasks import (
    OpenedTasks,
    ordered_examples,
    vocabulary_fingerprints,
)
from switch_jax.data.catalogue.vocabularies import decode_ids
from switch_jax.data.packing import Example
from switch_jax.inference.input_records import text_features, text_of
from switch_jax.inference.interactive import InteractiveModel
from switch_jax.inference.routing import Routing, route_ids
from switch_jax.inference.trained_model import (
    TrainedModel,
    decoding_config,
    open_folder,
    prepare_model,
)
from switch_jax.utils.errors import UserError

_STRIDE = 20  # examples in a row are of one passage, or of one document


class Continued(NamedTuple):
    """A held-out example: what the models read, what follows there, and what each model wrote."""

    beginning: str
    truth: str
    texts: dict[str, str]  # by the name of the run


class HeldOutText(NamedTuple):
    """Examples of the runs' held-out task, and the experts of the first one's tokens.

    `routings` is by stack, of the first run with experts, `routed`, and its own continuation; both
    are empty where no run has any.
    """

    task: str
    examples: list[Continued]
    routed: str
    num_experts: int
    routings: dict[str, Routing]


def continue_held_out(runs: Mapping[str, str], num_examples: int) -> HeldOutText:
    """Lets the newest checkpoint of each run go on with the same examples, greedily.

    Of a task with inputs the targets are predicted; other text is cut in half. Examples are of the
    validation split, of each task of a mixture in turn.

    Args:
      runs: names and folders.
      num_examples: how many; fewer where there are no more.

    Raises:
      UserError: a folder has no checkpoint, runs read different examples, or these cannot be read.
    """
    models = {
        name: prepare_model(open_folder(folder), split="validation", batch_size=num_examples)
        for name, folder in runs.items()
    }
    _check_same_examples(models)
    first = next(iter(models.values()))
    data, stacks = first.config.data, first.config.model.stacks
    opened = open_tasks(data)
    check_examples(opened, stacks)
    features, decoding = text_features(data), decoding_config(data)
    examples = [_halved(e) for e in itertools.islice(_spread(opened, stacks), num_examples)]
    found = [
        Continued(
            decode_ids(features["inputs"].vocabulary, example["inputs"].tolist()),
            text_of(example["targets"], example, features),
            {},
        )
        for example in examples
    ]
    routed, num_experts, routings = "", 0, dict[str, Routing]()
    for name, prepared in models.items():
        model = InteractiveModel(prepared, prepared.chosen_step("latest"))
        predicted = model.predict(examples, decoding)
        for shown, example, prediction in zip(found, examples, predicted, strict=True):
            shown.texts[name] = text_of(prediction.tokens, example, features)
        if examples and not routings and model.config.model.num_experts:
            routed, num_experts = name, model.config.model.num_experts
            written = _without_repeated_end(predicted[0].tokens, decoding.eos_id)
            routings = route_ids(model, {**examples[0], "targets": written}, {})
    return HeldOutText(data.mixture_or_task_name, found, routed, num_experts, routings)


def _check_same_examples(models: Mapping[str, TrainedModel]) -> None:
    """Raises UserError where two runs would read the same example differently."""
    (first, of_first), *others = (
        (
            name,
            {
                "MIXTURE_OR_TASK_NAME": model.config.data.mixture_or_task_name,
                "TASK_FEATURE_LENGTHS": dict(model.config.data.task_feature_lengths),
                "VOCABULARY": vocabulary_fingerprints(model.config.data),
            },
        )
        for name, model in models.items()
    )
    for name, of_other in others:
        if different := [key for key, value in of_first.items() if of_other[key] != value]:
            raise UserError(
                f"{first} and {name} differ in {different[0]}, so they do not read the same "
                "examples: leave out --examples, or give runs of one task"
            )


def _spread(opened: OpenedTasks, stacks: Sequence[StackConfig]) -> Iterator[Example]:
    """Every 20th example of each task; the tasks take turns."""
    of_tasks = [
        itertools.islice(ordered_examples(task, opened.config, stacks), None, None, _STRIDE)
        for task in opened
    ]
    for turn in itertools.zip_longest(*of_tasks):
        for example in turn:
            if example is not None:
                names = [name for name in ("inputs", "targets") if name in example]
                yield {name: np.asarray(example[name], np.int32) for name in names}


def _halved(example: Example) -> Example:
    """The example; without inputs, the first half of its targets as inputs for the rest."""
    if "inputs" in example:
        return example
    ids = example["targets"]
    return {"inputs": ids[: len(ids) // 2], "targets": ids[len(ids) // 2 :]}


def _without_repeated_end(tokens: np.ndarray, eos_id: int) -> np.ndarray:
    """A prediction's ids up to its first EOS."""
    return tokens[: 1 + np.argmax([*(tokens == eos_id), True])]
