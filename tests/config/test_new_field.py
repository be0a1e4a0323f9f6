"""Fields that somebody adds to the model's config: what compares models knows of them at once."""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
import pytest

from switch_jax.checkpointing import Checkpoints
from switch_jax.config import MeshConfig, ModelConfig
from switch_jax.conversion.formats import open_source
from switch_jax.conversion.hugging_face.model_config import config_json
from switch_jax.partitioning.mesh import make_mesh
from switch_jax.run_folder import RunFolder
from switch_jax.train_step.state import abstract_state
from switch_jax.trainer.start.resume import RunFiles, find_resume_point
from switch_jax.utils.errors import UserError
from switch_jax.utils.fields import Use
from tests.conversion.folders import write_folder
from tests.conversion.t5x.checkpoints import SWITCH, write_checkpoint
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
    ({"wider": True}, r"layer_\d/self_attention/key.* \(.*\) -> absent, "),
]
SIZES = dataclasses.asdict(tiny_model())


def test_a_run_does_not_go_on_with_another_value(tmp_path):
    config = tiny_config(Model(**SIZES), mesh=MeshConfig(1, 1, 1))
    config = config.replace("run", model_dir=str(tmp_path))

    def shapes(config):
        return abstract_state(config, make_mesh(config.mesh))

    state = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes(config))
    checkpoints = Checkpoints(RunFolder(tmp_path), keep=1)
    checkpoints.save(1, state, {}, None)
    checkpoints.close()
    for changes, message in CHANGES:
        changed = config.replace("model", **changes)
        with pytest.raises(UserError, match=f"step 1 in .* is of another model: .*{message}"):
            find_resume_point(changed, shapes(changed), RunFiles({}, None), config, False)


def test_a_foreign_checkpoint_is_taken_with_the_default_alone(tmp_path):
    folders = write_folder(tmp_path / "model"), write_checkpoint(tmp_path / "t5x", SWITCH)
    for source in map(open_source, folders):
        model = Model(**source.architecture)
        source.check_model(model)
        for changes, message in CHANGES:
            refusal = f"is of another model than the gin files .*{message}"
            with pytest.raises(UserError, match=refusal):
                source.check_model(dataclasses.replace(model, **changes))


@pytest.mark.parametrize(("changes", "message"), CHANGES)
def test_a_foreign_format_is_written_with_the_default_alone(changes, message):
    model = Model(**SIZES)
    config_json(tiny_config(model), step=0)
    with pytest.raises(UserError, match=f"of Hugging Face cannot be this model: .*{message}"):
        config_json(tiny_config(dataclasses.replace(model, **changes)), step=0)
