"""Reads blocks before they are asked for, and all chunks of them at once.

A bucket answers a read after 30 milliseconds or so, and one in a hundred after a second. So many
are on their way at any time, in the threads of one pool.
"""

import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_THREADS = 32
_BLOCKS_AHEAD = 8  # of one reader
_ALL_BLOCKS_AHEAD = 128  # of all readers of the process: 64 MiB in blocks of 512 KiB

Label = TypeVar("Label")
Result = TypeVar("Result")
Read = Callable[[], bytes]


_READERS: set[object] = set()  # that are open, and share what may be read ahead


def read_ahead(blocks: Iterable[tuple[Label, Sequence[Read]]]) -> Iterator[tuple[Label, bytes]]:
    """Yields the label of each block, and what its reads return, joined; raises their OSErrors.

    `blocks` are labels and reads. The iterable is read some blocks ahead, so its errors come early.
    """
    pending: deque[tuple[Label, list[Future[bytes]]]] = deque()
    _READERS.add(reader := object())
    try:
        num_yielded = 0
        for label, reads in blocks:
            pending.append((label, [_pool().submit(read) for read in reads]))
            # At first few: what is needed now should not wait for what may be needed later.
            share = _ALL_BLOCKS_AHEAD // len(_READERS)
            while len(pending) > min(num_yielded + 1, _BLOCKS_AHEAD, share):
                num_yielded += 1
                yield _result(pending.popleft())
        while pending:
            yield _result(pending.popleft())
    finally:
        _READERS.discard(reader)
        for _, futures in pending:
            for future in futures:
                future.cancel()


def run_concurrently(calls: Sequence[Callable[[], Result]]) -> list[Result]:
    """Returns the results of calls, which wait for the storage at the same time."""
    return [future.result() for future in [_pool().submit(call) for call in calls]]


def _result(block: tuple[Label, list[Future[bytes]]]) -> tuple[Label, bytes]:
    label, futures = block
    return label, b"".join([future.result() for future in futures])


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, "read")
