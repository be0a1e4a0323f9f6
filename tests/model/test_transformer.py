"""The model as a whole: what a token may depend on, and how it starts."""

import dataclasses
import functools
import re

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from switch_jax.config import ModelConfig
from switch_jax.model import bind, init_parameters
from tests.trainer.helpers import by_stack, tiny_model

ROWS, LENGTH = 2, 8
# A group is one row, and each expert has room for all of it.
SWITCH = tiny_model(group_size=LENGTH, eval_expert_capacity_factor=4.0)
# Here an expert, of feed-forward layers and of attention, has a single slot in it.
OVERFLOWING = dataclasses.replace(SWITCH, eval_expert_capacity_factor=0.5, expert_sublayers="both")
ONES = np.ones((ROWS, LENGTH), np.int32)

init = jax.jit(init_parameters, static_argnums=0)


@functools.partial(jax.jit, static_argnums=0)
def _apply(model, parameters, batch, key):
    tokens, segments = by_stack(*batch[:2]), by_stack(*batch[2:])
    return bind(model, parameters)(tokens, segments, key=key)


def _run(model, *batch, key=None):
    """Output for inputs, targets, and the segments of both."""
    shapes = dataclasses.replace(SWITCH, expert_sublayers=model.expert_sublayers)
    return _apply(model, init(shapes, jax.random.key(0)), batch, key)


def _tokens(seed):
    return np.random.default_rng(seed).integers(1, 32, (ROWS, LENGTH), dtype=np.int32)


def _fill(*rows):
    """Lists of at most LENGTH numbers -> [ROWS, LENGTH], 0 where there is none."""
    rows = [*rows, *[[]] * (ROWS - len(rows))]
    return np.array([[*row, *[0] * (LENGTH - len(row))] for row in rows], np.int32)


def test_packed_examples_are_independent():
    """Two examples in one row have the logits that each has in a row of its own."""
    inputs = [7, 3, 9, 30, 2], [5, 11, 3]
    targets = [4, 8, 15, 16], [23, 9]
    apart = _run(
        SWITCH, _fill(*inputs), _fill(*targets), _fill([1] * 5, [1] * 3), _fill([1] * 4, [1] * 2)
    ).logits
    packed = _run(
        SWITCH,
        _fill(inputs[0] + inputs[1]),
        _fill(targets[0] + targets[1]),
        _fill([1] * 5 + [2] * 3),
        _fill([1] * 4 + [2] * 2),
    ).logits
    np.testing.assert_allclose(packed[0, :4], apart[0, :4], atol=1e-5)
    np.testing.assert_allclose(packed[0, 4:6], apart[1, :2], atol=1e-5)


def test_a_target_token_sees_nothing_to_its_right_even_when_experts_overflow():
    inputs, targets = _tokens(0), _tokens(1)
    before = _run(OVERFLOWING, inputs, targets, ONES, ONES)
    assert float(before.routers["decoder"].dropped.min()) > 0.3, "the case should overflow"
    changed = targets.copy()
    changed[:, 5] = targets[:, 5] % 31 + 1
    after = _run(OVERFLOWING, inputs, changed, ONES, ONES)
    np.testing.assert_allclose(after.logits[:, :5], before.logits[:, :5], atol=1e-6)
    difference = np.abs(after.logits - before.logits).max(-1)
    assert difference[:, 5:].max(1).min() > 1e-3


