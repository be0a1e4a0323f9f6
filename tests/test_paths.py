import errno
import os
from pathlib import Path

import pytest

from switch_jax import paths
from switch_jax.errors import TransientError, UserError
from switch_jax.paths import local_path, told


@pytest.fixture
def gcs(tmp_path, monkeypatch):
    """Stands for /gcs, in which `mounted` is mounted and `empty` is a folder alone."""
    for name in ("mounted", "empty"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(paths, "BUCKETS_DIR", tmp_path)
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == tmp_path / "mounted")
    return tmp_path


def test_a_path_of_this_machine_stays_one(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert local_path("runs/mine") == Path("runs/mine")
    assert local_path("~/runs") == local_path(Path("~/runs")) == Path("/home/me/runs")


def test_a_bucket_is_read_where_it_is_mounted(gcs):
    assert local_path("gs://mounted/runs/mine") == gcs / "mounted/runs/mine"
    assert local_path("gs://mounted") == local_path("gs://mounted/") == gcs / "mounted"


def test_all_buckets_may_be_mounted_at_once(gcs, monkeypatch):
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == gcs)
    assert local_path("gs://empty/runs") == gcs / "empty/runs"
    with pytest.raises(UserError, match="not mounted"):
        local_path("gs://absent/runs")


@pytest.mark.parametrize("bucket", ["empty", "absent"])
def test_a_bucket_that_is_not_mounted_is_told_how_to(gcs, bucket):
    with pytest.raises(UserError) as error:
        local_path(f"gs://{bucket}/runs", "MODEL_DIR")
    assert str(error.value) == (
        f"MODEL_DIR 'gs://{bucket}/runs': the bucket is not mounted at {gcs}/{bucket} on this "
        f"machine; mount it on every host: mkdir -p {gcs}/{bucket} && "
        f"gcsfuse --implicit-dirs --rename-dir-limit=200000 {bucket} {gcs}/{bucket}; the "
        "bucket of a MODEL_DIR must have a hierarchical namespace, since in others a folder is not "
        "renamed at once, and a checkpoint may be saved by half"
    )


def test_other_places_are_refused():
    with pytest.raises(UserError, match="^MODEL_DIR 's3://bucket/x': give a folder of this mach"):
        local_path("s3://bucket/x", "MODEL_DIR")
    with pytest.raises(UserError, match="^'gs://': no bucket has the name ''"):
        local_path("gs://")


@pytest.mark.parametrize(
    ("number", "kind", "message"),
    [
        (errno.EROFS, UserError, "^here/x cannot be written: words$"),
        (errno.ESTALE, TransientError, "^here/x cannot be written: words; this may pass: start a"),
    ],
)
def test_what_the_disk_refuses_is_told(number, kind, message):
    with pytest.raises(UserError, match=message) as error, told(Path("here/x")):
        raise OSError(number, "words")
    assert type(error.value) is kind
