"""Fine-tuning: a run that starts from the parameters of another."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from switch_jax.cli import main
from switch_jax.config import GuardConfig
from switch_jax.model import logical_axes
from switch_jax.trainer.start.warm_start import describe_start
from switch_jax.trainer.train import train
from switch_jax.utils.errors import UserError
from tests.storage.copies import copy_files
from tests.trainer.tiny_runs import (
    DATA,
    DENSE,
    FAST,
    IMPATIENT,
    MODEL,
    bits,
    config_of,
    first_state,
    start_of,
)

EXPERTS = dataclasses.replace(FAST, trained_parameters="expert")
ADAM = dataclasses.replace(FAST, optimizer="adamw")
KEPT = dataclasses.replace(FAST, lr_schedule="rsqrt")
# Models whose parameters have the same names and shapes, or more than that, and mean other things.
OTHER_MEANINGS = [
    ({"num_heads": 1, "head_dim": 16}, "NUM_HEADS 2 -> 1, HEAD_DIM 8 -> 16"),
    ({"relative_position_max_distance": 64}, "RELATIVE_POSITION_MAX_DISTANCE 128 -> 64"),
    ({"positions": "rotary"}, "POSITIONS 'relative_bias' -> 'rotary'"),
]
LARGER = dataclasses.replace(MODEL, mlp_dim=48)


def _config(folder, initial=None, steps=3, mesh=(1, 1, 1), **changes):
    given = {"optimizer": FAST, "eval_period": None, "checkpoint_period": 1}
    start = {"initial_checkpoint_path": initial and str(initial)}
    return config_of(folder, steps, mesh, **{**given, **start, **changes})


def _train(folder, steps, initial=None, optimizer=FAST, **changes):
    return train(_config(folder, initial, steps, optimizer=optimizer, guard=IMPATIENT, **changes))


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A run of two steps, and its final state."""
    folder = tmp_path_factory.mktemp("pretrained")
    return folder, jax.device_get(_train(folder, 2))


@pytest.fixture(scope="module")
def tuned(pretrained, tmp_path_factory):
    """Two steps of its experts alone: the folder, and the final state."""
    folder = tmp_path_factory.mktemp("tuned")
    return folder, jax.device_get(_train(folder, 2, pretrained[0], EXPERTS))


def _by_group(parameters):
    """Bytes of the parameters that are the experts', and of the others."""
    names = jax.tree.leaves(logical_axes(MODEL), is_leaf=lambda x: type(x) is tuple)
    pairs = list(zip(names, bits(parameters), strict=True))
    return [b for n, b in pairs if "expert" in n], [b for n, b in pairs if "expert" not in n]


def test_a_run_starts_with_those_parameters_and_nothing_else(pretrained, tmp_path, bucket_path):
    """Of a run in a bucket, on another mesh, with another optimiser."""
    state, folder = pretrained[1], copy_files(pretrained[0], bucket_path)
    guard = GuardConfig(spike_window=7)
    config = _config(tmp_path, folder, mesh=(2, 2, 2), optimizer=ADAM, guard=guard)
    assert start_of(config).path == folder / "checkpoints" / "2"
    start = first_state(config)
    assert bits(start.parameters) == bits(state.parameters)
    assert int(state.step) == int(state.guard.good) == 2, "the case should have trained"
    assert int(start.step) == int(start.guard.good) == 0
    assert start.guard.recent.shape == (2, 7) and np.isinf(start.guard.recent).all()
    assert not any(np.any(moment) for moment in jax.tree.leaves(start.optimizer))


def _assert_experts_alone_are_trained(after, before):
    (experts, others), (experts_before, others_before) = (
        _by_group(state.parameters) for state in (after, before)
    )
    assert others == others_before and others
    assert all(a != b for a, b in zip(experts, experts_before, strict=True)) and experts


def test_experts_alone_are_trained(pretrained, tuned):
    _assert_experts_alone_are_trained(tuned[1], pretrained[1])
    state = tuned[1].optimizer.moments
    assert jax.tree.leaves(state["token_embedding"]) == []
    assert int(tuned[1].step) == int(tuned[1].guard.good) == 2


