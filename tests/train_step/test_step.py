import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from switch_jax.config import LossConfig, MeshConfig, OptimizerConfig
from switch_jax.model import bind, logical_axes, model_inputs
from switch_jax.optim.apply import with_step
from switch_jax.optim.optimizer import make_optimizer
from switch_jax.partitioning.mesh import batch_sharding, make_mesh
from switch_jax.train_step.norms import Norms
from switch_jax.train_step.state import init_state
from switch_jax.train_step.step import (
    NO_STEP,
    batch_hash,
    make_train_step,
)
from tests.trainer.helpers import GRADIENTS, KEPT, SGD, random_batch, tiny_config, tiny_model

LOSS = LossConfig(z_loss=1e-2, aux_loss_factor=0.1, router_z_loss_factor=0.01)
LAYERS = {"num_encoder_layers": 1, "num_decoder_layers": 1, "sparse_step": 1}  # of experts


def _step(model, batch, parts, seed=0, optimizer=SGD):
    config = tiny_config(model, num_microbatches=parts, random_seed=seed, loss=LOSS)
    state = init_state(config, optimizer, jax.random.key(1))
    step = jax.jit(make_train_step(config, optimizer))
    return step(state, batch)


@pytest.mark.parametrize(
    ("parts", "sizes"),
    [
        # 2 rows of inputs in a group, and 4 of targets.
        (2, {}),
        # 4 rows of 16 inputs in a group, and 1 of 8 targets: 4 rows stay together.
        (4, {"group_size": 64, "decoder_group_size": 8}),
        # Experts of the encoder's last layer that choose, and a decoder without any.
        (
            2,
            {
                "num_encoder_layers": 2,
                "num_encoder_sparse_layers": 1,
                "encoder_sparse_layout": "top",
                "num_decoder_sparse_layers": 0,
                "encoder_router_type": "experts_choose",
            },
        ),
    ],
)
def test_microbatches_give_the_gradients_and_metrics_of_the_whole_batch(parts, sizes):
    model = tiny_model(jitter_noise=0.0, train_expert_capacity_factor=1.0, **LAYERS | sizes)
    batch = random_batch(16)
    whole, whole_metrics = _step(model, batch, 1, optimizer=GRADIENTS)
    split, split_metrics = _step(model, batch, parts, optimizer=GRADIENTS)
    assert float(whole_metrics.encoder_router.dropped.max()) > 0, "the case should overflow"
    _assert_close(split_metrics, whole_metrics, 1e-6)
    # Sums of terms that cancel: more than the last digit of the largest may differ.
    _assert_close(split.optimizer, whole.optimizer, 2e-6)
    atol = 1e-7 * float(whole_metrics.gradient_norm)
    gradients = (jax.tree.leaves(state.optimizer) for state in (split, whole))
    for a, b in zip(*gradients, strict=True):
        assert np.abs(b).max() > 0
        np.testing.assert_allclose(a, b, rtol=0, atol=atol)


def _assert_close(got, expected, tolerance):
    """Numbers to `tolerance` of the largest of their array, integers exactly."""
    for (path, b), a in zip(
        jax.tree_util.tree_leaves_with_path(expected), jax.tree.leaves(got), strict=True
    ):
        exact = jnp.issubdtype(b.dtype, jnp.integer)
        atol = 0 if exact else tolerance * np.abs(b).max()
        np.testing.assert_allclose(a, b, rtol=0, atol=atol, err_msg=str(path))


