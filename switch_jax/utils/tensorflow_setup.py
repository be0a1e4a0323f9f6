"""Sets up TensorFlow and seqio for use beside JAX; import them from here.

    from switch_jax.utils.tensorflow_setup import seqio, tf

The first import of this module changes the process:

- File descriptor 2 is redirected while TensorFlow is loaded, because no log level applies to the
  messages that its C++ code prints at start-up. They are shown if loading fails.
- GPUs and TPUs are hidden from TensorFlow, which would reserve their memory: they are for JAX.
- Information and warnings from seqio, t5 and TensorFlow Datasets are not shown; errors are.
- TensorFlow neither optimises graphs nor looks for oneDNN's kernels in them. That took half of
  the time to open a stream, and the small graphs of preprocessing are no quicker for it.
"""

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
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


@contextmanager
def _as_if_absent(*packages: str) -> Iterator[None]:
    """Makes imports of these packages fail in the block, as if they were not installed."""
    absent = [package for package in packages if package not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]  # None: ImportError
    try:
        yield
    finally:
        for package in absent:
            del sys.modules[package]


def _is_shown(record: logging.LogRecord) -> bool:
    """Drops information and warnings of the quiet packages, which log through absl."""
    folders = (f"{os.sep}{package}{os.sep}" for package in _QUIET_PACKAGES)
    return record.levelno >= logging.ERROR or not any(f in record.pathname for f in folders)


with _stderr_shown_on_failure():
    # Keras, which TensorFlow loads, would load them, too: nearly a second, for nothing here.
    with _as_if_absent("matplotlib", "pandas"):
        import tensorflow as tf
    import seqio
    import t5.data.preprocessors
    import tensorflow_datasets as tfds

    tf.config.set_visible_devices([], "GPU")
    tf.config.set_visible_devices([], "TPU")
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})

logging.getLogger("absl").addFilter(_is_shown)
tf.get_logger().setLevel(logging.ERROR)

__all__ = ["seqio", "t5", "tf", "tfds"]
