import contextlib
import dataclasses

import jax
import pytest

from switch_jax.config import (
    Config,
    DataConfig,
    MeshConfig,
    ModelConfig,
    RunConfig,
)
from switch_jax.errors import UserError
from switch_jax.hardware import parse_slice
from switch_jax.planning import search
from switch_jax.planning.plan import Costs, Plan

MODEL = ModelConfig(
    num_embeddings=64, embed_dim=8, mlp_dim=16, head_dim=4, num_heads=2, num_encoder_layers=2,
    num_decoder_layers=2, num_experts=4, expert_mlp_dim=16, sparse_step=2, group_size=32,
)  # fmt: skip
CONFIG = Config(
    RunConfig("none", train_steps=1, batch_size=16),
    MODEL,
    DataConfig("none", {"inputs": 32, "targets": 16}),
)
EIGHT = parse_slice("v5e-8")


@pytest.fixture(autouse=True)
def virtual_devices(monkeypatch):
    monkeypatch.setattr(search, "devices", lambda _: jax.devices())


def _meshes(found):
    return [(c.mesh.data, c.mesh.expert, c.mesh.model) for c in found]


def test_all_legal_meshes_and_no_other():
    # 8 = data x expert x model, with at most 4 experts and 2 heads.
    assert sorted(_meshes(search.candidates(CONFIG, EIGHT))) == [
        (1, 4, 2), (2, 2, 2), (2, 4, 1), (4, 1, 2), (4, 2, 1), (8, 1, 1),
    ]  # fmt: skip


def test_a_batch_that_does_not_divide_leaves_meshes_of_fewer_batch_devices():
    # 4 rows go on 4 devices at most, so that the model axis takes the other 2; targets of 16 are
    # routed two rows together, which 4 devices have not.
    few = CONFIG.replace("run", batch_size=4)
    small_groups = few.replace("model", group_size=16)
    found = search.candidates(small_groups, EIGHT)
    assert sorted(_meshes(found)) == [(1, 4, 2), (2, 2, 2), (4, 1, 2)]
    assert search.candidates(few, EIGHT) == []


def test_a_dense_model_needs_no_expert_axis():
    dense = CONFIG.replace("model", num_experts=0)
    assert sorted(_meshes(search.candidates(dense, EIGHT))) == [(4, 1, 2), (8, 1, 1)]


def test_those_that_send_least_come_first():
    found = search.candidates(CONFIG, EIGHT)
    assert [c.sent_bytes for c in found] == sorted(c.sent_bytes for c in found)


def test_those_whose_state_fits_come_before_those_that_send_less():
    by_bytes = search.candidates(CONFIG, EIGHT)
    limit = sorted(c.state_bytes for c in by_bytes)[1]
    generation = dataclasses.replace(EIGHT.generation, hbm_bytes=limit)
    found = search.candidates(CONFIG, dataclasses.replace(EIGHT, generation=generation))
    fits = [c.state_bytes <= limit for c in found]
    assert fits == sorted(fits, reverse=True)
    assert 0 < sum(fits) < len(fits)
    assert [c for c in by_bytes if c.state_bytes <= limit] == found[: sum(fits)]
    assert [c for c in by_bytes if c.state_bytes > limit] == found[sum(fits) :]


def test_state_is_counted_by_hand():
    # Parameters of one device of (2, 4, 1): all of the tables, norms, attention, dense layers and
    # routers, and one expert of four in each of two Switch layers. Adafactor does not factor what
    # is this small: its moments are as large again.
    attention, dense = 4 * 8 * 8, 2 * 8 * 16
    blocks = (2 + 4) * attention + 2 * (dense + dense + 8 * 4) + (5 + 7) * 8
    parameters = 4 * (64 * 8 + 2 * 32 * 2 + blocks)
    guard = 4 * 2 * 128  # the last losses and gradient norms
    found = {c.mesh: c.state_bytes for c in search.candidates(CONFIG, EIGHT)}
    assert found[MeshConfig(2, 4, 1)] == pytest.approx(2 * parameters + guard, rel=0.01)


def _plan(mesh, seconds, needed=1):
    costs = seconds and Costs(0, 0, 0, 0, 1.0, 1, 0, {}, {}, [], seconds, 0.0)
    values = dict.fromkeys((f.name for f in dataclasses.fields(Plan)), 1)
    return Plan(**values | {"mesh": mesh, "hbm_bytes": needed, "costs": costs or None})


def test_the_most_promising_are_compiled_and_ranked_by_time_and_then_by_what_lacks(monkeypatch):
    first = _meshes(search.candidates(CONFIG, EIGHT))[:4]
    outcomes = dict(zip(first, [(None, 7), (0.3, 1), (None, 5), (0.2, 1)], strict=True))
    tried, said = [], []

    def make_plan(config, hardware):
        mesh = config.mesh
        assert hardware is EIGHT and config == dataclasses.replace(CONFIG, mesh=mesh)
        tried.append((mesh.data, mesh.expert, mesh.model))
        return _plan(tried[-1], *outcomes[tried[-1]])

    monkeypatch.setattr(search, "make_plan", make_plan)
    plans = search.search(CONFIG, EIGHT, 4, lambda what: contextlib.nullcontext(said.append(what)))
    assert tried == first
    assert [p.mesh for p in plans] == [first[3], first[1], first[2], first[0]]
    assert said[0] == "mesh 1 of 4: {} x {} x {}".format(*first[0])


def test_where_no_mesh_is_legal_the_message_says_why():
    config = CONFIG.replace("run", batch_size=7)
    with pytest.raises(UserError, match=r"no mesh of the 8 devices of v5e-8: batch size 7 .*7 % 8"):
        search.search(config, EIGHT, 4, contextlib.nullcontext)


def test_changes_add_up():
    full = "--gin.REMAT_POLICY=full"
    changes = list(search.changes(CONFIG))
    assert [flags for flags, _ in changes] == [
        full,
        f"{full} --gin.NUM_MICROBATCHES=2",
        f"{full} --gin.NUM_MICROBATCHES=4",
        f"{full} --gin.NUM_MICROBATCHES=8",
        f"{full} --gin.FULLY_SHARDED_WEIGHTS=True",
        f"{full} --gin.NUM_MICROBATCHES=8 --gin.FULLY_SHARDED_WEIGHTS=True",
    ]
    for flags, config in changes:
        assert config.model.remat_policy == "full"
        assert f"MICROBATCHES={config.run.num_microbatches}" in flags or "MICRO" not in flags
        assert config.mesh.fully_sharded_weights == ("SHARDED" in flags)


def test_what_a_run_has_already_is_no_change():
    config = CONFIG.replace("model", remat_policy="full").replace("run", num_microbatches=2)
    config = config.replace("mesh", fully_sharded_weights=True)
    assert [flags for flags, _ in search.changes(config)] == [
        f"--gin.NUM_MICROBATCHES={n}" for n in (4, 8, 16)
    ]
