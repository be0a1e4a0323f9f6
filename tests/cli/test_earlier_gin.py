"""Gin files and flags of earlier versions, in which some fields had other names."""

import dataclasses

import pytest

from switch_jax import config as configs
from switch_jax.cli import gin_config
from switch_jax.cli.earlier_gin import current_name, current_names
from switch_jax.config.renamed_fields import RENAMED, recorded_model
from tests.trainer.helpers import tiny_model

DEMO = "runs/demo_switch.gin"


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_an_old_name_is_gone_and_its_new_name_exists(old, new):
    part, field = old.split(".")
    fields = {f.name for f in dataclasses.fields(getattr(configs, part))}
    assert field not in fields
    assert new.split(".")[0] == part and new.split(".")[1] in fields


def test_a_file_and_a_flag_with_old_names_are_read(tmp_path):
    file = tmp_path / "old.gin"
    file.write_text(
        f"include '{DEMO}'\n"
        "ModelConfig.d_ff = 24\n"
        "  switch_jax.ModelConfig.jitter = 0.5\n"
        "RunConfig.keep_best = \\\n    7\n"
        "MODEL_DIR = 'RunConfig.seed = 5'\n"
        "switch_jax.OptimizerConfig:  # a block\n"
        "    # its fields\n"
        "    schedule = 'constant'\n"
        "    warmup_steps = 4\n"
    )
    gin_config.parse([str(file)], ["GuardConfig.window=16", "DataConfig.seed=3"], [])
    config = gin_config.build()
    assert (config.model.mlp_dim, config.model.jitter_noise) == (24, 0.5)
    assert (config.run.keep_best_checkpoints, config.guard.spike_window) == (7, 16)
    assert (config.optimizer.lr_schedule, config.optimizer.warmup_steps) == ("constant", 4)
    assert (config.data.random_seed, config.run.model_dir) == (3, "RunConfig.seed = 5")


def test_only_names_are_changed_and_no_line_moves():
    text = "# RunConfig.seed\nRunConfig.seed = 1  # RunConfig.seed = 2\nX = 'RunConfig.seed = 3'\n"
    assert current_names(text) == text.replace("\nRunConfig.seed", "\nRunConfig.random_seed")


def test_names_in_a_scope_are_renamed():
    assert current_names("a/b/RunConfig.seed = 1") == "a/b/RunConfig.random_seed = 1"
    assert current_name("a/switch_jax.RunConfig.seed") == "a/RunConfig.random_seed"
    assert current_name("NUM_EXPERTS") == "NUM_EXPERTS"


def test_a_block_ends_with_the_next_line_that_is_not_indented():
    text = "RunConfig:\n  seed = 1\n\n  eval_batches = 2\nf:\n  seed = 3\n"
    assert current_names(text) == (
        "RunConfig:\n  random_seed = 1\n\n  eval_steps = 2\nf:\n  seed = 3\n"
    )


def test_evaluations_record_a_model_as_earlier_versions_did():
    recorded = recorded_model(tiny_model())
    first = {"vocab_size": 64, "d_model": 16, "d_ff": 32, "d_kv": 8, "num_heads": 2}
    assert dict(list(recorded.items())[:5]) == first
    last = {"dtype": "float32", "scan_layers": True, "remat_policy": "none"}
    assert dict(list(recorded.items())[-3:]) == last


def test_fields_of_later_versions_are_recorded_where_they_are_not_at_their_defaults():
    recorded = recorded_model(tiny_model())
    sampling = recorded_model(tiny_model(router_policy="sample"))
    assert sampling == recorded | {"router_policy": "sample"}
    assert "router_policy" not in recorded and "router_input_dropout_rate" not in recorded
