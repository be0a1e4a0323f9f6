"""T5X checkpoints that are damaged, or that are none of T5X's: what is wrong is named."""

import re
import shutil

import numpy as np
import pytest
from flax.serialization import msgpack_restore, msgpack_serialize

from switch_jax.utils.errors import UserError
from tests.conversion.folders import read
from tests.conversion.t5x.checkpoints import EXPERT, SWITCH, tied, write_checkpoint

TABLE = "token_embedder/embedding"
ARRAY = f"target.{EXPERT.replace('/', '.')}"


def cut_off(file, size):
    file.write_bytes(file.read_bytes()[:size])


def with_leaf(folder, name, leaf):
    file = folder / "checkpoint"
    tree = msgpack_restore(file.read_bytes())
    *parents, last = name.split("/")
    node = tree["optimizer"]
    for parent in parents:
        node = node.setdefault(parent, {})
    node[last] = leaf
    file.write_bytes(msgpack_serialize(tree))


def in_a_database(folder):
    shutil.rmtree(folder / ARRAY)
    (folder / "manifest.ocdbt").touch()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "checkpoint_7"
    return write_checkpoint(folder, tied(SWITCH), layout="local", state=False)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda f: cut_off(f / "checkpoint", -20),
            r"checkpoint is not a whole msgpack file of T5X \(",
        ),
        (
            lambda f: (f / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-0"\n'),
            r"checkpoint is not a whole msgpack file of T5X \(",
        ),
        (
            lambda f: (f / "checkpoint").write_bytes(msgpack_serialize([1, 2])),
            "holds something else than a checkpoint of T5X",
        ),
        (
            lambda f: with_leaf(f, "flax_mutables/batch_stats/mean", np.ones(2)),
            "flax_mutables/batch_stats/mean is left over",
        ),
        (
            lambda f: with_leaf(f, "flax_mutables", {0: np.ones(2)}),
            "flax_mutables/0 is left over",
        ),
        (
            lambda f: with_leaf(f, "target", {"driver": "zarr", "kvstore": {"path": "a"}}),
            "checkpoint holds no parameters: a T5X checkpoint has them under 'target'",
        ),
        *(
            (
                lambda f, leaf=leaf: with_leaf(f, f"target/{TABLE}", leaf),
                re.escape(r"checkpoint_7 is damaged: it has 'a\x00b' as the name of a file; copy"),
            )
            for leaf in (
                {"driver": "zarr", "kvstore": {"path": "a\0b"}},
                "PLACEHOLDER://a\0b",
            )
        ),
        (
            lambda f: with_leaf(f, f"target/{TABLE}", {"driver": "n5", "kvstore": {}}),
            f"{TABLE} is neither an array nor the description of a Zarr array",
        ),
        (
            lambda f: (f / "checkpoint").unlink(),
            "has no file named checkpoint, in which T5X names its arrays: ",
        ),
        (
            lambda f: shutil.rmtree(f / ARRAY),
            f"checkpoint_7 has no folder {ARRAY}: copy the whole folder of the",
        ),
        (lambda f: cut_off(f / ARRAY / "0.0.0", -30), f"{ARRAY} cannot be read: "),
        (
            lambda f: (f / ARRAY / "1.0.1").unlink(),
            f"{ARRAY} cannot be read: .*1.0.1. is missing",
        ),
        (in_a_database, f"has no folder {ARRAY}: it lies in an OCDBT database, which is not"),
    ],
    ids=[
        *("cut_off", "of_tensorflow", "a_list", "mutables", "number", "target_is_an_array"),
        *("file_name", "placeholder", "n5", "not_there"),
        *("no_folder", "half_a_chunk", "no_chunk", "in_a_database"),
    ],
)
def test_what_is_damaged_or_missing_is_named(whole, tmp_path, damage, message):
    folder = shutil.copytree(whole, tmp_path / whole.name)
    damage(folder)
    with pytest.raises(UserError, match=message) as raised:
        read(folder)
    assert "tensorstore_spec" not in str(raised.value)
