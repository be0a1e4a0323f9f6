"""Reads ahead in a thread of its own."""

import contextlib
import queue
import threading
import time
from collections.abc import Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Prefetch(Generic[Item]):
    """The items of an iterator, of which a thread makes a few ahead.

    What the iterator raises is raised by the `next` that would have got the item.
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
          seconds: to wait for it; None: as long as it takes.

        Raises:
          TimeoutError: it was not there in time; the next call goes on waiting for it.
        """
        try:
            item, error = self._items.get(timeout=seconds)
        except queue.Empty:
            raise TimeoutError from None
        if error is not None:
            self._items.put((None, error))  # for every later call too
            raise error
        return item  # type: ignore[return-value]  # None comes with an error alone

    def close(self) -> None:
        """Ends the thread when the item that it is making is done, or leaves it after 2 s."""
        self._closed.set()
        deadline = time.monotonic() + 2
        while self._thread.is_alive() and time.monotonic() < deadline:
            with contextlib.suppress(queue.Empty):
                self._items.get_nowait()  # it may wait for room
            self._thread.join(0.01)

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                item = (next(self._iterator), None)
            except BaseException as error:  # StopIteration too: `next` raises it
                self._items.put((None, error))
                return
            self._items.put(item)
