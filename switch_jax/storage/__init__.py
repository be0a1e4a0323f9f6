"""Local disks and buckets (gs://, s3://) behind the same functions.

Only this package tells them apart.
"""

from switch_jax.storage.appended import Spool, appended_file, last_written, read_appended
from switch_jax.storage.clients import choose_clients, file_system
from switch_jax.storage.errors import (
    explain_read_errors,
    explain_state_errors,
    explain_write_errors,
)
from switch_jax.storage.listing import (
    exists,
    file_at,
    file_sizes,
    is_file,
    is_folder,
    list_complete,
    list_names,
    matching,
    relist,
)
from switch_jax.storage.locking.file_lock import FileLock, HeldError
from switch_jax.storage.locking.lease import Lease, LostLeaseError, check_leases, hold, stale_holder
from switch_jax.storage.paths import (
    bucket_path,
    in_bucket,
    local_paths,
    missing_model,
    resolved,
    storage_path,
)
from switch_jax.storage.reading import (
    local_copies,
    local_copy,
    local_header,
    read_bytes,
    read_range,
)
from switch_jax.storage.retries import RETRIES, repeated_requests
from switch_jax.storage.writing import (
    atomic_write,
    check_writable,
    move_folder,
    new_folder,
    open_atomic,
    write_file,
)
