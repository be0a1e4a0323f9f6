import dataclasses

import numpy as np
import pytest

from switch_jax.config import DataConfig
from switch_jax.data.eval_batches import eval_batches
from switch_jax.utils.errors import UserError
from tests.data.helpers import assert_same, validation
from tests.trainer.helpers import STACKS

TOY = DataConfig("toy_pairs", {"inputs": 10, "targets": 7}, shuffle_train_examples=False)


def test_packed_rows_hold_whole_examples_with_segments():
    (batch,) = eval_batches(validation(TOY), STACKS, batch_size=4)
    # Examples 1 and 2 share a row; 3 and 4 the next; 5 is alone; the fourth row fills up.
    expected = {
        "encoder_input_tokens": "7851849310 6122222210 3100000000 0000000000",
        "encoder_segment_ids": "1111222220 1122222220 1100000000 0000000000",
        "decoder_target_tokens": "3914100 2155100 6661000 0000000",
        "decoder_input_tokens": "0390400 0205500 0666000 0000000",
        "decoder_segment_ids": "1112200 1122200 1111000 0000000",
        "decoder_loss_weights": "1111100 1111100 1111000 0000000",
    }
    rows = {key: [[*map(int, row)] for row in text.split()] for key, text in expected.items()}
    assert_same(batch, {key: np.array(its_rows) for key, its_rows in rows.items()})
    dtypes = {key: str(array.dtype) for key, array in batch.items()}
    assert dtypes.pop("decoder_loss_weights") == "float32"
    assert set(dtypes.values()) == {"int32"}


def test_without_packing_each_example_is_a_row_and_the_last_batch_fills_up_with_zeros():
    config = dataclasses.replace(TOY, pack=False)
    batches = list(eval_batches(validation(config), STACKS, batch_size=2))
    assert [batch["encoder_input_tokens"].shape for batch in batches] == [(2, 10)] * 3
    np.testing.assert_array_equal(batches[0]["encoder_segment_ids"][0], [1] * 4 + [0] * 6)
    # The first decoder input is 0 and yet belongs to the example; EOS is the input of nothing.
    np.testing.assert_array_equal(batches[0]["decoder_input_tokens"][0], [0, 3, 9, 0, 0, 0, 0])
    np.testing.assert_array_equal(batches[0]["decoder_segment_ids"][0], [1, 1, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(batches[2]["decoder_target_tokens"][0], [6, 6, 6, 1, 0, 0, 0])
    assert all(not array[1].any() for array in batches[2].values())
    assert len(list(eval_batches(validation(config), STACKS, batch_size=2, num_batches=2))) == 2


def test_evaluation_is_the_same_for_every_seed():
    config = DataConfig("bible_span_corruption", {"inputs": 128, "targets": 32})
    other_seed = dataclasses.replace(config, random_seed=7)
    first, second = (next(eval_batches(validation(c), STACKS, 4)) for c in (config, other_seed))
    assert_same(first, second)


def test_a_mixture_is_evaluated_task_by_task():
    config = dataclasses.replace(TOY, mixture_or_task_name="toy_mixture", pack=False)
    opened = validation(config)
    assert opened.names == ["toy_long", "toy_pairs"]
    (batch,) = eval_batches(opened, STACKS, batch_size=8)
    # The last target before EOS: both of toy_long, the five of toy_pairs, and a row of padding.
    lengths = batch["decoder_segment_ids"].sum(axis=1)
    last = np.take_along_axis(batch["decoder_target_tokens"], lengths[:, None] - 2, axis=1)
    np.testing.assert_array_equal(last[:7, 0], [4, 5, 9, 4, 2, 5, 6])
    assert lengths[7] == 0


def test_a_task_without_examples_is_an_error():
    config = dataclasses.replace(TOY, mixture_or_task_name="toy_none")
    with pytest.raises(UserError, match="toy_none gives no example of its split 'validation'"):
        next(eval_batches(validation(config), STACKS, batch_size=1))
