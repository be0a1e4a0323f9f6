"""The order in which the streams read the files of a task in each epoch; without TensorFlow.

Most files form groups, equally many for each stream. The files that are left over, fewer than the
streams, are cut into parts, again equally many for each stream. Each group that is not cut, and
each part, is a shard. In each epoch a permutation gives every stream equally many shards.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

FILES_PER_GROUP = 16  # their examples are mixed with each other
_MAX_UNSHUFFLED_GROUPS = 256


@dataclass(frozen=True)
class Shard:
    """The files of a group, or a part of its file; `index` counts a stream's shards in an epoch."""

    epoch: int
    index: int
    group: int
    part: int


@dataclass(frozen=True)
class EpochOrder:
    """The order in which streams read a task's files; with `shuffle` by `seed` and the epoch."""

    num_files: int
    num_streams: int
    seed: tuple[int, ...]
    shuffle: bool

    @property
    def _num_whole(self) -> int:
        """Number of groups that are not cut; each of the other groups is a single file."""
        per_stream = self.num_files // self.num_streams
        if self.shuffle:
            return self.num_streams * -(-per_stream // FILES_PER_GROUP)
        most = max(_MAX_UNSHUFFLED_GROUPS // self.num_streams, 1)
        return self.num_streams * min(per_stream, most)

    @property
    def num_groups(self) -> int:
        return self._num_whole + self.num_files % self.num_streams

    @property
    def num_parts(self) -> int:
        """Parts of each file that is cut: as few as give all streams equally many."""
        return self.num_streams // math.gcd(self.num_files, self.num_streams)

    def parts_in(self, group: int) -> int:
        """Number of parts that a group is cut into; 1 for a group that is not cut."""
        return 1 if group < self._num_whole else self.num_parts

    def files_in(self, group: int) -> slice:
        """The indices of a group's files in the list of all files."""
        rest = self.num_files - self.num_files % self.num_streams
        if group < self._num_whole:
            return slice(group, rest, self._num_whole)
        file = rest + group - self._num_whole
        return slice(file, file + 1)

    def shards(self, stream: int, first_epoch: int, first_shard: int) -> Iterator[Shard]:
        """The shards of a stream, epoch after epoch without end, from one of the first epoch on."""
        parts = [(g, part) for g in range(self.num_groups) for part in range(self.parts_in(g))]
        files = range(self.num_files)
        sizes = np.array([len(files[self.files_in(g)]) / self.parts_in(g) for g, _ in parts])
        for epoch in itertools.count(first_epoch):
            order = np.arange(len(parts))
            if self.shuffle:
                order = np.random.default_rng((*self.seed, epoch)).permutation(order)
            # The shards, sorted by size, are dealt out to the streams in turn, so that each gets an
            # equal share of large and small ones. A stream reads its own in the permuted order.
            mine = np.sort(np.argsort(sizes[order], kind="stable")[stream :: self.num_streams])
            for index in range(first_shard, len(mine)):
                # Without adding the epoch, a stream could get an empty part in every epoch.
                group, part = parts[order[mine[index]]]
                yield Shard(epoch, index, group, (part + epoch) % self.parts_in(group))
            first_shard = 0

    def shard_seed(self, shard: Shard) -> np.int64:
        """The seed of what is random within a shard."""
        entropy = (*self.seed, shard.epoch, shard.group, shard.part)
        return np.int64(np.random.SeedSequence(entropy).generate_state(1)[0])

    def chunk_order(self, shard: Shard, num_chunks: int, shuffle: bool) -> np.ndarray:
        """Indices of the chunks of its group that a shard reads, in this order: int64 [N]."""
        order = np.arange(num_chunks)
        if shuffle:
            # Without the part in the seed: the parts of a group share an order, so none overlap.
            order = np.random.default_rng((*self.seed, shard.epoch, shard.group)).permutation(order)
        return order[shard.part :: self.parts_in(shard.group)]
