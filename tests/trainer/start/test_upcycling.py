"""Sparse upcycling, against dense models."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from switch_jax.config import OptimizerConfig
from switch_jax.model import abstract_parameters, bind, init_parameters
from switch_jax.optim.optimizer import make_optimizer
from switch_jax.trainer.start.origins import assemble
from switch_jax.trainer.start.upcycling import dense_twin, upcycled, upcycled_moments
from switch_jax.utils.errors import UserError
from tests.trainer.helpers import by_stack, tiny_config, tiny_model

E = 4
DENSE = tiny_model(num_experts=0, num_encoder_layers=4, mlp_dim=24, group_size=48)
# A factor of E leaves a slot for each token, whichever expert it chooses.
SWITCH = dataclasses.replace(DENSE, num_experts=E, eval_expert_capacity_factor=float(E))
PARAMETERS = jax.jit(init_parameters, static_argnums=0)(DENSE, jax.random.key(1))
KEY = jax.random.key(2)


def _origins(model, upcycle="copy", noise=0.0):
    return upcycled(model, dense_twin(model, upcycle), upcycle, noise)


@functools.cache
def _drawn(model):
    return flatten_dict(jax.jit(init_parameters, static_argnums=0)(model, KEY), sep="/")


def _upcycled(model=SWITCH, upcycle="copy", noise=0.0, dense=PARAMETERS):
    given = flatten_dict(dense, sep="/")
    arrays = assemble(_origins(model, upcycle, noise), _drawn(model), given, jax.random.key(4))
    return unflatten_dict(arrays, sep="/")


@functools.partial(jax.jit, static_argnums=0)
def _logits(model, parameters):
    """[B, L, V] of a batch of random tokens, without dropout or jitter."""
    tokens = jax.random.randint(jax.random.key(3), (4, 12), 1, 64)
    ones = jnp.ones_like(tokens)
    return bind(model, parameters)(by_stack(tokens, tokens), by_stack(ones, ones)).logits


def _switch_layers(parameters):
    """The feed-forward layers that have a router."""
    for stack in ("encoder", "decoder"):
        for layer in parameters[stack]["blocks"].values():
            if "router" in layer["feed_forward"]:
                yield layer["feed_forward"]


@pytest.mark.parametrize("step", [1, 2])
def test_layer_by_layer_each_expert_is_a_copy(step):
    model = dataclasses.replace(SWITCH, sparse_step=step)
    experts = _upcycled(model)
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), experts)
    assert shapes == jax.tree.map(lambda x: (x.shape, x.dtype), abstract_parameters(model))
    compared = 0
    for stack, layers in (("encoder", 4), ("decoder", 2)):
        dense = PARAMETERS[stack]["blocks"]["layer_0"]
        for layer in range(layers):  # counted over the whole stack
            block, place = divmod(layer, step)
            own = experts[stack]["blocks"][f"layer_{place}"]
            query = own["self_attention"]["query"][block]
            np.testing.assert_array_equal(query, dense["self_attention"]["query"][layer])
            for name in ("wi_0", "wo"):
                wanted = dense["feed_forward"][name][layer]
                got = own["feed_forward"][name][block]
                if place == step - 1:
                    wanted, compared = np.stack([wanted] * E), compared + 1
                np.testing.assert_array_equal(got, wanted)
        np.testing.assert_array_equal(
            experts[stack]["final_norm"]["scale"], PARAMETERS[stack]["final_norm"]["scale"]
        )
    assert compared == 2 * 6 // step
    np.testing.assert_array_equal(
        experts["token_embedding"]["embedding"], PARAMETERS["token_embedding"]["embedding"]
    )


def test_routers_are_drawn_as_in_any_run():
    routers = np.concatenate([np.ravel(f["router"]) for f in _switch_layers(_upcycled())])
    assert routers.std() == pytest.approx((SWITCH.scale / SWITCH.embed_dim) ** 0.5, rel=0.1)
    small = np.concatenate(
        [np.ravel(f["router"]) for f in _switch_layers(_upcycled(upcycle="scaled_copy"))]
    )
    np.testing.assert_allclose(small, routers / 100, rtol=1e-6)


def test_the_output_is_that_of_the_dense_model_but_for_the_gate():
    """With routers of 0 each gate is 1 / E, which the scaled projections make up for exactly."""
    parameters = _upcycled(upcycle="scaled_copy")
    for feed_forward in _switch_layers(parameters):
        feed_forward["router"] = jnp.zeros_like(feed_forward["router"])
    dense = _logits(DENSE, PARAMETERS)
    np.testing.assert_allclose(_logits(SWITCH, parameters), dense, atol=1e-6)
    # As it begins, with small routers, it is near; without the scale it is not.
    near = np.abs(_logits(SWITCH, _upcycled(upcycle="scaled_copy")) - dense).max()
    far = np.abs(_logits(SWITCH, _upcycled()) - dense).max()
    assert near < 0.02 * np.abs(dense).max() < far


def test_with_two_experts_a_plain_copy_gives_the_dense_output():
    """The gates sum to 1."""
    two = dataclasses.replace(SWITCH, num_selected_experts=2, second_expert_policy="random")
    np.testing.assert_allclose(_logits(two, _upcycled(two)), _logits(DENSE, PARAMETERS), atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "upcycle", "message"),
    [
        ({"num_experts": 0}, "copy", "this model has none"),
        ({"expert_mlp_dim": 12}, "copy", "EXPERT_MLP_DIM = 12 .* of MLP_DIM = 24"),
        ({"shared_expert_mlp_dim": 8}, "copy", "SHARED_EXPERT_MLP_DIM = 8, of which a dense model"),
        ({"expert_sublayers": "both"}, "copy", "EXPERT_SUBLAYERS = 'both', of which a dense model"),
        (
            {"num_selected_experts": 2, "normalize_gates": False},
            "copy",
            "NUM_SELECTED_EXPERTS = 2 and NORMALIZE_GATES = False",
        ),
        ({"num_selected_experts": 2}, "scaled_copy", "NUM_SELECTED_EXPERTS = 2, .*take 'copy'"),
        (
            {"encoder_router_type": "experts_choose"},
            "scaled_copy",
            "ENCODER_ROUTER_TYPE = 'experts_choose': take 'copy'",
        ),
    ],
)
def test_models_that_no_dense_one_becomes(changes, upcycle, message):
    model = dataclasses.replace(SWITCH, **changes)
    with pytest.raises(UserError, match=message):
        dense_twin(model, upcycle)
    if upcycle == "scaled_copy":
        assert dense_twin(model, "copy") == dense_twin(SWITCH, "copy")
        assert dense_twin(model, "copy").num_experts == 0


def test_noise_is_relative_to_each_matrix_and_of_each_expert():
    plain, noisy = _upcycled(), _upcycled(noise=0.1)
    pairs = list(zip(_switch_layers(plain), _switch_layers(noisy), strict=True))
    for before, after in pairs:
        for name in ("wi_0", "wo"):
            added = np.asarray(after[name] - before[name])  # [blocks, E, rows, columns]
            size = np.sqrt(np.square(before[name]).mean((-2, -1)))
            np.testing.assert_allclose(added.std((-2, -1)) / size, 0.1, rtol=0.15)
            flat = added.reshape(-1, added.shape[-2] * added.shape[-1])
            correlation = np.corrcoef(flat) - np.eye(len(flat))
            assert np.abs(correlation).max() < 0.3
    for feed_forward in (*_switch_layers(plain), *_switch_layers(noisy)):
        feed_forward.clear()
    jax.tree.map(np.testing.assert_array_equal, plain, noisy)  # nothing else


def test_with_kept_state_adafactor_moves_experts_as_it_moved_the_dense_layer():
    """By its rate times their size, after few updates and after many.

    All else goes on from the dense model's moments.
    """
    rate = 0.01
    optimizer = OptimizerConfig(learning_rate=rate, warmup_steps=1, lr_schedule="constant")
    dense, switch = (
        make_optimizer(tiny_config(model, optimizer=optimizer)) for model in (DENSE, SWITCH)
    )
    steps = {o: jax.jit(functools.partial(o.step, skip=False)) for o in (dense, switch)}

    def noise(seed):
        rng = np.random.default_rng(seed)
        return jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32), PARAMETERS)

    def moved_by(optimizer, gradients, state, parameters):
        updated, _ = steps[optimizer](gradients, state, parameters)
        return jax.tree.map(jnp.subtract, updated.parameter, parameters)

    begun = dense.init(PARAMETERS)
    for seed in range(3):
        _, begun = steps[dense](noise(seed), begun, PARAMETERS)
    parameters = _upcycled(upcycle="scaled_copy")
    # A mean over all tokens to which 1 / E of them contribute noise.
    gradients = _upcycled(dense=noise(3))
    for feed_forward in _switch_layers(gradients):
        feed_forward["wi_0"] *= E**-0.5
        feed_forward["wo"] *= E**-0.5 / E  # the parameter is E times the dense layer's
        feed_forward["router"] = jnp.ones((len(feed_forward["wo"]), DENSE.embed_dim, E))

    for updates in (3, 550_000):
        state = begun._replace(updates=jnp.int32(updates))
        carried = upcycled_moments(_origins(SWITCH), switch.init(parameters), state)
        assert jax.tree.structure(carried) == jax.tree.structure(switch.init(parameters))
        moved = moved_by(switch, gradients, carried, parameters)
        layers = zip(_switch_layers(moved), _switch_layers(parameters), strict=True)
        for update, feed_forward in layers:
            for name in ("wi_0", "wo"):
                sizes = (np.square(x[name]).mean((-2, -1)) for x in (update, feed_forward))
                np.testing.assert_allclose(np.sqrt(np.divide(*sizes)), rate, rtol=0.1)

        as_dense = _upcycled(dense=moved_by(dense, noise(3), state, PARAMETERS))
        for feed_forward in (*_switch_layers(moved), *_switch_layers(as_dense)):
            feed_forward.clear()
        assert len(jax.tree.leaves(moved)) > 20
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), moved, as_dense)
