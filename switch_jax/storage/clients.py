"""Which clients talk to buckets: fsspec's file systems, for this package and for others.

etils.epath, which Orbax and TFDS use too, takes them for folders and small objects.
"""

import functools
import logging
import os
import pathlib
from typing import Any


@functools.cache
def choose_clients() -> None:
    """Sets which clients all packages of this process use; the caller's environment comes first."""
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
    # It prints the stack traces of errors that it raises, too.
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)


def file_system(path: pathlib.PurePath | str) -> Any:
    """The file system of fsspec that has the path."""
    import fsspec.core

    choose_clients()
    return fsspec.core.url_to_fs(str(path))[0]
