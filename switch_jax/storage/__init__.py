"""Local disks and buckets (gs://, s3://) behind the same functions; no other room tells them apart.

paths        paths as users write them        entries        what is at a path or in a folder
files        files that are whole or not      folders        reading and renaming whole ones
             there                            appended       files that grow
listing      many files and their sizes       ranges         byte ranges of files
spool        files for programs that know     clients        which clients talk to buckets
             disks alone                      cloud_storage  the client of gs://
lease        one job for each folder; on a    conditional    writing what nobody has changed since
             disk by file_lock                weather        requests that failed and were repeated
"""

from switch_jax.storage.appended import (
    appended_file,
    last_written,
    read_appended,
)
from switch_jax.storage.clients import choose_clients, file_system
from switch_jax.storage.entries import entries, exists, file_at, is_file, is_folder, list_names
from switch_jax.storage.file_lock import FileLock, HeldError
from switch_jax.storage.files import (
    atomic_write,
    check_writable,
    explain_read_errors,
    explain_write_errors,
    new_folder,
    open_atomic,
    write_file,
)
from switch_jax.storage.folders import list_complete, move_folder, read_bytes
from switch_jax.storage.lease import Lease, LostLeaseError, check_leases, hold, holder_gone
from switch_jax.storage.listing import file_sizes, forget, matching
from switch_jax.storage.paths import (
    MAX_NAME_BYTES,
    bucket_path,
    in_bucket,
    no_model_there,
    on_this_machine,
    resolved,
    storage_path,
)
from switch_jax.storage.ranges import read_range
from switch_jax.storage.spool import Spool, copies_here, header_here, local_copy
from switch_jax.storage.weather import WEATHER, repeated_requests
