"""Batches of a decoder alone: inputs and targets in one segment, and the loss on the targets."""

import itertools

import numpy as np
import pytest

from switch_jax.config import DataConfig
from switch_jax.data.catalogue.checks import check_examples, open_tasks
from switch_jax.data.catalogue.lost_text import lost_text
from switch_jax.data.catalogue.task_preview import first_examples
from switch_jax.data.eval_batches import eval_batches
from switch_jax.data.packing import empty_batch, pack_rows, write_row
from switch_jax.data.reading.position import Position
from switch_jax.data.train_batches import TrainBatches
from switch_jax.utils.errors import UserError
from switch_jax.utils.tensorflow_setup import seqio, tf
from tests.data.helpers import FEATURES, NUMBERS, assert_same, lines, text_of, validation
from tests.trainer.helpers import ONE_STACK, STACKS

TARGETS = {"targets": FEATURES["targets"]}
OPTIONAL = {**TARGETS, "inputs": seqio.Feature(NUMBERS, add_eos=False, required=False)}


@seqio.map_over_dataset
def as_question(line):
    """The number n as the inputs [n, n + 1] and the targets [n + 2, n + 3, 1]."""
    number = tf.strings.to_number(line, tf.int32)
    return {"inputs": number + tf.range(2), "targets": tf.stack([number + 2, number + 3, 1])}


@seqio.map_over_dataset
def as_text(line):
    """The number n as n % 3 times itself; 'inputs' is text that is no feature."""
    number = tf.strings.to_number(line, tf.int32)
    return {"inputs": "", "targets": tf.fill([number % 3], number)}


@seqio.map_over_dataset
def only_targets(example):
    return {"targets": example["targets"]}


@seqio.map_over_dataset
def only_inputs(example):
    return {"inputs": example["inputs"]}


@pytest.fixture
def tasks(tmp_path, register):
    """Questions and texts of the numbers 10, 20, ... 400, one of each."""
    (tmp_path / "numbers.txt").write_text(text_of(range(10, 410, 10)))
    source = lines(tmp_path / "numbers.txt", "train", "validation")
    register("questions", source, [as_question])
    register("texts", source, [as_text], TARGETS)


def ids(*numbers):
    return np.array(numbers, np.int32)


def test_a_row_has_each_example_in_one_segment_and_the_loss_on_its_targets():
    lengths = {"inputs": 4, "targets": 6}
    batch = empty_batch(ONE_STACK, 1, lengths)
    question, text = {"inputs": ids(5, 6), "targets": ids(7, 8, 1)}, {"targets": ids(9, 1)}
    write_row(ONE_STACK, batch, 0, [question, text])
    assert {name: array.tolist() for name, array in batch.items()} == {
        "decoder_target_tokens": [[5, 6, 7, 8, 1, 9, 1, 0, 0, 0]],
        "decoder_input_tokens": [[0, 5, 6, 7, 8, 0, 9, 0, 0, 0]],
        "decoder_segment_ids": [[1, 1, 1, 1, 1, 2, 2, 0, 0, 0]],
        "decoder_loss_weights": [[0, 0, 1, 1, 1, 1, 1, 0, 0, 0]],
    }


@pytest.mark.parametrize(
    ("inputs", "targets", "weights"),
    [(3, 9, [0] * 3 + [1] * 5), (9, 3, [0] * 8), (7, 3, [0] * 7 + [1])],
)
def test_what_does_not_fit_into_the_row_is_cut_off(inputs, targets, weights):
    batch = empty_batch(ONE_STACK, 1, {"targets": 8})
    write_row(ONE_STACK, batch, 0, [{"inputs": ids(*[5] * inputs), "targets": ids(*[6] * targets)}])
    assert batch["decoder_loss_weights"].tolist() == [weights]


