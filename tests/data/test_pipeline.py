import dataclasses

import numpy as np
import pytest
import seqio

from switch_jax.config import DataConfig
from switch_jax.data.checks import check_examples, open_tasks
from switch_jax.data.configured_tasks import vocabulary_size
from switch_jax.data.eval_batches import eval_batches, eval_tasks
from switch_jax.data.train_batches import TrainBatches
from switch_jax.errors import UserError
from switch_jax.tasks import english
from tests.data.helpers import validation

ENGLISH = DataConfig("english_span_corruption", {"inputs": 128, "targets": 32})
TOY = DataConfig("toy_pairs", {"inputs": 10, "targets": 7}, shuffle=False)


def assert_same(one, other):
    assert one.keys() == other.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], other[key], err_msg=key)


def test_packed_rows_hold_whole_examples_with_segments():
    (batch,) = eval_batches(validation(TOY), batch_size=4)
    # Examples 1 and 2 share a row; 3 and 4 the next; 5 is alone; the fourth row fills up.
    expected = {
        "encoder_tokens": [
            [7, 8, 5, 1, 8, 4, 9, 3, 1, 0],
            [6, 1, 2, 2, 2, 2, 2, 2, 1, 0],
            [3, 1, 0, 0, 0, 0, 0, 0, 0, 0],
            [0] * 10,
        ],
        "encoder_segments": [
            [1, 1, 1, 1, 2, 2, 2, 2, 2, 0],
            [1, 1, 2, 2, 2, 2, 2, 2, 2, 0],
            [1, 1, 0, 0, 0, 0, 0, 0, 0, 0],
            [0] * 10,
        ],
        "decoder_target_tokens": [
            [3, 9, 1, 4, 1, 0, 0],
            [2, 1, 5, 5, 1, 0, 0],
            [6, 6, 6, 1, 0, 0, 0],
            [0] * 7,
        ],
        "decoder_input_tokens": [
            [0, 3, 9, 0, 4, 0, 0],
            [0, 2, 0, 5, 5, 0, 0],
            [0, 6, 6, 6, 0, 0, 0],
            [0] * 7,
        ],
        "decoder_segments": [
            [1, 1, 1, 2, 2, 0, 0],
            [1, 1, 2, 2, 2, 0, 0],
            [1, 1, 1, 1, 0, 0, 0],
            [0] * 7,
        ],
        "decoder_loss_weights": [
            [1, 1, 1, 1, 1, 0, 0],
            [1, 1, 1, 1, 1, 0, 0],
            [1, 1, 1, 1, 0, 0, 0],
            [0] * 7,
        ],
    }
    assert_same(batch, {key: np.array(rows) for key, rows in expected.items()})
    dtypes = {key: str(array.dtype) for key, array in batch.items()}
    assert dtypes.pop("decoder_loss_weights") == "float32"
    assert set(dtypes.values()) == {"int32"}


