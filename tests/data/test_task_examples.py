"""The streams of a task: each example once an epoch, resumed at any position."""

import collections
import itertools

import pytest
import seqio

from switch_jax.data import file_chunks
from switch_jax.data.position import Cursor
from switch_jax.errors import UserError
from tests.data.number_tasks import task_examples


def examples(name, num_streams, **options):
    return task_examples(seqio.TaskRegistry.get(name), num_streams, **options)


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
    assert (orders[0] != orders[1]) == (shuffle or task._order.num_parts > 1)
    if not shuffle and num_streams == 1:
        assert orders[0] == list(range(2, 62))


def test_noise_differs_between_blocks_epochs_and_seeds_and_comes_again(numbers, monkeypatch):
    monkeypatch.setattr(file_chunks, "MAX_CHUNK_BYTES", 8)

    def noise(seed):
        read = examples("numbers_noise", 1, seed=seed).read(0, Cursor())
        return [int(example["targets"][0]) for example, _ in itertools.islice(read, 120)]

    first = noise(0)
    assert len(set(first)) == 120  # of 2 epochs, some blocks each
    assert first == noise(0)
    assert not set(first) & set(noise(1))


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
    with pytest.raises(UserError, match="half_empty, in the share of stream 0 of 2, gives no"):
        next(task.read(0, Cursor()))
    seqio.TaskRegistry.remove("half_empty")
