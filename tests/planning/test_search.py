"""Valid meshes, their order, and changes that save memory."""

import contextlib
import dataclasses
import itertools
from unittest import mock

import jax
import pytest

from switch_jax.config import MeshConfig
from switch_jax.hardware.tpus import parse_slice
from switch_jax.planning import search
from switch_jax.planning.costs import Costs
from switch_jax.planning.plan import Plan
from switch_jax.train_step.microbatches import check_batch
from switch_jax.utils.errors import UserError
from tests.planning.helpers import CONFIG

EIGHT, ADAMW = parse_slice("v5e-8"), CONFIG.replace("optimizer", optimizer="adamw")


@pytest.fixture(autouse=True, scope="module")
def virtual_devices():
    with mock.patch.object(search, "devices", lambda _: jax.devices()):
        yield


@pytest.fixture(scope="module")
def found():
    """The meshes of a run with AdamW, all of which fit."""
    return search.candidates(ADAMW, EIGHT)


def _meshes(candidates):
    return sorted((c.mesh.data, c.mesh.expert, c.mesh.model) for c in candidates)


# 8 = data x expert x model, with at most 4 experts and 2 heads.
ALL = [(1, 4, 2), (2, 2, 2), (2, 4, 1), (4, 1, 2), (4, 2, 1), (8, 1, 1)]


@pytest.mark.parametrize(
    "run, model, valid",
    [
        # 4 rows go to at most 4 devices, so that the model axis has 2.
        ({"batch_size": 4}, {"group_size": 16}, [(1, 4, 2), (2, 2, 2), (4, 1, 2)]),
        ({}, {"num_experts": 0}, [(4, 1, 2), (8, 1, 1)]),  # no expert axis
    ],
)
def test_meshes_over_which_the_run_does_not_divide_are_left_out(run, model, valid):
    config = CONFIG.replace("run", **run).replace("model", **model)
    assert _meshes(search.candidates(config, EIGHT)) == valid


def test_on_several_slices_a_dense_model_may_split_its_weights_within_each():
    dense = CONFIG.replace("model", num_experts=0)
    slices = parse_slice("2xv5e-4")
    assert _meshes(search.candidates(dense, slices)) == [(4, 1, 2), (8, 1, 1)]
    dense = dense.replace("mesh", fully_sharded_weights=True)
    assert _meshes(search.candidates(dense, slices)) == [
        (2, 2, 2), (2, 4, 1), (4, 1, 2), (8, 1, 1),
    ]  # fmt: skip
    assert _meshes(search.candidates(dense, EIGHT)) == [(4, 1, 2), (8, 1, 1)]


def test_a_sparse_teacher_of_a_dense_model_has_its_meshes_and_its_share_of_the_memory():
    distilled = dataclasses.replace(CONFIG.replace("model", num_experts=0), teacher=CONFIG)
    candidates = search.candidates(distilled, EIGHT)
    assert _meshes(candidates) == ALL
    bytes_by_mesh = {c.mesh: c.state_bytes for c in candidates}
    # Beside the student there are whole experts on a device, or a quarter of them.
    experts = 2 * 4 * 2 * 8 * 16 * 4
    more = bytes_by_mesh[MeshConfig(8, 1, 1)] - bytes_by_mesh[MeshConfig(2, 4, 1)]
    assert more == experts * 3 // 4


def test_meshes_whose_state_fits_come_first_and_those_that_send_least_before_others(found):
    assert _meshes(found) == ALL
    assert (sent := [c.sent_bytes for c in found]) == sorted(sent)
    limit = sorted(c.state_bytes for c in found)[1]
    small = dataclasses.replace(EIGHT.generation, hbm_bytes=limit)
    on_small = search.candidates(ADAMW, dataclasses.replace(EIGHT, generation=small))
    fitting = [c for c in found if c.state_bytes <= limit]
    assert 0 < len(fitting) < len(found)
    assert on_small == fitting + [c for c in found if c.state_bytes > limit]


def test_bytes_of_the_state_by_hand(found):
    # Parameters of one device of (2, 4, 1): all embeddings, norms, attention, dense layers and
    # routers, and one of the four experts of each of two Switch layers. AdamW has two such means.
    attention, dense = 4 * 8 * 8, 2 * 8 * 16
    blocks = (2 + 4) * attention + 2 * (dense + dense + 8 * 4) + (5 + 7) * 8
    parameters = 4 * (64 * 8 + 2 * 32 * 2 + blocks)
    guard = 4 * 2 * 128  # the last losses and gradient norms
    state_bytes = {c.mesh: c.state_bytes for c in found}
    assert state_bytes[MeshConfig(2, 4, 1)] == pytest.approx(3 * parameters + guard, rel=0.01)


