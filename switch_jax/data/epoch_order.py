"""Which files of a task each stream reads in each epoch, and in which order; without TensorFlow.

The files form groups. In each epoch a permutation deals the groups out to the streams or, if there
are fewer groups than streams, parts of each group. What a stream gets is its units of the epoch.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

FILES_PER_GROUP = 16  # their examples are mixed with each other
_MAX_UNSHUFFLED_GROUPS = 256


@dataclass(frozen=True)
class Unit:
    """A group of files or a part of one; `index` counts the units of a stream in an epoch."""

    epoch: int
    index: int
    group: int
    part: int


@dataclass(frozen=True)
class EpochOrder:
    """The order in which the streams read the files of a task.

    Attributes:
      num_files: files of the task.
      num_streams: streams that share them.
      seed: numbers that seed the permutations, together with the epoch.
      shuffle: deal the groups out in another order in each epoch.
    """

    num_files: int
    num_streams: int
    seed: tuple[int, ...]
    shuffle: bool

    @property
    def num_groups(self) -> int:
        if not self.shuffle:
            return min(self.num_files, _MAX_UNSHUFFLED_GROUPS)
        return max(-(-self.num_files // FILES_PER_GROUP), min(self.num_files, self.num_streams))

    @property
    def num_parts(self) -> int:
        """Parts of each group: the smallest number that gives all streams equally many parts."""
        if self.num_groups >= self.num_streams:
            return 1
        return self.num_streams // math.gcd(self.num_groups, self.num_streams)

    def files_of(self, group: int) -> slice:
        """Where the files of a group are in the list of all files."""
        return slice(group, None, self.num_groups)

    def units(self, stream: int, first_epoch: int, first_unit: int) -> Iterator[Unit]:
        """The units of a stream, epoch after epoch without end, from one of the first epoch on."""
        for epoch in itertools.count(first_epoch):
            order = np.arange(self.num_groups * self.num_parts)
            if self.shuffle:
                order = np.random.default_rng((*self.seed, epoch)).permutation(order)
            own = order[stream :: self.num_streams].tolist()
            for index in range(first_unit, len(own)):
                # Without adding the epoch, a stream could get an empty part in every epoch.
                group, part = divmod(own[index], self.num_parts)
                yield Unit(epoch, index, group, (part + epoch) % self.num_parts)
            first_unit = 0

    def unit_seed(self, unit: Unit) -> np.int64:
        """The seed of what is random within a unit."""
        entropy = (*self.seed, unit.epoch, unit.group, unit.part)
        return np.int64(np.random.SeedSequence(entropy).generate_state(1)[0])

    def chunks_of(self, unit: Unit, num_chunks: int, shuffle: bool) -> np.ndarray:
        """Which chunks of its group a unit reads, in this order: indices, int64 [N].

        Args:
          unit: a group of files or a part of one.
          num_chunks: number of chunks of the group.
          shuffle: permute the chunks of the group, differently in each epoch.
        """
        order = np.arange(num_chunks)
        if shuffle:
            # Without the part in the seed: the parts of a group share an order, so none overlap.
            order = np.random.default_rng((*self.seed, unit.epoch, unit.group)).permutation(order)
        return order[unit.part :: self.num_parts]
