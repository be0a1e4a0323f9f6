"""What a start changes in the config of a run, and which changes make another model of it."""

from pathlib import Path

import pytest

from switch_jax.errors import UserError
from switch_jax.run_folder import RunFolder
from switch_jax.trainer.config_changes import SHAPING, check_same_shapes, config_changes
from tests.trainer.helpers import tiny_config, tiny_model

SPARSE = """\
DROPOUT_RATE = 0.1
EXPERT_MLP_DIM = %MLP_DIM
LAYERS = 2
MLP_DIM = 64
NUM_EXPERTS = 8
ModelConfig.dropout_rate = %DROPOUT_RATE
ModelConfig.expert_mlp_dim = %EXPERT_MLP_DIM
ModelConfig.mlp_dim = %MLP_DIM
ModelConfig.num_decoder_layers = %LAYERS
ModelConfig.num_encoder_layers = %LAYERS
ModelConfig.num_experts = %NUM_EXPERTS
ModelConfig.sparse_step = 2
ModelConfig.tie_embeddings = True
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


def _check(before, after):
    check_same_shapes(before, after, "the checkpoint", RunFolder(Path("a run")))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"NUM_EXPERTS = 8": "NUM_EXPERTS = 4", "DROPOUT_RATE = 0.1": "DROPOUT_RATE = 0.2"},
            "the checkpoint does not fit: the run has NUM_EXPERTS = 8, and this start "
            "NUM_EXPERTS = 4: write --gin.NUM_EXPERTS=8 to go on with it, or another MODEL_DIR for "
            "a new run",
        ),
        (  # two fields that follow one macro
            {"MLP_DIM = 64": "MLP_DIM = 32", "NUM_EXPERTS = 8": "NUM_EXPERTS = 4"},
            "the checkpoint does not fit: the run has NUM_EXPERTS = 8, MLP_DIM = 64, and "
            "this start NUM_EXPERTS = 4, MLP_DIM = 32: write --gin.NUM_EXPERTS=8 --gin.MLP_DIM=64 "
            "to go on with it, or another MODEL_DIR for a new run",
        ),
        (  # a dense model, whose file has no such macro
            {"NUM_EXPERTS = 8\n": "", "%NUM_EXPERTS": "0"},
            "the checkpoint does not fit: the run has ModelConfig.num_experts = 8, and this "
            "start ModelConfig.num_experts = 0: write --gin_file='a run/config.gin' to go on with "
            "it, or another MODEL_DIR for a new run",
        ),
        (  # a macro that both have, with one value, and that sets the field in one of them alone
            {"expert_mlp_dim = %EXPERT_MLP_DIM": "expert_mlp_dim = None"},
            "the checkpoint does not fit: the run has ModelConfig.expert_mlp_dim = 64, and "
            "this start ModelConfig.expert_mlp_dim = None: write --gin_file='a run/config.gin' to "
            "go on with it, or another MODEL_DIR for a new run",
        ),
        (  # the last macro has one value in both, and the one before it two
            {"EXPERT_MLP_DIM = %MLP_DIM": "EXPERT_MLP_DIM = 32"},
            "the checkpoint does not fit: the run has EXPERT_MLP_DIM = 64, and this start "
            "EXPERT_MLP_DIM = 32: write --gin.EXPERT_MLP_DIM=64 to go on with it, or another "
            "MODEL_DIR for a new run",
        ),
        (
            {
                "LAYERS = 2": "LAYERS = 4",
                "8": "4",
                "64": "32",
                "step = 2": "step = 1",
                "True": "No",
            },
            "the checkpoint does not fit: the run has NUM_EXPERTS = 8, MLP_DIM = 64, LAYERS "
            "= 2, ModelConfig.sparse_step = 2 and 1 more, and this start NUM_EXPERTS = 4, MLP_DIM "
            "= 32, LAYERS = 4, ModelConfig.sparse_step = 1 and 1 more: write "
            "--gin_file='a run/config.gin' to go on with it, or another MODEL_DIR for a new run",
        ),
    ],
)
def test_changes_that_make_another_model_are_named_with_both_values(changes, message):
    after = SPARSE
    for old, new in changes.items():
        after = after.replace(old, new)
    with pytest.raises(UserError) as refused:
        _check(SPARSE, after)
    assert str(refused.value) == message


def test_other_changes_and_texts_of_other_versions_are_no_other_model():
    _check(SPARSE, SPARSE.replace("0.1", "0.3"))
    _check("", SPARSE)
    _check(SPARSE.replace("ModelConfig.num_experts = %NUM_EXPERTS\n", ""), SPARSE)


def test_the_fields_that_shape_a_model_are_there():
    text = tiny_config(tiny_model()).as_gin()
    assert [name for name in SHAPING if f"\n{name} = " not in text] == []


def test_a_value_that_only_the_start_takes_from_a_macro_is_not_called_by_it():
    """A dense run with MLP_DIM = 64, and a start with experts of that size."""
    dense = SPARSE.replace("%EXPERT_MLP_DIM", "None").replace("EXPERT_MLP_DIM = %MLP_DIM\n", "")
    with pytest.raises(UserError, match=r"has ModelConfig\.expert_mlp_dim = None, .*a run/config"):
        _check(dense, SPARSE)
