"""Which clients talk to buckets, by the environment variables that they read.

etils.epath, which Orbax and TFDS use too, has gcsfs and s3fs for folders and small objects. The
caller's environment comes first.
"""

import os
import pathlib
import sys
from typing import Any


def choose_clients() -> None:
    """Sets the variables; clients read them when they are first used."""
    # TensorFlow has a client for gs:// of its own, which cannot be pointed at another server.
    os.environ.setdefault("EPATH_USE_TF", "0")
    # Otherwise gcsfs asks for the kind of each bucket, which takes a right that jobs rarely have.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    # A kept listing would hide what other hosts have written since.
    for variable in ("FSSPEC_GCS", "FSSPEC_S3"):
        os.environ.setdefault(variable, '{"use_listings_cache": false}')
    if "fsspec" in sys.modules:  # it has read the variables already
        import fsspec.config

        fsspec.config.set_conf_env(fsspec.config.conf)


def file_system(path: pathlib.PurePath) -> Any:
    """The file system of fsspec that has the path."""
    import fsspec.core

    return fsspec.core.url_to_fs(str(path))[0]
