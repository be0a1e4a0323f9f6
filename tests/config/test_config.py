import copy
import dataclasses
import json
import pickle
import re

import numpy as np
import pytest

from switch_jax import gin_config
from switch_jax.config import Config, DataConfig, MeshConfig, RunConfig, by_macro
from switch_jax.utils.errors import FieldError, UserError
from switch_jax.utils.paths import GIN_DIR
from tests.trainer.helpers import tiny_model

CONFIG = Config(
    RunConfig("run", train_steps=1, batch_size=8),
    tiny_model(),
    DataConfig("task", {"targets": 4, "inputs": 32}),
)


def test_a_part_is_changed_and_the_others_stay():
    changed = CONFIG.replace("mesh", data=2, expert=4)
    assert changed.mesh == MeshConfig(2, 4, 1)
    assert CONFIG.mesh == MeshConfig()
    assert dataclasses.replace(changed, mesh=CONFIG.mesh) == CONFIG


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"router_policy": "input_dropout"},
            "router_policy = 'input_dropout' does not go with JITTER_NOISE = 0.01$",  # the default
        ),
        ({"num_selected_experts": 5}, "num_selected_experts = 5 is more than NUM_EXPERTS = 4$"),
        ({"num_selected_experts": 2, "num_experts": 0}, "= 2 does not go with NUM_EXPERTS = 0$"),
        ({"ntlb_rounds": 5}, "ntlb_rounds = 5 is more than NUM_EXPERTS = 4"),
        ({"ntlb_rounds": 2, "num_selected_experts": 2}, "= 2 does not go with NUM_SELECTED_EXPE"),
        (
            {"shared_expert_mlp_dim": 8, "expert_sublayers": "attention"},
            "shared_expert_mlp_dim = 8 does not go with EXPERT_SUBLAYERS = 'attention'$",
        ),
        (
            {"load_balance": "bias", "router_policy": "sample"},
            "load_balance = 'bias' does not go with ROUTER_POLICY = 'sample'$",
        ),
        ({"load_balance": "bias", "num_experts": 0}, "= 'bias' does not go with NUM_EXPERTS = 0$"),
        ({"second_expert_policy": "random"}, "does not go with NUM_SELECTED_EXPERTS = 1$"),
        ({"shared_expert_mlp_dim": 8, "num_experts": 0}, "does not go with NUM_EXPERTS = 0$"),
        ({"expert_sublayers": "both", "num_experts": 0}, "does not go with NUM_EXPERTS = 0$"),
    ],
)
def test_routing_that_cannot_be_is_refused(changes, message):
    with pytest.raises(FieldError, match=message):
        tiny_model(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"final_lr_fraction": 0.1}, "final_lr_fraction = 0.1 does not go with LR_SCHEDULE = 'rs"),
        ({"adam_b1": 0.5}, "adam_b1 = 0.5 does not go with OPTIMIZER = 'adafactor'$"),
        ({"adam_b2": 0.5}, "adam_b2 = 0.5 does not go with OPTIMIZER = 'adafactor'$"),
        (
            {"optimizer": "muon", "min_dim_size_to_factor": 64},
            "min_dim_size_to_factor = 64 does not go with OPTIMIZER = 'muon'$",
        ),
    ],
)
def test_a_setting_of_another_optimizer_is_refused(changes, message):
    with pytest.raises(FieldError, match=message):
        CONFIG.replace("optimizer", **changes)


@pytest.mark.parametrize(
    ("part", "field", "balance"),
    [("loss", "aux_loss_factor", "bias"), ("optimizer", "router_bias_update_rate", "loss")],
)
def test_a_coefficient_of_another_way_to_balance_is_refused(part, field, balance):
    config = CONFIG.replace("model", load_balance=balance)
    message = f"{field} = 0.5 does not go with LOAD_BALANCE = '{balance}'$"
    with pytest.raises(FieldError, match=message):
        config.replace(part, **{field: 0.5})
    config.replace(part, **{field: 0.0})


