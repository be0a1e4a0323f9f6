"""Compressed files that were cut off: TensorFlow reads what is left as if it were all."""

import contextlib
import errno
import zlib
from collections.abc import Iterator, Sequence

from switch_jax.storage import local_copies

CUT_OFF = "it was cut off: its compressed data do not end"
_BEGINNINGS = (b"\x1f\x8b", b"\x78\x01", b"\x78\x9c", b"\x78\xda")  # of gzip, and of zlib
_BLOCK = 64 * 1024  # bytes; a thousand times more at most when decompressed


@contextlib.contextmanager
def checked_local_copies(files: Sequence[str]) -> Iterator[list[str]]:
    """Yields local copies as `local_copies`; then raises OSError where a file was cut off.

    The check comes last, since it decompresses each file once more. "" stands for no file.
    """
    with local_copies(files) as here:
        yield here
        for file, copy in zip(files, here, strict=True):
            if copy and _is_cut_off(copy):
                raise OSError(errno.EBADMSG, CUT_OFF, file)


def first_cut_off(files: Sequence[str]) -> str | None:
    """Returns the first of the files whose compressed data do not end, if there is one."""
    for file in files:
        with local_copies([file]) as (here,):
            if _is_cut_off(here):
                return file
    return None


def _is_cut_off(path: str) -> bool:
    """Whether a file's compressed data do not end; TensorFlow finds other damage."""
    with open(path, "rb") as file:
        data = file.read(_BLOCK)
        if not path.endswith(".gz") and not data.startswith(_BEGINNINGS):
            return False
        stream = _decompressor()
        try:
            while data:
                stream.decompress(data)
                data = stream.unused_data or file.read(_BLOCK)
                if stream.eof and data:  # archives may follow one another in a file
                    stream = _decompressor()
        except zlib.error:
            return False
    return not stream.eof


def _decompressor() -> "zlib._Decompress":
    return zlib.decompressobj(wbits=32 + zlib.MAX_WBITS)  # of gzip or zlib, as the header says
