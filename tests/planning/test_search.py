"""Valid meshes, their order, and changes that save memory."""

import contextlib
import dataclasses
import itertools

import jax
import pytest

from switch_jax.config import Config, DataConfig, MeshConfig, ModelConfig, RunConfig
from switch_jax.errors import UserError
from switch_jax.hardware import parse_slice
from switch_jax.planning import search
from switch_jax.planning.plan import Costs, Plan
from switch_jax.train_step.microbatches import check_batch

MODEL = ModelConfig(
    num_embeddings=64,
    embed_dim=8,
    mlp_dim=16,
    head_dim=4,
    num_heads=2,
    num_encoder_layers=2,
    num_decoder_layers=2,
    num_experts=4,
    expert_mlp_dim=16,
    sparse_step=2,
    group_size=32,
)
CONFIG = Config(
    RunConfig("none", train_steps=1, batch_size=16),
    MODEL,
    DataConfig("none", {"inputs": 32, "targets": 16}),
)
EIGHT = parse_slice("v5e-8")


@pytest.fixture(autouse=True)
def virtual_devices(monkeypatch):
    monkeypatch.setattr(search, "devices", lambda _: jax.devices())


def _meshes(candidates):
    return [(c.mesh.data, c.mesh.expert, c.mesh.model) for c in candidates]


def test_all_valid_meshes_and_no_other():
    # 8 = data x expert x model, with at most 4 experts and 2 heads.
    valid = [(1, 4, 2), (2, 2, 2), (2, 4, 1), (4, 1, 2), (4, 2, 1), (8, 1, 1)]
    assert sorted(_meshes(search.candidates(CONFIG, EIGHT))) == valid


def test_a_sparse_teacher_of_a_dense_model_has_its_meshes_and_its_share_of_the_memory():
    distilled = dataclasses.replace(CONFIG.replace("model", num_experts=0), teacher=CONFIG)
    bytes_by_mesh = {c.mesh: c.state_bytes for c in search.candidates(distilled, EIGHT)}
    meshes = sorted((m.data, m.expert, m.model) for m in bytes_by_mesh)
    assert meshes == [(1, 4, 2), (2, 2, 2), (2, 4, 1), (4, 1, 2), (4, 2, 1), (8, 1, 1)]
    # Beside the student there are whole experts on a device, or a quarter of them.
    experts = 2 * 4 * 2 * 8 * 16 * 4
    more = bytes_by_mesh[MeshConfig(8, 1, 1)] - bytes_by_mesh[MeshConfig(2, 4, 1)]
    assert more == experts * 3 // 4


def test_a_batch_that_does_not_divide_leaves_meshes_of_fewer_batch_devices():
    # 4 rows go to at most 4 devices, so that the model axis has 2; groups of targets take two rows,
    # and each of 4 devices has one.
    few = CONFIG.replace("run", batch_size=4)
    small_groups = few.replace("model", group_size=16)
    candidates = search.candidates(small_groups, EIGHT)
    assert sorted(_meshes(candidates)) == [(1, 4, 2), (2, 2, 2), (4, 1, 2)]
    assert search.candidates(few, EIGHT) == []


def test_a_dense_model_needs_no_expert_axis():
    dense = CONFIG.replace("model", num_experts=0)
    assert sorted(_meshes(search.candidates(dense, EIGHT))) == [(4, 1, 2), (8, 1, 1)]


def test_meshes_that_send_least_come_first():
    candidates = search.candidates(CONFIG, EIGHT)
    sent = [c.sent_bytes for c in candidates]
    assert sent == sorted(sent)


def test_experts_in_attention_send_a_query_and_a_key_back():
    def sent(sublayers: str, rows: int) -> float:
        model = dataclasses.replace(MODEL, expert_sublayers=sublayers, group_size=32)
        run = dataclasses.replace(CONFIG.run, batch_size=rows)
        found = search.candidates(dataclasses.replace(CONFIG, model=model, run=run), EIGHT)
        return next(c.sent_bytes for c in found if _meshes([c]) == [(2, 4, 1)])

    # What 16 rows more send, without the gradients: 96 tokens of 8 features of 2 bytes on each
    # device, in 1.25 slots each, of which 3/4 go to other devices. There and back it is 8 + 8
    # features in the feed-forward layer, and 8 + 16 in attention; in both stacks, and passes.
    of_feature = 96 * 2 * 1.25 * 3 / 4
    for sublayers, features in (("feed_forward", 16), ("attention", 24), ("both", 40)):
        more = sent(sublayers, 32) - sent(sublayers, 16)
        assert more == pytest.approx(2 * features * of_feature)