def test_lengths_are_those_of_inputs_and_targets_in_this_order():
    assert CONFIG.data.lengths == (32, 4)
    assert CONFIG.tokens_per_step == 8 * (32 + 4)


def test_a_config_cannot_be_changed_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError):
        CONFIG.run = None
    given = {"inputs": 32, "targets": 4}
    lengths = DataConfig("task", given).task_feature_lengths
    given["inputs"] = 5
    for change in (lambda: lengths.update(inputs=5), lambda: lengths.__ior__(given), lengths.clear):
        with pytest.raises(TypeError, match="cannot be changed in place"):
            change()
    assert lengths == {"inputs": 32, "targets": 4}
    assert CONFIG.replace("run", profile_steps=[3, 5]).run.profile_steps == (3, 5)


@pytest.mark.parametrize("copy", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_are_equal_and_cannot_be_changed_either(copy):
    copied = copy(CONFIG)
    assert copied == CONFIG and dataclasses.asdict(copied) == dataclasses.asdict(CONFIG)
    with pytest.raises(TypeError, match="cannot be changed in place"):
        copied.data.task_feature_lengths["inputs"] = 5


def _read(text, folder, *bindings):
    file = folder / "config.gin"
    file.write_text(text)
    return gin_config.read([str(file)], bindings).config


def test_its_gin_text_gives_it_again(tmp_path):
    config = CONFIG.replace("run", profile_steps=(3, 5), model_dir="it's\\a run", random_seed=7)
    config = config.replace("guard", spike_sigmas=None).replace("mesh", fully_sharded_weights=True)
    config = config.replace("optimizer", learning_rate=np.float64(0.1))
    config = dataclasses.replace(config, imports=("tests.cli.answers", "tests.trainer.tiny_task"))
    assert _read(config.as_gin(), tmp_path) == config


def test_its_gin_text_has_the_macros_of_the_gin_files(tmp_path):
    text = CONFIG.as_gin()
    for file in GIN_DIR.rglob("*.gin"):
        for setting in re.findall(r"^\w+Config\.\w+ = %\w+$", file.read_text(), re.MULTILINE):
            assert f"\n{setting}\n" in text, f"{file}: {setting}"
    changed = _read(text, tmp_path, "MESH_EXPERT=2", "RANDOM_SEED=3")
    assert (changed.mesh.expert, changed.run.random_seed, changed.data.random_seed) == (2, 3, 3)
    seeds = _read(CONFIG.replace("data", random_seed=5).as_gin(), tmp_path, "RANDOM_SEED=3")
    assert (seeds.run.random_seed, seeds.data.random_seed) == (3, 5)


def test_settings_are_json_and_give_it_again():
    config = CONFIG.replace("run", profile_steps=(3, 5), best_metric="accuracy")
    config = config.replace("optimizer", learning_rate_factors=[("a", 0.1)])
    config = dataclasses.replace(config, imports=("b", "a"))
    settings = json.loads(json.dumps(config.settings()))
    assert settings == config.settings()
    assert settings["model"]["num_experts"] == 4 and settings["imports"] == ["b", "a"]
    assert Config.from_settings(settings) == config
    del settings["guard"]["max_bad_steps"]
    assert Config.from_settings(settings) == config


def test_changes_are_named_as_the_macros_that_set_them():
    changed = CONFIG.replace("run", model_dir="moved", random_seed=3, profile_steps=(1, 2))
    changed = changed.replace("mesh", expert=2).replace("data", random_seed=5)
    assert changed.changes_since(CONFIG) == [
        "RANDOM_SEED 0 -> 3",
        "PROFILE_STEPS None -> [1, 2]",
        "DataConfig.random_seed 0 -> 5",
        "MESH_EXPERT 1 -> 2",
    ]
    assert by_macro(CONFIG.settings())["NUM_EXPERTS"] == 4
    # Two ways to write one model are two configs of one model.
    other = CONFIG.replace("model", expert_mlp_dim=32, num_encoder_sparse_layers=1)
    assert other.changes_since(CONFIG) and other.model.identity == CONFIG.model.identity


@pytest.mark.parametrize(
    ("changes", "is_another"),
    [
        ({"num_heads": 1, "head_dim": 16}, True),
        ({"relative_position_max_distance": 64}, True),
        ({"positions": "rotary"}, True),
        ({"positions": "rotary", "rotary_base": 1e6}, True),
        ({"qk_norm": True}, True),
        ({"num_key_value_heads": 1}, True),
        ({"num_key_value_heads": 2}, False),  # as many as heads
        ({"activation": "swiglu"}, True),
        ({"normalize_gates": False}, False),  # there is one
        ({"num_selected_experts": 2}, True),
        ({"expert_mlp_dim": 64}, True),
        ({"decoder_sparse_layout": "top", "num_decoder_sparse_layers": 1}, False),
        ({"decoder_sparse_layout": "bottom", "num_decoder_sparse_layers": 1}, True),
        ({"group_size": 16, "dropout_rate": 0.1, "router_policy": "sample"}, False),
        ({"remat_policy": "full", "activation_dtype": "bfloat16", "scale": 0.1}, False),
    ],
)
def test_with_which_settings_it_is_another_model(changes, is_another):
    changed = CONFIG.replace("model", **changes).model
    assert (changed.identity != CONFIG.model.identity) == is_another


def test_what_becomes_of_the_gates_of_several_experts_is_part_of_the_model():
    two = tiny_model(num_selected_experts=2)
    assert dataclasses.replace(two, normalize_gates=False).identity != two.identity


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_key_value_heads": 3}, "num_key_value_heads = 3 does not divide NUM_HEADS = 2$"),
        ({"num_key_value_heads": 4}, "num_key_value_heads = 4 does not divide NUM_HEADS = 2$"),
        (
            {"positions": "rotary", "head_dim": 7},
            "head_dim = 7: it must be even with POSITIONS = 'rotary'$",
        ),
        ({"rotary_base": 1e6}, "does not go with POSITIONS = 'relative_bias'$"),
        ({"positions": "rotary", "rotary_base": 1.0}, "rotary_base = 1.0: it must be above 1$"),
        (
            {"positions": "rotary", "relative_position_buckets": 64},
            "relative_position_buckets = 64 does not go with POSITIONS = 'rotary'$",
        ),
    ],
)
def test_attention_that_cannot_be_is_refused(changes, message):
    with pytest.raises(FieldError, match=message):
        tiny_model(**changes)


