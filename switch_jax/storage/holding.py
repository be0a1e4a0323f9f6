"""One job for each folder: by a lock of a file on a disk, by a lease in a bucket."""

from etils import epath

from switch_jax.storage.file_lock import FileLock, locker_that_is_gone
from switch_jax.storage.lease import Lease, holder_that_is_gone
from switch_jax.storage.paths import in_bucket


def hold(file: epath.Path, wait: bool = True) -> FileLock | Lease:
    """Holds the folder of a file for this process, which writes the file.

    Args:
      file: in the folder.
      wait: for a minute, where the last holder of a folder in a bucket may be gone.

    Raises:
      HeldError: another process has it.
      OSError: the file cannot be written.
    """
    return Lease(file.parent, file.name, wait=wait) if in_bucket(file) else FileLock(file)


def holder_gone(file: epath.Path, content: bytes) -> str | None:
    """The process of this host that had the folder and is gone, as "process 7 on HOST".

    Args:
      file: see `hold`.
      content: of the file.
    """
    if in_bucket(file):
        return holder_that_is_gone(content)
    return locker_that_is_gone(file, content)
