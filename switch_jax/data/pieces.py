"""Pieces of files: runs of whole lines or records that are read without what lies before them.

A file is cut after every so many bytes, and each cut moves on to where the next line or record
begins. So any piece of a file of any size is read at once, and nothing has to be counted or
indexed first.
"""

import errno
import itertools
import os
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

MOST_BYTES = 32 * 1024  # of a piece
_LEAST_PIECES = 32  # of each share
_OF_BLOCK = 8  # pieces of a block, more where they are small
_MOST_PIECES = 2**20  # of all files together
_AHEAD = 8 * 1024  # bytes read beyond a piece at first, to find where the next one begins
_HEADER = 12  # bytes of a TFRecord's: the length of its data (8), and a checksum of that (4)


class Cut(Protocol):
    """How files are cut: between what."""

    def next_start(self, data: bytes, place: int) -> int:
        """Where in `data` the first line or record at `place` or behind begins; -1: not seen."""

    def finished(self, piece: bytes) -> bytes:
        """The piece as another one may follow."""

    def offset(self, file: str, number: int) -> int:
        """Bytes before line or record `number` of a file."""


class Lines(Cut):
    """Between lines of text."""

    def next_start(self, data: bytes, place: int) -> int:
        found = data.find(b"\n", place - 1)
        return found + 1 if found >= 0 else -1

    def finished(self, piece: bytes) -> bytes:
        return piece if piece.endswith(b"\n") or not piece else piece + b"\n"

    def offset(self, file: str, number: int) -> int:
        with open(file, "rb") as lines:
            return sum(map(len, itertools.islice(lines, number)))


class Records(Cut):
    """Between TFRecords, which begin where 8 bytes and the checksum behind them agree."""

    def next_start(self, data: bytes, place: int) -> int:
        view = np.frombuffer(data, np.uint8)[place:]
        here = np.arange(max(len(view) - _HEADER + 1, 0))
        for byte in range(4, 8):  # no record has 4 GiB
            here = here[view[here + byte] == 0]
        headers = view[here[:, None] + np.arange(_HEADER)]
        stored = headers[:, 8:].copy().view("<u4")[:, 0]
        agree = np.flatnonzero(_masked_checksum(headers[:, :8]) == stored)
        return place + int(here[agree[0]]) if len(agree) else -1

    def finished(self, piece: bytes) -> bytes:
        return piece

    def offset(self, file: str, number: int) -> int:
        place = 0
        with open(file, "rb") as records:
            for _ in range(number):
                records.seek(place)
                length = int.from_bytes(records.read(8), "little")
                place += _HEADER + length + 4  # a checksum of the data comes last
        return place


def _checksums_of_bytes() -> np.ndarray:
    """The table of CRC-32C, uint32 [256]: polynomial 0x1EDC6F41, reflected."""
    table: np.ndarray = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = (table >> 1) ^ (table & 1) * np.uint32(0x82F63B78)
    return table


_TABLE = _checksums_of_bytes()


def _masked_checksum(rows: np.ndarray) -> np.ndarray:
    """CRC-32C of each row of bytes, masked as in TFRecords: uint8 [N, bytes] to uint32 [N]."""
    crc = np.full(len(rows), 0xFFFFFFFF, np.uint32)
    for column in rows.T:
        crc = _TABLE[(crc ^ column) & 0xFF] ^ (crc >> 8)
    crc = ~crc
    return ((crc >> 15) | (crc << 17)) + np.uint32(0xA282EAD8)


class Extent(NamedTuple):
    """The bytes of a file, from `begin` to `end`, that are read."""

    file: str
    begin: int
    end: int


class Pieces:
    """All of some files' bytes, cut into pieces."""

    def __init__(self, extents: Sequence[Extent], cut: Cut, shares: int) -> None:
        """Opens nothing.

        Args:
          extents: what is read.
          cut: between what.
          shares: how many streams share the pieces; small files too are cut into a few for each.
        """
        self.extents, self._cut = extents, cut
        total = sum(extent.end - extent.begin for extent in extents)
        most = max(MOST_BYTES, total // _MOST_PIECES)
        self._size = max(1, min(most, total // (_LEAST_PIECES * shares)))
        self._of_block = max(_OF_BLOCK, _OF_BLOCK * MOST_BYTES // self._size)
        counts = [-(-(extent.end - extent.begin) // self._size) for extent in extents]
        self._firsts = np.cumsum([0, *counts])  # number of each file's first piece

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def blocks(self, numbers: np.ndarray) -> list[list[int]]:
        """Numbers of pieces, int64 [N], by block; one block if there are none."""
        places = range(0, max(len(numbers), 1), self._of_block)
        return [numbers[place : place + self._of_block].tolist() for place in places]

    def _file_of(self, number: int) -> int:
        return int(np.searchsorted(self._firsts, number, side="right")) - 1

    def file(self, number: int) -> str:
        """Of which a piece is a part."""
        return self.extents[self._file_of(number)].file

    def read(self, number: int) -> bytes:
        """The lines or records that begin in a piece's bytes; there may be none.

        Raises:
          OSError: the file cannot be read, or ends before its extent.
        """
        of = self._file_of(number)
        start = self.extents[of].begin + (number - int(self._firsts[of])) * self._size
        with open(self.extents[of].file, "rb", buffering=0) as opened:
            return self._cut.finished(self._between(opened.fileno(), self.extents[of], start))

    def _between(self, opened: int, extent: Extent, start: int) -> bytes:
        """From what begins first at `start` or behind to what does so for the next piece."""
        file, begin, end = extent
        stop = min(start + self._size, end)
        base = max(start - 1, begin)  # the byte before shows whether a line begins
        data = _read(opened, file, base, min(stop + _AHEAD, end))
        first = 0 if start == begin else self._cut.next_start(data, start - base)
        if not 0 <= first < stop - base:
            return b""
        while base + len(data) < end:
            last = self._cut.next_start(data, stop - base)
            if last >= 0:
                return data[first:last]
            here = base + len(data)
            data += _read(opened, file, here, min(here + len(data), end))
        last = self._cut.next_start(data, stop - base) if stop < end else -1
        return data[first:] if last < 0 else data[first:last]


def _read(opened: int, file: str, start: int, stop: int) -> bytes:
    data = b""
    while len(data) < stop - start:
        try:
            some = os.pread(opened, stop - start - len(data), start + len(data))
        except OSError as error:
            raise OSError(error.errno, error.strerror, file) from error
        if not some:
            raise OSError(errno.ENODATA, f"it ends at byte {start + len(data)}", file)
        data += some
    return data
