"""Each optimiser against optax's own, given each layer and each expert as an array of its own."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from switch_jax.config import OptimizerConfig
from switch_jax.config.optimizer import OPTIMIZERS
from switch_jax.model import init_parameters, logical_axes
from switch_jax.optim.optimizer import make_optimizer
from tests.trainer.helpers import tiny_config, tiny_model

# Two layers in the encoder, one in the decoder, all of experts.
MODEL = tiny_model(num_experts=2, sparse_step=1, num_decoder_layers=1)
STEPS, RATE, DECAY, B1, B2, CLIP = 3, 0.01, 0.3, 0.8, 0.95, 5.0
FACTORED = 16  # the sides of all matrices but routers
MATRICES = ("query", "key", "value", "out", "wi_0", "wo")  # and routers, which decay too


def _config(optimizer, model=MODEL, **changes):
    adam = {"weight_decay": DECAY, "adam_b1": B1, "adam_b2": B2}
    own = {"min_dim_size_to_factor": FACTORED} if optimizer == "adafactor" else adam
    rate = {"learning_rate": RATE, "warmup_steps": 1, "lr_schedule": "linear"}
    return tiny_config(model, optimizer=OptimizerConfig(optimizer, **rate, **own, **changes))


@functools.cache
def _parameters():
    """Layers and experts of very different sizes."""
    sizes = iter(10.0 ** np.random.default_rng(0).uniform(-1.5, 1.5, 10_000))

    def scaled(names, p):
        stacked = p.shape[: sum(name in ("layers", "expert") for name in names)]
        factor = np.reshape([next(sizes) for _ in range(np.prod(stacked, dtype=int))], stacked)
        return p * factor.reshape(*stacked, *[1] * (p.ndim - len(stacked))).astype(np.float32)

    parameters = jax.jit(init_parameters, static_argnums=0)(MODEL, jax.random.key(0))
    return jax.tree.map(scaled, logical_axes(MODEL), parameters, is_leaf=lambda x: type(x) is tuple)


@functools.cache
def _gradients(step):
    """Of a norm above CLIP, and in the second step below it."""
    rng = np.random.default_rng(step + 1)
    size = [1.0, 0.01, 3.0][step]
    return jax.tree.map(
        lambda p: jnp.asarray(size * rng.normal(size=p.shape), jnp.float32), _parameters()
    )


def _ours(optimizer, **changes):
    """The step, and parameters and state after some."""
    made = make_optimizer(_config(optimizer, **changes))

    @jax.jit
    def one(gradients, state, parameters, skip):
        updated, state = made.step(gradients, state, parameters, skip)
        return updated.parameter, state

    parameters, state = _parameters(), jax.jit(made.init)(_parameters())
    for step in range(STEPS):
        parameters, state = one(_gradients(step), state, parameters, False)
    return one, parameters, state


_clipped = functools.cache(lambda optimizer: _ours(optimizer, gradient_clip_norm=CLIP))


def _names(tree):
    return [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_leaves_with_path(tree)
    ]


def _apart(tree):
    """Flat: each layer's and each expert's array by its path and place."""
    flat = {}
    axes = jax.tree.leaves(logical_axes(MODEL), is_leaf=lambda x: type(x) is tuple)
    arrays = jax.tree.leaves(jax.device_get(tree))
    for name, array, own in zip(_names(tree), arrays, axes, strict=True):
        stacked = array.shape[: sum(axis in ("layers", "expert") for axis in own)]
        for place in np.ndindex(stacked):
            flat[f"{name} {place}"] = array[place]
    return flat


def _optax(optimizer, clip, names, peak):
    """A transformation of flat parameters of these names, of optax alone."""
    kinds = {name: name.split()[0].split("/")[-1] for name in names}
    decays = {name: kind in (*MATRICES, "router") for name, kind in kinds.items()}
    rate = optax.linear_schedule(peak, 0.0, 9, 1)  # of 10 steps, the first at the full rate
    adamw = optax.adamw(rate, B1, B2, weight_decay=DECAY, mask=decays)
    muon = optax.partition(
        {
            "muon": optax.contrib.muon(rate, weight_decay=DECAY, consistent_rms=0.2),
            "adamw": adamw,
        },
        {name: "muon" if kind in MATRICES else "adamw" for name, kind in kinds.items()},
    )
    adafactor = optax.adafactor(rate, min_dim_size_to_factor=FACTORED)
    chosen = {"adafactor": adafactor, "adamw": adamw, "muon": muon}[optimizer]
    return optax.chain(optax.clip_by_global_norm(clip), chosen) if clip else chosen


@functools.cache
def _theirs(optimizer, clip, is_trained=lambda name: True, peak=RATE):
    """Flat parameters after the same steps; those that are not trained are left out."""
    start, *gradients = (
        {name: array for name, array in _apart(tree).items() if is_trained(name)}
        for tree in (_parameters(), *map(_gradients, range(STEPS)))
    )
    transformation = _optax(optimizer, clip, start, peak)
    parameters, state = start, transformation.init(start)
    for gradient in gradients:
        updates, state = transformation.update(gradient, state, parameters)
        parameters = optax.apply_updates(parameters, updates)
    return parameters


def _norm(tree):
    return np.linalg.norm([np.linalg.norm(array) for array in jax.tree.leaves(tree)])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_each_layer_and_expert_is_updated_as_optax_does_it_alone(optimizer):
    assert [_norm(_gradients(step)) > CLIP for step in range(STEPS)] == [True, False, True]
    _assert_close(_clipped(optimizer)[1], _theirs(optimizer, CLIP))


@pytest.mark.parametrize(
    ("optimizer", "trained"), [("adafactor", "expert"), ("adamw", "expert"), ("muon", "non_expert")]
)
def test_what_is_trained_is_updated_as_optax_does_it_given_that_alone(optimizer, trained):
    """Also by the norm for clipping. What is not trained keeps its bits and has no state."""

    def is_trained(name):  # all feed-forward layers of this model are Switch layers
        return ("feed_forward/w" in name) == (trained == "expert")

    for gradients in map(_gradients, (0, 2)):
        own = {name: g for name, g in _apart(gradients).items() if is_trained(name)}
        assert 1.2 * CLIP < 1.2 * _norm(own) < _norm(gradients)
    _, ours, state = _ours(optimizer, gradient_clip_norm=CLIP, trained_parameters=trained)
    _assert_close(ours, _theirs(optimizer, CLIP, is_trained))
    saved = _names(state)
    for name, old, new in zip(_names(ours), _bits(_parameters()), _bits(ours), strict=True):
        assert any(name in one for one in saved) == is_trained(name) == (new != old), name


@pytest.mark.parametrize("optimizer", ["adafactor", "muon"])  # Muon has AdamW in it
def test_factors_multiply_rates_as_optax_given_other_rates(optimizer):
    """Weight decay, too: optax's decay is relative to the rate."""
    pairs = ((".*/router", 0.1), ("encoder/.*", 0.5), ("unused|.*/router|.*_norm/.*", 3.0))
    _, ours, state = _ours(optimizer, learning_rate_factors=pairs)

    def factor(name):
        if "/router" in name:
            return 0.1
        return 0.5 if name.startswith("encoder/") else 3.0 if "_norm/" in name else 1.0

    for own in (0.1, 0.5, 3.0, 1.0):
        theirs = _theirs(optimizer, None, lambda name, f=own: factor(name) == f, own * RATE)
        assert theirs
        _assert_close(ours, theirs)
    plain = jax.eval_shape(make_optimizer(_config(optimizer)).init, _parameters())
    assert jax.eval_shape(lambda: state) == plain, "a checkpoint goes on with other factors"


def test_muon_in_bfloat16_is_near_optax_in_float32():
    rounded = dataclasses.replace(MODEL, activation_dtype="bfloat16")
    _, ours, _ = _ours("muon", model=rounded, gradient_clip_norm=CLIP)
    _assert_close(ours, _theirs("muon", CLIP), tolerance=0.1)


def _assert_close(ours, theirs, tolerance=2e-4):
    """Of the largest change of each array of `theirs`."""
    ours, start = _apart(ours), _apart(_parameters())
    for name, expected in theirs.items():
        moved = float(jnp.abs(expected - start[name]).max())
        assert moved > 0, name
        atol = tolerance * moved
        np.testing.assert_allclose(ours[name], expected, rtol=2e-6, atol=atol, err_msg=name)


def _bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_skipped_step_changes_no_bit_whatever_its_gradients_are(optimizer):
    step, parameters, state = _clipped(optimizer)
    for value in (np.nan, np.inf, 1.0):
        gradients = jax.tree.map(lambda p, v=value: jnp.full_like(p, v), parameters)
        updated, after = step(gradients, state, parameters, True)
        assert _bits(updated) == _bits(parameters)
        assert _bits(after) == _bits(state)
