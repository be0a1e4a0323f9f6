import pytest
from etils import epath

from switch_jax.errors import UserError
from switch_jax.storage import storage_path


def test_a_path_of_this_machine_becomes_absolute(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/home/me")
    assert storage_path("runs/mine") == epath.Path(tmp_path / "runs/mine")
    for name in ("~/runs", epath.Path("~/runs")):
        assert str(storage_path(name)) == "/home/me/runs"


def test_the_path_of_a_bucket_is_its_url():
    assert str(storage_path("gs://mounted/runs/mine")) == "gs://mounted/runs/mine"
    assert str(storage_path("s3://mounted/runs/mine/") / "x") == "s3://mounted/runs/mine/x"
    assert str(storage_path("gs://mounted")) == str(storage_path("gs://mounted/")) == "gs://mounted"


def test_other_places_are_refused():
    with pytest.raises(UserError, match="^MODEL_DIR 'az://bucket/x': write a path of this mach"):
        storage_path("az://bucket/x", "MODEL_DIR")
    with pytest.raises(UserError, match="^'gs://': no bucket has the name ''"):
        storage_path("gs://")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a\0b", r"'a\\x00b': a path holds no NUL character"),
        ("a/\udcff", r"'a/\\udcff': these are not all characters of UTF-8"),
        ("gs://mounted/\ud800", r"not all characters of UTF-8"),
        ("~no-such-user/x", r"this machine has no user of that name"),
        ("", r"'': the path is empty"),
        ("a/" + "\u00fc" * 128, r"a name in it has 256 bytes; a disk takes 255"),
        ("gs:///x", r"no bucket has the name '': write small letters"),
        ("gs://../x", r"no bucket has the name '\.\.'"),
        ("gs://mounted/../x", r"write the folder's path without '//', '\.' and '\.\.'"),
        ("gs://mounted/a/./x", r"write the folder's path without"),
        ("gs://mounted//etc", r"write the folder's path without"),
        ("gs://mounted//", r"write the folder's path without"),
        ("gs://mounted/a//", r"write the folder's path without"),
        ("gs://mounted/a\nb", r"no line breaks or hidden characters"),
        ("gs://mounted/a*b", r"clients take \* \? \[ \] # in a bucket for patterns"),
        ("s3://mounted/a#b", r"clients take .* in a bucket for patterns"),
        ("s3:/bucket/x", r"write a path of this machine's file system, gs://BUCKET/.* or s3://BUC"),
        ("GS://bucket/run", r"write a path of this machine's file system, gs://BUCKET/"),
        ("my-s3+x.y://bucket/run", r"write a path of this machine's file system, gs://BUCKET/"),
        ("gs://ab/x", r"no bucket has the name 'ab'"),
        ("gs://Mounted/x", r"no bucket has the name 'Mounted'"),
        ("gs://-mounted/x", r"no bucket has the name '-mounted'"),
        ("gs://mounted-/x", r"no bucket has the name 'mounted-'"),
        ("gs://mounted /x", r"no bucket has the name 'mounted '"),
        ("gs://mounted\n/x", r"no bucket has the name 'mounted\\n'"),
    ],
)
def test_paths_that_cannot_be_are_refused(name, message):
    with pytest.raises(UserError, match=f"^MODEL_DIR .*{message}") as error:
        storage_path(name, "MODEL_DIR")
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    "name",
    [
        *["runs/mine", "/a b/\u00fc/$(x)", ".", "..", "../x", "-x", "a\nb", "u" * 255],
        *["gs://abc", "gs://abc/", "gs://a.b-c_d.e/x y/\u00fc", "gs://1e3/x/", "gs://999.1.1.1/x"],
    ],
)
def test_paths_that_can_be_need_not_be_there(name):
    storage_path(name)
