"""Chunks of files: byte ranges of whole lines or records, each read without what precedes it.

A file is cut at regular intervals of bytes, and each cut is moved to where the next line or record
begins. So any chunk of a file of any size can be read directly, without an index. Importing this
loads no TensorFlow.
"""

import errno
import itertools
import os
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

MAX_CHUNK_BYTES = 32 * 1024
_MAX_CHUNKS = 2**20  # of all files together; beyond it chunks are larger
_MIN_CHUNKS_PER_PART = 32  # in small files chunks are smaller
_CHUNKS_PER_BLOCK = 8  # more where chunks are small
_READ_AHEAD = 8 * 1024  # bytes first read beyond a chunk, to find where the next one begins
_HEADER = 12  # bytes of a TFRecord's header: the length of its data (8), the length's checksum (4)
_CHECKSUM = 4  # bytes after its data


class FileFormat(Protocol):
    """A format of files that can be cut between any two of their examples."""

    def next_start(self, data: bytes, position: int) -> int:
        """Where in `data` the first example at or after `position` begins; -1 if none does."""

    def terminated(self, chunk: bytes) -> bytes:
        """The chunk in a form to which another chunk may be appended."""

    def damage(self, chunk: bytes, offset: int) -> str | None:
        """What is wrong with a chunk, which TensorFlow must not read then.

        Args:
          chunk: whole examples.
          offset: of the chunk in its file.
        """

    def offset(self, file: str, index: int) -> int:
        """Number of bytes before the example with this index in a file.

        Raises:
          OSError: the file cannot be read, or is damaged.
        """


class TextLines(FileFormat):
    """Lines of text."""

    def next_start(self, data: bytes, position: int) -> int:
        newline = data.find(b"\n", position - 1)
        return newline + 1 if newline >= 0 else -1

    def terminated(self, chunk: bytes) -> bytes:
        return chunk if chunk.endswith(b"\n") or not chunk else chunk + b"\n"

    def damage(self, chunk: bytes, offset: int) -> str | None:
        return None

    def offset(self, file: str, index: int) -> int:
        with open(file, "rb") as lines:
            return sum(map(len, itertools.islice(lines, index)))


class TFRecords(FileFormat):
    """TFRecords, found by their headers: 8 bytes followed by the checksum of these."""

    def next_start(self, data: bytes, position: int) -> int:
        view = np.frombuffer(data, np.uint8)[position:]
        starts = np.arange(max(len(view) - _HEADER + 1, 0))
        for byte in range(4, 8):  # the upper half of the length is 0: no record has 4 GiB
            starts = starts[view[starts + byte] == 0]
        headers = view[starts[:, None] + np.arange(_HEADER)]
        stored = headers[:, 8:].copy().view("<u4")[:, 0]
        valid = np.flatnonzero(_masked_checksum(headers[:, :8]) == stored)
        return position + int(starts[valid[0]]) if len(valid) else -1

    def terminated(self, chunk: bytes) -> bytes:
        return chunk

    def damage(self, chunk: bytes, offset: int) -> str | None:
        begin = end = length = 0
        while end < len(chunk):
            begin, length = end, int.from_bytes(chunk[end : end + 8], "little")
            end += _HEADER + length + _CHECKSUM
        header = np.frombuffer(chunk[begin : begin + _HEADER].ljust(_HEADER), np.uint8)
        if end == len(chunk) or _masked_checksum(header[None, :8]).tobytes() != bytes(header[8:]):
            return None  # TensorFlow says where a header is damaged
        # It would allocate this length, whatever it is, and end the process where it cannot.
        return _too_long(offset + begin, length)

    def offset(self, file: str, index: int) -> int:
        offset, size = 0, os.path.getsize(file)
        with open(file, "rb") as records:
            for _ in range(index):
                begin = records.seek(offset)
                length = int.from_bytes(records.read(8), "little")
                offset += _HEADER + length + _CHECKSUM
                if offset > size:
                    raise OSError(errno.EBADMSG, _too_long(begin, length), file)
        return offset


def _too_long(begin: int, length: int) -> str:
    return f"the record at byte {begin} is shorter than the {length} bytes that its header says"


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