def test_imports_are_a_tuple_of_names():
    with pytest.raises(FieldError, match="imports = .*: it must be a tuple of names of modules"):
        dataclasses.replace(CONFIG, imports="my_tasks")
    for name in ("my_tasks\nTRAIN_STEPS = 5", "my-tasks"):  # no gin file can say it
        with pytest.raises(UserError, match=f"{re.escape(repr(name))} is no name of a module"):
            dataclasses.replace(CONFIG, imports=("a", name))
    assert dataclasses.replace(CONFIG, imports=["a", "b.c"]).imports == ("a", "b.c")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: CONFIG.replace("runs", batch_size=4), "part = 'runs' is not known; write one of"),
        (
            lambda: CONFIG.replace("model", num_expert=4),
            "ModelConfig has no field num_expert .did you mean num_experts",
        ),
        (lambda: CONFIG.replace("run", part="mesh"), "RunConfig has no field part: "),
        (lambda: dataclasses.replace(CONFIG, mesh=CONFIG.run), "mesh = Run.* of type MeshConfig$"),
        (lambda: dataclasses.replace(CONFIG, teacher=5), "teacher = 5: it must be of type Config"),
    ],
    ids=range(5),
)
def test_parts_and_fields_that_there_are_not(change, message):
    with pytest.raises(UserError, match=message):
        change()
