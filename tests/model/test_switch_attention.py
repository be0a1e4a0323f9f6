"""Experts in attention (App. A), against attention and one-hot experts written out in NumPy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from switch_jax.config import LossConfig, MeshConfig
from switch_jax.config.model import router_names
from switch_jax.model import bind, init_parameters, model_inputs
from switch_jax.model.layer_context import LayerContext
from switch_jax.model.switch_attention import SwitchAttention
from switch_jax.moe import LayerKey, Tokens, expert_capacity, join_devices
from switch_jax.partitioning.mesh import batch_sharding, make_mesh
from switch_jax.train_step.loss import TokenTotals, microbatch_loss
from switch_jax.train_step.state import abstract_model
from tests.moe import reference
from tests.trainer.helpers import random_batch, tiny_config, tiny_model

B, L, D, F, E, H, K = 8, 8, 12, 16, 4, 2, 4
CONFIG = tiny_model(
    embed_dim=D, mlp_dim=64, expert_mlp_dim=F, num_heads=H, head_dim=K, num_experts=E, group_size=L,
    expert_sublayers="attention", train_expert_capacity_factor=1.0, jitter_noise=0.0,
)  # fmt: skip
# Two experts a token, in both layers of the encoder.
BOTH = tiny_model(
    expert_sublayers="both", num_selected_experts=2, jitter_noise=0.1, expert_dropout_rate=0.2,
    group_size=8, sparse_step=1, num_decoder_layers=1, num_decoder_sparse_layers=0,
)  # fmt: skip
LOSS = LossConfig(z_loss=1e-2, aux_loss_factor=0.1, router_z_loss_factor=0.01)
BATCH = random_batch(8)


def _inputs():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(B, L, D))
    # Two packed examples in most rows, and padding.
    segments = np.sort(rng.integers(0, 3, (B, L)), axis=1)[:, ::-1]
    weights = {
        "router": rng.normal(size=(D, E)),
        "wi_0": rng.normal(size=(E, D, F)) / D**0.5,
        "query_wo": rng.normal(size=(E, F, H * K)) / F**0.5,
        "key_wo": rng.normal(size=(E, F, H * K)) / F**0.5,
        "out": rng.normal(size=(H * K, D)) / D**0.5,
    }
    bias = rng.normal(size=(H, 2 * L))
    return x, segments.astype(np.int32), weights, bias, rng.normal(size=x.shape)


def _heads(x):
    return x.reshape(B, L, H, K)


def _reference(x, segments, weights, bias, y_weights, causal):
    """The sum of y * y_weights and of the router's losses, and its gradients by x and weights."""
    valid, capacity = segments != 0, expert_capacity(L, E, 1.0)
    wo = np.concatenate([weights["query_wo"], weights["key_wo"]], axis=-1)
    logits = x @ weights["router"]
    made = reference.switch_ffn(x, logits, capacity, valid, weights["wi_0"], wo)
    q, k = (_heads(half) for half in np.split(made, 2, axis=-1))
    query, key = np.arange(L)[:, None], np.arange(L)[None, :]
    scores = np.einsum("blhk,bmhk->bhlm", q, k) + bias[:, L + query - key]
    mask = (segments[:, :, None] == segments[:, None, :]) & valid[:, None, :]
    if causal:
        mask = mask & (query >= key)
    scores = np.where(mask[:, None], scores, -1e30)
    attention = reference.softmax(scores)  # [B, H, L, M]
    summed = np.einsum("bhlm,bmhk->blhk", attention, k).reshape(B, L, -1)

    summed_grad = y_weights @ weights["out"].T
    attention_grad = np.einsum("blhk,bmhk->bhlm", _heads(summed_grad), k)
    mean = (attention * attention_grad).sum(-1, keepdims=True)
    scores_grad = np.where(mask[:, None], attention * (attention_grad - mean), 0)
    q_grad = np.einsum("bhlm,bmhk->blhk", scores_grad, k)
    k_grad = np.einsum("bhlm,blhk->bmhk", scores_grad, q)
    k_grad += np.einsum("bhlm,blhk->bmhk", attention, _heads(summed_grad))  # as the value
    made_grad = np.concatenate([g.reshape(B, L, -1) for g in (q_grad, k_grad)], axis=-1)
    # All but the losses of the router is linear in what the experts made.
    loss, (x_grad, router, wi, wo_grad) = reference.loss_and_gradients(
        x, (weights["router"], (weights["wi_0"],), wo), capacity, valid, made_grad
    )
    loss += (summed @ weights["out"] * y_weights).sum() - (made * made_grad).sum()
    query_wo, key_wo = np.split(wo_grad, 2, axis=-1)
    out = np.einsum("bli,bld->id", summed, y_weights)
    gradients = {"router": router, "wi_0": wi, "query_wo": query_wo, "key_wo": key_wo, "out": out}
    return loss, (x_grad, gradients), made


def _loss(x, weights, segments, bias, y_weights, causal):
    layer = SwitchAttention(CONFIG, CONFIG.stacks[causal], nnx.Rngs(0))
    for name, value in weights.items():
        getattr(layer, name)[...] = value
    context = LayerContext(LayerKey(jax.random.key(0)), position_bias=bias)
    y, _, (statistics, _) = layer(x, Tokens(segments, segments), context)
    return (y * y_weights).sum() + statistics.load_balance_loss + statistics.z_loss


