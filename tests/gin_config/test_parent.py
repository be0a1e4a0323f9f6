"""A run that starts from another, and is given no model's file."""

import errno

import pytest

from switch_jax import gin_config
from switch_jax.errors import TransientError, UserError

PARENT = """
import a_module_that_is_not_here
BATCH_SIZE = 77
DROPOUT_RATE = 0.25
EXPERTS = 4
ModelConfig.activation = 'gated-gelu'
ModelConfig.dropout_rate = %DROPOUT_RATE
ModelConfig.embed_dim = 48
ModelConfig.eval_expert_capacity_factor = 3.0
ModelConfig.head_dim = 8
ModelConfig.mlp_dim = 96
ModelConfig.num_decoder_layers = 2
ModelConfig.num_embeddings = 1152
ModelConfig.num_encoder_layers = 4
ModelConfig.num_experts = %EXPERTS
ModelConfig.num_heads = 6
LossConfig.aux_loss_factor = 0.02
LossConfig.z_loss = 0.5
OptimizerConfig.learning_rate = 1.5
DataConfig.vocabulary = 'byte'
RunConfig.batch_size = %BATCH_SIZE
"""


@pytest.fixture
def parent(tmp_path):
    (tmp_path / "parent").mkdir()
    (tmp_path / "parent" / "config.gin").write_text(PARENT)
    return tmp_path / "parent"


def _read(start, *bindings, files=("runs/finetune.gin",)):
    given = [f"INITIAL_CHECKPOINT_PATH={start}", "MIXTURE_OR_TASK_NAME=my_task", *bindings]
    return gin_config.read(files, ["MODEL_DIR=/no/where", *given])


def test_the_model_and_the_vocabulary_are_the_parents_and_the_rest_is_not(parent):
    found = _read(parent)
    model, config = found.config.model, found.config
    sizes = model.num_embeddings, model.embed_dim, model.mlp_dim, model.head_dim, model.num_heads
    assert sizes == (1152, 48, 96, 8, 6)
    assert (model.num_encoder_layers, model.num_decoder_layers, model.num_experts) == (4, 2, 4)
    assert (model.activation, model.eval_expert_capacity_factor) == ("gated-gelu", 3.0)
    assert (config.data.vocabulary, config.loss.aux_loss_factor) == ("byte", 0.02)
    # What the file of fine-tuning sets, and what is no part of a model.
    assert (model.dropout_rate, model.expert_dropout_rate) == (0.1, 0.4)
    assert (config.optimizer.learning_rate, config.loss.z_loss) == (0.001, 1e-4)
    assert config.run.batch_size == 2048


def test_the_config_says_what_is_taken_and_describes_the_run_by_itself(parent, file):
    found = _read(parent, "NUM_HEADS=3")
    assert found.note == f"the model is that of {parent}/config.gin"
    assert found.text.startswith(f"# {found.note}\n")
    lines = found.explained_text().splitlines()
    assert f"NUM_EXPERTS = 4  # {parent}/config.gin" in lines
    assert f"NUM_HEADS = 3  # --gin.NUM_HEADS, over {parent}/config.gin" in lines
    again = gin_config.read([file(found.text)])
    assert (again.config, again.note) == (found.config, "")


def test_what_files_and_flags_set_wins(parent, file):
    mine = file("include 'runs/finetune.gin'\nNUM_EXPERTS = 8\nVOCABULARY = None\n")
    config = _read(parent, "EVAL_EXPERT_CAPACITY_FACTOR=1.0", files=[mine]).config
    assert (config.model.num_experts, config.model.eval_expert_capacity_factor) == (8, 1.0)
    assert (config.model.embed_dim, config.data.vocabulary) == (48, None)


def test_a_dense_model_gets_its_experts_from_the_child(parent):
    text = PARENT.replace("EXPERTS = 4", "EXPERTS = 0")
    (parent / "config.gin").write_text(text)
    assert _read(parent).config.model.num_experts == 0
    model = _read(parent, "UPCYCLE=copy", "NUM_EXPERTS=16").config.model
    assert (model.num_experts, model.mlp_dim, model.expert_hidden_dim) == (16, 96, 96)


def test_where_the_config_is_looked_for(parent, tmp_path):
    of_step = _read(parent / "checkpoints" / "2000")
    assert of_step.config.model == _read(parent).config.model
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "config.gin").write_text(PARENT)
    goes_on = _read(tmp_path / "gone", f"MODEL_DIR={tmp_path}/own")
    assert goes_on.config.model == of_step.config.model
    # With a checkpoint of its own it stays what it is, though the other run has become another.
    (tmp_path / "own" / "config.gin").write_text(PARENT.replace("embed_dim = 48", "embed_dim = 72"))
    own = f"MODEL_DIR={tmp_path}/own"
    assert _read(parent, own).config.model.embed_dim == 48
    (tmp_path / "own" / "checkpoints" / "10").mkdir(parents=True)
    assert _read(parent, own).config.model.embed_dim == 72
    message = "describe no model, and INITIAL_CHECKPOINT_PATH '.*' has no config.gin to take"
    with pytest.raises(UserError, match=message):
        _read(tmp_path)
    with pytest.raises(UserError, match="there is no folder .*/gone to take a model from"):
        _read(tmp_path / "gone")


def test_a_storage_that_fails_is_no_mistake_of_the_user(parent, monkeypatch):
    def fail(path):
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr("switch_jax.gin_config.parent.read_bytes", fail)
    with pytest.raises(TransientError, match="config.gin cannot be read: Input/output error"):
        _read(parent)


def test_a_models_file_describes_the_whole_model(parent):
    found = _read(parent, files=["models/switch_demo.gin", "runs/finetune.gin"])
    assert (found.config.model.embed_dim, found.config.data.vocabulary) == (32, None)
    assert found.note == ""