def test_an_interrupted_run_goes_on_from_its_own_checkpoint(pretrained, tuned, tmp_path, capsys):
    shutil.copytree(tuned[0], tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "2")  # as if it had ended after the first step
    resumed = _train(tmp_path / "run", 2, tmp_path / "gone by now", EXPERTS)
    assert "continuing from the checkpoint of step 1" in capsys.readouterr().out
    assert bits(resumed) == bits(tuned[1])
    recorded = json.loads((tmp_path / "run" / "run.json").read_text())["initial_checkpoint"]
    assert recorded == str(pretrained[0] / "checkpoints" / "2")


def test_they_are_trained_also_after_a_return_to_the_start(
    pretrained, tmp_path, at_each_batch, capsys
):
    """The start stays the same, though the run that it is of goes on meanwhile."""
    other = tmp_path / "other"
    shutil.copytree(pretrained[0], other)

    def poison(batch, number):
        if number <= 2:
            batch["decoder_loss_weights"][:] = np.nan
        (other / "checkpoints" / "5").mkdir(exist_ok=True)  # without anything to read in it

    at_each_batch(poison)
    state = _train(tmp_path / "run", 2, other, EXPERTS, checkpoint_period=100)
    told = capsys.readouterr().out
    assert f"starting from the parameters of {other}/checkpoints/2" in told
    assert "back to step 0, and on with new data" in told
    _assert_experts_alone_are_trained(state, pretrained[1])


def _refused(match, *arguments, **keywords):
    folder = arguments[0]
    before = sorted(folder.rglob("*")) if folder.exists() else None
    with pytest.raises(UserError, match=match):
        _train(*arguments, **keywords)
    assert (sorted(folder.rglob("*")) if folder.exists() else None) == before


def test_what_cannot_be_started_from_is_refused_before_anything_is_written(pretrained, tmp_path):
    folder, new = pretrained[0], tmp_path / "new"
    for own in (folder / "checkpoints" / "1", folder / "checkpoints" / ".." / "tb" / ".."):
        _refused("is of MODEL_DIR itself: write another MODEL_DIR to start", folder, 9, own)
    message = (
        r"checkpoints/2 is of another model: .*wi_0 .*32\) -> .*48\).*"
        "; take that model's config, or another checkpoint; or of this one what RESTORED_PARAMETERS"
    )
    _refused(message, new, 9, folder, model=LARGER)
    message = "router .* -> absent.*with UPCYCLE .* has to be of the dense model"
    _refused(message, new, 9, folder, upcycle="copy")
    for changes, message in OTHER_MEANINGS:
        model = dataclasses.replace(MODEL, **changes)
        _refused(f"checkpoints/2 is of another model: {message}; take", new, 9, folder, model=model)
    in_bytes = dataclasses.replace(DATA, vocabulary="byte")
    with pytest.raises(UserError, match=r"another vocabulary \(ByteVocabulary.*was trained with"):
        start_of(_config(new, folder, data=in_bytes))
    damaged = tmp_path / "damaged"
    shutil.copytree(folder, damaged)
    (damaged / "checkpoints" / "2" / "state" / "_METADATA").write_bytes(b"{")
    message = (
        r"checkpoints/2 cannot be read .*damaged, or its run has removed it; .* choose another one"
    )
    _refused(message, new, 9, damaged)


def test_a_hugging_face_folder_starts_the_same_run(pretrained, tuned, tmp_path, capsys):
    theirs = tmp_path / "theirs"
    assert main(["convert", str(pretrained[0]), str(theirs)]) == 0
    state = _train(tmp_path / "run", 2, theirs, EXPERTS)
    told = capsys.readouterr().out
    assert f"from the parameters of {theirs}, a Hugging Face SwitchTransformersForCond" in told
    assert bits(state) == bits(tuned[1])
    recorded = json.loads((tmp_path / "run" / "run.json").read_text())["initial_checkpoint"]
    assert recorded == str(theirs)
    config = _config("part", theirs, restored_parameters=[("encoder/.*", "encoder/.*")])
    parameters = first_state(config).parameters
    assert bits(parameters["encoder"]) == bits(pretrained[1].parameters["encoder"])
    assert bits(parameters["decoder"]) != bits(pretrained[1].parameters["decoder"])
    _refused("MLP_DIM 32 -> 48", tmp_path / "new", 9, theirs, model=LARGER)


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    """A run of two steps of the dense model."""
    folder = tmp_path_factory.mktemp("dense")
    _train(folder, 2, model=DENSE)
    return folder


