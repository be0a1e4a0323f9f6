"""RESTORED_PARAMETERS: a part of another model's parameters, and the rest drawn."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from switch_jax.checkpointing.streaming import create_checkpoint, open_parameters
from switch_jax.model import abstract_parameters
from switch_jax.run_folder import RunFolder
from switch_jax.utils.errors import UserError
from tests.trainer.tiny_runs import MODEL, config_of, first_state, start_of

SAME = r"\g<0>"
WIDER = dataclasses.replace(MODEL, num_embeddings=1280)  # another vocabulary


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    """A run's folder, and the arrays in its checkpoint by name: 0, 1, 2, ... times 2^-10."""
    folder, start, arrays = tmp_path_factory.mktemp("parent"), 0, {}
    shapes = abstract_parameters(MODEL)
    checkpoint = RunFolder.at(folder).checkpoint(0)
    create_checkpoint(checkpoint, shapes, jax.tree.map(lambda _: 0, shapes))
    opened = flatten_dict(open_parameters(checkpoint, shapes, write=True), sep="/")
    for name, array in opened.items():
        end = start + int(np.prod(array.shape))
        numbers = np.arange(start, end, dtype=np.float32).reshape(array.shape)
        array.write(numbers / 1024).result()
        arrays[name], start = numbers / 1024, end
    return folder, arrays


def _config(folder, pairs, model=MODEL, **changes):
    start = None if folder is None else str(folder)
    changes |= {"initial_checkpoint_path": start, "restored_parameters": pairs}
    return config_of("unused", 3, model=model, **changes)


def test_what_matches_is_restored_by_its_name_there_and_the_rest_is_drawn(parent):
    folder, arrays = parent
    pairs = [
        ("token_embedding/.*", None),
        ("encoder/final_norm/scale", "decoder/final_norm/scale"),
        ("encoder/.*", "encoder/.*"),  # the same name
        (r"decoder/(blocks/layer_0)/cross_attention/(\w+)", r"encoder/\1/self_attention/\2"),
        ("encoder/final_norm/scale|.*_norm/.*", SAME),  # its first part is taken by then
    ]
    start = first_state(_config(folder, pairs, WIDER))
    drawn = first_state(_config(None, None, WIDER))
    assert int(start.step) == int(start.optimizer.updates) == 0

    expected = {
        name: arrays[name] for name in arrays if name.startswith("encoder/") or "_norm/" in name
    }
    expected["encoder/final_norm/scale"] = arrays["decoder/final_norm/scale"]
    for leaf in ("key", "out", "query", "value"):
        of_encoder = arrays[f"encoder/blocks/layer_0/self_attention/{leaf}"]
        expected[f"decoder/blocks/layer_0/cross_attention/{leaf}"] = of_encoder
    own = flatten_dict(start.parameters, sep="/")
    fresh = flatten_dict(drawn.parameters, sep="/")
    assert own["token_embedding/embedding"].shape == (1280, 16)
    assert 0 < len(expected) < len(own)
    for name, array in own.items():
        if name in expected:
            np.testing.assert_array_equal(array, expected[name], err_msg=name)
        else:  # by another program, which rounds differently
            np.testing.assert_allclose(array, fresh[name], atol=1e-6, err_msg=name)
    moment = start.optimizer.moments["encoder"]["final_norm"]["scale"]
    squares = np.square(arrays["decoder/final_norm/scale"], dtype=np.float64).sum()
    np.testing.assert_allclose(moment.square_sum, squares, rtol=1e-5)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (
            [("encoder", SAME)],
            r"'encoder' matches no parameter of the model; it has to match a whole name: "
            r"there are decoder/blocks/..., decoder/final_norm/..., .*token_embedding/embedding; "
            r"`switch_jax convert --inspect MODEL_DIR` prints",
        ),
        (
            [("encoder/(.*)", r"encodr/\1")],
            r"the checkpoint .*checkpoints/0 is of another model: 11 of 11 arrays differ \(encodr/",
        ),
        (
            [(".*", SAME)],
            r"1 of 28 arrays differ \(token_embedding/embedding \(1152, 16\) -> "
            r"\(1280, 16\)\); .* RESTORED_PARAMETERS",
        ),
        (
            [(".*/(router|key)", "encoder/final_norm/scale")],
            r"takes encoder/final_norm/scale for decoder/.*/router, which is \(1, 16, 4\) in the "
            r"model, and for decoder/.*/key, which is \(1, 16, 16\)",
        ),
    ],
)
def test_what_cannot_be_restored_is_refused_with_what_there_is(parent, pairs, message):
    with pytest.raises(UserError, match=message):
        start_of(_config(parent[0], pairs, WIDER))


@pytest.mark.parametrize(
    ("pairs", "changes", "message"),
    [
        ([("encoder/(", SAME)], {}, r"has 'encoder/\(', which is no reg"),
        ([("encoder/.*", r"\1")], {}, r"'\\\\1' for 'encoder/.\*', which has 0 groups .*: invalid"),
        ([("encoder/.*", None)], {}, "takes nothing$"),
        ([("encoder/.*",)], {}, r"it must be a list of pairs, as in \[\('\.\*/router"),
        ([(".*", SAME)], {"upcycle": "copy"}, "does not go with UPCYCLE = 'copy'$"),
        ([(".*", SAME)], {"keep_optimizer_state": True}, "go with KEEP_OPTIMIZER_STATE = True$"),
    ],
)
def test_pairs_that_make_no_sense_are_refused(pairs, changes, message):
    with pytest.raises(UserError, match=message):
        _config("a_run", pairs, **changes)
    with pytest.raises(UserError, match="does not go with INITIAL_CHECKPOINT_PATH = None$"):
        _config(None, [(".*", SAME)])


def test_another_vocabulary_needs_an_embedding_of_its_own(parent, tmp_path):
    run = tmp_path / "run"
    run.symlink_to(parent[0])
    (parent[0] / "run.json").write_text('{"vocabulary": {"inputs": "A", "targets": "A"}}')
    with pytest.raises(UserError, match="another vocabulary"):
        start_of(_config(run, [(".*", SAME)]))
    found = start_of(_config(run, [("encoder/.*", SAME)], WIDER))
    assert found.path.name == "0"


def test_settings_are_read_only_where_they_are_compared(parent, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(parent[0], run)
    (run / "config.gin").touch()
    (run / "config.json").write_text('{"run": {}}')
    assert start_of(_config(run, [("encoder/.*", SAME)])).path == run / "checkpoints" / "0"
    with pytest.raises(UserError, match=r"config\.json is damaged"):
        start_of(_config(run, None))
