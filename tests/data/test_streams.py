"""The run's data as streams: everything once an epoch, the same for any hosts, from any place."""

import collections
import dataclasses
import itertools
import json

import numpy as np
import pytest
import seqio
import tensorflow as tf

from switch_jax.config import DataConfig
from switch_jax.data import pieces
from switch_jax.data.checks import open_tasks
from switch_jax.data.position import Position
from switch_jax.data.streams import Cursor, TaskExamples
from switch_jax.data.train_batches import TrainBatches
from switch_jax.errors import UserError
from switch_jax.tasks.english import VOCABULARY
from tests.data.test_pipeline import assert_same

BIBLE = DataConfig("bible_span_corruption", {"inputs": 64, "targets": 20}, num_streams=2)
MIXED = DataConfig("numbers_mixed", {"inputs": 3, "targets": 3}, num_streams=4)
TOY = DataConfig("toy_pairs", {"inputs": 10, "targets": 7}, pack=False)


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    """Tasks of 60 examples [n], n = 2 to 61, in 1 file and in 6, of 10 lines each."""
    folder = tmp_path_factory.mktemp("numbers")
    for i in range(6):
        rows = "".join(f"{n}\n" for n in range(2 + 10 * i, 12 + 10 * i))
        (folder / f"part{i}.txt").write_text(rows)
    (folder / "whole.txt").write_text("".join(f"{n}\n" for n in range(2, 62)))

    @seqio.map_over_dataset
    def parse(line):
        number = tf.strings.to_number(line, tf.int32)[None]
        return {"inputs": number, "targets": number}

    @seqio.map_over_dataset(num_seeds=1)
    def noised(example, seed):
        noise = tf.random.stateless_uniform([1], seed, 2, 10**9, tf.int32)
        return {"inputs": example["inputs"], "targets": noise}

    vocabulary = seqio.PassThroughVocabulary(size=10**9, eos_id=1)
    features = {name: seqio.Feature(vocabulary, add_eos=False) for name in ("inputs", "targets")}
    for name, pattern, steps in (
        ("numbers_1", "whole.txt", [parse]),
        ("numbers_6", "part*.txt", [parse]),
        ("numbers_noise", "whole.txt", [parse, noised]),
    ):
        seqio.TaskRegistry.add(
            name,
            source=seqio.TextLineDataSource({"train": str(folder / pattern)}),
            preprocessors=steps,
            output_features=features,
        )
    seqio.MixtureRegistry.add("numbers_mixed", [("numbers_1", 3.0), ("numbers_noise", 1.0)])
    yield
    seqio.MixtureRegistry.remove("numbers_mixed")
    for name in ("numbers_1", "numbers_6", "numbers_noise"):
        seqio.TaskRegistry.remove(name)


def examples(name, num_streams, seed=0, shuffle=True):
    return TaskExamples(
        seqio.TaskRegistry.get(name), {"inputs": 1, "targets": 1}, split="train",
        num_streams=num_streams, seed=seed, shuffle=shuffle, use_cached=False,
    )  # fmt: skip


def epochs_of(task, stream, count):
    """The stream's inputs by epoch, of its first `count` epochs."""
    found = collections.defaultdict(list)
    for example, cursor in task.read(stream, Cursor()):
        if cursor.epoch >= count:  # a part of few lines may be empty
            return [found[e] for e in range(count)]
        found[cursor.epoch].append(int(example["inputs"][0]))


@pytest.mark.parametrize("name", ["numbers_1", "numbers_6"])
@pytest.mark.parametrize("num_streams", [1, 4, 9])
@pytest.mark.parametrize("shuffle", [True, False])
def test_in_each_epoch_the_streams_share_out_every_example_once(
    numbers, name, num_streams, shuffle
):
    task = examples(name, num_streams, shuffle=shuffle)
    streams = [epochs_of(task, stream, 3) for stream in range(num_streams)]
    orders = []
    for epoch in range(3):
        order = [n for stream in streams for n in stream[epoch]]
        assert sorted(order) == list(range(2, 62))
        orders.append(order)
    assert (orders[0] != orders[1]) == (shuffle or task._parts > 1)
    if not shuffle and num_streams == 1:
        assert orders[0] == list(range(2, 62))


