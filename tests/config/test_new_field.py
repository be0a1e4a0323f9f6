"""Fields that somebody adds to the model's config: what compares models knows of them at once."""

import dataclasses
from typing import Annotated

import pytest

from switch_jax.config import PARTS, Config, DataConfig, MeshConfig, ModelConfig, RunConfig
from switch_jax.conversion.formats import open_source
from switch_jax.conversion.hugging_face.model_config import config_json
from switch_jax.errors import UserError
from switch_jax.fields import Use
from switch_jax.trainer.dry_run import dry_run
from switch_jax.trainer.train import train
from tests.conversion.folders import write_folder
from tests.conversion.t5x.checkpoints import SWITCH, write_checkpoint
from tests.trainer import tiny_task  # noqa: F401  registers it
from tests.trainer.helpers import tiny_config, tiny_model


@dataclasses.dataclass(frozen=True)
class Model(ModelConfig):
    """With one more field without a note, which changes no shape; and one that is said to be of
    training alone, and gives the model further parameters."""

    hash_seed: int = 1
    wider: Annotated[bool, Use.TRAINING] = False

    @property
    def sublayers_with_experts(self):
        return ("attention", "feed_forward") if self.wider else super().sublayers_with_experts


CHANGES = [
    ({"hash_seed": 2}, "HASH_SEED 1 -> 2"),
    ({"wider": True}, r"layer_1/self_attention/key.* \(.*\) -> absent, "),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The config of a run of one step of such a model."""
    sizes = dataclasses.asdict(tiny_model(num_embeddings=1152))
    config = Config(
        RunConfig(str(tmp_path_factory.mktemp("run")), 1, 8, eval_period=None),
        Model(**sizes),
        DataConfig("tiny_copy", {"inputs": 32, "targets": 16}),
        MeshConfig(1, 1, 1),
    )
    train(config)
    return config


@pytest.mark.parametrize(("changes", "message"), CHANGES)
def test_a_run_does_not_go_on_with_another_value(run, changes, message, monkeypatch):
    monkeypatch.setitem(PARTS, "model", Model)
    assert dry_run(run)[-1].endswith("nothing to do")
    with pytest.raises(UserError, match=f"step 1 in .* is of another model: .*{message}"):
        dry_run(run.replace("model", **changes))


@pytest.mark.parametrize(("changes", "message"), CHANGES)
def test_a_foreign_checkpoint_is_taken_with_the_default_alone(changes, message, tmp_path):
    folders = write_folder(tmp_path / "model"), write_checkpoint(tmp_path / "t5x", SWITCH)
    for source in map(open_source, folders):
        model = Model(**source.architecture)
        source.check_model(model)
        with pytest.raises(UserError, match=f"is of another model than the gin files .*{message}"):
            source.check_model(dataclasses.replace(model, **changes))


@pytest.mark.parametrize(("changes", "message"), CHANGES)
def test_a_foreign_format_is_written_with_the_default_alone(changes, message):
    model = Model(**dataclasses.asdict(tiny_model()))
    config_json(tiny_config(model))
    with pytest.raises(UserError, match=f"of Hugging Face cannot be this model: .*{message}"):
        config_json(tiny_config(dataclasses.replace(model, **changes)))
