"""Raises the number of files that this process may have open at once."""

import contextlib
import resource


def raise_limit_of_open_files() -> None:
    """Raises the limit to the most that the system allows; that of a shell is often 1,024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS takes no limit that is unlimited
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