@pytest.mark.parametrize(("mesh", "causal"), [((2, 4, 1), True), ((1, 4, 2), False)])
def test_output_and_gradients_are_those_of_the_reference(mesh, causal):
    x, segments, weights, bias, y_weights = _inputs()
    loss, expected, made = _reference(x, segments, weights, bias, y_weights, causal)
    dropped = (made[segments != 0] == 0).all(-1)
    assert 0.05 < dropped.mean() < 0.5, "the case should overflow"
    single = jax.tree.map(np.float32, (x, weights, bias, y_weights))
    function = jax.jit(jax.value_and_grad(_loss, argnums=(0, 1)), static_argnums=5)
    with jax.set_mesh(make_mesh(MeshConfig(*mesh))):
        got_loss, got = function(*single[:2], segments, *single[2:], causal)
    np.testing.assert_allclose(got_loss, loss, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


def test_devices_split_experts_and_their_hidden_units_and_not_the_heads():
    mesh = make_mesh(MeshConfig(1, 4, 2))
    layer = abstract_model(BOTH, MeshConfig(), mesh)["encoder"]["blocks"]["layer_0"]
    specs = {name: tuple(x.sharding.spec) for name, x in layer["self_attention"].items()}
    assert specs == {
        "router": (None, None, None),
        "wi_0": (None, "expert", None, "model"),
        "query_wo": (None, "expert", "model", None),
        "key_wo": (None, "expert", "model", None),
        "out": (None, "model", None),
    }


@pytest.fixture(scope="module")
def parameters():
    return jax.jit(init_parameters, static_argnums=0)(BOTH, jax.random.key(1))


def _loss_and_gradients(model, parameters, mesh):
    mesh, config = make_mesh(MeshConfig(*mesh)), tiny_config(model, loss=LOSS)

    def loss(parameters, batch):
        totals, key = TokenTotals.of(model.stacks, batch), jax.random.key(0)
        return microbatch_loss(config, parameters, batch, totals, 0, key, teacher_logits=None)

    with jax.set_mesh(mesh):
        batch = jax.device_put(BATCH, batch_sharding(mesh))
        run = jax.jit(jax.value_and_grad(loss, has_aux=True))
        (value, sums), gradients = run(jax.device_get(parameters), batch)
        routers = {stack: join_devices(router) for stack, router in sums.routers.items()}
        return jax.device_get(((value, sums._replace(routers=routers)), gradients))


def test_loss_and_gradients_are_the_same_on_a_mesh_unscanned_and_rematerialised(parameters):
    """And the losses of both routers of a layer are in the total."""
    (loss, sums), gradients = _loss_and_gradients(BOTH, parameters, (1, 1, 1))
    routers = sums.routers["encoder"]
    assert routers.load.shape == (4, 4)
    assert routers.load_balance_loss.min() > 0.9  # 1 at balance
    expected = (sums.targets.cross_entropy + 0.01 * sums.targets.z) / sums.targets.tokens
    expected += 0.1 * routers.load_balance_loss.sum() + 0.01 * routers.z_loss.sum()
    np.testing.assert_allclose(loss, expected, rtol=1e-6)

    unscanned = dataclasses.replace(BOTH, scan_layers=False, remat_policy="minimal")
    (_, other_sums), other_gradients = _loss_and_gradients(unscanned, parameters, (2, 2, 2))
    for a, b in zip(jax.tree.leaves(other_sums), jax.tree.leaves(sums), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    for a, b in zip(jax.tree.leaves(other_gradients), jax.tree.leaves(gradients), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(b).max())


def test_attention_comes_first_and_no_two_routers_have_the_same_noise(parameters):
    """Routers of zeros: with 'sample' their loads are what the noise alone makes of the tokens."""
    model = dataclasses.replace(BOTH, num_selected_experts=1, router_policy="sample")
    parameters = jax.tree.map(jnp.array, parameters)  # a copy
    layer = parameters["encoder"]["blocks"]["layer_0"]
    layer["feed_forward"]["router"] *= 0

    @jax.jit
    def statistics(parameters):
        output = bind(model, parameters)(*model_inputs(model, BATCH), key=jax.random.key(0))
        return output.routers["encoder"]

    is_uniform = np.isclose(statistics(parameters).entropy, np.log(4), atol=1e-6)
    assert is_uniform.tolist() == [False, True, False, True]
    routers = model.stacks[0].routers
    assert routers == [
        (0, "attention"), (0, "feed_forward"), (1, "attention"), (1, "feed_forward"),
    ]  # fmt: skip
    names = router_names(*zip(*routers, strict=True))
    assert names[:2] == ["layer 0 attention", "layer 0 feed_forward"]
    layer["self_attention"]["router"] *= 0
    loads = np.asarray(statistics(parameters).load)
    assert len({tuple(load) for load in loads}) == 4


def test_the_chosen_experts_are_those_that_the_load_counts(parameters):
    @jax.jit
    def run(parameters):
        model, inputs = bind(BOTH, parameters), model_inputs(BOTH, BATCH)
        output = model(*inputs, with_choices=True)
        return output.routers["encoder"].load, output.choices["encoder"]

    loads, (experts, _) = run(parameters)  # [N, E], [N, B, K, L]; the load counts the first
    real = BATCH["encoder_segment_ids"] > 0
    found = [np.bincount(e[:, 0][real], minlength=4) / real.sum() for e in np.asarray(experts)]
    np.testing.assert_allclose(loads, found, rtol=1e-5)
    assert not np.allclose(loads[0], loads[1])
