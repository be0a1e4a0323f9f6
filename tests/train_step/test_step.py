import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from switch_jax.config import LossConfig, MeshConfig, OptimizerConfig
from switch_jax.model import bind, init_parameters, model_inputs
from switch_jax.optim.apply import with_step
from switch_jax.optim.optimizer import make_optimizer
from switch_jax.partitioning.mesh import batch_sharding, make_mesh
from switch_jax.train_step.loss import LossWeights
from switch_jax.train_step.lowering import lower_train_step
from switch_jax.train_step.state import abstract_state, fresh_state
from switch_jax.train_step.step import HostSignals, batch_hash, make_train_step
from tests.trainer.helpers import (
    GRADIENTS,
    KEPT,
    STACKS,
    random_batch,
    rising_weights,
    tiny_config,
    tiny_model,
)

LOSS = LossConfig(z_loss=1e-2, aux_loss_factor=0.1, router_z_loss_factor=0.01)
LAYERS = {"num_encoder_layers": 1, "num_decoder_layers": 1, "sparse_step": 1}  # of experts


@functools.cache
def _parameters(model):
    return jax.device_get(jax.jit(init_parameters, static_argnums=0)(model, jax.random.key(1)))


def _step(model, batch, parts=1, optimizer=GRADIENTS):
    config = tiny_config(model, num_microbatches=parts, loss=LOSS)
    state = fresh_state(config, optimizer, _parameters(model))
    return jax.device_get(jax.jit(make_train_step(config, optimizer))(state, batch))


def test_microbatches_give_the_gradients_and_metrics_of_the_whole_batch():
    """The encoder's groups have 4 rows, of which experts choose; the decoder's have 2."""
    model = tiny_model(
        encoder_router_type="experts_choose", group_size=64, decoder_group_size=16,
        jitter_noise=0.0, train_expert_capacity_factor=1.0, **LAYERS,
    )  # fmt: skip
    batch = random_batch(16)
    whole, whole_metrics = _step(model, batch)
    split, split_metrics = _step(model, batch, parts=4)
    for router in whole_metrics.routers.values():
        assert router.dropped.max() > 0, "the case should overflow"
    _assert_close(split_metrics, whole_metrics, 1e-6)
    # Sums of terms that cancel: more than the last digit of the largest may differ.
    _assert_close(split.optimizer, whole.optimizer, 2e-6)
    atol = 1e-7 * float(whole_metrics.gradient_norm)
    gradients = (jax.tree.leaves(state.optimizer) for state in (split, whole))
    for a, b in zip(*gradients, strict=True):
        assert np.abs(b).max() > 0
        np.testing.assert_allclose(a, b, rtol=0, atol=atol)


def test_a_dense_model_in_microbatches_has_no_routers():
    config = tiny_config(tiny_model(num_experts=0), num_microbatches=2)

    def metrics_of_a_step():
        parameters = init_parameters(config.model, jax.random.key(1))
        state = fresh_state(config, GRADIENTS, parameters)
        return make_train_step(config, GRADIENTS)(state, random_batch(8))[1]

    metrics = jax.eval_shape(metrics_of_a_step)
    assert metrics.routers == {}
    assert not [name for name in metrics.gradient_norms if "router" in name]


def _assert_close(got, expected, tolerance):
    """Numbers to `tolerance` of the largest of their array, integers exactly."""
    for (path, b), a in zip(
        jax.tree_util.tree_leaves_with_path(expected), jax.tree.leaves(got), strict=True
    ):
        exact = jnp.issubdtype(b.dtype, jnp.integer)
        atol = 0 if exact else tolerance * np.abs(b).max()
        np.testing.assert_allclose(a, b, rtol=0, atol=atol, err_msg=str(path))


# Two dense layers and two of experts in the encoder; one of experts in the decoder.
MODEL = tiny_model(
    num_encoder_layers=4, num_decoder_layers=1, num_decoder_sparse_layers=1, jitter_noise=0.0
)


@pytest.fixture(scope="module")
def one_step():
    """State and metrics after a step that subtracts half of the gradients, and keeps them."""
    optimizer = with_step(optax.chain(KEPT, optax.scale(-0.5)))
    return _step(MODEL, random_batch(8), optimizer=optimizer)