def test_examples_share_a_row_as_long_as_all_their_tokens_fit():
    """Two of 1 + 5 do, though 2 x 5 are more than the length of targets; a third of 1 does not."""
    lengths = {"inputs": 6, "targets": 6}
    long, short = {"inputs": ids(1), "targets": ids(*range(5))}, {"targets": ids(1)}
    examples = [(long, "a"), (long, "b"), (short, "c")]
    rows = list(pack_rows(ONE_STACK, examples, lengths, pack=True))
    assert [[tag for _, tag in row] for row in rows] == [["a", "b"], ["c"]]


@pytest.mark.parametrize(
    ("name", "lengths", "expected"),
    [
        ("questions", {"inputs": 2, "targets": 3}, set(range(12, 412, 10))),
        ("texts", {"targets": 5}, {n for n in range(10, 410, 10) if n % 3}),
    ],
)
def test_an_epoch_has_each_example_once_and_a_run_goes_on_exactly(tasks, name, lengths, expected):
    """Texts without a token are left out, in training and in evaluation."""
    config = DataConfig(name, lengths, data_streams=2)
    opened = open_tasks(config)
    check_examples(opened, ONE_STACK)
    whole = list(itertools.islice(TrainBatches(opened, ONE_STACK, 4), 20))
    at = whole[6][1].as_json()
    again = TrainBatches(opened, ONE_STACK, 4, Position.from_json([at]))
    for (batch, place), (other, other_place) in zip(whole[7:], again, strict=False):
        assert_same(batch, other)
        assert place == other_place

    def firsts(batch):
        """The first target of each example."""
        weights, found = batch["decoder_loss_weights"], batch["decoder_target_tokens"]
        segments = np.where(weights > 0, batch["decoder_segment_ids"], 0)
        starts = np.diff(segments, axis=1, prepend=0) > 0
        return found[starts].tolist()

    # Two streams share an epoch: what both begin with, as many as each has, is all of it.
    one, other = (
        [n for batch, _ in whole for n in firsts({k: x[rows] for k, x in batch.items()})]
        for rows in (slice(0, 2), slice(2, 4))
    )
    shares = ([*one[:n], *other[: len(expected) - n]] for n in range(len(expected)))
    assert sorted(expected) in map(sorted, shares)
    in_evaluation = [n for b in eval_batches(validation(config), ONE_STACK, 4) for n in firsts(b)]
    assert sorted(in_evaluation) == sorted(expected)


def test_a_mixture_may_have_inputs_in_some_of_its_tasks(tasks, register):
    source, without_inputs = seqio.TaskRegistry.get("texts").source, [as_text, only_targets]
    register("also_texts", source, without_inputs, OPTIONAL)
    config = DataConfig("questions=1, also_texts=1", {"inputs": 4, "targets": 6})
    opened = open_tasks(config)
    check_examples(opened, ONE_STACK)
    assert lost_text(opened) == []
    batch, _ = next(TrainBatches(opened, ONE_STACK, 20))
    unread = (batch["decoder_segment_ids"] > 0) & (batch["decoder_loss_weights"] == 0)
    assert set(batch["decoder_target_tokens"][unread] % 10) == {0, 1}, "the inputs of questions"
    with pytest.raises(
        UserError, match="examples of also_texts have targets, but no inputs, which"
    ):
        check_examples(opened, STACKS)


