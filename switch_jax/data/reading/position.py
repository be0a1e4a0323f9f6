"""The position of a run in its data, independent of the hosts; this loads no TensorFlow."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple


class Cursor(NamedTuple):
    """The position of the next example of one task in one stream; `epoch` counts completed passes.

    `shard` is an index among the stream's groups of files, or parts of a file, in this epoch,
    `block` one in the shard, and `example` one in the preprocessed block; it may lie past its end.
    """

    epoch: int = 0
    shard: int = 0
    block: int = 0
    example: int = 0


class StreamPosition(NamedTuple):
    """The position of a stream: `draws`, the examples read of all tasks, and a cursor by task."""

    draws: int
    cursors: Mapping[str, Cursor]


class Position(NamedTuple):
    """The number of global batches read, and the positions of the streams that this host reads."""

    batches: int
    streams: Mapping[int, StreamPosition]

    def stream(self, index: int, tasks: Sequence[str]) -> tuple[int, list[Cursor]]:
        """Draws and cursors of one stream; tasks without a saved cursor start at the beginning."""
        draws, cursors = self.streams.get(index, StreamPosition(0, {}))
        return draws, [cursors.get(task, Cursor()) for task in tasks]

    def at_next_epoch(self, tasks: Collection[str]) -> "Position":
        """The position with these tasks at the beginning of the next epoch of each stream."""

        def moved(stream: StreamPosition) -> StreamPosition:
            next_epoch = {t: Cursor(c.epoch + 1) for t, c in stream.cursors.items() if t in tasks}
            return stream._replace(cursors={**stream.cursors, **next_epoch})

        streams = {index: moved(stream) for index, stream in self.streams.items()}
        return self._replace(streams=streams)

    def as_json(self) -> dict[str, Any]:
        """A JSON value from which `from_json` restores the position."""
        streams = {
            str(index): {"draws": draws, "tasks": {task: list(c) for task, c in cursors.items()}}
            for index, (draws, cursors) in self.streams.items()
        }
        return {"batches": self.batches, "streams": streams}

    @staticmethod
    def from_json(parts: Sequence[Mapping[str, Any]]) -> "Position":
        """Combines the positions that several hosts saved after the same batch."""
        streams = {
            int(index): StreamPosition(
                stream["draws"], {task: Cursor(*c) for task, c in stream["tasks"].items()}
            )
            for part in parts
            for index, stream in part["streams"].items()
        }
        return Position(parts[0]["batches"], streams)
