import functools

import pytest
import seqio
from t5.data.preprocessors import span_corruption

from switch_jax.config import DataConfig
from switch_jax.data.catalogue.checks import check_examples, check_tasks, open_tasks
from switch_jax.data.catalogue.registry import get_mixture_or_task
from switch_jax.tasks import english
from switch_jax.utils.errors import UserError
from tests.data.helpers import config_of, features, lines
from tests.trainer.helpers import STACKS

BIBLE = get_mixture_or_task("bible_span_corruption")
README = lines(english.DATA / "README.md")
TOKENIZE = seqio.preprocessors.tokenize
ENGLISH = features(english.VOCABULARY, required=False)
TARGETS = {"targets": seqio.Feature(english.VOCABULARY)}


def test_a_task_without_inputs_is_refused(register):
    register("targets_alone", README, [english.as_targets, TOKENIZE], TARGETS)
    with pytest.raises(UserError, match="targets_alone has no inputs, which an encoder needs"):
        open_tasks(config_of("targets_alone", 8))
    register("no_inputs", README, [english.as_targets, TOKENIZE], ENGLISH)
    with pytest.raises(
        UserError, match="no_inputs have targets.*no inputs, which this model needs"
    ):
        check_examples(open_tasks(config_of("no_inputs", 8)), STACKS)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (
            [english.as_targets, span_corruption],
            r"the step span_corruption fails: ValueError: slice index 0 of dimension 0 out of "
            r"bounds\.$",
        ),
        ([english.as_targets], r"ValueError: "),
    ],
)
def test_a_step_that_fails_is_named_with_what_is_missing(register, steps, message):
    register("no_tokens", README, steps, ENGLISH)
    opened = open_tasks(DataConfig("no_tokens", {"inputs": 16, "targets": 8}))
    with pytest.raises(UserError, match=f"^the examples of no_tokens .* preprocessed: {message}"):
        check_examples(opened, STACKS)


@pytest.mark.parametrize("name", ["toy_none", "toy_empty"])
def test_a_task_without_examples_is_refused(name):
    opened = open_tasks(config_of(name, 10))
    message = f"{name} gives no example of its split 'train'.*without a token"
    with pytest.raises(UserError, match=message):
        check_examples(opened, STACKS)


def check_lengths(inputs, targets, task=BIBLE):
    check_tasks([task], DataConfig(task.name, {"inputs": inputs, "targets": targets}))


def examples(inputs, targets):
    lengths = {"inputs": inputs, "targets": targets}
    dataset = BIBLE.get_dataset(lengths, split="validation", shuffle=False, seed=0)
    return list(dataset.take(5).as_numpy_iterator())


@pytest.mark.parametrize(
    ("inputs", "targets"),
    # 128: round(0.15 * 141) = 21 tokens in 7 spans and EOS. 172: 29 tokens in 10 spans, where
    # t5 counts 28 in 9 and would cut off two tokens.
    [(128, 21 + 7 + 1), (172, 29 + 10 + 1)],
)
def test_targets_are_exactly_long_enough_or_refused(inputs, targets):
    check_lengths(inputs, targets)
    for example in examples(inputs, targets + 10):
        assert (len(example["inputs"]), len(example["targets"])) == (inputs, targets)
    with pytest.raises(UserError, match=rf"{targets - 1} are too short .* \+ 1 = {targets}$"):
        check_lengths(inputs, targets - 1)


def test_inputs_with_more_spans_than_sentinels_are_refused():
    check_lengths(1809, 1000)
    with pytest.raises(UserError, match="101 spans .* 100 sentinels$"):
        check_lengths(1810, 1000)
    # The vocabulary's ordinary pieces end at 999, with which t5 would go on at 1810.
    (example, *_) = examples(1809, 1000)
    assert sorted(token for token in example["inputs"] if token >= 1000) == list(range(1000, 1100))


def test_lengths_fit_the_density_of_the_task():
    with pytest.raises(UserError, match="length 4 do not fit .* masks 0 spans"):
        check_lengths(4, 32)
    half = BIBLE.replace(preprocessors=[functools.partial(span_corruption, noise_density=0.5)])
    with pytest.raises(UserError, match="targets of length 32 are too short"):
        check_lengths(128, 32, half)
    check_lengths(128, 128, half)
    check_lengths(4000, 1, BIBLE.replace(preprocessors=[]))  # it masks nothing