@seqio.map_over_dataset
def as_short_question(line):
    """The number n as n // 10 % 2 inputs and n // 20 % 2 targets, all of them n."""
    number = tf.strings.to_number(line, tf.int32)
    return {
        "inputs": tf.fill([number // 10 % 2], number),
        "targets": tf.fill([number // 20 % 2], number),
    }


@pytest.mark.parametrize(("stacks", "kept"), [(ONE_STACK, {10, 20, 30}), (STACKS, {10, 30})])
def test_an_example_is_kept_if_what_attends_to_no_other_stack_has_a_token(
    tmp_path, register, stacks, kept
):
    (tmp_path / "numbers.txt").write_text(text_of([10, 20, 30, 40]))
    source = lines(tmp_path / "numbers.txt", "train", "validation")
    register("short", source, [as_short_question])
    config = DataConfig("short", {"inputs": 2, "targets": 2}, pack=False)
    row = {"training": next(TrainBatches(open_tasks(config), stacks, len(kept)))[0]}
    row["evaluation"] = next(eval_batches(validation(config), stacks, len(kept)))
    for batch in row.values():
        read = [batch[f"{stack.name}_target_tokens"] for stack in stacks[-1:]]
        read += [batch[stack.input_tokens] for stack in stacks[:-1]]
        assert {int(n) for tokens in read for n in tokens.ravel() if n} == kept
    assert len(list(eval_batches(validation(config), stacks, len(kept)))) == 1


@pytest.mark.parametrize("stacks", [ONE_STACK, STACKS], ids=["one", "two"])
def test_inputs_alone_are_refused(tmp_path, register, stacks):
    (tmp_path / "numbers.txt").write_text(text_of([10]))
    optional = {"inputs": FEATURES["inputs"], "targets": OPTIONAL["inputs"]}
    steps = [as_question, only_inputs]
    register("asks_only", lines(tmp_path / "numbers.txt"), steps, optional)
    opened = open_tasks(DataConfig("asks_only", {"inputs": 2, "targets": 2}))
    message = "^the examples of asks_only have inputs, but no targets, which this model needs$"
    with pytest.raises(UserError, match=message):
        check_examples(opened, stacks)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_examples_that_are_all_empty_are_refused_and_not_read_for_ever(tmp_path, register, split):
    (tmp_path / "numbers.txt").write_text(text_of([3, 6, 9]))
    register("nothing", lines(tmp_path / "numbers.txt", split), [as_text], TARGETS)
    opened = open_tasks(DataConfig("nothing", {"targets": 4}, split=split))
    for read in (TrainBatches(opened, ONE_STACK, 1), eval_batches(opened, ONE_STACK, 1)):
        with pytest.raises(UserError, match="nothing gives no example of its split"):
            next(read)


@pytest.mark.parametrize("optional", [False, True])
def test_inputs_without_a_length_are_refused(tmp_path, register, optional):
    """Nobody trains on the targets alone in silence."""
    (tmp_path / "numbers.txt").write_text(text_of([10]))
    source = lines(tmp_path / "numbers.txt")
    register("asks", source, [as_question], OPTIONAL if optional else FEATURES)
    message = "asks ha.* inputs, and TASK_FEATURE_LENGTHS = {'targets': 4} gives them no length"
    with pytest.raises(UserError, match=message):
        check_examples(open_tasks(DataConfig("asks", {"targets": 4})), ONE_STACK)
    with pytest.raises(UserError, match="^bible_span_corruption makes inputs, and TASK_FEATURE"):
        open_tasks(DataConfig("bible_span_corruption", {"targets": 4}))


@pytest.mark.parametrize("optional", [False, True])
def test_a_length_for_inputs_that_no_task_has_is_refused(tmp_path, register, optional):
    (tmp_path / "numbers.txt").write_text(text_of([10]))
    steps = [as_text, only_targets]
    register("says", lines(tmp_path / "numbers.txt"), steps, OPTIONAL if optional else TARGETS)
    message = r"TASK_FEATURE_LENGTHS = .*'inputs': 2.*, and says has no inputs"
    with pytest.raises(UserError, match=message):
        check_examples(open_tasks(DataConfig("says", {"inputs": 2, "targets": 2})), ONE_STACK)


def test_examples_without_inputs_are_shown(tasks):
    config = DataConfig("texts", {"inputs": 4, "targets": 4}, split="validation")
    assert first_examples(config, 1).splitlines() == [
        "texts, validation, example 1",
        "  targets, 1 tokens: 10",
        "    [10]",
    ]
