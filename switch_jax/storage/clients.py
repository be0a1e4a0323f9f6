"""The clients of buckets: those of fsspec, which etils.epath, Orbax and TFDS use as well."""

import functools
import logging
import os
import pathlib
from typing import Any

from switch_jax.utils.errors import UserError

SILENT_SECONDS = 30  # a request that gets no byte for so long is given up, and made again


@functools.cache
def choose_clients() -> None:
    """Sets the clients that all packages of this process use; environment variables come first."""
    import fsspec
    from etils.epath import gpath

    # TensorFlow has a client for gs:// of its own, which cannot be pointed at another server.
    os.environ.setdefault("EPATH_USE_TF", "0")
    gpath._is_tf_installed.cache_clear()  # it may have been asked before
    for protocol in ("gs", "gcs"):
        fsspec.register_implementation(
            protocol, "switch_jax.storage.cloud_storage.CloudStorage", clobber=True
        )
    for protocol in ("gs", "gcs", "s3"):
        # A kept listing would hide what other hosts have written since.
        fsspec.config.conf.setdefault(protocol, {}).setdefault("use_listings_cache", False)
    # TensorStore waits for ever by itself.
    os.environ.setdefault("TENSORSTORE_CURL_CONNECT_TIMEOUT_SECONDS", str(SILENT_SECONDS))
    os.environ.setdefault("TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS", str(SILENT_SECONDS))
    os.environ.setdefault("TENSORSTORE_CURL_LOW_SPEED_LIMIT_BYTES", "1")  # a second
    for name in ("gcsfs", "fsspec"):  # they print the stack traces of errors that they raise, too
        logging.getLogger(name).setLevel(logging.CRITICAL)


def file_system(path: pathlib.PurePath | str) -> Any:
    """Returns the file system of fsspec for a path; UserError if its package is not installed."""
    import fsspec.core

    choose_clients()
    try:
        return fsspec.core.url_to_fs(str(path))[0]
    except ImportError as error:
        raise UserError(
            f"{path}: {error}: pip install -c requirements.txt s3fs, in the checkout"
        ) from error
