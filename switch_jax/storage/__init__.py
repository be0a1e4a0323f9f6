"""Local disks and buckets (gs://, s3://) behind the same functions; no other room tells them apart.

paths        paths as users write them        files          files that are whole or not there
folders      listing, reading, renaming       appended       files that grow
listing      many files and their sizes       ranges         byte ranges of files
spool        files for programs that know     clients        which clients talk to buckets
             disks alone                      cloud_storage  the client of gs://
holding      one job for each folder, by      conditional    writing what nobody has changed since
             file_lock or by lease            weather        requests that failed and were repeated
"""

from switch_jax.storage.appended import (
    AppendedFile,
    appended_file,
    last_written,
    read_appended,
)
from switch_jax.storage.clients import choose_clients, file_system
from switch_jax.storage.files import atomic_write, explain_write_errors, new_folder, open_atomic
from switch_jax.storage.folders import (
    file_states,
    has_folders,
    list_complete,
    list_names,
    move_folder,
    read_bytes,
    read_files,
)
from switch_jax.storage.holding import hold, holder_gone
from switch_jax.storage.lease import HeldError, LostLeaseError, check_leases
from switch_jax.storage.listing import file_sizes, file_version, forget, matching
from switch_jax.storage.paths import (
    MAX_NAME_BYTES,
    bucket_path,
    check_path,
    exists,
    home_path,
    in_bucket,
    is_file,
    is_folder,
    no_model_there,
    resolved,
    storage_path,
)
from switch_jax.storage.ranges import Bytes, read_range
from switch_jax.storage.spool import Spool, copies_here, local_copy
from switch_jax.storage.weather import WEATHER, repeated_requests

__all__ = [
    "MAX_NAME_BYTES",
    "WEATHER",
    "AppendedFile",
    "Bytes",
    "HeldError",
    "LostLeaseError",
    "Spool",
    "appended_file",
    "atomic_write",
    "bucket_path",
    "check_leases",
    "check_path",
    "choose_clients",
    "copies_here",
    "exists",
    "explain_write_errors",
    "file_sizes",
    "file_states",
    "file_system",
    "file_version",
    "forget",
    "has_folders",
    "hold",
    "holder_gone",
    "home_path",
    "in_bucket",
    "is_file",
    "is_folder",
    "last_written",
    "list_complete",
    "list_names",
    "local_copy",
    "matching",
    "move_folder",
    "new_folder",
    "no_model_there",
    "open_atomic",
    "read_appended",
    "read_bytes",
    "read_files",
    "read_range",
    "repeated_requests",
    "resolved",
    "storage_path",
]