def test_loss_and_gradients_are_those_of_the_formula():
    """Cross-entropy and z-loss over real target tokens, plus alpha x the layers' losses, summed."""
    model = tiny_model(jitter_noise=0.0, **LAYERS | {"num_encoder_layers": 2})
    batch = random_batch(8)
    parameters = init_state(tiny_config(model), SGD, jax.random.key(1)).parameters

    def loss(parameters):
        out = bind(model, parameters)(**model_inputs(batch), key=jax.random.key(0))
        log_z = jax.nn.logsumexp(out.logits, -1)
        picked = jnp.take_along_axis(out.logits, batch["decoder_target_tokens"][..., None], -1)
        real = batch["decoder_segment_ids"] > 0
        value = jnp.where(real, log_z - picked[..., 0] + 1e-2 * log_z**2, 0).sum() / real.sum()
        assert out.encoder.load_balance_loss.shape == (2,)
        for router in (out.encoder, out.decoder):
            value += 0.1 * router.load_balance_loss.sum() + 0.01 * router.z_loss.sum()
        return value

    value, gradients = jax.jit(jax.value_and_grad(loss))(parameters)
    state, metrics = _step(model, batch, 1)
    np.testing.assert_allclose(metrics.loss, value, rtol=1e-6)
    np.testing.assert_allclose(metrics.gradient_norm, optax.tree.norm(gradients), rtol=1e-5)
    moved = jax.tree.map(lambda p, g: p - g, parameters, gradients)
    for a, b in zip(jax.tree.leaves(state.parameters), jax.tree.leaves(moved), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_noise_follows_the_step_and_the_seed():
    model = tiny_model(dropout_rate=0.2, **LAYERS)
    batch = random_batch(8)
    start = init_state(tiny_config(model), SGD, jax.random.key(1))
    step = jax.jit(make_train_step(tiny_config(model, loss=LOSS), SGD))
    state, first = step(start, batch)
    np.testing.assert_array_equal(first.loss, step(start, batch)[1].loss)
    assert float(first.loss) != float(_step(model, batch, 1, seed=1)[1].loss)
    assert float(first.loss) != float(step(start._replace(step=jnp.int32(5)), batch)[1].loss)
    assert int(state.step) == 1


def _assert_same(a, b):
    """Bit for bit."""
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_bad_step_changes_nothing_but_counts_and_leaves_no_trace_in_the_next():
    model = tiny_model(dropout_rate=0.1, jitter_noise=0.1, **LAYERS)
    config = tiny_config(model, loss=LOSS, optimizer=OptimizerConfig(warmup_steps=10))
    optimizer = make_optimizer(config)
    step = jax.jit(make_train_step(config, optimizer))
    first, second = random_batch(8), random_batch(8, seed=1)
    weights = first["decoder_loss_weights"]
    bad = {**first, "decoder_loss_weights": np.full_like(weights, np.nan)}
    before, _ = step(init_state(config, optimizer, jax.random.key(1)), first)

    after, metrics = step(before, bad)
    assert not np.isfinite(metrics.loss)
    _assert_same((after.parameters, after.optimizer), (before.parameters, before.optimizer))
    _assert_same(after.guard.recent, before.guard.recent)
    assert [int(x) for x in (before.step, *before.guard[1:])] == [1, 1, 0, 0]
    assert [int(x) for x in (after.step, *after.guard[1:])] == [2, 1, 1, 0]
    assert float(metrics.skipped) == int(metrics.bad_in_a_row) == 1
    again, metrics = step(after, bad)
    assert float(metrics.skipped) == 1 and int(metrics.bad_in_a_row) == 2

    # What the step of this number, hence with this noise, makes of the same parameters.
    expected, expected_metrics = step(before._replace(step=before.step + 2), second)
    good, metrics = step(again, second)
    _assert_same((good.parameters, good.optimizer), (expected.parameters, expected.optimizer))
    _assert_same(metrics, expected_metrics)
    assert [int(x) for x in (good.step, *good.guard[1:])] == [4, 2, 0, 0]
    assert float(metrics.skipped) == int(metrics.bad_in_a_row) == 0
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), good.parameters, after.parameters)
    assert min(jax.tree.leaves(moved)) > 0


def test_the_norms_of_a_step_are_of_its_gradients_parameters_and_updates():
    model = tiny_model(jitter_noise=0.0)
    optimizer = with_step(optax.chain(KEPT, optax.scale(-0.5)))
    state, metrics = _step(model, random_batch(8), 1, optimizer=optimizer)
    gradients, parameters = (
        Norms.of(jax.tree.map(lambda x: np.sum(np.square(x)), arrays), logical_axes(model))
        for arrays in (state.optimizer[0], state.parameters)
    )
    np.testing.assert_allclose(metrics.gradient_norm, gradients.all, rtol=1e-6)
    np.testing.assert_allclose(metrics.parameter_norm, parameters.all, rtol=1e-6)
    for group, norm in gradients.groups.items():
        np.testing.assert_allclose(metrics.gradient_norms[group], norm, rtol=1e-6)
        np.testing.assert_allclose(metrics.update_norms[group], 0.5 * norm, rtol=1e-6)
        np.testing.assert_allclose(
            metrics.parameter_norms[group], parameters.groups[group], rtol=1e-6
        )