def test_small_blocks_restart_anywhere(numbers, monkeypatch):
    monkeypatch.setattr(pieces, "MOST_BYTES", 2)
    task = examples("numbers_6", 2)
    whole = list(itertools.islice(task.read(1, Cursor()), 100))
    for start in (0, 1, 6, 7, 8, 29, 30, 31, 64):
        cursor = Cursor() if start == 0 else whole[start - 1][1]
        again = list(itertools.islice(task.read(1, cursor), 100 - start))
        assert [c for _, c in again] == [c for _, c in whole[start:]]
        for (a, _), (b, _) in zip(again, whole[start:], strict=True):
            assert a["inputs"] == b["inputs"]


def test_noise_differs_between_blocks_epochs_and_seeds_and_comes_again(numbers, monkeypatch):
    monkeypatch.setattr(pieces, "MOST_BYTES", 8)

    def noise(seed):
        read = examples("numbers_noise", 1, seed=seed).read(0, Cursor())
        return [int(example["targets"][0]) for example, _ in itertools.islice(read, 120)]

    first = noise(0)
    assert len(set(first)) == 120  # of 2 epochs, some blocks each
    assert first == noise(0)
    assert not set(first) & set(noise(1))


def test_a_mixture_keeps_its_rates(numbers):
    config = DataConfig("numbers_mixed", {"inputs": 1, "targets": 1}, num_streams=2)
    batches = itertools.islice(TrainBatches(open_tasks(config), 500), 4)
    same = [b["encoder_tokens"] == b["decoder_target_tokens"] for b, _ in batches]
    # 2000 draws with p = 3/4: the standard deviation is 0.0097.
    assert np.mean(same) == pytest.approx(0.75, abs=0.04)


def test_a_run_goes_on_with_the_batches_of_the_uninterrupted_run():
    read = TrainBatches(open_tasks(BIBLE), 8)
    whole = [next(read) for _ in range(6)]
    text = json.dumps(whole[2][1].as_json())
    assert len(text) < 1000
    position = Position.from_json([json.loads(text)])
    assert position.batches == 3
    for (expected, place), (found, again) in zip(
        whole[3:], TrainBatches(open_tasks(BIBLE), 8, position), strict=False
    ):
        assert_same(expected, found)
        assert place == again


def test_hosts_read_their_rows_alone_and_any_number_of_them_gives_the_same_batches(numbers):
    whole = [batch for batch, _ in itertools.islice(TrainBatches(open_tasks(MIXED), 8), 4)]
    hosts = [
        TrainBatches(open_tasks(MIXED), 8, needed_rows=rows)
        for rows in ([0, 1, 2, 3], [4, 5, 6, 7])
    ]
    places = []
    for batch in whole[:2]:
        for number, host in enumerate(hosts):
            found, place = next(host)
            places.append(place.as_json())
            mine = slice(4 * number, 4 * number + 4)
            assert_same({k: v[mine] for k, v in batch.items()},
                        {k: v[mine] for k, v in found.items()})  # fmt: skip
            others = np.delete(found["encoder_segments"], range(8)[mine], axis=0)
            assert not others.any()
    # Two hosts stop, and one goes on for both; or one that needs rows of three streams.
    position = Position.from_json(places[-2:])
    assert sorted(position.streams) == [0, 1, 2, 3]
    for (found, _), batch in zip(
        TrainBatches(open_tasks(MIXED), 8, position), whole[2:], strict=False
    ):
        assert_same(found, batch)
    odd = TrainBatches(open_tasks(MIXED), 8, position, needed_rows=[1, 2, 7])
    found, _ = next(odd)
    for row in (1, 2, 7):
        np.testing.assert_array_equal(found["encoder_tokens"][row], whole[2]["encoder_tokens"][row])


def test_packed_rows_lose_nothing():
    """The rows of a stream hold its examples in their order, whole."""
    config = dataclasses.replace(TOY, pack=True, num_streams=1)
    batches = [b for b, _ in itertools.islice(TrainBatches(open_tasks(config), 4), 3)]
    packed = [
        batch["encoder_tokens"][row][batch["encoder_segments"][row] == segment].tolist()
        for batch in batches for row in range(4)
        for segment in range(1, batch["encoder_segments"][row].max() + 1)
    ]  # fmt: skip
    task = TaskExamples(
        seqio.TaskRegistry.get("toy_pairs"), TOY.task_feature_lengths, split="train",
        num_streams=1, seed=0, shuffle=True, use_cached=False,
    )  # fmt: skip
    read = itertools.islice(task.read(0, Cursor()), len(packed))
    assert packed == [example["inputs"].tolist() for example, _ in read]
    assert len(packed) > 15  # more than two epochs


