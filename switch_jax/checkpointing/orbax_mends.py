"""What Orbax lacks when things go wrong, by parts of it that are not public; tests watch them."""

import logging
from typing import Any

from orbax.checkpoint._src.futures import future, synchronization
from orbax.checkpoint._src.serialization import tensorstore_utils


def add_checksums() -> None:
    """Has Orbax write a checksum with every piece of an array.

    By default a flipped bit in the file comes back as another number, and nobody is told. There is
    no public option; any Orbax reads such files, since they name their codecs.
    """
    build = tensorstore_utils._build_zarr3_metadata
    if getattr(build, "with_checksums", False):
        return

    def with_checksums(*args: Any, **kwargs: Any) -> dict[str, Any]:
        metadata = build(*args, **kwargs)
        metadata["codecs"][0]["configuration"]["codecs"].append({"name": "crc32c"})
        return metadata

    with_checksums.with_checksums = True  # type: ignore[attr-defined]
    tensorstore_utils._build_zarr3_metadata = with_checksums


def log_no_traces() -> None:
    """Orbax logs the traces, thousands of lines, of what it raises too: no longer."""
    logging.getLogger("absl").addFilter(_has_no_trace)


def _has_no_trace(record: logging.LogRecord) -> bool:
    return not (record.exc_info and "orbax" in record.pathname)


def end_waiting_threads() -> None:
    """After a failed save: threads of Orbax's wait for the step's folder, maybe in vain.

    They would for 20 minutes, and so would the end of the process. This has them fail.
    """
    future.set_signals(
        list(synchronization.HandlerAwaitableSignal),
        operation_id=synchronization.OperationIdGenerator.get_current_operation_id(),
    )


def root(error: BaseException) -> BaseException:
    """What began a chain of exceptions."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return error


def first_cause(error: BaseException) -> str:
    """What began a chain of exceptions, in one line."""
    error = root(error)
    lines = str(error).strip().splitlines()
    text = lines[0][:300] if lines else ""
    # The text of some is a key alone.
    return text if " " in text else f"{type(error).__name__} {text}".strip()
