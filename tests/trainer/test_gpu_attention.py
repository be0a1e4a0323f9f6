"""GPU_ATTENTION = 'auto' in a run, with a choice in the place of a GPU's."""

import dataclasses

import pytest

from switch_jax.config import Config, DataConfig, MeshConfig, RunConfig
from switch_jax.doctor import attention_choice
from switch_jax.doctor.attention_choice import Choice
from switch_jax.gin_config import read_run
from switch_jax.trainer import gpu_attention
from switch_jax.trainer.dry_run import dry_run
from switch_jax.trainer.train import train
from tests.trainer import tiny_task  # noqa: F401  registers it
from tests.trainer.helpers import tiny_model


@pytest.fixture
def config(tmp_path):
    model = tiny_model(
        num_embeddings=1152, num_experts=0, num_encoder_layers=1, num_decoder_layers=1,
        gpu_attention="auto",
    )  # fmt: skip
    run = RunConfig(str(tmp_path / "run"), train_steps=1, batch_size=8, eval_period=None)
    data = DataConfig("tiny_copy", {"inputs": 32, "targets": 16})
    return Config(run, model, data, MeshConfig(1, 1, 1))


def _kept(tmp_path):
    return read_run(tmp_path / "run").model.gpu_attention


def _never(*arguments):
    raise AssertionError("measured")


def test_the_choice_is_kept_in_the_run(config, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu_attention, "is_on_nvidia", lambda mesh: True)
    choice = Choice("cudnn", "it is faster")
    monkeypatch.setattr(attention_choice, "choose_attention", lambda config, shape: choice)
    train(config)
    assert "it is faster\n" in capsys.readouterr().out
    assert _kept(tmp_path) == "cudnn"
    assert "auto" not in (tmp_path / "run" / "config.gin").read_text()

    monkeypatch.setattr(attention_choice, "choose_attention", _never)
    longer = config.replace("run", train_steps=2)
    assert not any("GPU_ATTENTION" in line for line in dry_run(longer, longer.as_gin()))
    train(longer)
    said = capsys.readouterr().out
    assert "TRAIN_STEPS 1 -> 2" in said
    assert "GPU_ATTENTION" not in said
    assert _kept(tmp_path) == "cudnn"


def test_elsewhere_it_is_xla_without_a_word(config, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(attention_choice, "choose_attention", _never)
    train(config)
    assert "auto" not in capsys.readouterr().out
    assert _kept(tmp_path) == "xla"


def test_a_teacher_in_the_step_has_the_same(config, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.gin").write_text("ModelConfig.gpu_attention = 'cudnn'\n")
    distilled = dataclasses.replace(config, teacher=config)
    changed, text = gpu_attention.with_kept_attention(distilled, distilled.as_gin())
    assert changed.model.gpu_attention == changed.teacher.model.gpu_attention == "cudnn"
    assert "\nGPU_ATTENTION = 'cudnn'\n" in text