def test_meshes_whose_state_fits_come_before_those_that_send_less():
    by_bytes = search.candidates(CONFIG, EIGHT)
    limit = sorted(c.state_bytes for c in by_bytes)[1]
    generation = dataclasses.replace(EIGHT.generation, hbm_bytes=limit)
    candidates = search.candidates(CONFIG, dataclasses.replace(EIGHT, generation=generation))
    fits = [c.state_bytes <= limit for c in candidates]
    assert fits == sorted(fits, reverse=True)
    assert 0 < sum(fits) < len(fits)
    assert [c for c in by_bytes if c.state_bytes <= limit] == candidates[: sum(fits)]
    assert [c for c in by_bytes if c.state_bytes > limit] == candidates[sum(fits) :]


@pytest.mark.parametrize(("optimizer", "arrays"), [("adafactor", 1), ("adamw", 2)])
def test_bytes_of_the_state_by_hand(optimizer, arrays):
    # Parameters of one device of (2, 4, 1): all embeddings, norms, attention, dense layers and
    # routers, and one of the four experts of each of two Switch layers. Adafactor does not factor
    # arrays this small: its moments have the size of the parameters. AdamW has two such means.
    attention, dense = 4 * 8 * 8, 2 * 8 * 16
    blocks = (2 + 4) * attention + 2 * (dense + dense + 8 * 4) + (5 + 7) * 8
    parameters = 4 * (64 * 8 + 2 * 32 * 2 + blocks)
    guard = 4 * 2 * 128  # the last losses and gradient norms
    config = CONFIG.replace("optimizer", optimizer=optimizer)
    state_bytes = {c.mesh: c.state_bytes for c in search.candidates(config, EIGHT)}
    expected = (1 + arrays) * parameters + guard
    assert state_bytes[MeshConfig(2, 4, 1)] == pytest.approx(expected, rel=0.01)


def _plan(mesh, seconds, needed=1):
    costs = seconds and Costs(0, 0, 0, 0, 1.0, 1, 0, {}, {}, {}, [], seconds, 0.0, 0.0)
    values = dict.fromkeys((f.name for f in dataclasses.fields(Plan)), 1)
    return Plan(**values | {"mesh": mesh, "hbm_bytes": needed, "costs": costs or None})


def test_plans_are_ranked_by_time_and_then_by_missing_memory(monkeypatch):
    first = _meshes(search.candidates(CONFIG, EIGHT))[:4]
    outcomes = dict(zip(first, [(None, 7), (0.3, 1), (None, 5), (0.2, 1)], strict=True))
    tried, descriptions = [], []

    def make_plan(config, hardware, measured=None):
        mesh = config.mesh
        assert hardware is EIGHT and config == dataclasses.replace(CONFIG, mesh=mesh)
        tried.append((mesh.data, mesh.expert, mesh.model))
        return _plan(tried[-1], *outcomes[tried[-1]])

    monkeypatch.setattr(search, "make_plan", make_plan)

    def compiling(description):
        return contextlib.nullcontext(descriptions.append(description))

    plans = search.ranked(search.search(CONFIG, EIGHT, 4, compiling))
    assert tried == first
    assert [p.mesh for p in plans] == [first[3], first[1], first[2], first[0]]
    assert descriptions[0] == "mesh 1 of 4: {} x {} x {}".format(*first[0])


def test_without_a_valid_mesh_the_message_says_why():
    config = CONFIG.replace("run", batch_size=7)
    with pytest.raises(UserError, match=r"no mesh of the 8 devices of v5e-8: batch size 7 .*7 % 8"):
        next(search.search(config, EIGHT, 4, contextlib.nullcontext))


def test_changes_are_combined():
    sharded = "--gin.FULLY_SHARDED_WEIGHTS=True"
    full = f"{sharded} --gin.REMAT_POLICY=full"
    config = CONFIG.replace("run", batch_size=32)  # rows for all microbatches
    changes = list(search.changes(config, num_batch_shards=2))
    assert [flags for flags, _ in changes] == [
        sharded,
        full,
        f"{full} --gin.NUM_MICROBATCHES=2",
        f"{full} --gin.NUM_MICROBATCHES=4",
        f"{full} --gin.NUM_MICROBATCHES=8",
    ]
    for flags, config in changes:
        assert (config.model.remat_policy == "full") == ("REMAT" in flags)
        assert f"MICROBATCHES={config.run.num_microbatches}" in flags or "MICRO" not in flags
        assert config.mesh.fully_sharded_weights


