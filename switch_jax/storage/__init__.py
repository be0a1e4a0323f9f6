"""Local disks and buckets (gs://, s3://) behind the same functions; no other room tells them apart.

paths    paths as users write them         files  files and folders that are whole or not there
clients  which clients talk to buckets
"""

from switch_jax.storage.clients import choose_clients
from switch_jax.storage.files import atomic_write, explain_write_errors, new_folder, open_atomic
from switch_jax.storage.paths import (
    MAX_NAME_BYTES,
    bucket_path,
    check_path,
    home_path,
    is_file,
    no_model_there,
    storage_path,
)

choose_clients()

__all__ = [
    "MAX_NAME_BYTES",
    "atomic_write",
    "bucket_path",
    "check_path",
    "explain_write_errors",
    "home_path",
    "is_file",
    "new_folder",
    "no_model_there",
    "open_atomic",
    "storage_path",
]
