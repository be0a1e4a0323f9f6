"""Statistics of routers are joined as declared: over devices, microbatches, layers and steps."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switch_jax.config import MeshConfig
from switch_jax.metrics import ROUTER_STATISTICS, Join
from switch_jax.model import init_parameters
from switch_jax.moe import Distribution, RouterStatistics, assign
from switch_jax.monitoring import Goodput, MetricWriter, Progress
from switch_jax.partitioning.mesh import batch_sharding, make_mesh
from switch_jax.run_folder import RunFolder
from switch_jax.train_step.microbatches import accumulate
from switch_jax.train_step.state import fresh_state
from switch_jax.train_step.step import make_train_step
from switch_jax.trainer.records import Records
from tests.trainer.helpers import GRADIENTS, random_batch, tiny_config, tiny_model

MODEL = tiny_model(
    num_encoder_layers=1, num_decoder_layers=1, sparse_step=1, group_size=16,
    decoder_group_size=8, jitter_noise=0.0,
)  # fmt: skip


def test_every_field_is_declared():
    assert list(ROUTER_STATISTICS) == list(RouterStatistics._fields)


def _parameters_without_attention():
    """So a router reads the norm of an embedding. Its logits are negative: a 0 would be largest."""
    parameters = jax.device_get(
        jax.jit(init_parameters, static_argnums=0)(MODEL, jax.random.key(1))
    )

    def changed(path, array):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name.endswith("attention/out"):
            return np.zeros_like(array)
        if name.endswith("router"):
            return -np.abs(array)
        return np.abs(array) if name.endswith("embedding") else array

    return jax.tree_util.tree_map_with_path(changed, parameters)


def _largest_logit(parameters, batch, stack):
    embedding = np.asarray(parameters["token_embedding"]["embedding"], np.float64)
    router = parameters[stack]["blocks"]["layer_0"]["feed_forward"]["router"][0]
    x = embedding[batch[f"{stack}_input_tokens"]]
    logits = x / np.sqrt(np.mean(x**2, -1, keepdims=True) + 1e-6) @ router
    return logits[batch[f"{stack}_segment_ids"] > 0].max()


def test_the_largest_logit_is_that_of_all_devices_microbatches_and_steps(tmp_path):
    config = tiny_config(MODEL, 16, num_microbatches=4, mesh=MeshConfig(2, 2, 2))
    parameters, devices = _parameters_without_attention(), make_mesh(config.mesh)
    batches = [random_batch(16, seed=seed) for seed in (0, 1)]
    for i, batch in enumerate(batches):  # a token for each row: all devices differ, and all steps
        batch["encoder_input_tokens"][:] = np.arange(16)[:, None] + 16 * i
        batch["decoder_input_tokens"][:] = np.arange(16)[:, None] + 16 * i + 32
    records = Records(config, MetricWriter(RunFolder(tmp_path)), Progress(2, 0, False), Goodput())
    with jax.set_mesh(devices):
        step = jax.jit(make_train_step(config, GRADIENTS))
        state = fresh_state(config, GRADIENTS, parameters)
        for number, batch in enumerate(batches, start=1):
            _, metrics = step(state, jax.device_put(batch, batch_sharding(devices)))
            records.add(number, metrics)
            for stack, router in metrics.routers.items():
                expected = _largest_logit(parameters, batch, stack)
                assert expected < 0
                np.testing.assert_allclose(router.router_logit_max, [expected], rtol=1e-5)
    records.flush(2)
    record = json.loads((tmp_path / "metrics.jsonl").read_text())
    for stack in ("encoder", "decoder"):
        found = [_largest_logit(parameters, batch, stack) for batch in batches]
        assert abs(found[0] - found[1]) > 1e-3, "the steps should differ"
        largest = record["router"][stack]["router_logit_max"]
        np.testing.assert_allclose(largest, [max(found)], rtol=1e-5)


@pytest.mark.parametrize(("join", "joined"), [("mean", 2.0), ("sum", 2.0), ("largest", 5.0)])
def test_microbatches_join_a_statistic_as_it_is_declared(join, joined, monkeypatch):
    """Means come with their share of the tokens in them, so they are added like sums."""
    declared = dataclasses.replace(ROUTER_STATISTICS["dropped"], join=Join(join))
    monkeypatch.setitem(ROUTER_STATISTICS, "dropped", declared)

    def of_part(part, key):
        return {"loss": part, "router": RouterStatistics(*[part] * len(ROUTER_STATISTICS))}

    sums = accumulate(of_part, jnp.array([-4.0, 5.0, 1.0]), jax.random.key(0))
    assert (sums["loss"], sums["router"].load, sums["router"].dropped) == (2.0, 2.0, joined)


@pytest.mark.parametrize(
    ("join", "joined"), [("mean", [3.0, 1.0]), ("sum", [6.0, 2.0]), ("largest", [5.0, 4.0])]
)
def test_steps_and_layers_are_joined_as_declared(join, joined):
    assert Join(join).of([np.array([1.0, 4.0]), np.array([5.0, -2.0])]).tolist() == joined


def test_a_largest_logit_has_no_gradient():
    logits = jax.random.normal(jax.random.key(0), (2, 8, 4))
    valid = jnp.ones((2, 8), bool)
    for largest in (
        lambda x: assign(x, 3, valid).router.highest_logit.sum(),
        lambda x: Distribution.of(x).sums(valid).highest_logit.sum(),
    ):
        value, gradient = jax.value_and_grad(largest)(logits)
        np.testing.assert_allclose(value, np.max(logits, -1).sum(), rtol=1e-6)
        assert not gradient.any()
