"""Files dealt out to streams: in each epoch all of them once, and to each stream equally many."""

import collections
import itertools

import numpy as np
import pytest

from switch_jax.data.reading.epoch_order import EpochOrder, Shard


def first_epochs(order, stream, count):
    """The shards of a stream in its first epochs, a list for each."""
    shards = itertools.takewhile(lambda shard: shard.epoch < count, order.shards(stream, 0, 0))
    epochs = [[] for _ in range(count)]
    for shard in shards:
        epochs[shard.epoch].append(shard)
    return epochs


def times_seen(sizes, streams, shuffle, first_epoch):
    """How often each example is read while each stream reads its share of one epoch's worth.

    Args:
      sizes: number of examples of each file; each is a chunk of its own.
    """
    order = EpochOrder(len(sizes), streams, (0,), shuffle)
    ends = np.cumsum(sizes)
    examples = [np.arange(end - size, end) for end, size in zip(ends, sizes, strict=True)]
    seen = collections.Counter(range(ends[-1]))
    for stream in range(streams):
        left = ends[-1] // streams
        for shard in order.shards(stream, first_epoch, 0):
            group = np.concatenate(examples[order.files_in(shard.group)])
            read = group[order.chunk_order(shard, len(group), shuffle)][:left]
            seen.update(read.tolist())
            left -= len(read)
            if not left:
                break
    return {count - 1 for count in seen.values()}


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(
    ("sizes", "streams"),
    [
        ([1] * 192, 8),
        ([8] * 20, 16),
        ([4] * 103, 4),
        ([3] * 7, 3),
        ([6] * 8 + [24], 8),  # a larger file that all streams share
        ([72], 9),
    ],
)
def test_all_examples_are_read_once_before_any_is_read_again(sizes, streams, shuffle):
    for first_epoch in (0, 1, 7):
        assert times_seen(sizes, streams, shuffle, first_epoch) == {1}


def test_the_order_depends_on_the_epoch_and_on_the_seed():
    groups = [
        [[shard.group for shard in epoch] for epoch in first_epochs(order, 0, 2)]
        for order in (EpochOrder(400, 1, (seed,), True) for seed in (0, 1))
    ]
    assert groups[0][0] != groups[0][1]
    assert groups[0][0] != groups[1][0]
    unshuffled = first_epochs(EpochOrder(400, 1, (0,), False), 0, 1)
    assert [shard.group for shard in unshuffled[0]] == list(range(256))


def test_shards_resume_in_the_middle_of_an_epoch():
    """Without a pass over those before, which only takes time."""
    order = EpochOrder(101, 2, (0,), True)
    whole = list(itertools.islice(order.shards(1, 0, 0), 12))
    for start, shard in enumerate(whole):
        resumed = order.shards(1, shard.epoch, shard.index)
        assert list(itertools.islice(resumed, 12 - start)) == whole[start:]


def test_the_seed_of_a_shard_depends_on_epoch_group_and_part():
    order = EpochOrder(1, 3, (0,), True)
    shards = [Shard(*place) for place in itertools.product((0, 1), (0,), (0, 1), (0, 1))]
    assert len({int(order.shard_seed(shard)) for shard in shards}) == len(shards)
    # The index among the shards of a stream does not count.
    assert order.shard_seed(Shard(0, 0, 1, 1)) == order.shard_seed(Shard(0, 7, 1, 1))
