"""The seqio side: registered tasks in, packed numpy batches out.

Only this package and the tasks import TensorFlow. Importing it first keeps TensorFlow off the
accelerators, which are JAX's, and off the terminal.
"""

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
_CHATTY = tuple(f"{os.sep}{name}{os.sep}" for name in ("seqio", "t5", "tensorflow_datasets"))


@contextmanager
def _stderr_held_back() -> Iterator[None]:
    """TensorFlow's C++ start-up messages obey no log level; shown only if the start fails."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def _is_worth_showing(record: logging.LogRecord) -> bool:
    """Drops the information and warnings of seqio and its kin; their errors stay."""
    return record.levelno >= logging.ERROR or not any(part in record.pathname for part in _CHATTY)


with _stderr_held_back():
    import seqio  # noqa: F401  loads the rest of TensorFlow's libraries
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    tf.config.set_visible_devices([], "TPU")

logging.getLogger("absl").addFilter(_is_worth_showing)
tf.get_logger().setLevel(logging.ERROR)