@pytest.fixture(scope="module")
def theirs(dense, tmp_path_factory):
    """The same as a folder of Hugging Face."""
    folder = tmp_path_factory.mktemp("converted") / "theirs"
    assert main(["convert", str(dense), str(folder)]) == 0
    return folder


def _upcycled(folder, mesh, **upcycling):
    optimizer = KEPT if upcycling.get("keep_optimizer_state") else FAST
    factors = [(".*/router", 0.1)]  # which the dense model has none of
    optimizer = dataclasses.replace(optimizer, learning_rate_factors=factors)
    return _config("unused", folder, mesh=mesh, optimizer=optimizer, **upcycling)


def _start_of_experts(folder, mesh, **upcycling):
    return first_state(_upcycled(folder, mesh, **upcycling))


def test_experts_start_from_a_dense_run_on_any_mesh(dense, theirs):
    plain = {"upcycle": "scaled_copy"}
    one, on_eight = (_start_of_experts(dense, mesh, **plain) for mesh in ((1, 1, 1), (2, 2, 2)))
    assert int(one.step) == int(one.optimizer.updates) == 0
    assert bits(on_eight.parameters) == bits(one.parameters)
    assert bits(_start_of_experts(theirs, (2, 2, 2), **plain)) == bits(on_eight)
    noise = {**plain, "upcycle_noise": 0.01}
    one, on_eight = (_start_of_experts(dense, mesh, **noise) for mesh in ((1, 1, 1), (2, 2, 2)))
    # The noise is relative to the size of a matrix, which is a sum over the mesh.
    jax.tree.map(np.testing.assert_array_almost_equal, on_eight.parameters, one.parameters)


def test_the_log_says_what_is_made_of_a_dense_model(dense):
    config = _upcycled(dense, (1, 1, 1), upcycle="copy", keep_optimizer_state=True)
    first, taken, drawn = describe_start(config, start_of(config))
    assert first == (
        f"starting from the parameters and the optimiser's state of {dense}/checkpoints/2; the "
        "experts are copies of its layers"
    )
    assert "encoder/experts 4,096" in taken  # 4 experts with two matrices of 16 x 32
    assert drawn == "drawn at random: decoder/router 64, encoder/router 64"  # 16 x 4


def test_the_optimizer_goes_on_too_if_asked(pretrained, tmp_path):
    kept = {"optimizer": KEPT, "keep_optimizer_state": True}
    start = first_state(_config(tmp_path, pretrained[0], mesh=(2, 2, 2), **kept))
    assert bits(start.optimizer) == bits(pretrained[1].optimizer)
    assert int(start.step) == 0 and int(start.guard.good) == int(start.optimizer.updates) == 2


def test_the_optimizer_of_a_dense_run_goes_on_but_for_routers_and_experts(dense):
    start = _start_of_experts(dense, (2, 2, 2), upcycle="copy", keep_optimizer_state=True)
    assert int(start.step) == 0 and int(start.optimizer.updates) == 2
    moments = start.optimizer.moments
    layers = moments["decoder"]["blocks"]["layer_0"]["feed_forward"]
    assert not np.any(layers["router"].full) and not np.any(layers["wo"].full)
    del moments["decoder"]["blocks"]["layer_0"]["feed_forward"]
    assert all(np.any(x) for x in jax.tree.leaves(moments["decoder"]["blocks"]))


def test_optimizers_that_cannot_go_on_are_refused(dense, theirs, pretrained, tmp_path):
    new, keep = tmp_path / "new", {"keep_optimizer_state": True}
    cosine = dataclasses.replace(FAST, lr_schedule="cosine")
    _refused("LR_SCHEDULE = 'cosine' ends with TRAIN_STEPS", new, 9, pretrained[0], cosine, **keep)
    _refused("take its run's config, or another", new, 9, pretrained[0], ADAM, **keep)
    message = "with UPCYCLE, .* TRAINED_PARAMETERS = 'all', not 'adamw' and 'all'"
    _refused(message, new, 9, dense, ADAM, upcycle="copy", **keep)
    message = "a Hugging Face T5ForConditionalGeneration, of which the parameters alone are read"
    _refused(message, new, 9, theirs, model=DENSE, **keep)
