"""Where a run is in its data: few numbers a stream, of no particular host, as JSON."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from switch_jax.data.streams import ORDER, Cursor


class StreamPosition(NamedTuple):
    """`draws`: examples read in all; `cursors`: where the next one is, by name of the task."""

    draws: int
    cursors: Mapping[str, Cursor]


class Position(NamedTuple):
    """Where a run is.

    Attributes:
      batches: global batches read so far.
      streams: by number, those that are read here.
      moved: an earlier version of switch_jax saved it, whose order of the examples was another;
        the cursors are moved to where each stream's next epoch begins.
    """

    batches: int
    streams: Mapping[int, StreamPosition]
    moved: bool = False

    def stream(self, number: int, tasks: Sequence[str]) -> tuple[int, list[Cursor]]:
        """Draws and cursors of one stream; a task that it does not know begins at its beginning."""
        draws, cursors = self.streams.get(number, StreamPosition(0, {}))
        return draws, [cursors.get(task, Cursor()) for task in tasks]

    def as_json(self) -> dict[str, Any]:
        """What `from_json` reads."""
        streams = {
            str(number): {"draws": draws, "tasks": {task: list(c) for task, c in cursors.items()}}
            for number, (draws, cursors) in self.streams.items()
        }
        return {"batches": self.batches, "streams": streams, "order": ORDER}

    @staticmethod
    def from_json(parts: Sequence[Mapping[str, Any]]) -> "Position":
        """The position that several hosts' parts, after the same batch, make up."""
        moved = any(part.get("order") != ORDER for part in parts)

        def cursor(saved: Sequence[int]) -> Cursor:
            # No example of that epoch comes twice, and what was left of the one before is left out.
            return Cursor(saved[0] + 1) if moved else Cursor(*saved)

        streams = {
            int(number): StreamPosition(
                stream["draws"], {task: cursor(c) for task, c in stream["tasks"].items()}
            )
            for part in parts
            for number, stream in part["streams"].items()
        }
        return Position(parts[0]["batches"], streams, moved)
