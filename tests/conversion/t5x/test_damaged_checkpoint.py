"""T5X checkpoints that are damaged, or that no training wrote: what is wrong is named."""

import json
import os
import pickle
import shutil

import numpy as np
import pytest
from flax.serialization import msgpack_restore, msgpack_serialize

from switch_jax.conversion import t5x
from switch_jax.errors import UserError
from tests.conversion.t5x.checkpoints import EXPERT, SWITCH, read, scanned, tied, write_checkpoint


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
SCANNED = "encoder/encoder/subblock_1/mlp/expert/wi/kernel"


def larger(axis):
    """A leaf with 10^12 layers or experts."""

    def change(spec):
        spec["metadata"]["shape"][axis] = 10**12
        return spec

    return change


@pytest.mark.parametrize(
    ("name", "leaf", "message"),
    [
        (
            EXPERT,
            larger(0),
            r"wi.kernel is \[1000000000000, 32, 64\] by its header, of 8,192,000,0",
        ),
        (SCANNED, larger(1), r"is \[4, 1000000000000, 32, 64\] by its header, .* and has 16 files"),
        (EXPERT, np.zeros((10**12, 0), np.float32), "more than 262,144 tensors, counting each lay"),
        (
            EXPERT,
            np.zeros((10**4, 1, 1), np.float32),
            "10,113 are too few for 8 layers, 4 of them with 10,000 experts",
        ),
        (TABLE, {"driver": "zarr", "kvstore": {"path": 5}}, f"{TABLE} is neither an array nor the"),
        (TABLE, {"driver": "zarr", "kvstore": {"path": [1]}}, f"{TABLE} is neither an array nor"),
        (TABLE, "PLACEHOLDER://a/..", "should hold 'a/..', which cannot be the name of a file"),
        (
            f"encoder/layers_{'9' * 5000}/a",
            np.ones(2),
            r"1 left over.*\(encoder/layers_999.{1,300}$",
        ),
        ("encoder/encoder/subblock_" + "9" * 5000, np.ones((2, 2)), "2 left over, 0 of another"),
    ],
    ids=range(9),
)
def test_numbers_and_names_that_no_checkpoint_has(tmp_path, name, leaf, message):
    """A function for a leaf makes it of what is there."""
    tensors = scanned(tied(SWITCH), 2) if name == SCANNED else tied(SWITCH)
    folder = write_checkpoint(tmp_path / "theirs", tensors)
    for header in folder.glob("*/.zarray"):
        header.unlink()
    tree = msgpack_restore((folder / "checkpoint").read_bytes())
    *parents, last = name.split("/")
    node = tree["optimizer"]["target"]
    for parent in parents:
        node = node.setdefault(parent, {})
    node[last] = leaf(node[last]) if callable(leaf) else leaf
    (folder / "checkpoint").write_bytes(msgpack_serialize(tree))
    with pytest.raises(UserError, match=message):
        read(folder)


@pytest.mark.parametrize("step", [np.float32("nan"), float("inf"), -5, 7.5, 10**16, True])
def test_a_step_is_a_whole_number(tmp_path, step):
    folder = write_checkpoint(tmp_path / "theirs", tied(SWITCH), layout="inline", state=False)
    tree = msgpack_restore((folder / "checkpoint").read_bytes())
    tree["optimizer"]["state"]["step"] = step
    (folder / "checkpoint").write_bytes(msgpack_serialize(tree))
    with pytest.raises(UserError, match=f"its step is {step}, not a whole number from 0 to 10"):
        t5x.open_checkpoint(folder)


def test_what_lies_beside_the_chunks_is_ordinary_and_in_proportion(tmp_path):
    folder = write_checkpoint(tmp_path / "theirs", tied(SWITCH))
    chunk = folder / f"target.{EXPERT.replace('/', '.')}/0.0.0"
    chunk.unlink()
    os.mkfifo(chunk)
    with pytest.raises(UserError, match="wi.kernel/0.0.0 is no ordinary file: copy the checkpoint"):
        t5x.open_checkpoint(folder)
    chunk.unlink()
    with chunk.open("wb") as file:
        file.truncate(2**40)  # takes no space
    with pytest.raises(UserError, match=r"in chunks of 4,096, and has 9 files of 1,099,511,6"):
        t5x.open_checkpoint(folder)