def test_sharding_alone_is_left_out_where_it_cannot_suffice():
    changes = search.changes(CONFIG, num_batch_shards=2, sharding_may_suffice=False)
    flags, changed = next(changes)
    assert flags == "--gin.FULLY_SHARDED_WEIGHTS=True --gin.REMAT_POLICY=full"
    assert changed.mesh.fully_sharded_weights and changed.model.remat_policy == "full"


def test_one_device_has_nothing_to_share_the_weights_with():
    flags = [flags for flags, _ in search.changes(CONFIG, num_batch_shards=1)]
    assert flags[0] == "--gin.REMAT_POLICY=full"
    assert not any("SHARDED" in each for each in flags)


def test_no_change_to_what_a_run_already_has():
    config = CONFIG.replace("model", remat_policy="full", decoder_group_size=16)
    config = config.replace("run", num_microbatches=2, batch_size=32)
    config = config.replace("mesh", fully_sharded_weights=True)
    assert [flags for flags, _ in search.changes(config, num_batch_shards=2)] == [
        f"--gin.NUM_MICROBATCHES={n}" for n in (4, 8, 16)
    ]


def test_groups_of_all_rows_of_a_device_are_lowered_with_the_microbatches():
    # Each of 4 devices has 8 rows. A group takes 8 rows of 32 inputs, or 16 tokens of one target.
    config = CONFIG.replace("run", batch_size=32)
    config = config.replace("model", remat_policy="full", group_size=256, decoder_group_size=8)
    config = config.replace("mesh", fully_sharded_weights=True)
    changes = list(search.changes(config, num_batch_shards=4))
    assert [flags for flags, _ in changes] == [
        f"--gin.NUM_MICROBATCHES={n} --gin.GROUP_SIZE={size} --gin.DECODER_GROUP_SIZE=8"
        for n, size in ((2, 128), (4, 64), (8, 32))
    ]
    sizes = [changed.model.group_sizes for _, changed in changes]
    assert sizes == [{"encoder": n, "decoder": 8} for n in (128, 64, 32)]


def test_a_decoder_whose_groups_follow_the_encoder_s_gets_its_own_size():
    # Each of 4 devices has 8 rows: groups take 4 rows of 32 inputs, and 8 of 16 targets.
    config = CONFIG.replace("run", batch_size=32).replace("model", group_size=128)
    flags, changed = list(search.changes(config, num_batch_shards=4))[2]
    assert flags.endswith(
        "--gin.NUM_MICROBATCHES=2 --gin.GROUP_SIZE=128 --gin.DECODER_GROUP_SIZE=64"
    )
    assert changed.model.group_sizes == {"encoder": 128, "decoder": 64}


def test_a_dense_model_has_no_groups_to_lower():
    dense = CONFIG.replace("model", num_experts=0, remat_policy="full", group_size=512)
    dense = dense.replace("mesh", fully_sharded_weights=True)
    flags, changed = next(search.changes(dense, num_batch_shards=8))
    assert flags == "--gin.NUM_MICROBATCHES=2"
    assert changed.model == dense.model


def test_the_groups_of_a_stack_without_experts_stay():
    """Also a size that does not fit its rows, of 32 inputs."""
    model = {"num_encoder_sparse_layers": 0, "group_size": 20, "decoder_group_size": 256}
    config = CONFIG.replace("model", remat_policy="full", **model)
    config = config.replace("mesh", fully_sharded_weights=True)
    flags, changed = next(search.changes(config, num_batch_shards=8))
    assert changed.model.group_sizes == {"encoder": 20, "decoder": 16}
    assert flags.startswith("--gin.NUM_MICROBATCHES=2 ")


@pytest.mark.parametrize("batch_shards", [1, 2, 4])
def test_every_change_divides_if_the_batch_does(batch_shards):
    """For all group sizes that `check_batch` accepts without the change."""
    shape = {"data": batch_shards, "expert": 1, "model": 1}
    num_lowered = 0
    for batch_size, rows, target_rows in itertools.product(
        (8, 24, 48, 64), (1, 2, 3, 6, 8), (1, 4)
    ):
        config = CONFIG.replace("run", batch_size=batch_size)
        config = config.replace("model", group_size=32 * rows, decoder_group_size=16 * target_rows)
        try:
            check_batch(config, shape)
        except UserError:
            continue
        for flags, changed in search.changes(config, batch_shards):
            if batch_size % (changed.run.num_microbatches * batch_shards):
                assert changed.model.group_sizes == config.model.group_sizes
                continue
            check_batch(changed, shape)
            for stack, size in changed.model.group_sizes.items():
                assert size <= config.model.group_sizes[stack]
            num_lowered += "GROUP_SIZE" in flags
    assert num_lowered > 10
