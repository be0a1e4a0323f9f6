"""What tests need to run on a disk and in a bucket alike."""

from pathlib import Path

import pytest

# The test runs on a disk, and where slow tests run in a bucket, too: see the fixture `storage`.
SLOWLY_IN_A_BUCKET = pytest.mark.parametrize(
    "storage", ["disk", pytest.param("bucket", marks=pytest.mark.slow)], indirect=True
)


def copy_files(source, target):
    """Copies the files of a folder of this machine to a folder of any storage."""
    for file in Path(source).rglob("*"):
        if file.is_file():
            copy = target / file.relative_to(source).as_posix()
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
    return target