def test_plans_are_ranked_by_time_and_then_by_missing_memory():
    def plan(seconds, needed=1):
        costs = seconds and Costs(0, 0, 0, 0, 1.0, 1, 0, {}, {}, {}, [], seconds, 0.0, 0.0)
        values = dict.fromkeys((f.name for f in dataclasses.fields(Plan)), 1)
        return Plan(**values | {"hbm_bytes_per_chip": needed, "costs": costs})

    plans = [plan(None, 7), plan(0.3), plan(None, 5), plan(0.2)]
    assert search.ranked(plans) == [plans[3], plans[1], plans[2], plans[0]]


def test_without_a_valid_mesh_the_message_says_why():
    config = CONFIG.replace("run", batch_size=7)
    with pytest.raises(UserError, match=r"no mesh of the 8 devices of v5e-8: batch size 7 .*7 % 8"):
        next(search.search(config, EIGHT, 4, contextlib.nullcontext))


def test_changes_are_combined():
    sharded = "--gin.FULLY_SHARDED_WEIGHTS=True"
    full = f"{sharded} --gin.REMAT_POLICY=full"
    config = CONFIG.replace("run", batch_size=32)  # rows for all microbatches
    changes = list(search.changes(config, num_batch_shards=2))
    microbatches = [f"{full} --gin.NUM_MICROBATCHES={n}" for n in (2, 4, 8)]
    assert [flags for flags, _ in changes] == [sharded, full, *microbatches]
    for flags, config in changes:
        assert (config.model.remat_policy == "full") == ("REMAT" in flags)
        assert f"MICROBATCHES={config.run.num_microbatches}" in flags or "MICRO" not in flags
        assert config.mesh.fully_sharded_weights
    one_device = [flags for flags, _ in search.changes(CONFIG, num_batch_shards=1)]
    assert one_device[0] == "--gin.REMAT_POLICY=full" and "SHARDED" not in " ".join(one_device)


def _group_sizes(config):
    return {stack.name: stack.group_size for stack in config.model.stacks}


def _more_microbatches(num_batch_shards, *, batch_size=32, num_microbatches=1, **model):
    """Flags and group sizes of the changes of a run that has all other changes already."""
    config = CONFIG.replace("model", remat_policy="full", **model)
    config = config.replace("mesh", fully_sharded_weights=True)
    run = {"batch_size": batch_size, "num_microbatches": num_microbatches}
    found = search.changes(config.replace("run", **run), num_batch_shards)
    return [(flags, _group_sizes(changed)) for flags, changed in found]


def test_no_change_to_what_a_run_already_has():
    found = _more_microbatches(2, num_microbatches=2, decoder_group_size=16)
    assert [flags for flags, _ in found] == [f"--gin.NUM_MICROBATCHES={n}" for n in (4, 8, 16)]


def test_groups_of_all_rows_of_a_device_are_lowered_with_the_microbatches():
    """Each of 4 devices has 8 rows: a group takes 8 of 32 inputs, or 8 tokens of one target."""
    assert _more_microbatches(4, group_size=256, decoder_group_size=8) == [
        (
            f"--gin.NUM_MICROBATCHES={n} --gin.GROUP_SIZE={size} --gin.DECODER_GROUP_SIZE=8",
            {"encoder": size, "decoder": 8},
        )
        for n, size in ((2, 128), (4, 64), (8, 32))
    ]


def test_what_has_no_experts_has_no_groups_to_lower():
    """Also of a size that does not fit its rows, of 32 inputs."""
    flags, sizes = _more_microbatches(8, batch_size=16, num_experts=0, group_size=512)[0]
    assert (flags, sizes["encoder"]) == ("--gin.NUM_MICROBATCHES=2", 512)
    of_decoder = {"num_encoder_sparse_layers": 0, "group_size": 20, "decoder_group_size": 256}
    flags, sizes = _more_microbatches(8, batch_size=16, **of_decoder)[0]
    assert sizes == {"encoder": 20, "decoder": 16}
    assert flags.startswith("--gin.NUM_MICROBATCHES=2 ")


@pytest.mark.parametrize("batch_shards", [1, 4])
def test_every_change_divides_if_the_batch_does(batch_shards):
    """For all group sizes that `check_batch` accepts without the change."""
    shape = {"data": batch_shards, "expert": 1, "model": 1}
    num_lowered = 0
    sizes = itertools.product((8, 24, 48, 64), (1, 2, 3, 6, 8), (1, 4))
    for batch_size, rows, target_rows in sizes:
        config = CONFIG.replace("run", batch_size=batch_size)
        config = config.replace("model", group_size=32 * rows, decoder_group_size=16 * target_rows)
        try:
            check_batch(config, shape)
        except UserError:
            continue
        for flags, changed in search.changes(config, batch_shards):
            if batch_size % (changed.run.num_microbatches * batch_shards):
                assert _group_sizes(changed) == _group_sizes(config)
                continue
            check_batch(changed, shape)
            for stack, size in _group_sizes(changed).items():
                assert size <= _group_sizes(config)[stack]
            num_lowered += "GROUP_SIZE" in flags
    assert num_lowered > 10
