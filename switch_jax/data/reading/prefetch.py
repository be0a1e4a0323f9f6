"""Reads items of an iterator ahead, in a thread."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Generic, TypeVar

Item = TypeVar("Item")

_CLOSING_SECONDS = 2.0


class Prefetch(Generic[Item]):
    """The items of an iterator, some of which a thread makes before they are asked for."""

    def __init__(self, iterator: Iterator[Item], ahead: int = 3) -> None:
        """`ahead`: how many items there may be that were not asked for yet."""
        self._iterator = iterator
        self._thread = ThreadPoolExecutor(1, "data")
        self._items = deque(self._thread.submit(next, iterator) for _ in range(ahead))

    def is_ready(self, seconds: float) -> bool:
        """Waits for the next item, or the iterator's error, so long; whether it is there."""
        return bool(wait([self._items[0]], seconds).done)

    def get(self) -> Item:
        """Waits for the next item and returns it, or raises the iterator's error."""
        item = self._items[0].result()
        self._items.popleft()
        self._items.append(self._thread.submit(next, self._iterator))
        return item

    def close(self) -> None:
        """Ends the thread once its current item is made, or leaves it behind after 2 seconds."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        wait([item for item in self._items if not item.cancelled()], timeout=_CLOSING_SECONDS)
