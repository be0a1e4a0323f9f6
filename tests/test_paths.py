import os
from pathlib import Path

import pytest

from switch_jax import paths
from switch_jax.errors import UserError
from switch_jax.paths import check_path, local_path


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
def test_a_bucket_that_is_not_mounted_is_reported_how_to(gcs, bucket):
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
    with pytest.raises(UserError, match="^MODEL_DIR 's3://bucket/x': write a path of this mach"):
        local_path("s3://bucket/x", "MODEL_DIR")
    with pytest.raises(UserError, match="^'gs://': no bucket has the name ''"):
        local_path("gs://")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a\0b", r"'a\\x00b': a path holds no NUL character"),
        ("a/\udcff", r"'a/\\udcff': these are not all characters of UTF-8"),
        ("gs://mounted/\ud800", r"not all characters of UTF-8"),
        ("~no-such-user/x", r"~no-such-user is the home folder of a user, .* write the whole path"),
        ("", r"'': the path is empty"),
        ("a/" + "\u00fc" * 128, r"a name in it has 256 bytes; a disk takes 255"),
        ("gs:///x", r"no bucket has the name ''; it is 3 to 63 small letters"),
        ("gs://../x", r"no bucket has the name '\.\.'"),
        ("gs://mounted/../x", r"write the folder's path without '//', '\.' and '\.\.'"),
        ("gs://mounted/a/./x", r"write the folder's path without"),
        ("gs://mounted//etc", r"write the folder's path without"),
        ("gs://mounted//", r"write the folder's path without"),
        ("gs://mounted/a//", r"write the folder's path without"),
        ("gs://mounted/a\nb", r"no line breaks or hidden characters"),
        ("gs://ab/x", r"no bucket has the name 'ab'"),
        ("gs://Mounted/x", r"no bucket has the name 'Mounted'"),
        ("gs://-mounted/x", r"no bucket has the name '-mounted'"),
        ("gs://mounted-/x", r"no bucket has the name 'mounted-'"),
        ("gs://mounted /x", r"no bucket has the name 'mounted '"),
        ("gs://mounted\n/x", r"no bucket has the name 'mounted\\n'"),
        ("gs://a..b/x", r"no bucket has the name 'a\.\.b'"),
        ("gs://192.168.5.4/x", r"no bucket has the name '192\.168\.5\.4'"),
        (f"gs://{'a' * 64}/x", r"no bucket has the name 'a{64}'"),
        (f"gs://{'a' * 63}.{'b' * 63}.{'c' * 63}.{'d' * 31}/x", r"no bucket has the name"),
    ],
)
def test_paths_that_cannot_be_are_refused(name, message, gcs):
    for refuses in (check_path, local_path):
        with pytest.raises(UserError, match=f"^MODEL_DIR .*{message}") as error:
            refuses(name, "MODEL_DIR")
        assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    "name",
    [
        *["runs/mine", "/a b/\u00fc/$(x)", ".", "..", "../x", "-x", "a\nb", "u" * 255],
        *["gs://abc", "gs://abc/", "gs://a.b-c_d.e/x y/\u00fc", "gs://1e3/x/", "gs://999.1.1.1/x"],
        f"gs://{'a' * 63}.{'b' * 63}/x",
    ],
)
def test_paths_that_can_be_need_not_be_there(name):
    check_path(name)
