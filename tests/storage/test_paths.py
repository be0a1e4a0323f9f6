import pytest
from etils import epath

from switch_jax.storage import storage_path
from switch_jax.utils.errors import UserError


def test_a_path_of_this_machine_becomes_absolute(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/home/me")
    assert storage_path("runs/mine") == epath.Path(tmp_path / "runs/mine")
    for name in ("~/runs", epath.Path("~/runs")):
        assert str(storage_path(name)) == "/home/me/runs"


def test_the_path_of_a_bucket_is_its_url():
    assert str(storage_path("gs://mounted/runs/mine")) == "gs://mounted/runs/mine"
    assert str(storage_path("s3://mounted/runs/mine/") / "x") == "s3://mounted/runs/mine/x"
    assert str(storage_path("gs://mounted")) == str(storage_path("gs://mounted/")) == "gs://mounted"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a\0b", "gs://mounted/\ud800"], "a path is UTF-8 text without NUL"),
        (["~no-such-user/x"], "this machine has no user of that name"),
        ([""], ": the path is empty; write one$"),
        (["gs://", "gs:///x", "gs://mounted\n/x", "s3://mounted/a#b"], "the name of the bucket"),
        (["gs://mounted/../x", "gs://mounted/a//"], r"path without '//', '\.' and '\.\.'"),
        (["az://bucket/x", "s3:/bucket/x", "GS://bucket/run"], "write a path of this machine's fi"),
    ],
)
def test_paths_that_cannot_be_are_refused(names, message):
    for name in names:
        with pytest.raises(UserError, match=f"^MODEL_DIR '.*{message}") as error:
            storage_path(name, "MODEL_DIR")
        assert len(str(error.value).splitlines()) == 1


def test_paths_that_can_be_need_not_be_there():
    names = ["/a b/\u00fc/$(x)", ".", "..", "../x", "-x", "a\nb", "u" * 255]
    for name in (*names, "gs://a.b-c_d.e/x y/\u00fc", "gs://1e3/x/", "gs://999.1.1.1/x"):
        storage_path(name)