def test_loss_and_gradients_are_those_of_the_formula(one_step):
    """Cross-entropy and z-loss over real target tokens, plus alpha x the layers' losses, summed."""
    batch, parameters = random_batch(8), _parameters(MODEL)

    def loss(parameters):
        out = bind(MODEL, parameters)(*model_inputs(MODEL, batch), key=jax.random.key(0))
        log_z = jax.nn.logsumexp(out.logits, -1)
        picked = jnp.take_along_axis(out.logits, batch["decoder_target_tokens"][..., None], -1)
        real = batch["decoder_segment_ids"] > 0
        value = jnp.where(real, log_z - picked[..., 0] + 1e-2 * log_z**2, 0).sum() / real.sum()
        assert out.routers["encoder"].load_balance_loss.shape == (2,)
        for router in out.routers.values():
            value += 0.1 * router.load_balance_loss.sum() + 0.01 * router.z_loss.sum()
        return value

    value, gradients = jax.jit(jax.value_and_grad(loss))(parameters)
    state, metrics = one_step
    np.testing.assert_allclose(metrics.loss, value, rtol=1e-6)
    np.testing.assert_allclose(metrics.gradient_norm, optax.tree.norm(gradients), rtol=1e-5)
    moved = jax.tree.map(lambda p, g: p - 0.5 * g, parameters, gradients)
    for a, b in zip(jax.tree.leaves(state.parameters), jax.tree.leaves(moved), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_weight_of_a_loss_may_change_over_steps(monkeypatch):
    """In the loss, its gradients and the metric alike; also in microbatches."""
    monkeypatch.setattr(LossWeights, "at", rising_weights)
    model = tiny_model(jitter_noise=0.0, **LAYERS)
    config = tiny_config(model, num_microbatches=2, loss=LOSS)
    step = jax.jit(make_train_step(config, GRADIENTS))
    begun = fresh_state(config, GRADIENTS, _parameters(model))
    states, metrics = zip(
        *(step(begun._replace(step=jnp.int32(done)), random_batch(8)) for done in (0, 1, 2)),
        strict=True,
    )
    for number, m in enumerate(metrics, start=1):
        routers = 0.1 * m.load_balance_loss + 0.01 * m.router_z_loss
        assert m.z_loss > 0 and routers > 0
        np.testing.assert_allclose(m.z_loss, number * metrics[0].z_loss, rtol=1e-6)
        expected = m.cross_entropy + m.z_loss + number * routers
        np.testing.assert_allclose(m.loss, expected, rtol=1e-6)
    first, second, third = (jax.tree.leaves(state.optimizer) for state in states)
    scale = float(metrics[0].gradient_norm)
    assert max(np.abs(b - a).max() for a, b in zip(first, second, strict=True)) > 1e-3 * scale
    for a, b, c in zip(first, second, third, strict=True):  # the gradients are linear in them
        np.testing.assert_allclose(b - a, c - b, rtol=0, atol=1e-6 * scale)


# Of the parameters, by what their names have in them; norms use their axes.
GROUPS = {
    "router": ["/router"],
    "experts": ["layer_1/feed_forward/w", "decoder/blocks/layer_0/feed_forward/w"],
    "mlp": ["encoder/blocks/layer_0/feed_forward/w"],
    "attention": ["_attention/key", "_attention/query", "_attention/value", "_attention/out"],
    "position_bias": ["relative_position_bias/"],
    "norms": ["norm/scale"],
    "embedding": ["token_embedding/"],
}


def _norms(tree):
    squares = {}
    for path, array in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        (kind,) = (k for k, parts in GROUPS.items() if any(part in name for part in parts))
        group = kind if kind == "embedding" else f"{name.split('/')[0]}/{kind}"
        squares[group] = squares.get(group, 0.0) + np.sum(array.astype(np.float64) ** 2)
    return {group: square**0.5 for group, square in squares.items()}


def test_the_norms_of_a_step_are_of_its_gradients_parameters_and_updates(one_step):
    state, metrics = one_step
    gradients, parameters = _norms(state.optimizer[0]), _norms(state.parameters)
    expected = {
        "gradient_norms": gradients,
        "parameter_norms": parameters,
        "update_norms": {group: 0.5 * norm for group, norm in gradients.items()},
        "gradient_norm": np.linalg.norm(list(gradients.values())),
        "parameter_norm": np.linalg.norm(list(parameters.values())),
    }
    for name, norms in expected.items():
        found = getattr(metrics, name)
        assert jax.tree.structure(found) == jax.tree.structure(norms)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), found, norms)


def test_noise_follows_the_step_and_the_seed():
    model = tiny_model(dropout_rate=0.2, **LAYERS)
    config = tiny_config(model)
    start, batch = fresh_state(config, GRADIENTS, _parameters(model)), random_batch(8)

    def losses(seed, *steps):
        step = make_train_step(config.replace("run", random_seed=seed), GRADIENTS)
        loss = jax.jit(lambda state: step(state, batch)[1].loss)
        return [float(loss(start._replace(step=jnp.int32(number)))) for number in steps]

    first, again, of_another_step = losses(0, 0, 0, 5)
    assert first == again and len({first, of_another_step, *losses(1, 0)}) == 3


