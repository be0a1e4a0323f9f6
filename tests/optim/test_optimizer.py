import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from switch_jax.config import OptimizerConfig
from switch_jax.model import abstract_parameters
from switch_jax.optim.optimizer import make_optimizer
from switch_jax.utils.errors import UserError
from tests.trainer.helpers import tiny_config, tiny_model


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"trained_parameters": "*.router"},
            r"trained_parameters has '\*.router', which is no regular expression: nothing to rep",
        ),
        (
            {"learning_rate_factors": [("decoder/.*", 2), (".*/router", 0)]},
            r"has 0 for '\.\*/router': it must be above 0$",
        ),
        ({"learning_rate_factors": [("*.router", 1.0)]}, r"'\*.router', which is no regular expr"),
        (
            {"learning_rate_factors": (".*/router", 0.1)},
            r"it must be a list of pairs, as in \[\('\.\*/router', 0.1\)\], or None",
        ),
        ({"weight_decay": 0.1}, r"weight_decay = 0.1 does not go with OPTIMIZER = 'adafactor'$"),
        (
            {"decay_steps": 9, "lr_schedule": "linear"},
            r"decay_steps = 9 does not go with LR_SCHEDULE = 'linear'$",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        OptimizerConfig(**changes)


@pytest.mark.parametrize("optimizer", ["adafactor", "muon"])  # Muon has AdamW in it
def test_a_pattern_says_which_parameters_are_trained(optimizer):
    """All but the routers, and none of the encoder."""
    chosen = OptimizerConfig(optimizer, trained_parameters="(?!.*/router|encoder/).*")
    model = tiny_model(
        load_balance="bias", num_encoder_layers=1, num_decoder_layers=1, sparse_step=1
    )
    transformation = make_optimizer(tiny_config(model, optimizer=chosen))
    parameters = jax.tree.map(lambda p: jnp.ones(p.shape), abstract_parameters(model))
    state = jax.jit(transformation.init)(parameters)
    updated, after = jax.jit(transformation.step)(parameters, state, parameters, False)
    still = [
        name
        for name, array in flatten_dict(updated.parameter, sep="/").items()
        if np.array_equal(array, np.ones_like(array))
    ]
    layer = "decoder/blocks/layer_0/feed_forward"
    routers = [f"{layer}/router", f"{layer}/router_bias"]
    assert [name for name in still if name.startswith("decoder")] == routers
    assert "token_embedding/embedding" not in still
    encoder = [n for n in flatten_dict(parameters, sep="/") if n.startswith("encoder")]
    assert [name for name in still if name.startswith("encoder")] == encoder
    held = {jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(after)}
    assert held and not any("encoder" in path or "router" in path for path in held)


@pytest.mark.parametrize(
    ("model", "trained", "message"),
    [
        (tiny_model(num_experts=0), "expert", "= 'expert', but .* dense.*write 'all'"),
        (
            tiny_model(),
            "decoder",
            r"TRAINED_PARAMETERS = 'decoder' matches no parameter: write all, expert, non_expert "
            r"or a regular expression of whole names: there are decoder/blocks/..., decoder/"
            r"final_norm/..., .*, token_embedding/embedding; `switch_jax convert --inspect MODEL_",
        ),
    ],
)
def test_where_nothing_is_trained_the_names_that_there_are_are_told(model, trained, message):
    config = tiny_config(model, optimizer=OptimizerConfig(trained_parameters=trained))
    with pytest.raises(UserError, match=message):
        make_optimizer(config)


@pytest.mark.parametrize(
    ("pairs", "trained", "message"),
    [
        (
            [(".*/router/.*", 0.1)],
            "all",
            r"'\.\*/router/\.\*' matches no parameter that the learning rate trains \(not what "
            r"TRAINED_PARAMETERS freezes, nor router biases\); it has to match a whole name: .*"
            r"there are decoder/blocks/..., decoder/final_norm/...",
        ),
        ([(".*/router_bias", 0.1)], "all", r"'\.\*/router_bias' matches no parameter that the"),
        ([(".*/wo", 1.0), ("enc.*", 0.1)], "decoder/.*", r"'enc\.\*' matches no .*are decoder/bl"),
        ([("dec.*", 1.0), (".*/wo", 1.0)], "decoder/.*", r"before '\.\*/wo' match .*: put it fi"),
    ],
)
def test_a_factor_without_a_parameter_is_refused(pairs, trained, message):
    chosen = OptimizerConfig(learning_rate_factors=pairs, trained_parameters=trained)
    with pytest.raises(UserError, match=f"LEARNING_RATE_FACTORS: .*{message}"):
        make_optimizer(tiny_config(tiny_model(load_balance="bias"), optimizer=chosen))


def test_the_state_has_the_tree_that_checkpoints_have():
    """Orbax restores no state whose empty parts are others."""
    config = tiny_config(tiny_model(), optimizer=OptimizerConfig("muon"))
    parameters = abstract_parameters(config.model)
    (state,) = jax.eval_shape(make_optimizer(config).init, parameters).values()
    assert set(state.inner_states) == {"adamw", "muon"}
    for masked in state.inner_states.values():
        direction, (decay, rate) = masked.inner_state
        assert type(decay).__name__ == "MaskedState"
        assert type(rate).__name__ == "ScaleByScheduleState"
        assert type(direction).__name__ in ("ScaleByAdamState", "MuonState")