def test_what_stands_in_the_padding_changes_no_real_token_even_when_experts_overflow():
    inputs, targets = _tokens(0), _tokens(1)
    # Padding before and between real tokens, whose slots it could take.
    segments = np.array([[0, 1, 1, 0, 1, 1, 1, 0]] * ROWS, np.int32)
    before = _run(OVERFLOWING, inputs, targets, segments, segments)
    assert float(before.routers["encoder"].dropped.min()) > 0.1, "the case should overflow"
    padding = segments == 0
    others = (np.where(padding, _tokens(2 + i), own) for i, own in enumerate((inputs, targets)))
    after = _run(OVERFLOWING, *others, segments, segments)
    np.testing.assert_allclose(after.logits[~padding], before.logits[~padding], atol=1e-6)
    assert np.abs(after.logits - before.logits)[padding].max() > 1e-3
    for a, b in zip(jax.tree.leaves(after[1:]), jax.tree.leaves(before[1:]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize(
    "noise",
    [
        {"dropout_rate": 0.5, "jitter_noise": 0.5, "router_policy": "sample"},
        {"router_policy": "input_dropout", "jitter_noise": 0.0, "router_input_dropout_rate": 0.5},
    ],
)
def test_noise_is_off_without_a_key(noise):
    noisy = dataclasses.replace(SWITCH, **noise)
    batch = _tokens(0), _tokens(1), ONES, ONES
    clean = _run(SWITCH, *batch).logits
    np.testing.assert_array_equal(_run(noisy, *batch).logits, clean)
    first, second = (_run(noisy, *batch, key=jax.random.key(seed)).logits for seed in (1, 2))
    assert np.abs(first - clean).max() > 0.1
    assert np.abs(first - second).max() > 0.1


def test_the_router_alone_computes_in_its_dtype():
    batch = _tokens(0), _tokens(1), ONES, ONES
    exact, rounded = (
        _run(dataclasses.replace(SWITCH, router_dtype=dtype), *batch)
        for dtype in ("float32", "bfloat16")
    )
    assert exact.logits.dtype == rounded.logits.dtype == np.float32
    rounded, exact = (output.routers["encoder"] for output in (rounded, exact))
    difference = np.abs(rounded.z_loss / exact.z_loss - 1)
    assert (difference > 1e-5).all() and (difference < 0.02).all()
    np.testing.assert_allclose(rounded.load, exact.load, atol=0.1)


@pytest.fixture(scope="module")
def initial():
    """Paths and arrays of a model's parameters, among them all kinds that there are."""
    model = ModelConfig(
        num_embeddings=500, embed_dim=64, mlp_dim=160, head_dim=16, num_heads=2,
        num_encoder_layers=4, num_decoder_layers=2, num_experts=8, expert_mlp_dim=96,
        expert_sublayers="both", activation="gated-gelu", tie_embeddings=False, scale=0.1,
    )  # fmt: skip
    parameters = jax.device_get(init(model, jax.random.key(0)))
    return jax.tree_util.tree_leaves_with_path(parameters)


def test_initial_kernels_have_variance_s_over_fan_in_and_nothing_beyond_2_sigma(initial):
    """Section 2.4 and its footnote 6."""
    fan_in = {
        "query": 64 * 16,  # holds the 1 / sqrt(K) of the scores too
        "key": 64, "value": 64, "out": 2 * 16,
        "router": 64, "wi_0": 64, "wi_1": 64, "logits": 64,
        "layer_0 wo": 160, "layer_1 wo": 96,  # dense, expert
        "query_wo": 96 * 16, "key_wo": 96,
    }  # fmt: skip
    seen = set()
    for path, values in initial:
        path = [entry.key for entry in path]
        kind = f"{path[2]} wo" if path[-1] == "wo" else path[-1]
        seen.add(kind)
        if kind in fan_in:
            variance = 0.1 / fan_in[kind]
            # The variance of n draws errs by about sqrt(2 / n); this is 4 times that.
            tolerance = 4 * (2 / values.size) ** 0.5
            np.testing.assert_allclose(values.var(), variance, rtol=tolerance, err_msg=str(path))
            sigma = variance**0.5 / 0.87962566  # of the normal distribution that was cut
            assert 1.9 * sigma < np.abs(values).max() < 2.0001 * sigma, path
        elif kind == "scale":
            np.testing.assert_array_equal(values, 1.0)
        else:  # T5's, whatever s is: 1 for tokens, D^-0.5 for the 64 position biases
            std, tolerance = (1.0, 0.03) if path[0] == "token_embedding" else (1 / 8, 0.35)
            np.testing.assert_allclose(values.std(), std, rtol=tolerance, err_msg=str(path))
    assert seen == {*fan_in, "scale", "embedding"}


def test_no_two_layers_experts_or_kernels_start_alike(initial):
    kernels = []
    for path, values in initial:
        if path[-1].key != "scale":
            kernels += list(values.reshape(-1, *values.shape[-2:]))
    # Of 2 + 1 layers, of two sublayers: two of each of 8 experts.
    assert sum(kernel.shape == (64, 96) for kernel in kernels) == 3 * 2 * 2 * 8
    corners = {float(kernel[0, 0]) for kernel in kernels}
    assert len(corners) == len(kernels)


def test_all_but_the_experts_start_as_in_the_dense_model_of_the_seed():
    """So that two runs of one seed differ by their experts alone."""
    model = dataclasses.replace(SWITCH, num_encoder_layers=4, expert_sublayers="both")
    dense = dataclasses.replace(model, num_experts=0, expert_sublayers="feed_forward")
    sparse, dense = (flatten_dict(init(m, jax.random.key(0)), sep="/") for m in (model, dense))
    of_experts = r"layer_1/feed_forward/|self_attention/(router|wi_0|query_wo|key_wo)$"
    compared = [name for name in sparse if not re.search(of_experts, name)]
    assert len(compared) > 2 * 12
    for name in compared:
        # Layers 0 and 2 of the dense model, or 1 and 3, or what is no layer's.
        of_block = re.search(r"/layer_(\d)/", name)
        layers = slice(int(of_block[1]), None, 2) if of_block else slice(None)
        same = dense[name.replace("layer_1", "layer_0")][layers]
        np.testing.assert_array_equal(sparse[name], same, err_msg=name)