@pytest.fixture(scope="module")
def run_with_noise():
    """The state that a run on eight devices starts from, and its step, with dropout and jitter.

    The step takes a state, a batch, and of each device a signal and whether it has no batch.
    """
    model = tiny_model(dropout_rate=0.1, jitter_noise=0.1, group_size=8, **LAYERS)
    optimizer = OptimizerConfig(warmup_steps=10)
    config = tiny_config(model, loss=LOSS, mesh=MeshConfig(2, 4, 1), optimizer=optimizer)
    mesh = make_mesh(config.mesh)
    shapes = abstract_state(config, mesh)
    with jax.set_mesh(mesh):
        compiled = lower_train_step(config, mesh, shapes).compile()
    rows = batch_sharding(mesh)
    places = jax.tree.map(lambda s: s.sharding, shapes), rows, rows

    def step(state, batch, signals=(0,) * 8, no_batch=(0,) * 8):
        of_hosts = HostSignals(np.array(signals, np.int32), np.array(no_batch, np.int32))
        given = state, batch, of_hosts
        copies = jax.tree.map(np.array, given)  # a step writes over what it is given
        return jax.device_get(compiled(*jax.device_put(copies, places)))

    return fresh_state(config, make_optimizer(config), _parameters(model)), step


def _bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def test_a_bad_step_changes_nothing_but_counts_and_leaves_no_trace_in_the_next(run_with_noise):
    start, step = run_with_noise
    first, second = random_batch(8), random_batch(8, seed=1)
    weights = first["decoder_loss_weights"]
    bad = {**first, "decoder_loss_weights": np.full_like(weights, np.nan)}
    before, _ = step(start, first)

    after, metrics = step(before, bad)
    assert not np.isfinite(metrics.loss)
    kept, own = ((s.parameters, s.optimizer, s.guard.recent) for s in (after, before))
    assert _bits(kept) == _bits(own)
    assert [int(x) for x in (before.step, *before.guard[1:])] == [1, 1, 0, 0]
    assert [int(x) for x in (after.step, *after.guard[1:])] == [2, 1, 1, 0]
    assert float(metrics.skipped) == int(metrics.bad_in_a_row) == 1
    again, metrics = step(after, bad)
    assert float(metrics.skipped) == 1 and int(metrics.bad_in_a_row) == 2

    # What the step of this number, hence with this noise, makes of the same parameters.
    expected, expected_metrics = step(before._replace(step=before.step + 2), second)
    good, metrics = step(again, second)
    assert _bits((good[:3], metrics)) == _bits((expected[:3], expected_metrics))
    assert [int(x) for x in (good.step, *good.guard[1:])] == [4, 2, 0, 0]
    assert float(metrics.skipped) == int(metrics.bad_in_a_row) == 0
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), good.parameters, after.parameters)
    assert min(jax.tree.leaves(moved)) > 0


def test_a_step_that_one_host_has_no_batch_for_changes_nothing(run_with_noise):
    start, step = run_with_noise
    state, _ = step(start, random_batch(8))
    batch = random_batch(8, seed=1)
    batch["decoder_loss_weights"][:] = np.nan  # of no weight, whatever it is
    after, metrics = step(state, batch, [0, 0, 0, 2, 0, 1, 0, 0], [0, 0, 0, 1, 0, 0, 0, 0])
    assert tuple(metrics.signals) == (2, 1)
    assert _bits(after) == _bits(state)
    one_more, metrics = step(state, random_batch(8), [0, 1, 0, 0, 0, 0, 0, 2])
    assert tuple(metrics.signals) == (2, 0), "the largest of all devices"
    assert int(one_more.step) == int(state.step) + 1, "a signal alone leaves the step as it is"


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


def test_the_hash_of_a_batch_is_of_its_tokens_and_their_places_wherever_they_lie():
    batch, mesh = random_batch(16), make_mesh(MeshConfig(2, 2, 2))
    batches = [batch]
    for name in ("encoder_input_tokens", "decoder_target_tokens"):
        tokens = batch[name]
        row = int(np.argmax((tokens[:, 0] != tokens[:, 1]) & (tokens[:, 1] > 0)))
        two_tokens, two_rows, one_token = tokens.copy(), tokens.copy(), tokens.copy()
        two_tokens[row, [0, 1]] = tokens[row, [1, 0]]
        two_rows[[0, 1]] = tokens[[1, 0]]
        one_token[-1, -1] += 1
        batches += [{**batch, name: changed} for changed in (two_tokens, two_rows, one_token)]
    with jax.set_mesh(mesh):
        placed = jax.device_put(batches, batch_sharding(mesh))
        found = [int(jax.jit(functools.partial(batch_hash, STACKS))(each)) for each in placed]
    assert found == list(map(_slow_hash, batches)) and len(set(found)) == 7
