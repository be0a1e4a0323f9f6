"""TensorFlow and seqio, set up for use beside JAX; import them from here.

    from switch_jax.data.tensorflow_setup import seqio, tf

The first import of this module changes the process in three ways:

- File descriptor 2 is redirected while TensorFlow is loaded, because no log level applies to the
  messages that its C++ code prints at start-up. They are shown if loading fails.
- GPUs and TPUs are hidden from TensorFlow, which would reserve their memory: they are for JAX.
- Information and warnings from seqio, t5 and TensorFlow Datasets are not shown; errors are.
"""

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
_QUIET_PACKAGES = ("seqio", "t5", "tensorflow_datasets")


@contextmanager
def _stderr_shown_on_failure() -> Iterator[None]:
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            yield
        except BaseException:
            captured.seek(0)
            os.write(stderr, captured.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def _is_shown(record: logging.LogRecord) -> bool:
    """False for information and warnings of the quiet packages, which log through absl."""
    folders = (f"{os.sep}{package}{os.sep}" for package in _QUIET_PACKAGES)
    return record.levelno >= logging.ERROR or not any(f in record.pathname for f in folders)


with _stderr_shown_on_failure():
    import seqio
    import t5.data.preprocessors
    import tensorflow as tf
    import tensorflow_datasets as tfds

    tf.config.set_visible_devices([], "GPU")
    tf.config.set_visible_devices([], "TPU")

logging.getLogger("absl").addFilter(_is_shown)
tf.get_logger().setLevel(logging.ERROR)

__all__ = ["seqio", "t5", "tf", "tfds"]
