"""Chunks of files: byte ranges of whole lines or records, each read without what precedes it.

A file is cut at regular intervals of bytes, each cut moved to where the next line or record begins:
no index is needed. Importing this loads no TensorFlow.
"""

import errno
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

import google_crc32c
import numpy as np

from switch_jax.data.reading.read_ahead import read_ahead, run_concurrently
from switch_jax.storage import file_sizes, read_range
from switch_jax.utils.errors import not_utf8

MAX_CHUNK_BYTES = 128 * 1024
_MAX_CHUNKS = 2**20  # of all files together; beyond it chunks are larger
MIN_CHUNKS_PER_PART = 32  # in small files chunks are smaller
_CHUNKS_PER_BLOCK = 4  # more where chunks are small
_READ_BEYOND = 8 * 1024  # bytes first read beyond a chunk, to find where the next one begins
_READ_TO_COUNT = 256 * 1024  # bytes read at a time where examples are counted
_HEADER = 12  # bytes of a TFRecord's header: the length of its data (8), the length's checksum (4)
_CHECKSUM = 4  # bytes after its data


class ByteRange(NamedTuple):
    """The bytes of the file `name` from `begin` up to `end`, which is not included."""

    name: str
    begin: int
    end: int


class FileSlice(NamedTuple):
    """`take` lines or records (-1: all) of a file ("": unknown), after the first `skip`."""

    path: str
    skip: int = 0
    take: int = -1


class Chunks(Protocol):
    """The chunks of some files, numbered in the order of the files."""

    _per_block: int  # chunks of a block

    def __len__(self) -> int: ...

    def blocks(self, chunks: np.ndarray) -> list[list[int]]:
        """Splits indices of chunks, int64 [N], into blocks; without any, a single empty block."""
        starts = range(0, max(len(chunks), 1), self._per_block)
        return [chunks[start : start + self._per_block].tolist() for start in starts]

    def reads(self, chunks: Sequence[int]) -> list[Callable[[], bytes]]:
        """Calls that read chunks, to be joined in this order; OSError: a file is damaged."""


class FileFormat(Protocol):
    """A format of files that can be cut into chunks."""

    def cut(self, files: Sequence[FileSlice], num_parts: int) -> Chunks:
        """The chunks of files, several in each of `num_parts`; OSError: a file is damaged."""

    def contents(self, path: str) -> Iterator[bytes]:
        """A whole file, in blocks of whole examples; raises OSError as the reads of chunks do."""
        chunks = self.cut([FileSlice(path)], 1)
        blocks = chunks.blocks(np.arange(len(chunks)))
        for _, content in read_ahead((None, chunks.reads(block)) for block in blocks):
            yield content


class ByteFormat(FileFormat, Protocol):
    """A format of files that can be cut between any two of their examples."""

    def cut(self, files: Sequence[FileSlice], num_parts: int) -> "FileChunks":
        sizes = file_sizes([file.path for file in files])
        parts = [
            functools.partial(self.part, ByteRange(path, 0, size), skip, take)
            for (path, skip, take), size in zip(files, sizes, strict=True)
        ]
        return FileChunks(run_concurrently(parts), self, num_parts)

    def next_start(self, data: bytes, position: int) -> int:
        """Index in `data` where the first example from `position` on begins; -1: none does."""

    def terminated(self, chunk: bytes) -> bytes:
        """The chunk in a form to which another chunk may be appended."""
        return chunk

    def damage(self, chunk: bytes, offset: int) -> str | None:
        """What is wrong with the chunk of whole examples from byte `offset` on; None: nothing."""

    def offset(self, file: ByteRange, index: int) -> int:
        """Bytes before the example with this index, at most all; OSError: the file is damaged."""

    def part(self, file: ByteRange, skip: int, take: int) -> ByteRange:
        """`take` examples of a whole file after the first `skip`; -1 takes all. See `offset`."""
        begin = self.offset(file, skip) if skip else 0
        end = self.offset(file, skip + take) if take >= 0 else file.end
        return ByteRange(file.name, begin, end)


class TextLines(ByteFormat):
    """Lines of text."""

    def next_start(self, data: bytes, position: int) -> int:
        newline = data.find(b"\n", position - 1)
        return newline + 1 if newline >= 0 else -1

    def terminated(self, chunk: bytes) -> bytes:
        return chunk if chunk.endswith(b"\n") or not chunk else chunk + b"\n"

    def damage(self, chunk: bytes, offset: int) -> str | None:
        try:
            chunk.decode()
        except UnicodeDecodeError as error:
            return not_utf8(offset + error.start)  # of which TensorFlow says nothing
        return None

    def offset(self, file: ByteRange, index: int) -> int:
        for begin in range(0, file.end, _READ_TO_COUNT):
            data = read_range(file.name, begin, min(begin + _READ_TO_COUNT, file.end))
            if index <= data.count(b"\n"):
                return begin + sum(len(line) + 1 for line in data.split(b"\n", index)[:index])
            index -= data.count(b"\n")
        return file.end