def test_without_packing_each_example_is_a_row_and_the_last_batch_fills_up_with_zeros():
    config = dataclasses.replace(TOY, pack=False)
    batches = list(eval_batches(validation(config), batch_size=2))
    assert [batch["encoder_tokens"].shape for batch in batches] == [(2, 10)] * 3
    np.testing.assert_array_equal(batches[0]["encoder_segments"][0], [1] * 4 + [0] * 6)
    # The first decoder input is 0 and yet belongs to the example; EOS is the input of nothing.
    np.testing.assert_array_equal(batches[0]["decoder_input_tokens"][0], [0, 3, 9, 0, 0, 0, 0])
    np.testing.assert_array_equal(batches[0]["decoder_segments"][0], [1, 1, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(batches[2]["decoder_target_tokens"][0], [6, 6, 6, 1, 0, 0, 0])
    assert all(not array[1].any() for array in batches[2].values())
    assert len(list(eval_batches(validation(config), batch_size=2, num_batches=2))) == 2


def test_evaluation_is_the_same_for_every_seed():
    config = dataclasses.replace(ENGLISH, mixture_or_task_name="bible_span_corruption")
    first = next(eval_batches(validation(config), batch_size=4))
    assert_same(
        first, next(eval_batches(validation(dataclasses.replace(config, seed=7)), batch_size=4))
    )


def test_a_mixture_is_evaluated_task_by_task():
    config = dataclasses.replace(TOY, mixture_or_task_name="toy_mixture", pack=False)
    assert eval_tasks(config) == ["toy_long", "toy_pairs"]
    (batch,) = eval_batches(validation(config), batch_size=8)
    # The last target before EOS: both of toy_long, the five of toy_pairs, and a row of padding.
    lengths = batch["decoder_segments"].sum(axis=1)
    last = np.take_along_axis(batch["decoder_target_tokens"], lengths[:, None] - 2, axis=1)
    np.testing.assert_array_equal(last[:7, 0], [4, 5, 9, 4, 2, 5, 6])
    assert lengths[7] == 0


def test_vocabulary_size_counts_the_sentinels():
    assert vocabulary_size(ENGLISH) == 1000 + 100
    assert vocabulary_size(TOY) == 10


@pytest.mark.parametrize(
    "lengths",
    [
        {"inputs": 128},
        {"inputs": 128, "targets": 0},
        {},
        {"inputs": 2**31, "targets": 32},
        {"inputs": 128, "targets": 10**30},
        {"inputs": 1e30, "targets": 32},
    ],
)
def test_lengths_must_be_given_and_positive_and_not_out_of_proportion(lengths):
    with pytest.raises(UserError, match="task_feature_lengths.*'targets'"):
        TrainBatches(open_tasks(dataclasses.replace(ENGLISH, task_feature_lengths=lengths)), 4)


def test_a_wrong_split_is_told_with_the_right_ones():
    with pytest.raises(UserError, match="no split 'test': its splits are train, validation"):
        open_tasks(dataclasses.replace(ENGLISH, split="test"))


def test_a_missing_cache_is_told():
    with pytest.raises(UserError, match="no cache of bible_span_corruption"):
        open_tasks(dataclasses.replace(ENGLISH, use_cached=True))


def test_a_task_that_gives_no_example_is_an_error_and_not_an_endless_wait():
    config = dataclasses.replace(TOY, mixture_or_task_name="toy_none")
    with pytest.raises(UserError, match="toy_none gives no example of its split 'train'"):
        TrainBatches(open_tasks(config), 1)
    with pytest.raises(UserError, match="toy_none gives no example of its split 'validation'"):
        next(eval_batches(validation(config), batch_size=1))


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    seqio.TaskRegistry.add(
        "missing_file",
        source=seqio.TextLineDataSource({"train": str(tmp_path / "no_such.txt")}),
        preprocessors=[english.as_targets, seqio.preprocessors.tokenize],
        output_features={"targets": seqio.Feature(english.VOCABULARY)},
    )
    config = DataConfig("missing_file", {"inputs": 8, "targets": 8})
    with pytest.raises(UserError, match=r"^missing_file, split 'train': .*no_such.txt"):
        check_examples(open_tasks(config))


def test_a_task_without_inputs_is_refused():
    seqio.TaskRegistry.add(
        "targets_alone",
        source=seqio.TextLineDataSource({"train": str(english.DATA / "README.md")}),
        preprocessors=[english.as_targets, seqio.preprocessors.tokenize],
        output_features={"targets": seqio.Feature(english.VOCABULARY)},
    )
    config = DataConfig("targets_alone", {"inputs": 8, "targets": 8})
    with pytest.raises(UserError, match="targets_alone have targets.*no inputs: an encoder-dec"):
        check_examples(open_tasks(config))


def test_examples_without_a_token_are_left_out_in_training_and_evaluation():
    config = dataclasses.replace(TOY, mixture_or_task_name="toy_some_empty")
    inputs = [[8, 4, 9, 3, 1, 0, 0, 0, 0, 0], [2, 2, 2, 2, 2, 2, 1, 0, 0, 0]]
    (batch,) = eval_batches(validation(config), batch_size=2)
    np.testing.assert_array_equal(batch["encoder_tokens"], inputs)
    batches = TrainBatches(open_tasks(config), batch_size=4)
    for _ in range(2):
        batch, position = next(batches)
        np.testing.assert_array_equal(batch["encoder_tokens"], inputs * 2)
    assert position.streams[0].draws == 8


def test_a_task_whose_examples_have_no_token_is_an_error_and_not_a_row_without_end():
    config = dataclasses.replace(TOY, mixture_or_task_name="toy_empty")
    message = "toy_empty gives no example of its split 'train'.*without a token"
    with pytest.raises(UserError, match=message):
        TrainBatches(open_tasks(config), 1)