def test_more_streams_than_examples():
    config = dataclasses.replace(TOY, num_streams=8)
    batches = [b for b, _ in itertools.islice(TrainBatches(open_tasks(config), 8), 3)]
    assert all((batch["encoder_segments"][:, 0] == 1).all() for batch in batches)


def test_a_task_that_forbids_shuffling_keeps_its_order(numbers):
    seqio.TaskRegistry.add(
        "numbers_in_order",
        source=seqio.TaskRegistry.get("numbers_1").source,
        preprocessors=seqio.TaskRegistry.get("numbers_1").preprocessors,
        output_features=seqio.TaskRegistry.get("numbers_1").output_features,
        shuffle_buffer_size=None,
    )
    assert epochs_of(examples("numbers_in_order", 1), 0, 1) == [list(range(2, 62))]
    seqio.TaskRegistry.remove("numbers_in_order")


def test_a_stream_without_any_example_is_an_error_and_not_an_endless_wait(tmp_path, numbers):
    (tmp_path / "part0.txt").touch()
    (tmp_path / "part1.txt").write_text("7\n8\n")
    seqio.TaskRegistry.add(
        "half_empty",
        source=seqio.TextLineDataSource({"train": str(tmp_path / "part*.txt")}),
        preprocessors=seqio.TaskRegistry.get("numbers_1").preprocessors,
        output_features=seqio.TaskRegistry.get("numbers_1").output_features,
    )
    task = examples("half_empty", 2, shuffle=False)
    assert next(task.read(1, Cursor()))[0]["inputs"] == [7]
    with pytest.raises(UserError, match="stream 0 of 2 finds no example of half_empty in its sha"):
        next(task.read(0, Cursor()))
    seqio.TaskRegistry.remove("half_empty")


def test_the_seed_decides_the_order():
    def first_rows(seed):
        return next(TrainBatches(open_tasks(dataclasses.replace(TOY, seed=seed)), 15))[0][
            "encoder_tokens"
        ]

    assert (first_rows(0) == first_rows(0)).all()
    assert (first_rows(0) != first_rows(1)).any()


def test_a_batch_that_does_not_divide_over_the_streams_is_refused(numbers):
    with pytest.raises(UserError, match="batch size 6 .* 4 streams.*DATA_STREAMS to a divisor"):
        TrainBatches(open_tasks(MIXED), 6)
    with pytest.raises(UserError, match="num_streams = 1000000: it must be at most 4,096"):
        dataclasses.replace(MIXED, num_streams=10**6)


def test_a_cached_task_is_read_from_its_cache(tmp_path, monkeypatch):
    """The cache holds what the source does not: that is what is read."""
    source = tmp_path / "source.txt"
    source.write_text("from the source\n")
    name = "cached_words"
    seqio.TaskRegistry.add(
        name,
        source=seqio.TextLineDataSource({"train": str(source)}),
        preprocessors=[
            seqio.map_over_dataset(lambda line: {"inputs": line, "targets": line}),
            seqio.preprocessors.tokenize,
            seqio.CacheDatasetPlaceholder(),
            seqio.preprocessors.append_eos,
        ],
        output_features={k: seqio.Feature(VOCABULARY) for k in ("inputs", "targets")},
    )
    cache = tmp_path / "cache" / name
    cache.mkdir(parents=True)
    features = {
        key: tf.train.Feature(int64_list=tf.train.Int64List(value=[7, 8, 9]))
        for key in ("inputs", "targets")
    }
    record = tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
    with tf.io.TFRecordWriter(str(cache / "train.tfrecord-00000-of-00001")) as file:
        file.write(record)
    described = {key: {"shape": [None], "dtype": "int32"} for key in ("inputs", "targets")}
    info = {"num_shards": 1, "features": described, "seqio_version": "0"}
    (cache / "info.train.json").write_text(json.dumps(info))
    (cache / "stats.train.json").write_text(json.dumps({"examples": 1}))
    (cache / "COMPLETED").touch()
    monkeypatch.setattr(seqio.dataset_providers, "_GLOBAL_CACHE_DIRECTORIES", [], raising=False)
    seqio.set_global_cache_dirs([str(tmp_path / "cache")])
    config = DataConfig(name, {"inputs": 6, "targets": 6}, use_cached=True, pack=False)
    batch, _ = next(TrainBatches(open_tasks(config), 1))
    np.testing.assert_array_equal(batch["encoder_tokens"], [[7, 8, 9, 1, 0, 0]])