def _slow_hash(batch) -> int:
    """With Python's integers, token by token."""
    total = 0
    for salt, name in ((1, "encoder_input_tokens"), (2, "decoder_target_tokens")):
        for place, token in enumerate(batch[name].reshape(-1).tolist()):
            x = (token * 0xCC9E2D51 + place * 0x1B873593) % 2**32
            x = ((x ^ salt) * 0x85EBCA6B) % 2**32
            x ^= x >> 13
            x = (x * 0xC2B2AE35) % 2**32
            total += x ^ (x >> 16)
    return total % 2**32


def test_the_hash_of_a_batch_is_of_its_tokens_and_their_places():
    batch = random_batch(16)
    seen = {_slow_hash(batch)}
    assert int(jax.jit(batch_hash)(batch)) == _slow_hash(batch)
    for name in ("encoder_input_tokens", "decoder_target_tokens"):
        tokens = batch[name]
        row = int(np.argmax((tokens[:, 0] != tokens[:, 1]) & (tokens[:, 1] > 0)))
        two_tokens, two_rows, one_token = tokens.copy(), tokens.copy(), tokens.copy()
        two_tokens[row, [0, 1]] = tokens[row, [1, 0]]
        two_rows[[0, 1]] = tokens[[1, 0]]
        one_token[-1, -1] += 1
        for changed in (two_tokens, two_rows, one_token):
            assert not np.array_equal(changed, tokens)
            got = int(batch_hash({**batch, name: changed}))
            assert got == _slow_hash({**batch, name: changed})
            seen.add(got)
    assert len(seen) == 7


def test_the_hash_is_the_same_on_every_mesh():
    batch = random_batch(16)
    mesh = make_mesh(MeshConfig(2, 2, 2))
    with jax.set_mesh(mesh):
        got = jax.jit(batch_hash)(jax.device_put(batch, batch_sharding(mesh)))
    assert int(got) == _slow_hash(batch)


def test_a_step_that_one_host_has_no_batch_for_changes_nothing():
    mesh = make_mesh(MeshConfig(2, 4, 1))
    model = tiny_model(group_size=8, **LAYERS)
    config = tiny_config(model, optimizer=OptimizerConfig(warmup_steps=10))
    optimizer = make_optimizer(config)
    step = jax.jit(make_train_step(config, optimizer))
    place = batch_sharding(mesh)
    with jax.set_mesh(mesh):
        state = init_state(config, optimizer, jax.random.key(0))
        state, _ = step(state, random_batch(8), jax.device_put(np.zeros(8, np.int32), place))
        batch = random_batch(8, seed=1)
        batch["decoder_loss_weights"][:] = np.nan  # of no weight, whatever it is
        signals = np.array([0, 0, 0, NO_STEP + 2, 0, 1, 0, 0], np.int32)
        after, metrics = step(state, batch, jax.device_put(signals, place))
        one_more, _ = step(state, random_batch(8), jax.device_put(np.full(8, 2, np.int32), place))
    assert int(metrics.signal) == NO_STEP + 2
    for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(state), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    assert int(one_more.step) == int(state.step) + 1, "any other signal leaves the step as it is"


def test_the_largest_signal_of_all_devices_comes_out():
    model = tiny_model(num_experts=0, num_encoder_layers=1, num_decoder_layers=1)
    mesh = make_mesh(MeshConfig(2, 4, 1))
    state = init_state(tiny_config(model), SGD, jax.random.key(1))
    batch = jax.device_put(random_batch(8), batch_sharding(mesh))
    step = jax.jit(make_train_step(tiny_config(model, loss=LOSS), SGD))
    with jax.set_mesh(mesh):
        for signals in ([0] * 8, [0, 0, 15, 0, 2, 0, 0, 0], [0] * 7 + [2]):
            array = jax.device_put(np.array(signals, np.int32), batch_sharding(mesh))
            assert int(step(state, batch, array)[1].signal) == max(signals)
    metrics = step(state, random_batch(8))[1]
    assert int(metrics.signal) == float(metrics.load_balance_loss) == 0
    assert metrics.encoder_router is None and np.isfinite(metrics.loss), "the model is dense"