class ByteRange(NamedTuple):
    """The bytes of a file from `begin` up to `end`, which is not included."""

    file: str
    begin: int
    end: int


class FileChunks:
    """The chunks of some files, numbered in the order of the files."""

    def __init__(self, ranges: Sequence[ByteRange], format: FileFormat, num_parts: int) -> None:
        """Opens no file.

        Args:
          ranges: what is read of each file.
          format: of the files.
          num_parts: number of parts that the chunks will be shared out to. Small files are cut into
            smaller chunks, so that each part has several.
        """
        self.ranges, self._format = ranges, format
        total = sum(r.end - r.begin for r in ranges)
        largest = max(MAX_CHUNK_BYTES, total // _MAX_CHUNKS)
        self._size = max(1, min(largest, total // (_MIN_CHUNKS_PER_PART * num_parts)))
        self._per_block = max(_CHUNKS_PER_BLOCK, _CHUNKS_PER_BLOCK * MAX_CHUNK_BYTES // self._size)
        counts = [-(-(r.end - r.begin) // self._size) for r in ranges]
        self._first_chunks = np.cumsum([0, *counts])  # index of each file's first chunk

    def __len__(self) -> int:
        return int(self._first_chunks[-1])

    def blocks(self, chunks: np.ndarray) -> list[list[int]]:
        """Splits indices of chunks, int64 [N], into blocks; without any, a single empty block."""
        starts = range(0, max(len(chunks), 1), self._per_block)
        return [chunks[start : start + self._per_block].tolist() for start in starts]

    def _range_of(self, chunk: int) -> int:
        return int(np.searchsorted(self._first_chunks, chunk, side="right")) - 1

    def file(self, chunk: int) -> str:
        """The file that has a chunk."""
        return self.ranges[self._range_of(chunk)].file

    def read_block(self, chunks: Sequence[int]) -> bytes:
        """The lines or records of several chunks; see `read`."""
        return b"".join(map(self.read, chunks))

    def read(self, chunk: int) -> bytes:
        """The lines or records that begin in the bytes of a chunk; there may be none.

        Raises:
          OSError: the file cannot be read, ends before its range does, or is damaged.
        """
        index = self._range_of(chunk)
        range_ = self.ranges[index]
        start = range_.begin + (chunk - int(self._first_chunks[index])) * self._size
        with open(range_.file, "rb", buffering=0) as opened:
            offset, data = self._read_from(opened.fileno(), range_, start)
        damage = self._format.damage(data, offset)
        if damage:
            raise OSError(errno.EBADMSG, damage, range_.file)
        return self._format.terminated(data)

    def _read_from(self, opened: int, range_: ByteRange, start: int) -> tuple[int, bytes]:
        """Reads from the first example that begins in a chunk to the first after the chunk.

        Args:
          opened: file descriptor.
          range_: what is read of the file.
          start: first byte of the chunk; its first example may begin later.

        Returns:
          Where its first example begins in the file, and the bytes.
        """
        file, begin, end = range_
        stop = min(start + self._size, end)
        base = max(start - 1, begin)  # the byte before shows whether a line begins at `start`
        data = _read_bytes(opened, file, base, min(stop + _READ_AHEAD, end))
        first = 0 if start == begin else self._format.next_start(data, start - base)
        if not 0 <= first < stop - base:
            return start, b""
        while base + len(data) < end:
            last = self._format.next_start(data, stop - base)
            if last >= 0:
                return base + first, data[first:last]
            position = base + len(data)
            data += _read_bytes(opened, file, position, min(position + len(data), end))
        last = self._format.next_start(data, stop - base) if stop < end else -1
        return base + first, data[first:] if last < 0 else data[first:last]


def _read_bytes(opened: int, file: str, start: int, stop: int) -> bytes:
    data = b""
    while len(data) < stop - start:
        try:
            part = os.pread(opened, stop - start - len(data), start + len(data))
        except OSError as error:
            raise OSError(error.errno, error.strerror, file) from error
        if not part:
            raise OSError(errno.ENODATA, f"it ends at byte {start + len(data)}", file)
        data += part
    return data
