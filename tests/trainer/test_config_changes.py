"""What a start changes in the config of a run."""

from switch_jax.trainer.config_changes import config_changes

SPARSE = """\
EXPERT_MLP_DIM = %MLP_DIM
MLP_DIM = 64
ModelConfig.expert_mlp_dim = %EXPERT_MLP_DIM
ModelConfig.mlp_dim = %MLP_DIM
"""


def test_what_a_start_changes_in_the_config():
    before = (
        "# Macros:\nMODEL_DIR = 'a'\nNUM_EXPERTS = 4\nTASK = \\\n    'one'\nOLD = 1\nf.x = %A\n"
    )
    after = "MODEL_DIR = 'b'\nNUM_EXPERTS = 8\nTASK = 'two'\nNEW = 1\nf.x = %A\n"
    assert config_changes(before, after) == ["NUM_EXPERTS 4 -> 8", "TASK 'one' -> 'two'"]
    assert config_changes("", after) == config_changes(after, after) == []


def test_a_macro_that_follows_another_is_not_changed_by_its_own_value():
    """As where a run goes on from Python, whose text has each value."""
    written = "EXPERT_MLP_DIM = 64\nMLP_DIM = 64\nModelConfig.mlp_dim = %MLP_DIM\n"
    assert config_changes(SPARSE, written) == []
    changed = config_changes(SPARSE, written.replace("64", "32"))
    assert changed == ["EXPERT_MLP_DIM %MLP_DIM -> 32", "MLP_DIM 64 -> 32"]