class TFRecords(ByteFormat):
    """TFRecords, found by their headers: 8 bytes followed by the checksum of these."""

    def next_start(self, data: bytes, position: int) -> int:
        view = np.frombuffer(data, np.uint8)[position:]
        starts = np.arange(max(len(view) - _HEADER + 1, 0))
        for byte in range(4, 8):  # the upper half of the length is 0: no record has 4 GiB
            starts = starts[view[starts + byte] == 0]
        for start in (position + starts).tolist():
            if _has_checksum(data[start : start + 8], data[start + 8 : start + _HEADER]):
                return start
        return -1

    def damage(self, chunk: bytes, offset: int) -> str | None:
        end = 0
        while end < len(chunk):
            begin, length = end, int.from_bytes(chunk[end : end + 8], "little")
            data, end = begin + _HEADER, begin + _HEADER + length + _CHECKSUM
            if data > len(chunk):  # which ends with a whole record, or with the file
                return f"it was cut off: the record at byte {offset + begin} has no whole header"
            is_whole = _has_checksum(chunk[begin : begin + 8], chunk[begin + 8 : data])
            if is_whole and end > len(chunk):
                # TensorFlow would allocate this length, and end the process where it cannot.
                return _too_long(offset + begin, length)
            checksum = chunk[data + length : end]
            if not is_whole or not _has_checksum(chunk[data : data + length], checksum):
                return f"the record at byte {offset + begin} does not fit its checksum"
        return None

    def offset(self, file: ByteRange, index: int) -> int:
        offset = begin = 0
        data = b""  # from `begin` on
        for _ in range(index):
            if offset + 8 > begin + len(data) and offset < file.end:
                begin = offset
                data = read_range(file.name, begin, min(begin + _READ_TO_COUNT, file.end))
            length = int.from_bytes(data[offset - begin : offset - begin + 8], "little")
            end = offset + _HEADER + length + _CHECKSUM
            if end > file.end:
                raise OSError(errno.EBADMSG, _too_long(offset, length), file.name)
            offset = end
        return offset


def _too_long(begin: int, length: int) -> str:
    return (
        f"it was cut off: the record at byte {begin} is shorter than the {length} bytes that its "
        "header says"
    )


def _has_checksum(data: bytes, stored: bytes) -> bool:
    """Whether `stored` is the checksum of these bytes: CRC-32C, masked as in TFRecords."""
    crc = google_crc32c.value(data)
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return masked.to_bytes(4, "little") == stored


def chunks_per_block(size: int) -> int:
    """Number of chunks, of this size in bytes, of a block."""
    return max(_CHUNKS_PER_BLOCK, _CHUNKS_PER_BLOCK * MAX_CHUNK_BYTES // size)


class FileChunks(Chunks):
    """Byte ranges of files."""

    def __init__(self, ranges: Sequence[ByteRange], format: ByteFormat, num_parts: int) -> None:
        """Opens no file; `ranges`: what is read of each, `num_parts`: see `FileFormat.cut`."""
        self._ranges, self._format = ranges, format
        total = sum(r.end - r.begin for r in ranges)
        largest = max(MAX_CHUNK_BYTES, total // _MAX_CHUNKS)
        self._size = max(1, min(largest, total // (MIN_CHUNKS_PER_PART * num_parts)))
        self._per_block = chunks_per_block(self._size)
        counts = [-(-(r.end - r.begin) // self._size) for r in ranges]
        self._first_chunks = np.cumsum([0, *counts])  # index of each file's first chunk

    def __len__(self) -> int:
        return int(self._first_chunks[-1])

    def reads(self, chunks: Sequence[int]) -> list[Callable[[], bytes]]:
        return [functools.partial(self.read, chunk) for chunk in chunks]

    def read(self, chunk: int) -> bytes:
        """The lines or records that begin in a chunk; OSError: its file is damaged or too short."""
        index = int(np.searchsorted(self._first_chunks, chunk, side="right")) - 1
        range_ = self._ranges[index]
        start = range_.begin + (chunk - int(self._first_chunks[index])) * self._size
        offset, data = self._read_from(range_, start)
        if damage := self._format.damage(data, offset):
            raise OSError(errno.EBADMSG, damage, range_.name)
        return self._format.terminated(data)

    def _read_from(self, range_: ByteRange, start: int) -> tuple[int, bytes]:
        """The byte at which the chunk at byte `start` has its first example, and its examples."""
        file, begin, end = range_
        stop = min(start + self._size, end)
        base = max(start - 1, begin)  # the byte before shows whether a line begins at `start`
        data = read_range(file, base, min(stop + _READ_BEYOND, end))
        first = 0 if start == begin else self._format.next_start(data, start - base)
        if not 0 <= first < stop - base:
            return start, b""
        while base + len(data) < end:
            last = self._format.next_start(data, stop - base)
            if last >= 0:
                return base + first, data[first:last]
            position = base + len(data)
            data += read_range(file, position, min(position + len(data), end))
        last = self._format.next_start(data, stop - base) if stop < end else -1
        return base + first, data[first:] if last < 0 else data[first:last]
