"""Blocks are read before they are asked for, all their chunks at once, within a bound."""

import itertools
import threading

import pytest

from switch_jax.data.reading import read_ahead as module
from switch_jax.data.reading.read_ahead import read_ahead, run_concurrently
from tests.waiting import HANGS


def test_the_chunks_of_a_block_are_read_at_once_and_joined_in_their_order():
    barrier = threading.Barrier(4, timeout=HANGS)  # passed by four readers together, or by none

    def reads(block):
        def read(chunk):
            barrier.wait()
            return f"{block}{chunk} ".encode()

        return [lambda chunk=chunk: read(chunk) for chunk in "abcd"]

    found = list(read_ahead((block, reads(block)) for block in range(3)))
    assert found == [(n, f"{n}a {n}b {n}c {n}d ".encode()) for n in range(3)]


def test_no_more_blocks_are_taken_ahead_than_readers_share(monkeypatch):
    monkeypatch.setattr(module, "_ALL_BLOCKS_AHEAD", 12)

    def ahead(count):
        """How far a reader is ahead, once it has given so many blocks."""
        taken = itertools.count(1)
        latest = [0]

        def blocks():
            for latest[0] in taken:
                yield None, [bytes]

        reader = read_ahead(blocks())
        for _ in range(count):
            next(reader)
        return latest[0] - count, reader

    assert [ahead(count)[0] for count in (1, 2, 3, 50)] == [1, 2, 3, 8]
    others = [ahead(1) for _ in range(3)]
    found, last = ahead(50)
    assert found == 3  # four readers share 12 blocks
    for reader in (last, *(reader for _, reader in others)):
        reader.close()
    assert ahead(50)[0] == 8


def test_errors_come_in_their_place():
    def fail():
        raise OSError(5, "lost")

    reader = read_ahead([(0, [lambda: b"a"]), (1, [fail]), (2, [lambda: b"b"])])
    assert next(reader) == (0, b"a")
    with pytest.raises(OSError, match="lost"):
        next(reader)
    assert run_concurrently([lambda: 1, lambda: 2]) == [1, 2]
