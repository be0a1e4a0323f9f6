"""T5X checkpoints that are damaged, or that no training wrote: what is wrong is named."""

import json
import pickle
import shutil

import numpy as np
import pytest
from flax.serialization import msgpack_restore, msgpack_serialize

from switch_jax.errors import UserError
from tests.conversion.folders import read
from tests.conversion.t5x.checkpoints import EXPERT, SWITCH, tied, write_checkpoint


class Reduced:
    """Runs code where it is unpickled."""

    def __reduce__(self):
        return (print, ("the code of the pickle ran",))


def test_damaged_checkpoints_are_named(tmp_path, capsys):
    good = write_checkpoint(tmp_path / "good", tied(SWITCH))
    content = (good / "checkpoint").read_bytes()
    array = f"target.{EXPERT.replace('/', '.')}"

    def broken(name):
        return shutil.copytree(good, tmp_path / name)

    cases = []
    for name, damaged in (
        ("truncated", content[:-20]),
        ("empty", b""),
        ("tensorflow", b'model_checkpoint_path: "model.ckpt-0"\n'),
        ("pickle", pickle.dumps(Reduced())),
    ):
        (broken(name) / "checkpoint").write_bytes(damaged)
        cases.append((name, r"checkpoint is not a whole msgpack file of T5X \("))
    (broken("list") / "checkpoint").write_bytes(msgpack_serialize([1, 2]))
    cases.append(("list", "holds something else than a checkpoint of T5X"))
    (broken("no_target") / "checkpoint").write_bytes(msgpack_serialize({"version": 3}))
    cases.append(("no_target", "holds no parameters: a T5X checkpoint has them under 'target'"))
    tree = msgpack_restore(content)
    tree["optimizer"]["flax_mutables"] = {"batch_stats": {"mean": np.ones(2)}}
    (broken("mutables") / "checkpoint").write_bytes(msgpack_serialize(tree))
    cases.append(("mutables", "flax_mutables/batch_stats/mean is left over"))
    tree = msgpack_restore(content)
    tree["optimizer"]["target"]["token_embedder"]["embedding"] = {"driver": "n5", "kvstore": {}}
    (broken("n5") / "checkpoint").write_bytes(msgpack_serialize(tree))
    cases.append(("n5", "token_embedder/embedding is neither an array nor the description of a Z"))
    shutil.rmtree(broken("no_folder") / array)
    cases.append(("no_folder", f"no_folder has no folder {array}: copy the whole folder of the"))
    header = broken("header") / array / ".zarray"
    header.write_text(json.dumps({**json.loads(header.read_text()), "shape": [4, 32, 63]}))
    cases.append(("header", rf"{array} cannot be read: .*shape.* of \[4,32,64\]"))
    chunk = broken("chunk") / array / "0.0.0"
    chunk.write_bytes(chunk.read_bytes()[:-30])
    cases.append(("chunk", f"{array} cannot be read: "))
    (broken("no_chunk") / array / "1.0.1").unlink()
    cases.append(("no_chunk", f"{array} cannot be read: .*1.0.1. is missing"))
    (broken("checkpoint_7") / "checkpoint").unlink()
    cases.append(("checkpoint_7", "has no file named checkpoint, in which T5X names its arrays: "))
    orbax = write_checkpoint(tmp_path / "orbax", tied(SWITCH), layout="orbax")
    shutil.rmtree(orbax / array)
    (orbax / "manifest.ocdbt").touch()
    cases.append(("orbax", f"has no folder {array}: it lies in an OCDBT database, which is not"))
    for name, message in cases:
        with pytest.raises(UserError, match=message) as raised:
            read(tmp_path / name)
        assert "tensorstore_spec" not in str(raised.value)
    assert "ran" not in capsys.readouterr().out


TABLE = "token_embedder/embedding"


@pytest.mark.parametrize(
    ("name", "leaf", "message"),
    [
        (TABLE, {"driver": "zarr", "kvstore": {"path": 5}}, f"{TABLE} is neither an array nor the"),
        (TABLE, {"driver": "zarr", "kvstore": {"path": [1]}}, f"{TABLE} is neither an array nor"),
        (
            f"encoder/layers_{'9' * 5000}/a",
            np.ones(2),
            r"1 left over.*\(encoder/layers_999.{1,300}$",
        ),
        ("encoder/encoder/subblock_" + "9" * 5000, np.ones((2, 2)), "2 left over, 0 of another"),
    ],
    ids=range(4),
)
def test_leaves_that_no_checkpoint_has(tmp_path, name, leaf, message):
    folder = write_checkpoint(tmp_path / "theirs", tied(SWITCH))
    tree = msgpack_restore((folder / "checkpoint").read_bytes())
    *parents, last = name.split("/")
    node = tree["optimizer"]["target"]
    for parent in parents:
        node = node.setdefault(parent, {})
    node[last] = leaf
    (folder / "checkpoint").write_bytes(msgpack_serialize(tree))
    with pytest.raises(UserError, match=message):
        read(folder)
