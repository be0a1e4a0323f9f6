"""A run that starts from another, and is given no model's file."""

import errno
import json
from typing import Annotated

import pytest

from switch_jax import gin_config
from switch_jax.config import LossConfig, OptimizerConfig
from switch_jax.utils import fields
from switch_jax.utils.errors import TransientError, UserError
from switch_jax.utils.fields import Inherited
from tests.trainer.helpers import tiny_config, tiny_model

MODEL = tiny_model(
    num_embeddings=1152, embed_dim=48, mlp_dim=96, num_heads=6, num_encoder_layers=4,
    activation="gated-gelu", dropout_rate=0.25, eval_expert_capacity_factor=3.0,
)  # fmt: skip
CONFIG = tiny_config(
    MODEL, 77, loss=LossConfig(0.5, 0.02), optimizer=OptimizerConfig(learning_rate=1.5)
).replace("data", vocabulary="byte")


def _write(folder, config=CONFIG):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config.settings()))
    return folder


@pytest.fixture
def parent(tmp_path):
    return _write(tmp_path / "parent")


def _read(start, *bindings, files=("runs/finetune.gin",)):
    given = [f"INITIAL_CHECKPOINT_PATH={start}", "MIXTURE_OR_TASK_NAME=my_task", *bindings]
    return gin_config.read(files, ["MODEL_DIR=/no/where", *given])


def test_the_model_and_the_vocabulary_are_the_parents_and_the_rest_is_not(parent):
    config = _read(parent).config
    # What the file of fine-tuning sets is no part of it.
    changed = {"dropout_rate": 0.1, "expert_dropout_rate": 0.4}
    assert config.model == CONFIG.replace("model", **changed).model
    assert (config.data.vocabulary, config.loss.aux_loss_factor) == ("byte", 0.02)
    assert (config.optimizer.learning_rate, config.loss.z_loss) == (0.001, 1e-4)
    assert config.run.batch_size == 2048


def test_what_goes_with_the_model_is_taken(parent):
    config = CONFIG.replace("optimizer", router_bias_update_rate=0.0)
    config = config.replace("loss", aux_loss_factor=0.0, router_z_loss_factor=0.3)
    config = config.replace("model", load_balance="bias")
    _write(parent, config.replace("optimizer", router_bias_update_rate=0.7))
    taken = _read(parent).config
    assert taken.optimizer.router_bias_update_rate == 0.7
    assert taken.loss == LossConfig(1e-4, 0.0, 0.3)
    assert _read(parent, "ROUTER_Z_LOSS_FACTOR=0.1").config.loss.router_z_loss_factor == 0.1


def test_a_field_is_taken_as_soon_as_its_annotation_says_so(parent, monkeypatch):
    inherited = Annotated[float, Inherited()]
    monkeypatch.setitem(LossConfig.__annotations__, "z_loss", inherited)
    fields.hints_of.cache_clear()
    try:
        assert _read(parent).config.loss.z_loss == 0.5
        assert _read(parent, "Z_LOSS=0.1").config.loss.z_loss == 0.1
    finally:
        fields.hints_of.cache_clear()


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
    _write(parent, CONFIG.replace("model", num_experts=0))
    assert _read(parent).config.model.num_experts == 0
    model = _read(parent, "UPCYCLE=copy", "NUM_EXPERTS=16").config.model
    assert (model.num_experts, model.mlp_dim, model.expert_hidden_dim) == (16, 96, 96)


def test_where_the_config_is_looked_for(parent, tmp_path):
    of_step = _read(parent / "checkpoints" / "2000")
    assert of_step.config.model == _read(parent).config.model
    own = f"MODEL_DIR={_write(tmp_path / 'own')}"
    assert _read(tmp_path / "gone", own).config.model == of_step.config.model
    # With a checkpoint of its own it stays what it is, though the other run has become another.
    _write(tmp_path / "own", CONFIG.replace("model", embed_dim=72))
    assert _read(parent, own).config.model.embed_dim == 48
    (tmp_path / "own" / "checkpoints" / "10").mkdir(parents=True)
    assert _read(parent, own).config.model.embed_dim == 72
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')  # of Hugging Face
    message = "describe no model, and INITIAL_CHECKPOINT_PATH '.*' has no config.json of a run"
    with pytest.raises(UserError, match=message):
        _read(tmp_path)
    with pytest.raises(UserError, match="there is no folder .*/gone to take a model from"):
        _read(tmp_path / "gone")


def test_a_storage_that_fails_is_no_mistake_of_the_user(parent, monkeypatch):
    def fail(path):
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr("switch_jax.run_folder.readers.read_bytes", fail)
    with pytest.raises(TransientError, match="config.json cannot be read: Input/output error"):
        _read(parent)


def test_a_models_file_describes_the_whole_model(parent):
    found = _read(parent, files=["models/switch_demo.gin", "runs/finetune.gin"])
    assert (found.config.model.embed_dim, found.config.data.vocabulary) == (32, None)
    assert found.note == ""
