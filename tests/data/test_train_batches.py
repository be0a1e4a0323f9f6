"""Training batches: the same for any hosts, and from any position on."""

import collections
import dataclasses
import itertools
import json

import numpy as np
import pytest
import seqio

from switch_jax.config import DataConfig
from switch_jax.data.catalogue.checks import open_tasks
from switch_jax.data.eval_batches import eval_batches
from switch_jax.data.reading import file_chunks
from switch_jax.data.reading.position import Cursor, Position
from switch_jax.data.train_batches import TrainBatches
from switch_jax.utils.tensorflow_setup import tf
from tests.data.helpers import (
    NUMBERS,
    assert_same,
    config_of,
    features,
    lines,
    parse,
    task_examples,
    text_of,
    validation,
    write_records,
)
from tests.storage.copies import copy_files
from tests.trainer.helpers import STACKS

BIBLE = DataConfig("bible_span_corruption", {"inputs": 64, "targets": 20}, data_streams=2)
MIXED = DataConfig("numbers_mixed", {"inputs": 3, "targets": 3}, data_streams=4)
TOY = DataConfig("toy_pairs", {"inputs": 10, "targets": 7}, pack=False)


def test_a_mixture_keeps_its_rates(numbers):
    config = config_of("numbers_mixed", data_streams=2)
    batches = itertools.islice(TrainBatches(open_tasks(config), STACKS, 500), 4)
    same = [b["encoder_input_tokens"] == b["decoder_target_tokens"] for b, _ in batches]
    # 2000 draws with p = 3/4: the standard deviation is 0.0097.
    assert np.mean(same) == pytest.approx(0.75, abs=0.04)


def test_a_run_goes_on_with_the_batches_of_the_uninterrupted_run():
    read = TrainBatches(open_tasks(BIBLE), STACKS, 8)
    whole = [next(read) for _ in range(6)]
    text = json.dumps(whole[2][1].as_json())
    assert len(text) < 1000
    position = Position.from_json([json.loads(text)])
    assert position.batches == 3
    for (expected, place), (found, again) in zip(
        whole[3:], TrainBatches(open_tasks(BIBLE), STACKS, 8, position), strict=False
    ):
        assert_same(expected, found)
        assert place == again


def test_hosts_read_their_rows_alone_and_any_number_of_them_gives_the_same_batches(numbers):
    whole = [batch for batch, _ in itertools.islice(TrainBatches(open_tasks(MIXED), STACKS, 8), 4)]
    hosts = [
        TrainBatches(open_tasks(MIXED), STACKS, 8, needed_rows=rows)
        for rows in ([0, 1, 2, 3], [4, 5, 6, 7])
    ]
    places = []
    for batch in whole[:2]:
        for number, host in enumerate(hosts):
            found, place = next(host)
            places.append(place.as_json())
            own = slice(4 * number, 4 * number + 4)
            expected = {key: array[own] for key, array in batch.items()}
            assert_same({key: array[own] for key, array in found.items()}, expected)
            others = np.delete(found["encoder_segment_ids"], range(8)[own], axis=0)
            assert not others.any()
    # Two hosts stop, and one goes on for both; or one that needs rows of three streams.
    position = Position.from_json(places[-2:])
    assert sorted(position.streams) == [0, 1, 2, 3]
    for (found, _), batch in zip(
        TrainBatches(open_tasks(MIXED), STACKS, 8, position), whole[2:], strict=False
    ):
        assert_same(found, batch)
    odd = TrainBatches(open_tasks(MIXED), STACKS, 8, position, needed_rows=[1, 2, 7])
    found, _ = next(odd)
    for row in (1, 2, 7):
        np.testing.assert_array_equal(
            found["encoder_input_tokens"][row], whole[2]["encoder_input_tokens"][row]
        )


def test_a_cached_task_is_read_without_its_source(tmp_path, storage, folders_as_before, register):
    name = "cached_numbers"
    steps = [parse, seqio.CacheDatasetPlaceholder(), seqio.preprocessors.append_eos]
    register(name, lines(tmp_path / "absent.txt"), steps, features(NUMBERS))
    cache = tmp_path / "written" / name
    cache.mkdir(parents=True)
    names = ("inputs", "targets")
    write_records(cache / "train.tfrecord-00000-of-00001", [dict.fromkeys(names, [7, 8, 9])])
    described = dict.fromkeys(names, {"shape": [None], "dtype": "int32"})
    info = {"num_shards": 1, "features": described, "seqio_version": "0"}
    (cache / "info.train.json").write_text(json.dumps(info))
    (cache / "stats.train.json").write_text(json.dumps({"examples": 1}))
    (cache / "COMPLETED").touch()
    copy_files(cache.parent, storage / "cache")
    seqio.set_global_cache_dirs([str(storage / "cache")])
    config = DataConfig(name, {"inputs": 6, "targets": 6}, use_cached_tasks=True, pack=False)
    batch, _ = next(TrainBatches(open_tasks(config), STACKS, 1))
    np.testing.assert_array_equal(batch["encoder_input_tokens"], [[7, 8, 9, 1, 0, 0]])


def test_examples_without_inputs_are_left_out():
    config = dataclasses.replace(
        TOY, mixture_or_task_name="toy_some_empty", shuffle_train_examples=False, pack=True
    )
    inputs = [[8, 4, 9, 3, 1, 0, 0, 0, 0, 0], [2, 2, 2, 2, 2, 2, 1, 0, 0, 0]]
    (batch,) = eval_batches(validation(config), STACKS, batch_size=2)
    np.testing.assert_array_equal(batch["encoder_input_tokens"], inputs)
    batches = TrainBatches(open_tasks(config), STACKS, batch_size=4)
    for _ in range(2):
        batch, position = next(batches)
        np.testing.assert_array_equal(batch["encoder_input_tokens"], inputs * 2)
    assert position.streams[0].draws == 8


def _in_pieces(dataset, sequence_length):
    """Each number four times, as examples of the length of the inputs."""

    def pieces(example):
        shape = [-1, sequence_length["inputs"]]
        rows = tf.reshape(tf.tile(example["inputs"], [4]), shape)
        return tf.data.Dataset.from_tensor_slices({"inputs": rows, "targets": rows})

    return dataset.flat_map(pieces)


@pytest.mark.parametrize(("before", "now"), [(1, 2), (2, 1)])
def test_other_lengths_on_a_restart_touch_only_the_block_at_the_position(
    tmp_path, monkeypatch, register, before, now
):
    monkeypatch.setattr(file_chunks, "MAX_CHUNK_BYTES", 50)
    (tmp_path / "numbers.txt").write_text(text_of(range(2, 402)))
    task = register("in_pieces", lines(tmp_path / "numbers.txt"), [parse, _in_pieces])
    blocks, start = {}, None  # of each number, and the position in the middle of an epoch
    for example, cursor in task_examples(task, length=before).read(0, Cursor()):
        if cursor.epoch == 1:
            break
        blocks[int(example["inputs"][0])] = cursor.block
        start = cursor if (cursor.block, cursor.example) == (5, 20) else start
    assert len(blocks) == 400 and max(blocks.values()) > 5

    rest = task_examples(task, length=now).read(0, start)
    found = collections.Counter(
        int(example["inputs"][0])
        for example, _ in itertools.takewhile(lambda read: read[1].epoch == 0, rest)
    )
    for number, block in blocks.items():
        if block != 5:
            assert found[number] == (4 // now if block > 5 else 0)
