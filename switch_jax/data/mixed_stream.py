"""One stream of a run's training data: tasks mixed at their rates and packed into rows."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from switch_jax.data.batch import Example
from switch_jax.data.packing import pack_rows
from switch_jax.data.position import Cursor
from switch_jax.data.task_examples import TaskExamples

_DRAWS_AT_ONCE = 1024


class MixedStream:
    """The rows of one stream.

    Attributes:
      draws: number of examples in the rows read so far, of all tasks.
      cursors: position in each task after these rows.
    """

    def __init__(
        self,
        tasks: Sequence[TaskExamples],
        rates: Sequence[float],
        index: int,
        seed: int,
        draws: int,
        cursors: Sequence[Cursor],
    ) -> None:
        """Opens nothing.

        Args:
          tasks: what is mixed.
          rates: how often an example of each task is read, relative to the others.
          index: of the stream.
          seed: of the mixing.
          draws, cursors: the position at which to start.
        """
        self._tasks, self._rates = tasks, np.asarray(rates) / np.sum(rates)
        self._index, self._seed = index, seed
        self.draws, self.cursors = draws, list(cursors)

    def rows(self, lengths: Mapping[str, int], pack: bool) -> Iterator[list[Example]]:
        """The examples of each row, without end; `draws` and `cursors` follow.

        Args:
          lengths: tokens in a row, by feature.
          pack: put several short examples into one row.
        """
        for row in pack_rows(self._mixed(), lengths, pack):
            self.draws += len(row)
            for _, (task, cursor) in row:
                self.cursors[task] = cursor
            yield [example for example, _ in row]

    def _mixed(self) -> Iterator[tuple[Example, tuple[int, Cursor]]]:
        """Each example with the index of its task and the position after it in that task."""
        readers = [
            task.read(self._index, cursor)
            for task, cursor in zip(self._tasks, self.cursors, strict=True)
        ]
        chunk, skip = divmod(self.draws, _DRAWS_AT_ONCE)
        while True:
            rng = np.random.default_rng((self._seed, self._index, chunk))
            for task in rng.choice(len(readers), _DRAWS_AT_ONCE, p=self._rates)[skip:]:
                example, cursor = next(readers[task])
                yield example, (int(task), cursor)
            chunk, skip = chunk + 1, 0
