"""Balancing by a bias on the choice of experts (LOAD_BALANCE = 'bias'), from layer to optimiser."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switch_jax.config import LossConfig, OptimizerConfig
from switch_jax.model import abstract_parameters
from switch_jax.moe.tokens_choose import choice_scores, top_choices
from switch_jax.optim.optimizer import make_optimizer
from switch_jax.train_step.state import init_state
from switch_jax.train_step.step import make_train_step
from tests.moe.cases import CASES, E, compare, in_order, inputs
from tests.trainer.helpers import GRADIENTS, random_batch, tiny_config, tiny_model

BIAS = np.linspace(-0.2, 0.3, E).astype(np.float32)


def _biases(tree):
    """By stack, [blocks, E]."""
    return {
        stack: np.asarray(tree[stack]["blocks"]["layer_0"]["feed_forward"]["router_bias"])
        for stack in ("encoder", "decoder")
    }


def _standardised(logits):
    """Over the experts, to mean 0 and deviation 1; 0 where all are equal."""
    centred = logits - logits.mean(-1, keepdims=True)
    return centred / np.maximum(logits.std(-1, keepdims=True), 1e-6)


@pytest.mark.parametrize(("mesh", "number"), [((1, 1, 1), 1), ((2, 2, 2), 2)])
def test_the_bias_moves_the_choice_and_not_the_gate(mesh, number):
    for case in CASES:
        x, _, p = inputs(case)
        logits = x @ p.router
        chosen = in_order(_standardised(logits) + BIAS, number)
        assert case == "all tokens to one expert" or (chosen != in_order(logits, number)).any()
        compare(mesh, case, 2, chosen, bias=BIAS, num_selected_experts=number)


def _dropped(load):
    """[..., E] shares of the tokens -> [...], the share beyond the capacity factor 1.25."""
    return np.maximum(load - 1.25 / load.shape[-1], 0).sum(-1)


def _simulated(logits, rate, steps):
    """Wang et al. 2024, Algorithm 1, in NumPy, in proportion to loads: [steps, E] loads."""
    tokens, experts = logits.shape
    scores, bias, loads = _standardised(logits), np.zeros(experts), []
    for _ in range(steps):
        loads.append(np.bincount((scores + bias).argmax(1), minlength=experts) / tokens)
        bias += rate * (1 - loads[-1] * experts)
    return np.array(loads)


@pytest.mark.parametrize("experts", [8, 256])
def test_biases_even_out_the_load_at_the_default_rate(experts):
    """Fixed logits that favour some experts, so that without biases a third is dropped."""
    rng, rate = np.random.default_rng(0), OptimizerConfig.router_bias_update_rate
    logits = rng.normal(size=(2048, experts)) + np.linspace(-1, 1, experts)
    expected = _dropped(_simulated(logits, rate, 80))

    @jax.jit
    def run(logits):
        def step(bias, _):
            chosen = top_choices(choice_scores(logits, bias), 1)[0]
            load = jnp.bincount(chosen, length=experts) / len(chosen)
            return bias - rate * (experts * load - 1), load

        return jax.lax.scan(step, jnp.zeros(experts), length=80)[1]

    # As of a router that UPCYCLE = 'scaled_copy' begins with, of SCALE = 0.1, and of a wide one.
    for deviation in (0.003, 0.3, 3.0):
        dropped = _dropped(np.asarray(run(jnp.asarray(deviation * logits, jnp.float32))))
        assert dropped[0] > 0.3 and dropped[-30:].max() < 0.01
        np.testing.assert_allclose(dropped, expected, atol=0.01)


MODEL = tiny_model(
    load_balance="bias", num_encoder_layers=1, num_decoder_layers=1, sparse_step=1, group_size=16
)


@pytest.mark.parametrize(
    "optimizer",
    [
        OptimizerConfig(gradient_clip_norm=0.1, learning_rate_factors=[("encoder/.*", 0.5)]),
        OptimizerConfig("adamw", weight_decay=0.1, router_bias_update_rate=0.5),
    ],
    ids=lambda o: o.optimizer,
)
def test_the_optimiser_moves_biases_by_the_load_and_others_as_without_them(optimizer):
    """Every parameter's gradient is random; the model has biases, or is without."""
    results = []
    without = dataclasses.replace(
        optimizer, router_bias_update_rate=OptimizerConfig.router_bias_update_rate
    )
    for model, settings in (
        (MODEL, optimizer),
        (dataclasses.replace(MODEL, load_balance="none"), without),
    ):
        transformation = make_optimizer(tiny_config(model, optimizer=settings))
        parameters = jax.tree.map(
            lambda p: np.ones(p.shape, np.float32), abstract_parameters(model)
        )
        gradients = jax.tree_util.tree_map_with_path(
            lambda path, p: np.random.default_rng(len(str(path))).normal(size=p.shape).astype("f"),
            parameters,
        )
        state = jax.jit(transformation.init)(parameters)
        step = jax.jit(transformation.step)
        done, _ = step(gradients, state, parameters, False)
        skipped, kept = step(gradients, state, parameters, True)
        jax.tree.map(np.testing.assert_array_equal, skipped.parameter, parameters)
        assert not any(map(np.any, jax.tree.leaves(skipped.update_square_sum)))
        jax.tree.map(np.testing.assert_array_equal, kept, state)
        results.append((done, gradients, state))
    (done, gradients, state), (expected, _, smaller) = results
    for stack, bias in _biases(gradients).items():
        rate = optimizer.router_bias_update_rate
        np.testing.assert_allclose(_biases(done.parameter)[stack], 1 - rate * 4 * bias, rtol=1e-6)
        squares = np.sum((rate * 4 * bias) ** 2)
        np.testing.assert_allclose(_biases(done.update_square_sum)[stack], squares, rtol=1e-5)
    assert len(jax.tree.leaves(state)) == len(jax.tree.leaves(smaller))
    found = dict(jax.tree_util.tree_leaves_with_path(done))
    for path, wanted in jax.tree_util.tree_leaves_with_path(expected):
        np.testing.assert_array_equal(found[path], wanted)


def test_the_gradient_of_a_step_is_the_load_of_the_whole_batch():
    """In two microbatches with very unequal padding; the loss is without it."""
    config = tiny_config(MODEL, batch_size=16, num_microbatches=2, loss=LossConfig(z_loss=0.0))
    state = jax.jit(lambda key: init_state(config, GRADIENTS, key))(jax.random.key(1))
    new, metrics = jax.jit(make_train_step(config, GRADIENTS))(state, random_batch(16))
    np.testing.assert_allclose(metrics.loss, metrics.cross_entropy, rtol=1e-6)
    assert metrics.load_balance_loss > 2  # two layers, and no even load
    found = _biases(new.optimizer)
    for stack, router in metrics.routers.items():
        assert np.abs(router.load - 1 / 4).max() > 0.03
        np.testing.assert_allclose(found[stack], router.load - 1 / 4, atol=1e-6)
    # The norm that the bad-step guard sees is that of the others.
    squares = jax.tree.map(lambda g: (np.asarray(g) ** 2).sum(), new.optimizer)
    biases = sum((bias**2).sum() for bias in found.values())
    total = sum(jax.tree.leaves(squares)) - biases
    np.testing.assert_allclose(metrics.gradient_norm, total**0.5, rtol=1e-5)
