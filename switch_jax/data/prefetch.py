"""Reads items of an iterator ahead, in a thread."""

import contextlib
import queue
import threading
import time
from collections.abc import Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Prefetch(Generic[Item]):
    """An iterator over the items of another one, which a thread reads a few items ahead.

    An exception of the other iterator is raised by the `next` that would have returned the item,
    and by all later ones.
    """

    def __init__(self, iterator: Iterator[Item], ahead: int = 2) -> None:
        self._iterator = iterator
        self._items: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(ahead)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="data", daemon=True)
        self._thread.start()

    def __iter__(self) -> "Prefetch[Item]":
        return self

    def __next__(self) -> Item:
        return self.get()

    def get(self, seconds: float | None = None) -> Item:
        """The next item.

        Args:
          seconds: how long to wait for it; None waits without a limit.

        Raises:
          TimeoutError: the item did not come in time; a later call may still return it.
        """
        try:
            item, error = self._items.get(timeout=seconds)
        except queue.Empty:
            raise TimeoutError from None
        if error is not None:
            self._items.put((None, error))  # for all later calls
            raise error
        return item  # type: ignore[return-value]  # None is only put together with an error

    def close(self) -> None:
        """Ends the thread once its current item is read, or abandons the thread after 2 seconds."""
        self._closed.set()
        deadline = time.monotonic() + 2
        while self._thread.is_alive() and time.monotonic() < deadline:
            with contextlib.suppress(queue.Empty):
                self._items.get_nowait()  # the thread may be waiting for room in the queue
            self._thread.join(0.01)

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                item = (next(self._iterator), None)
            except BaseException as error:  # StopIteration too: `next` raises it
                self._items.put((None, error))
                return
            self._items.put(item)
