"""Gin files and flags of earlier versions, in which some fields had other names."""

import dataclasses

import pytest

from switch_jax import config as configs
from switch_jax.cli import gin_config
from switch_jax.cli.renamed_fields import RENAMED, current_names

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
    )
    gin_config.parse([str(file)], ["GuardConfig.window=16", "DataConfig.seed=3"], [])
    config = gin_config.build()
    assert (config.model.mlp_dim, config.model.jitter_noise) == (24, 0.5)
    assert (config.run.keep_best_checkpoints, config.guard.spike_window) == (7, 16)
    assert (config.data.random_seed, config.run.model_dir) == (3, "RunConfig.seed = 5")


def test_only_names_are_changed_and_no_line_moves():
    text = "# RunConfig.seed\nRunConfig.seed = 1  # RunConfig.seed = 2\nX = 'RunConfig.seed = 3'\n"
    assert current_names(text) == text.replace("\nRunConfig.seed", "\nRunConfig.random_seed")
